//! Where the page is served: a loopback address or a unix socket; another address only if that is asked for twice.

use std::{
    fmt, fs, io,
    net::{SocketAddr, TcpListener},
    os::unix::{
        fs::{FileTypeExt, MetadataExt},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    str::FromStr,
};

use crate::store::trusted;

/// Who may connect to a unix socket: its owner and its group.
const SOCKET_MODE: u32 = 0o660;

/// Where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// An address with a port.
    Tcp(SocketAddr),
    /// A unix socket, made and removed by us.
    Unix(PathBuf),
}

impl Listen {
    /// Whether only this machine can reach it.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = Path::new(path);
            return if path.is_absolute() {
                Ok(Self::Unix(path.to_owned()))
            } else {
                Err(format!(
                    "`{text}`: the path of a socket begins with a slash"
                ))
            };
        }
        text.parse().map(Self::Tcp).map_err(|_| {
            format!("`{text}` is neither an address with a port such as \"127.0.0.1:7979\" nor \"unix:/PATH\"")
        })
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "http://{address}/"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The page cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum WebError {
    /// Others can reach the address, and it was asked for only once.
    #[error("{listen} can be reached from other machines")]
    Public {
        /// Where.
        listen: Listen,
    },
    /// It cannot be listened on.
    #[error("cannot listen on {listen}: {source}")]
    Bind {
        /// Where.
        listen: Listen,
        /// Why.
        source: io::Error,
    },
    /// The token cannot be read.
    #[error("cannot read the token in {}: {source}", crate::printable::shown(path))]
    Token {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is too short to keep anybody out.
    #[error(
        "the token in {} has fewer than {least} characters",
        crate::printable::shown(path)
    )]
    ShortToken {
        /// Its file.
        path: PathBuf,
        /// How many it takes.
        least: usize,
    },
}

impl WebError {
    /// What mends it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Public { .. } => {
                "start with --listen-publicly if that is meant, or listen on 127.0.0.1 behind a proxy"
            }
            Self::Bind {
                listen: Listen::Tcp(_),
                ..
            } => "choose another address or port with web.listen",
            Self::Bind { .. } => {
                "choose a folder that the daemon may write to with web.listen, such as RuntimeDirectory= of the unit"
            }
            Self::Token { .. } => {
                "put it into a file that the daemon can read: `head -c 24 /dev/urandom | base64`"
            }
            Self::ShortToken { .. } => "make one with `head -c 24 /dev/urandom | base64`",
        };
        Some(hint.to_owned())
    }
}

/// A place that is listened on.
#[derive(Debug)]
pub(super) struct Bound {
    listen: Listen,
    socket: Socket,
    /// Of a unix socket.
    id: Option<Id>,
}

/// A listener of either kind.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Which file a socket is: its device and its inode.
type Id = (u64, u64);

impl Bound {
    pub(super) fn bind(listen: &Listen) -> Result<Self, WebError> {
        let bound = match listen {
            Listen::Tcp(address) => {
                TcpListener::bind(address).map(|listener| (Socket::Tcp(listener), None))
            }
            Listen::Unix(path) => {
                bind_unix(path).map(|(listener, id)| (Socket::Unix(listener), Some(id)))
            }
        };
        let (socket, id) = bound.map_err(|source| WebError::Bind {
            listen: listen.clone(),
            source,
        })?;
        Ok(Self {
            listen: listen.clone(),
            socket,
            id,
        })
    }

    /// Another handle of it, for tokio.
    pub(super) fn listener(&self) -> Result<Socket, WebError> {
        let clone = || match &self.socket {
            Socket::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                listener.try_clone().map(Socket::Tcp)
            }
            Socket::Unix(listener) => {
                listener.set_nonblocking(true)?;
                listener.try_clone().map(Socket::Unix)
            }
        };
        clone().map_err(|source| WebError::Bind {
            listen: self.listen.clone(),
            source,
        })
    }

    pub(super) fn address(&self) -> Option<SocketAddr> {
        match &self.socket {
            Socket::Tcp(listener) => listener.local_addr().ok(),
            Socket::Unix(_) => None,
        }
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if let Listen::Unix(path) = &self.listen {
            let there = fs::symlink_metadata(path).map(|there| (there.dev(), there.ino()));
            if there.ok() == self.id {
                // One that stays is replaced at the next start.
                let _ = fs::remove_file(path);
            }
        }
    }
}

/// A socket that nobody listens on any more is replaced; anything else of that name is not. Nobody
/// else may be able to put something in its place.
fn bind_unix(path: &Path) -> io::Result<(UnixListener, Id)> {
    if let Some(folder) = path.parent()
        && let Some(why) = trusted::why_exposed(folder)?
    {
        return Err(io::Error::other(format!("{why}, and could exchange it")));
    }
    let is_socket = fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    if is_socket
        && UnixStream::connect(path)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    {
        fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    let id = trusted::set_socket_mode(path, SOCKET_MODE)?;
    Ok((listener, id))
}

#[cfg(test)]
mod tests {
    use std::os::unix::{fs::PermissionsExt, net::UnixListener};

    use super::{Bound, Listen};

    /// Loopback in every notation is local, nothing else is.
    #[test]
    fn local_is_loopback() {
        let is_local = |text: &str| text.parse::<Listen>().unwrap().is_local();
        for text in [
            "127.0.0.1:1",
            "127.9.9.9:1",
            "[::1]:1",
            "[::ffff:127.0.0.1]:1",
            "unix:/a",
        ] {
            assert!(is_local(text), "{text}");
        }
        for text in ["0.0.0.0:1", "[::]:1", "192.168.0.1:1", "[::ffff:1.2.3.4]:1"] {
            assert!(!is_local(text), "{text}");
        }
        for text in ["localhost:1", "127.0.0.1", "unix:a", ""] {
            assert!(text.parse::<Listen>().is_err(), "{text}");
        }
    }

    /// Only owner and group may connect; a dead socket is replaced, a living one and another file are not.
    #[test]
    fn socket_is_for_the_group() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web.sock");
        let listen = Listen::Unix(path.clone());
        drop(UnixListener::bind(&path).unwrap());
        let bound = Bound::bind(&listen).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        assert!(Bound::bind(&listen).is_err(), "somebody listens");
        std::fs::rename(&path, folder.path().join("moved")).unwrap();
        std::fs::write(&path, "another's").unwrap();
        drop(bound);
        assert!(path.exists(), "it is not ours");
        std::fs::remove_file(&path).unwrap();
        drop(Bound::bind(&listen).unwrap());
        assert!(!path.exists());
        std::fs::write(&path, "a file").unwrap();
        assert!(Bound::bind(&listen).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"a file");
    }
}
