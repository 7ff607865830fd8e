//! The container's standard streams between generations.
//!
//! A caller reads a pipe until its last writer has closed it. So a pipe is kept as an `O_PATH` descriptor, which counts
//! neither as a reader nor as a writer (open(2)), and is opened anew, through `/proc/self/fd`, just before the old generation
//! is ended.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::sys::proc_fd;

/// One stream, kept in a way that nobody who waits for its end is held up by us.
pub enum Stream {
    /// A pipe, by reference.
    Pipe {
        /// `O_PATH`.
        path: OwnedFd,
        /// Access mode and status flags it had.
        flags: OFlag,
    },
    /// Anything else: a file, a device, a socket. Nobody waits for those to close as for a pipe, or (sockets) there is no
    /// other way to have it again.
    Held(OwnedFd),
}

impl Stream {
    /// Keeps a stream. The descriptor itself is left as it is.
    ///
    /// # Errors
    /// `EMFILE`, or `/proc` is not there.
    pub fn keep(fd: BorrowedFd<'_>) -> io::Result<Stream> {
        let duplicate = File::from(fd.try_clone_to_owned()?);
        if !duplicate.metadata()?.file_type().is_fifo() {
            return Ok(Stream::Held(duplicate.into()));
        }
        let flags = OFlag::from_bits_truncate(fcntl(fd, FcntlArg::F_GETFL)?);
        let path = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(proc_fd::path(fd))?;
        Ok(Stream::Pipe { path: path.into(), flags })
    }

    /// The stream, open again as it was. A named pipe that nobody reads any more becomes `/dev/null`.
    ///
    /// # Errors
    /// `EMFILE`, or `/proc` or `/dev/null` is not there.
    pub fn open(&self) -> io::Result<OwnedFd> {
        match self {
            Stream::Held(fd) => fd.try_clone(),
            Stream::Pipe { path, flags } => {
                let write = flags.intersects(OFlag::O_WRONLY | OFlag::O_RDWR);
                let read = !flags.contains(OFlag::O_WRONLY);
                // Non-blocking: to open a named pipe without a reader for writing fails at once (fifo(7)), and to open one
                // for reading waits for no writer.
                let opened = OpenOptions::new()
                    .read(read)
                    .write(write)
                    .custom_flags(libc::O_NONBLOCK)
                    .open(proc_fd::path(path.as_fd()));
                match opened {
                    Ok(file) => {
                        fcntl(file.as_fd(), FcntlArg::F_SETFL(*flags & (OFlag::O_NONBLOCK | OFlag::O_APPEND)))?;
                        Ok(file.into())
                    }
                    Err(error) if error.raw_os_error() == Some(libc::ENXIO) => null(),
                    Err(error) => Err(error),
                }
            }
        }
    }
}

/// `/dev/null`, to read and write.
///
/// # Errors
/// When it is not there.
pub fn null() -> io::Result<OwnedFd> {
    Ok(OpenOptions::new().read(true).write(true).open("/dev/null")?.into())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn a_kept_pipe_does_not_hold_its_reader_up() {
        let (mut reader, writer) = std::io::pipe().expect("pipe");
        let stream = Stream::keep(writer.as_fd()).expect("keep");
        let mut again = File::from(stream.open().expect("reopen"));
        drop(writer);
        again.write_all(b"from the next generation").expect("write");
        drop(again);
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("the reader sees the end while the stream is kept");
        assert_eq!(text, "from the next generation");
        drop(reader);
        let mut broken = File::from(stream.open().expect("a pipe opens without a reader"));
        let error = broken.write_all(b"x").expect_err("and is as broken as it was for the last generation");
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_kept_pipe_reads_on_where_the_last_reader_stopped() {
        let (reader, mut writer) = std::io::pipe().expect("pipe");
        let stream = Stream::keep(reader.as_fd()).expect("keep");
        writer.write_all(b"later").expect("write");
        let mut again = File::from(stream.open().expect("reopen"));
        drop(reader);
        let mut text = [0; 5];
        again.read_exact(&mut text).expect("read");
        assert_eq!(&text, b"later");
    }
}
