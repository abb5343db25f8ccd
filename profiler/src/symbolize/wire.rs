//! What passes between the profiler and its child, and how: a length, then JSON; open files travel beside the length.

use std::{
    io::{self, IoSlice, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Most files of one question.
pub(super) const FILES_MAX: usize = 16;
/// Longest message. A million addresses are 8 MB, their names with lines some 100 MB at worst.
pub(super) const MESSAGE_MAX: usize = 128 << 20;

/// What the child is asked.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Question {
    /// Which other files hold the debug information of the file?
    Links,
    /// What is at these offsets of the first file? The others may hold its debug information.
    Names {
        /// In ascending order or not.
        offsets: Vec<u64>,
        /// What may be read.
        detail: Detail,
    },
    /// What does this perf map say of these addresses?
    PerfMap {
        /// In ascending order.
        addresses: Vec<u64>,
    },
}

/// How much of a file is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Detail {
    /// Everything.
    DebugInformation,
    /// No more than symbol tables.
    Symbols,
}

/// What the child says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    /// To [`Question::Links`].
    Links(Links),
    /// To [`Question::Names`].
    Names(FileNames),
    /// To [`Question::PerfMap`].
    PerfMap(JitNames),
}

/// What a file says of where its debug information is.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Links {
    /// GNU build id, empty if there is none.
    pub(super) build_id: Vec<u8>,
    /// The name in `.gnu_debuglink`.
    pub(super) debug_link: Option<Vec<u8>>,
}

/// What is known of a file.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct FileNames {
    /// Whether it is an ELF file at all.
    pub(super) is_elf: bool,
    /// Where its debug information is.
    pub(super) debug: DebugInformation,
    /// Whether there was debug information that could not be used.
    pub(super) is_debug_unusable: bool,
    /// Whether the child may not read the file, and it is too long to be copied.
    pub(super) uncopied: bool,
    /// One for each offset, in their order; empty where it is no ELF file.
    pub(super) named: Vec<At>,
}

/// Where debug information is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum DebugInformation {
    /// In the file itself, or nowhere.
    #[default]
    Own,
    /// In another file.
    Apart,
}

/// What is at an offset.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum At {
    /// A function with a name, and what is inlined into it, innermost first.
    Symbol(Vec<Function>),
    /// A function without a name: its first address.
    Function(u64),
    /// No function, but a section.
    Section(String),
    /// Nothing that is known.
    Nothing,
}

/// A function, and the line where it is.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Function {
    /// Its name.
    pub(super) name: String,
    /// Source file.
    pub(super) file: Option<String>,
    /// Line in it.
    pub(super) line: Option<u32>,
}

/// What a perf map says.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct JitNames {
    /// One for each address, in their order.
    pub(super) names: Vec<Option<String>>,
    /// Lines that could not be read.
    pub(super) malformed: u64,
    /// Bytes that were not read.
    pub(super) beyond: u64,
}

/// Sends a message, and files beside it.
pub(super) fn send(
    mut socket: &UnixStream,
    message: &impl Serialize,
    files: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    if bytes.len() > MESSAGE_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(files)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let length = length.to_le_bytes();
    let sent = sendmsg(
        socket,
        &[IoSlice::new(&length)],
        &mut ancillary,
        SendFlags::NOSIGNAL,
    )?;
    socket.write_all(&length[sent..])?;
    socket.write_all(&bytes)
}

/// Receives a message with its files; `None` at the end. `wait` is asked whether to go on where a time-out passes.
pub(super) fn receive<T: DeserializeOwned>(
    socket: &UnixStream,
    mut wait: impl FnMut() -> io::Result<()>,
) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut length = [0; 4];
    let (received, files) = receive_first(socket, &mut length, &mut wait)?;
    if received == 0 {
        return Ok(None);
    }
    fill(socket, &mut length[received..], &mut wait)?;
    let length = usize::try_from(u32::from_le_bytes(length)).map_err(io::Error::other)?;
    if length > MESSAGE_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut bytes = vec![0; length];
    fill(socket, &mut bytes, &mut wait)?;
    Ok(Some((serde_json::from_slice(&bytes)?, files)))
}

fn receive_first(
    socket: &UnixStream,
    buffer: &mut [u8],
    wait: &mut impl FnMut() -> io::Result<()>,
) -> io::Result<(usize, Vec<OwnedFd>)> {
    loop {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_MAX))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = recvmsg(
            socket,
            &mut [IoSliceMut::new(buffer)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        );
        let received = match received.map_err(io::Error::from) {
            Err(error) if is_pause(&error) => {
                wait()?;
                continue;
            }
            received => received?,
        };
        let mut files = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                files.extend(descriptors);
            }
        }
        if received.flags.contains(ReturnFlags::CTRUNC) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        return Ok((received.bytes, files));
    }
}

fn fill(
    mut socket: &UnixStream,
    buffer: &mut [u8],
    wait: &mut impl FnMut() -> io::Result<()>,
) -> io::Result<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        match socket.read(&mut buffer[filled..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => filled += read,
            Err(error) if is_pause(&error) => wait()?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn is_pause(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        io::{self, Write},
        os::{fd::AsFd, unix::net::UnixStream},
    };

    use super::{MESSAGE_MAX, Question, receive, send};

    /// Messages arrive in order with their files, and the end is the end.
    #[test]
    fn messages_and_files_arrive() {
        let (one, other) = UnixStream::pair().unwrap();
        let file = File::open("/proc/self/exe").unwrap();
        let addresses: Vec<u64> = (0..10_000).collect();
        send(&one, &Question::Links, &[file.as_fd(), file.as_fd()]).unwrap();
        send(&one, &Question::PerfMap { addresses }, &[]).unwrap();
        drop(one);
        let next = || receive::<Question>(&other, || Err(io::ErrorKind::TimedOut.into())).unwrap();
        let (question, files) = next().unwrap();
        assert!(matches!(question, Question::Links) && files.len() == 2);
        let (question, files) = next().unwrap();
        assert!(matches!(question, Question::PerfMap { addresses } if addresses.len() == 10_000));
        assert!(files.is_empty() && next().is_none());
    }

    /// A length beyond the bound, a half message and nonsense are errors.
    #[test]
    fn nonsense_is_refused() {
        let too_long = u32::try_from(MESSAGE_MAX + 1).unwrap().to_le_bytes();
        for bytes in [
            &too_long[..],
            &[9, 0, 0, 0, b'"'],
            &[2, 0, 0, 0, b'{', b'}'],
            &[1, 0],
        ] {
            let (mut one, other) = UnixStream::pair().unwrap();
            one.write_all(bytes).unwrap();
            drop(one);
            assert!(receive::<Question>(&other, || Ok(())).is_err(), "{bytes:?}");
        }
    }
}
