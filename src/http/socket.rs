//! A WebSocket (RFC 6455) to which frames are written as they are: a server masks nothing, so what is encoded once is sent to everybody.
//!
//! The library shakes hands, reads, and writes control frames. Invariant: it and this never write in the middle of each other's
//! frame. What the library still holds is flushed before bytes are written here, and what was written here in part is finished before
//! anything else is. What is finished is with the kernel: the encryption below, where there is one, holds nothing back of it.

use std::io;

use axum::{
    extract::FromRequestParts,
    http::{Request, request::Parts},
    response::{IntoResponse, Response},
};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::{io::AsyncWriteExt, task::consume_budget};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        self, Message,
        handshake::server::create_response,
        protocol::{CloseFrame, Role, WebSocketConfig},
    },
};

use super::error::ApiError;

/// The library fills its read buffer with zeros before each read, and keeps one for each connection.
const READ_BUFFER_BYTES: usize = 4 * 1024;
/// Largest frame a client may send.
const INBOUND_BYTES_MAX: usize = 4 * 1024;
/// Messages that a client may still say before it says goodbye.
const LAST_HEARD_MAX: usize = 1_000;
/// What is kept to write into without asking for memory: control frames are smaller.
const WRITE_BUFFER_BYTES: usize = 0;
/// A whole text frame, not masked.
const TEXT: u8 = 0x81;
/// Length fields that say that the length follows in two bytes, or in eight.
const TWO_BYTES: u8 = 126;
const EIGHT_BYTES: u8 = 127;

/// A request for a WebSocket.
pub(super) struct Handshake {
    response: Response,
    upgrade: OnUpgrade,
}

impl<S: Sync> FromRequestParts<S> for Handshake {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        const NONE: ApiError = ApiError::BadRequest("This is no WebSocket request");
        let mut request = Request::new(());
        *request.method_mut() = parts.method.clone();
        *request.version_mut() = parts.version;
        *request.headers_mut() = parts.headers.clone();
        let response = create_response(&request).map_err(|_| NONE)?;
        Ok(Self {
            response: response.map(|()| axum::body::Body::empty()).into_response(),
            upgrade: parts.extensions.remove::<OnUpgrade>().ok_or(NONE)?,
        })
    }
}

impl Handshake {
    /// The answer, and the socket once it was given; `None` if the client left before.
    pub(super) fn accept(self) -> (Response, impl Future<Output = Option<Socket>>) {
        let upgraded = async { Some(Socket::new(self.upgrade.await.ok()?).await) };
        (self.response, upgraded)
    }
}

/// A connection.
pub(super) struct Socket {
    library: WebSocketStream<TokioIo<Upgraded>>,
    /// What is being written here.
    unsent: Bytes,
    /// Some of it may be held by the encryption below.
    is_held: bool,
    /// The library may have an answer to write to what it heard.
    has_heard: bool,
}

impl Socket {
    async fn new(upgraded: Upgraded) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(WRITE_BUFFER_BYTES)
            .max_message_size(Some(INBOUND_BYTES_MAX))
            .max_frame_size(Some(INBOUND_BYTES_MAX));
        let io = TokioIo::new(upgraded);
        Self {
            library: WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await,
            unsent: Bytes::new(),
            is_held: false,
            has_heard: false,
        }
    }

    /// What the client says next; `None` when it is gone. It may be given up.
    pub(super) async fn recv(&mut self) -> Option<Message> {
        // Hundreds of messages come with one read, and only reads yield to other connections by themselves.
        consume_budget().await;
        let heard = self.library.next().await?.ok();
        self.has_heard = true;
        heard
    }

    /// Writes frames that are encoded already. If it is given up, what is left of them is written before anything else.
    pub(super) async fn write(&mut self, frames: Bytes) -> Result<(), tungstenite::Error> {
        self.finish().await?;
        if std::mem::take(&mut self.has_heard) {
            self.library.flush().await?;
        }
        self.unsent = frames;
        Ok(self.finish().await?)
    }

    pub(super) async fn ping(&mut self) -> Result<(), tungstenite::Error> {
        self.finish().await?;
        self.library.send(Message::Ping(Bytes::new())).await
    }

    /// Answers a client that has said that it leaves.
    pub(super) async fn say_goodbye(&mut self) {
        for _ in 0..LAST_HEARD_MAX {
            if self.recv().await.is_none() {
                return;
            }
        }
    }

    /// Says why it ends, and waits until the client has said so as well.
    pub(super) async fn close(&mut self, frame: CloseFrame) -> Result<(), tungstenite::Error> {
        self.finish().await?;
        self.library.send(Message::Close(Some(frame))).await?;
        self.say_goodbye().await;
        Ok(())
    }

    async fn finish(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() {
            let count = self.library.get_mut().write(&self.unsent).await?;
            if count == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.unsent.advance(count);
            self.is_held = true;
        }
        if self.is_held {
            self.library.get_mut().flush().await?;
            self.is_held = false;
        }
        Ok(())
    }
}

/// Adds a text frame to others (RFC 6455, 5.2).
pub(super) fn encode(text: &[u8], into: &mut BytesMut) {
    into.reserve(text.len() + 10);
    into.put_u8(TEXT);
    match (u8::try_from(text.len()), u16::try_from(text.len())) {
        (Ok(length), _) if length < TWO_BYTES => into.put_u8(length),
        (_, Ok(length)) => {
            into.put_u8(TWO_BYTES);
            into.put_u16(length);
        }
        _ => {
            into.put_u8(EIGHT_BYTES);
            into.put_u64(text.len() as u64);
        }
    }
    into.extend_from_slice(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_is_written_as_short_as_it_can_be() {
        for (length, head) in [
            (0, vec![0x81, 0]),
            (125, vec![0x81, 125]),
            (126, vec![0x81, 126, 0, 126]),
            (65_535, vec![0x81, 126, 0xff, 0xff]),
            (65_536, vec![0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let mut frames = BytesMut::from(&b"before"[..]);
            encode(&vec![b'x'; length], &mut frames);
            assert_eq!(frames[6..6 + head.len()], head, "{length}");
            assert_eq!(frames.len(), 6 + head.len() + length);
        }
    }
}
