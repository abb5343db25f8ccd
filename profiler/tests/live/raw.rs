//! A client of Postgres that sends any bytes, in whatever encoding it says that they are.

use std::{
    io::{Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    time::Duration,
};

use crate::postgres::Postgres;

/// Far longer than any answer takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection.
pub(crate) struct Raw<S = UnixStream>(S);

/// What the server said.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// The code of each error.
    pub(crate) errors: Vec<String>,
    /// The tag of each command.
    pub(crate) completed: Vec<String>,
}

/// A setting of psql's.
fn setting(postgres: &Postgres, name: &str) -> String {
    let psql = postgres.client("psql").expect("psql is there");
    let found = psql.get_envs().find(|(key, _)| *key == name);
    let value = found.and_then(|(_, value)| value).expect("a setting");
    value.to_string_lossy().into_owned()
}

fn message(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let length = u32::try_from(body.len() + 4).expect("a short one");
    [&[tag], &length.to_be_bytes()[..], &body].concat()
}

fn startup(parameters: &[&str]) -> Vec<u8> {
    let body = parameters.join("\0") + "\0\0";
    let length = u32::try_from(body.len() + 8).expect("a short one");
    let head = [length.to_be_bytes(), 196_608_u32.to_be_bytes()].concat();
    [&head[..], body.as_bytes()].concat()
}

impl Raw {
    /// Connects through the unix socket, with further parameters and their values in turn.
    pub(crate) fn connect(postgres: &Postgres, database: &str, parameters: &[&str]) -> Self {
        let [folder, port] = ["PGHOST", "PGPORT"].map(|name| setting(postgres, name));
        let stream = UnixStream::connect(format!("{folder}/.s.PGSQL.{port}")).expect("it listens");
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("it can wait");
        let mut raw = Self(stream);
        raw.send(&startup(
            &[&["user", "demo", "database", database], parameters].concat(),
        ));
        let answer = raw.answer();
        assert!(answer.errors.is_empty(), "{answer:?}");
        raw
    }
}

impl Raw<TcpStream> {
    /// Connects through TCP, and answers the demand for a password with this one, as it is.
    pub(crate) fn refused(postgres: &Postgres, password: &str) {
        let address = format!("127.0.0.1:{}", setting(postgres, "PGPORT"));
        let stream = TcpStream::connect(address).expect("it listens");
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("it can wait");
        let mut raw = Self(stream);
        raw.send(&startup(&["user", "demo", "database", "postgres"]));
        assert_eq!(raw.message().0, b'R');
        raw.send(&message(b'p', &[password.as_bytes(), b"\0"]));
        assert_eq!(raw.message().0, b'E');
    }
}

impl<S: Read + Write> Raw<S> {
    /// Asks, and awaits the answer.
    pub(crate) fn query(&mut self, text: &[u8]) -> Answer {
        self.ask(text);
        self.answer()
    }

    /// Asks.
    pub(crate) fn ask(&mut self, text: &[u8]) {
        self.send(&message(b'Q', &[text, b"\0"]));
    }

    /// Prepares a text and executes it with these parameters, each in text form or, where it says so, in binary form.
    pub(crate) fn extended(&mut self, text: &[u8], parameters: &[(&[u8], bool)]) -> Answer {
        let count = u16::try_from(parameters.len())
            .expect("a few")
            .to_be_bytes();
        let forms = parameters
            .iter()
            .flat_map(|(_, is_binary)| [0, u8::from(*is_binary)]);
        let values = parameters.iter().flat_map(|(value, _)| {
            let length = u32::try_from(value.len())
                .expect("a short one")
                .to_be_bytes();
            [&length[..], value].concat()
        });
        let forms: Vec<u8> = forms.collect();
        let values: Vec<u8> = values.collect();
        let messages = [
            message(b'P', &[b"\0", text, b"\0\0\0"]),
            message(b'B', &[b"\0\0", &count, &forms, &count, &values, b"\0\0"]),
            message(b'D', &[b"P\0"]),
            message(b'E', &[b"\0\0\0\0\0"]),
            message(b'S', &[]),
        ];
        self.send(&messages.concat());
        self.answer()
    }

    /// Sends data of COPY, after [`Self::ask`], and its end.
    pub(crate) fn copy(&mut self, data: &[u8]) -> Answer {
        self.send(&[message(b'd', &[data]), message(b'c', &[])].concat());
        self.answer()
    }

    /// Everything up to `ReadyForQuery`, or the end.
    pub(crate) fn answer(&mut self) -> Answer {
        let mut answer = Answer::default();
        loop {
            let (tag, body) = self.message();
            let mut fields = body.split(|byte| *byte == 0);
            let words = |field: &[u8]| String::from_utf8_lossy(field).into_owned();
            match tag {
                b'E' => answer
                    .errors
                    .extend(fields.find_map(|field| field.strip_prefix(b"C").map(words))),
                b'C' => answer.completed.extend(fields.next().map(words)),
                b'Z' => return answer,
                _ => {}
            }
        }
    }

    fn message(&mut self) -> (u8, Vec<u8>) {
        let mut head = [0; 5];
        self.0.read_exact(&mut head).expect("an answer");
        let [tag, length @ ..] = head;
        let mut body = vec![0; u32::from_be_bytes(length) as usize - 4];
        self.0.read_exact(&mut body).expect("an answer");
        (tag, body)
    }

    fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).expect("it listens");
    }
}
