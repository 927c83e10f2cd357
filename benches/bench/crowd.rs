//! Clients over sockets that count what they get and time some of it: as little as possible of it is the client's.

use std::{
    cell::RefCell,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use stockyard::{clock::Clock, domain::Timestamp};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    sync::Notify,
    task::JoinSet,
    time::timeout,
};

use super::world::Outcome;

/// One frame of so many is timed.
const TIMED: u64 = 32;
/// What is read at once, by whichever client.
const READ_BYTES: usize = 256 * 1024;
/// Longest head of an answer to a handshake.
const HEAD_BYTES_MAX: usize = 4 * 1024;
/// Longest a handshake may take: ten thousand come at once.
const HANDSHAKE_MAX: Duration = Duration::from_mins(2);
/// Connections that shake hands at once.
const HANDSHAKES: usize = 64;

/// Where a frame says when it was committed.
const TIMESTAMP: &[u8] = br#""timestamp":""#;

/// What clients share.
#[derive(Debug, Default)]
struct Heard {
    frames: AtomicU64,
    /// From the commit to here, in microseconds; only while it is measured.
    times: Mutex<Vec<u32>>,
    is_measured: AtomicBool,
    /// The last close frame's code; 0: none.
    close_code: AtomicU64,
    /// Clients that were told to stop reading do so until then.
    go_on: Notify,
}

/// Connected clients. They end when this is dropped.
pub struct Crowd {
    heard: Arc<Heard>,
    clients: JoinSet<()>,
    clock: Clock,
}

/// What a measured while brought.
pub struct Taken {
    pub frames: u64,
    /// Sorted, in microseconds.
    pub times: Vec<u32>,
    pub took: Duration,
}

impl Taken {
    pub fn p99(&self) -> Duration {
        let time = super::table::percentile(&self.times, 99);
        Duration::from_micros(time.map_or(u64::MAX >> 1, u64::from))
    }
}

impl Crowd {
    /// So many clients of a path.
    pub async fn connect(port: u16, path: &str, count: usize) -> Outcome<Self> {
        let heard = Arc::new(Heard::default());
        let mut clients = JoinSet::new();
        let mut shaking = JoinSet::new();
        let mut left = count;
        while left > 0 || !shaking.is_empty() {
            while left > 0 && shaking.len() < HANDSHAKES {
                left -= 1;
                let path = path.to_owned();
                shaking.spawn(async move { connect(port, &path, None).await });
            }
            if let Some(stream) = shaking.join_next().await {
                let stream = stream?.map_err(|error| error.to_string())?;
                clients.spawn(listen(stream, Arc::clone(&heard)));
            }
        }
        Ok(Self {
            heard,
            clients,
            clock: Clock::system(),
        })
    }

    /// One client that shakes hands, and then reads nothing before it is told to.
    pub async fn stopped(port: u16, path: &str) -> Outcome<Self> {
        let heard = Arc::new(Heard::default());
        let stream = connect(port, path, Some(4 * 1024)).await?;
        let mut clients = JoinSet::new();
        let told = Arc::clone(&heard);
        clients.spawn(async move {
            told.go_on.notified().await;
            listen(stream, told).await;
        });
        Ok(Self {
            heard,
            clients,
            clock: Clock::system(),
        })
    }

    /// Reads what is there to the end; the code the server closed with.
    pub async fn read_to_end(&mut self) -> Option<u64> {
        self.heard.go_on.notify_one();
        while self.clients.join_next().await.is_some() {}
        let code = self.heard.close_code.load(Ordering::Relaxed);
        (code > 0).then_some(code)
    }

    pub fn clients(&self) -> usize {
        self.clients.len()
    }

    pub fn frames(&self) -> u64 {
        self.heard.frames.load(Ordering::Relaxed)
    }

    /// What comes in so much time.
    pub async fn take(&self, duration: Duration) -> Taken {
        self.times().clear();
        self.heard.is_measured.store(true, Ordering::Relaxed);
        let (began, before) = (self.clock.elapsed(), self.frames());
        tokio::time::sleep(duration).await;
        let (took, frames) = (
            self.clock.elapsed().saturating_sub(began),
            self.frames() - before,
        );
        self.heard.is_measured.store(false, Ordering::Relaxed);
        let mut times = std::mem::take(&mut *self.times());
        times.sort_unstable();
        Taken {
            frames,
            times,
            took,
        }
    }

    fn times(&self) -> std::sync::MutexGuard<'_, Vec<u32>> {
        self.heard
            .times
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection after its handshake (RFC 6455, 4.1).
async fn connect(port: u16, path: &str, receive_bytes: Option<u32>) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if let Some(bytes) = receive_bytes {
        socket.set_recv_buffer_size(bytes)?;
    }
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let shaken = async {
        let mut stream = socket.connect(address).await?;
        shake_hands(&mut stream, port, path).await?;
        Ok(stream)
    };
    timeout(HANDSHAKE_MAX, shaken).await?
}

/// Asks for a WebSocket, and takes the head of the answer.
pub async fn shake_hands(stream: &mut TcpStream, port: u16, path: &str) -> io::Result<()> {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    // Byte by byte, so that no frame is taken with it.
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
        if head.len() > HEAD_BYTES_MAX {
            return Err(io::Error::other("no end of the head"));
        }
    }
    if head.starts_with(b"HTTP/1.1 101") {
        return Ok(());
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    Err(io::Error::other(head))
}

thread_local! {
    static READ: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// Reads until the connection ends.
async fn listen(mut stream: TcpStream, heard: Arc<Heard>) {
    let clock = Clock::system();
    let mut frames = Frames::default();
    while stream.readable().await.is_ok() {
        let read = READ.with_borrow_mut(|buffer| {
            let count = stream.try_read(buffer)?;
            frames.take(&buffer[..count], &heard, &clock);
            Ok(count)
        });
        match read {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if io::Error::kind(&error) == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
        if frames.is_pinged {
            frames.is_pinged = false;
            // A pong without content, masked as clients have to.
            if stream.write_all(&[0x8a, 0x80, 0, 0, 0, 0]).await.is_err() {
                return;
            }
        }
    }
}

/// Where in the stream of bytes a client is (RFC 6455, 5.2; a server masks nothing).
#[derive(Default)]
struct Frames {
    head: Vec<u8>,
    /// Bytes of the frame's content that are still to come.
    left: usize,
    /// What is kept of it.
    kept: Option<Vec<u8>>,
    opcode: u8,
    count: u64,
    is_pinged: bool,
}

impl Frames {
    fn take(&mut self, mut bytes: &[u8], heard: &Heard, clock: &Clock) {
        let mut frames = 0;
        while !bytes.is_empty() {
            if self.left == 0 {
                let (&first, rest) = bytes.split_first().unwrap_or((&0, &[]));
                self.head.push(first);
                bytes = rest;
                let Some(length) = content_length(&self.head) else {
                    continue;
                };
                self.opcode = self.head[0] & 0x0f;
                self.head.clear();
                self.left = length;
                self.count += 1;
                let is_timed = self.opcode == 1 && self.count.is_multiple_of(TIMED);
                self.kept = (is_timed || self.opcode == 8).then(Vec::new);
            }
            let here = self.left.min(bytes.len());
            if let Some(kept) = &mut self.kept {
                kept.extend_from_slice(&bytes[..here]);
            }
            bytes = &bytes[here..];
            self.left -= here;
            if self.left == 0 {
                frames += u64::from(self.opcode == 1);
                self.is_pinged |= self.opcode == 9;
                if let Some(kept) = self.kept.take() {
                    note(self.opcode, &kept, heard, clock);
                }
            }
        }
        heard.frames.fetch_add(frames, Ordering::Relaxed);
    }
}

/// The length of the content, once its head is whole.
fn content_length(head: &[u8]) -> Option<usize> {
    let number = |bytes: &[u8]| {
        bytes
            .iter()
            .fold(0_usize, |n, byte| n << 8 | usize::from(*byte))
    };
    match *head.get(1)? & 0x7f {
        126 => head.get(2..4).map(number),
        127 => head.get(2..10).map(number),
        length => Some(usize::from(length)),
    }
}

fn note(opcode: u8, content: &[u8], heard: &Heard, clock: &Clock) {
    if opcode == 8 {
        let code = content
            .get(..2)
            .map_or(0, |code| u64::from(code[0]) << 8 | u64::from(code[1]));
        heard.close_code.store(code, Ordering::Relaxed);
        return;
    }
    if !heard.is_measured.load(Ordering::Relaxed) {
        return;
    }
    let found = content
        .windows(TIMESTAMP.len())
        .position(|window| window == TIMESTAMP);
    let text = found.and_then(|place| {
        let rest = &content[place + TIMESTAMP.len()..];
        let end = rest.iter().position(|byte| *byte == b'"')?;
        str::from_utf8(&rest[..end]).ok()
    });
    if let Some(Ok(at)) = text.map(Timestamp::parse_fact_time) {
        let micros = (clock.unix_micros() - at.micros()).clamp(0, i64::from(u32::MAX));
        let mut times = heard.times.lock().unwrap_or_else(PoisonError::into_inner);
        times.push(u32::try_from(micros).unwrap_or(u32::MAX));
    }
}
