//! Secrets, and how they are sought.

use std::{collections::BTreeMap, fs::File, io::Read};

use base64::{Engine, prelude::BASE64_STANDARD_NO_PAD};
use flate2::read::MultiGzDecoder;

use crate::bench::text;

/// Kinds of secrets, with what makes a secret of them that cannot be there by chance.
const KINDS: [&str; 24] = [
    "environment",
    "HTTP header",
    "HTTP authorization",
    "HTTP body",
    "literal in UTF-8",
    "literal in SJIS",
    "literal in BIG5",
    "literal in GBK",
    "literal in GB18030",
    "literal, prepared",
    "parameter as text",
    "parameter in binary",
    "password at the start",
    "password of a role",
    "value of a setting",
    "COPY data",
    "row",
    "text of an error",
    "detail of an error",
    "refused word",
    "refused name",
    "comment",
    "payload of a notification",
    "argument",
];

/// Secrets by their kind.
pub(crate) struct Secrets(BTreeMap<&'static str, String>);

impl Secrets {
    pub(crate) fn draw() -> Self {
        let mut random = [0; 16 * KINDS.len()];
        let mut source = File::open("/dev/urandom").expect("it is there");
        source.read_exact(&mut random).expect("it has enough");
        // Letters only: a word of SQL, a value of HTTP, an option.
        let word = |bytes: &[u8]| {
            bytes
                .iter()
                .map(|byte| char::from(b'a' + byte % 26))
                .collect()
        };
        let words = random.chunks(16).map(word);
        Self(KINDS.into_iter().zip(words).collect())
    }

    pub(crate) fn of(&self, kind: &str) -> &str {
        &self.0[kind]
    }

    /// Fails where one of them is in these bytes, or in what they are packed from.
    #[track_caller]
    pub(crate) fn assert_none_in(&self, name: &str, bytes: &[u8]) {
        let mut plain = Vec::new();
        // What is not packed fails at its first bytes.
        let _ = MultiGzDecoder::new(bytes).read_to_end(&mut plain);
        for bytes in [bytes, &plain] {
            for (kind, secret) in &self.0 {
                for (notation, form) in notations(secret) {
                    let found = bytes.windows(form.len()).position(|part| part == form);
                    let near = found.map(|at| {
                        let (begin, end) = (at.saturating_sub(200), (at + 200).min(bytes.len()));
                        text(&bytes[begin..end])
                    });
                    assert!(
                        near.is_none(),
                        "{kind}, {notation}, in {name}:\n{}",
                        near.unwrap_or_default()
                    );
                }
            }
        }
    }
}

/// A secret as it may be written.
fn notations(secret: &str) -> Vec<(&'static str, Vec<u8>)> {
    let bytes = secret.as_bytes();
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
    let digits = digits.filter_map(|digit| char::from_digit(u32::from(digit), 16));
    let hexadecimal: String = digits.collect();
    let wide = |bytes: fn(u16) -> [u8; 2]| secret.encode_utf16().flat_map(bytes).collect();
    let mut notations = vec![
        ("as it is", bytes.to_vec()),
        ("upper case", secret.to_ascii_uppercase().into_bytes()),
        ("HEX", hexadecimal.to_ascii_uppercase().into_bytes()),
        ("hexadecimal", hexadecimal.into_bytes()),
        ("UTF-16", wide(u16::to_le_bytes)),
        ("UTF-16, big-endian", wide(u16::to_be_bytes)),
    ];
    for offset in 0..3 {
        // What comes before and behind decides about the first and the last characters.
        let encoded = BASE64_STANDARD_NO_PAD.encode([&vec![0; offset][..], bytes].concat());
        let own = encoded.get(if offset == 0 { 0 } else { 4 }..encoded.len() - 2);
        notations.push(("base64", own.unwrap_or_default().as_bytes().to_vec()));
    }
    notations
}

/// Every notation of a secret is found, also in what is packed: otherwise finding none says nothing.
#[test]
fn secrets_would_be_found() {
    let secrets = Secrets::draw();
    let secret = secrets.of("row");
    let hides = |bytes: &[u8]| {
        let asserted = std::panic::AssertUnwindSafe(|| secrets.assert_none_in("", bytes));
        std::panic::catch_unwind(asserted).is_ok()
    };
    for (notation, form) in notations(secret) {
        assert!(!hides(&[b"xy", &form[..], b"z"].concat()), "{notation}");
    }
    for offset in 0..5 {
        let encoded = BASE64_STANDARD_NO_PAD.encode(format!("{}{secret}more", "z".repeat(offset)));
        assert!(!hides(encoded.as_bytes()), "{offset}: {encoded}");
    }
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packer, secret.as_bytes()).expect("it is memory");
    assert!(!hides(&packer.finish().expect("it is memory")));
    assert!(hides(b"nothing of this"));
}
