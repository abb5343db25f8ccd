//! The beginning of a connection: requests to encrypt, the start-up packet, authentication. Passwords, keys and
//! options are not looked at.

use super::{
    super::encoding::legible,
    chunk::Side,
    event::{Authentication, Opaque, Replication, Session},
    fields::{number, string},
    message::{CANCEL, GSS, Message, SSL},
    queue::{Request, What},
};

/// Bytes of a name that are kept; the server keeps 63.
const NAME_MAX: usize = 256;

/// Most bytes of a record of TLS 1.2, without its header.
const TLS_RECORD_MAX: usize = (1 << 14) + 2048;

/// What a client asks to encrypt with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encryption {
    Tls,
    Gss,
}

/// What the first message of a client is.
#[derive(Debug)]
pub(super) enum Startup {
    Encrypt(Encryption),
    Cancel,
    Session(Box<Request>),
}

impl Startup {
    pub(super) fn read(code: u32, message: &Message<'_>, side: Side) -> Option<Self> {
        if let Some(encryption) = Encryption::of(code) {
            return Some(Self::Encrypt(encryption));
        }
        if code == CANCEL {
            return Some(Self::Cancel);
        }
        let mut request = Request {
            what: What::Sync,
            begin: message.begin,
            end: message.end,
            bytes: message.bytes,
        };
        let mut session = Session::read(code, message.body)?;
        session.start_ns = request.start_ns(side);
        request.what = What::Startup(Box::new(session));
        Some(Self::Session(Box::new(request)))
    }
}

/// The server's answer to that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Consent {
    Yes(Opaque),
    No,
    /// A message follows.
    Error,
}

impl Encryption {
    fn of(code: u32) -> Option<Self> {
        match code {
            SSL => Some(Self::Tls),
            GSS => Some(Self::Gss),
            _ => None,
        }
    }

    /// The answer is one byte without a length.
    pub(super) fn answer(self, byte: u8) -> Option<Consent> {
        match (self, byte) {
            (Self::Tls, b'S') => Some(Consent::Yes(Opaque::Tls)),
            (Self::Gss, b'G') => Some(Consent::Yes(Opaque::Gss)),
            (_, b'N') => Some(Consent::No),
            (_, b'E') => Some(Consent::Error),
            _ => None,
        }
    }
}

/// Bytes begin a `ClientHello` of TLS in a record of its own.
pub(super) fn is_tls(header: [u8; 8]) -> bool {
    matches!(header, [0x16, 3, 0..=4, _, _, 1, 0, _])
}

/// Bytes are whole records of TLS, or the header of one, which OpenSSL reads alone (RFC 8446 §5.1). No message of
/// Postgres begins so.
pub(super) fn is_tls_records(mut bytes: &[u8]) -> bool {
    while let Some((&[kind, major, minor, high, low], rest)) = bytes.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes([high, low]));
        let is_header = matches!((kind, major, minor), (20..=23, 3, 1..=4));
        if !is_header || !(1..=TLS_RECORD_MAX).contains(&length) {
            return false;
        }
        bytes = match rest.get(length..) {
            Some([]) => return true,
            Some(behind) => behind,
            None => return rest.is_empty(),
        };
    }
    false
}

impl Session {
    /// What a start-up packet tells; nothing if it is none.
    pub(super) fn read(code: u32, mut body: &[u8]) -> Option<Self> {
        let minor_version = u16::try_from(code & 0xffff).ok()?;
        let mut session = Self {
            minor_version,
            ..Self::default()
        };
        loop {
            let key = string(&mut body)?;
            if key.is_empty() {
                break;
            }
            let value = string(&mut body)?;
            let text = || legible(&value[..value.len().min(NAME_MAX)]);
            match key {
                b"user" => session.user = text(),
                b"database" => session.database = text(),
                b"application_name" => session.application_name = text(),
                b"replication" => session.replication = replication(value),
                _ => {}
            }
        }
        if session.user.is_empty() || !body.is_empty() {
            return None;
        }
        if session.database.is_empty() {
            session.database.clone_from(&session.user);
        }
        Some(session)
    }

    /// Takes a message of the server before the first `ReadyForQuery`.
    pub(super) fn take(&mut self, tag: u8, body: &[u8]) {
        let Some(value) = number(body) else {
            return;
        };
        match tag {
            b'K' => self.backend_pid = Some(value),
            // The newest version that the server speaks; old servers tell the whole of it.
            b'v' => {
                let minor = u16::try_from(value & 0xffff).unwrap_or(u16::MAX);
                self.minor_version = self.minor_version.min(minor);
            }
            // AuthenticationOk, and those that continue one.
            b'R' if matches!(value, 8 | 11 | 12) => {}
            b'R' if value == 0 => {
                self.authentication.get_or_insert(Authentication::None);
            }
            b'R' => self.authentication = Some(authentication(value, &body[4..])),
            _ => {}
        }
    }
}

fn authentication(kind: u32, mechanisms: &[u8]) -> Authentication {
    match kind {
        2 => Authentication::Kerberos,
        3 => Authentication::Password,
        5 => Authentication::Md5,
        7 => Authentication::Gss,
        9 => Authentication::Sspi,
        10 if mechanisms.starts_with(b"SCRA") => Authentication::Scram,
        10 if mechanisms.starts_with(b"OAUT") => Authentication::OAuth,
        10 => Authentication::Sasl,
        other => Authentication::Other(other),
    }
}

/// As the server reads it: `database`, or any boolean.
fn replication(value: &[u8]) -> Replication {
    match value.to_ascii_lowercase().as_slice() {
        b"database" => Replication::Logical,
        b"true" | b"on" | b"yes" | b"1" | b"t" | b"y" => Replication::Physical,
        _ => Replication::None,
    }
}
