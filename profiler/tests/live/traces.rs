//! Traces as libpq writes them (`PQtrace`), a message a line: what they say of calls, and the bytes that they stand for.

use std::collections::BTreeMap;

use profiler::postgres::protocol::Direction;

/// What became of what was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    pub(crate) calls: u64,
    pub(crate) rows: u64,
    /// By their code.
    pub(crate) errors: BTreeMap<String, u64>,
    pub(crate) skipped: u64,
}

/// One message.
pub(crate) struct Line<'a> {
    pub(crate) direction: Direction,
    kind: &'a str,
    rest: &'a str,
}

/// The messages of a trace.
pub(crate) fn lines(trace: &str) -> impl Iterator<Item = Line<'_>> {
    trace.lines().map(|line| {
        let mut fields = line.splitn(4, '\t');
        let mut next = || fields.next().unwrap_or_default();
        let direction = match next() {
            "F" => Direction::Frontend,
            "B" => Direction::Backend,
            other => panic!("{other} in {line}"),
        };
        let _length = next();
        Line {
            direction,
            kind: next(),
            rest: next().trim_start(),
        }
    })
}

/// What a trace says: each statement that was asked for is done, failed or skipped.
pub(crate) fn sums(trace: &str) -> Sums {
    let (mut sums, mut asked, mut rows) = (Sums::default(), 0, 0);
    for line in lines(trace) {
        match line.kind {
            "Query" => {
                let statements = line.quoted().split(';');
                asked += statements.filter(|text| !text.trim().is_empty()).count() as u64;
            }
            "Execute" => asked += 1,
            "DataRow" => rows += 1,
            "CommandComplete" => {
                let last = line.quoted().rsplit(' ').next();
                let affected = last.and_then(|word| word.parse().ok()).unwrap_or(0);
                sums.calls += 1;
                sums.rows += if rows > 0 { rows } else { affected };
                rows = 0;
            }
            "ErrorResponse" => {
                *sums.errors.entry(line.code().to_owned()).or_default() += 1;
                sums.rows += rows;
                rows = 0;
            }
            _ => {}
        }
    }
    sums.skipped = asked - sums.calls - sums.errors.values().sum::<u64>();
    sums
}

fn strings(parts: &[&str]) -> Vec<u8> {
    let ended = parts.iter().map(|part| [part.as_bytes(), b"\0"].concat());
    ended.collect::<Vec<_>>().concat()
}

impl<'a> Line<'a> {
    /// What lies between the first and the last quote.
    fn quoted(&self) -> &'a str {
        let inner = self.rest.split_once('"').map_or("", |(_, inner)| inner);
        inner.rsplit_once('"').map_or("", |(inner, _)| inner)
    }

    /// Two texts, the first of which has no quotes in it.
    fn two(&self) -> [&'a str; 2] {
        let (first, second) = self.quoted().split_once("\" \"").expect("two texts");
        [first, second]
    }

    /// The code of an error or a notice.
    fn code(&self) -> &'a str {
        let (_, rest) = self.rest.split_once(" C \"").expect("a code");
        &rest[..5]
    }

    /// The message, with made-up columns and values: neither is of interest.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let nothing = [0_u8; 6];
        let message = |tag: u8, body: &[u8]| {
            let length = u32::try_from(body.len() + 4).expect("a short one");
            [&[tag], &length.to_be_bytes()[..], body].concat()
        };
        let report = |tag: u8, severity: &str| {
            let fields = ["S", "V"].map(|field| format!("{field}{severity}"));
            let code = format!("C{}", self.code());
            message(tag, &strings(&[&fields[0], &fields[1], &code, "Mtext", ""]))
        };
        match (self.direction, self.kind) {
            (Direction::Frontend, "Query") => message(b'Q', &strings(&[self.quoted()])),
            (Direction::Frontend, "Parse") => {
                message(b'P', &[strings(&self.two()), vec![0, 0]].concat())
            }
            (Direction::Frontend, "Bind") => {
                message(b'B', &[strings(&self.two()), nothing.to_vec()].concat())
            }
            (Direction::Frontend, "Describe") => {
                let kind = self.rest.as_bytes()[0];
                message(b'D', &[vec![kind], strings(&[self.quoted()])].concat())
            }
            (Direction::Frontend, "Execute") => {
                message(b'E', &[strings(&[self.quoted()]), vec![0; 4]].concat())
            }
            (Direction::Frontend, "Sync") => message(b'S', b""),
            (Direction::Frontend, "Flush") => message(b'H', b""),
            (Direction::Frontend, "Terminate") => message(b'X', b""),
            (Direction::Backend, "ParseComplete") => message(b'1', b""),
            (Direction::Backend, "BindComplete") => message(b'2', b""),
            (Direction::Backend, "NoData") => message(b'n', b""),
            (Direction::Backend, "ParameterDescription") => message(b't', &nothing[..2]),
            (Direction::Backend, "RowDescription") => {
                message(b'T', &[&[0, 1], &b"column\0"[..], &[0; 18]].concat())
            }
            (Direction::Backend, "DataRow") => message(b'D', b"\0\x01\0\0\0\x05value"),
            (Direction::Backend, "CommandComplete") => message(b'C', &strings(&[self.quoted()])),
            (Direction::Backend, "ReadyForQuery") => message(b'Z', &self.rest.as_bytes()[..1]),
            (Direction::Backend, "ErrorResponse") => report(b'E', "ERROR"),
            (Direction::Backend, "NoticeResponse") => report(b'N', "NOTICE"),
            (_, other) => panic!("no bytes for {other}"),
        }
    }
}
