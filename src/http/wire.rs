//! A client's connection, as the HTTP library is given it.
//!
//! What the library answers before a request exists (bytes that are no HTTP, headers too many or too long) is a bare status line.
//! Here such an answer is recognised on its way out and given a problem document as its body. Everything else passes untouched.
//!
//! The kernel takes only so much for a client that does not read, so that a slow one is noticed, and ended. Room for a last word is made when it
//! is to be closed. That is done below the encryption, where there is one: what counts is what the kernel takes. Above it the library for TLS
//! holds up to 64 KiB more, so whoever writes has it flushed before counting it as sent.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use socket2::SockRef;

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Sleep, sleep},
};
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use super::server::Place;

/// What the kernel takes for a client that does not read, in bytes (Linux doubles it for its own needs).
const SEND_BUFFER_BYTES: usize = 64 * 1024;
/// And when it is to be closed: what the library holds to write, and a close frame.
const LAST_WORD_BYTES: usize = 1024 * 1024;

/// Longest a client may take nothing of what is written to it. Live sockets are closed sooner, and told why.
const STALLED_MAX: Duration = Duration::from_mins(1);

/// What the kernel has taken of a connection, and will take.
#[derive(Clone, Debug, Default)]
pub(super) struct Room(Arc<Taken>);

#[derive(Debug, Default)]
struct Taken {
    bytes: AtomicU64,
    is_last: AtomicBool,
}

impl Room {
    /// Makes room for the last word to a client that does not read.
    pub(super) fn make(&self) {
        self.0.is_last.store(true, Ordering::Release);
    }

    /// How many bytes it has taken.
    pub(super) fn taken(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }
}

/// A client's TCP connection: what goes through here is what the kernel takes, whether it is encrypted or not.
#[derive(Debug)]
pub(super) struct Line {
    stream: TcpStream,
    room: Room,
    /// Runs while the client takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Line {
    pub(super) fn new(stream: TcpStream, room: Room) -> Self {
        // Answers are small and written whole: waiting for more to send only delays them.
        drop(stream.set_nodelay(true));
        drop(SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER_BYTES));
        Self {
            stream,
            room,
            stalled: None,
        }
    }
}

impl AsyncRead for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Line {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let line = &mut *self;
        let taken = &line.room.0;
        if taken.is_last.load(Ordering::Relaxed) && taken.is_last.swap(false, Ordering::AcqRel) {
            drop(SockRef::from(&line.stream).set_send_buffer_size(LAST_WORD_BYTES));
        }
        let Poll::Ready(written) = Pin::new(&mut line.stream).poll_write(context, bytes) else {
            let new = || Box::pin(sleep(STALLED_MAX));
            ready!(line.stalled.get_or_insert_with(new).as_mut().poll(context));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        };
        let written = written?;
        line.stalled = None;
        taken.bytes.fetch_add(written as u64, Ordering::Relaxed);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Plain, or encrypted.
pub(super) type Way = Either<Line, Box<TlsStream<Line>>>;

/// A client's connection.
#[derive(Debug)]
pub(super) struct Wire {
    way: Way,
    /// Among the connections of its address: an upgraded one keeps it.
    _place: Place,
    /// What goes out in place of a bare answer, and how much of it has.
    instead: Option<Instead>,
}

#[derive(Debug)]
struct Instead {
    bytes: Vec<u8>,
    sent: usize,
    /// The length of what the library believes to have written.
    stands_for: usize,
}

/// Longest bare answer that the library writes, in bytes.
const BARE_HEAD_MAX: usize = 256;

impl Wire {
    pub(super) fn new(way: Way, place: Place) -> Self {
        Self {
            way,
            _place: place,
            instead: None,
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.way).poll_read(context, buffer)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let wire = &mut *self;
        if wire.instead.is_none() {
            wire.instead = with_problem(bytes).map(|instead| Instead {
                bytes: instead,
                sent: 0,
                stands_for: bytes.len(),
            });
        }
        let Some(instead) = &mut wire.instead else {
            return Pin::new(&mut wire.way).poll_write(context, bytes);
        };
        while instead.sent < instead.bytes.len() {
            let left = &instead.bytes[instead.sent..];
            match ready!(Pin::new(&mut wire.way).poll_write(context, left))? {
                0 => return Poll::Ready(Ok(0)),
                sent => instead.sent += sent,
            }
        }
        let stands_for = instead.stands_for;
        wire.instead = None;
        Poll::Ready(Ok(stands_for))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.way).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.way).poll_shutdown(context)
    }
}

/// The bytes with a problem document at their end, if they end in a bare error answer.
fn with_problem(bytes: &[u8]) -> Option<Vec<u8>> {
    // A document ends in its body, so this alone settles nearly every write.
    if !bytes.ends_with(b"\r\n\r\n") {
        return None;
    }
    let tail = bytes.len().saturating_sub(BARE_HEAD_MAX);
    let at = bytes[tail..]
        .windows(9)
        .rposition(|window| window == b"HTTP/1.1 ")?
        + tail;
    let head = str::from_utf8(&bytes[at..]).ok()?;
    let status: u16 = head.get(9..12)?.parse().ok()?;
    let headers = head.to_ascii_lowercase();
    if !(400..600).contains(&status)
        || !headers.contains("\r\ncontent-length: 0\r\n")
        || headers.contains("\r\ncontent-type:")
    {
        return None;
    }
    let title = head.get(13..)?.split("\r\n").next()?;
    let detail = match status {
        400 => "This is not an HTTP request",
        414 => "The path is too long",
        431 => "The headers are too many or too long",
        _ => title,
    };
    let body = format!(
        r#"{{"type":"about:blank","title":"{title}","status":{status},"detail":"{detail}","error":"{detail}"}}"#
    );
    let mut instead = bytes[..at].to_vec();
    instead.extend_from_slice(
        format!(
            "HTTP/1.1 {status} {title}\r\ncontent-type: application/problem+json\r\n\
             content-length: {}\r\ncache-control: no-store\r\nconnection: close\r\n\r\n{body}",
            body.len()
        )
        .as_bytes(),
    );
    Some(instead)
}

#[cfg(test)]
mod tests {
    use super::with_problem;

    #[test]
    fn only_a_bare_error_gets_a_document() {
        let bare = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\n\r\n";
        let problem = String::from_utf8(with_problem(bare).unwrap()).unwrap();
        assert!(
            problem.contains("application/problem+json") && problem.contains("\"status\":431"),
            "{problem}"
        );

        let mut after_another = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}".to_vec();
        after_another.extend_from_slice(bare);
        let both = with_problem(&after_another).unwrap();
        assert!(both.starts_with(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}HTTP/1.1 431"));

        for other in [
            b"HTTP/1.1 304 Not Modified\r\netag: \"x\"\r\n\r\n".as_slice(),
            b"HTTP/1.1 404 Not Found\r\ncontent-type: application/problem+json\r\ncontent-length: 90\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            b"any bytes of a body\r\n\r\n",
            b"",
        ] {
            assert_eq!(with_problem(other), None);
        }
    }
}
