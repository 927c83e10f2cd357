//! Clients that mean harm, in a process of their own that runs when nobody else wants to, so that it takes from the others what the service
//! and the kernel spend on them and little else. What they spend themselves is their own machine's where they come from elsewhere: here it
//! is held to a part of one processor, where the system allows that. They come from an address of their own (127.0.0.2, on Linux), as
//! strangers would.
//!
//! The process says when everything it holds is there, goes on until its input ends, and then says what it did.

use std::{
    io::{self, BufRead, Write},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use clap::ValueEnum;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::sleep,
};

use super::{crowd, quota::Quota, world::Outcome};

/// What they do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Attack {
    /// Connect and send nothing.
    HalfOpen,
    /// Send heads of requests a byte at a time.
    SlowHeads,
    /// Send the last part of bodies a byte at a time.
    SlowBodies,
    /// Read long answers a byte at a time.
    SlowReads,
    /// Read live sockets a byte at a time.
    SlowSockets,
    /// Ask as fast as they can, and are allowed only so much.
    Requests,
    /// Connect and break off as fast as they can.
    Connections,
    /// The same, and say a byte before.
    Bytes,
    /// Resume a socket from a cursor that means nothing, leave, and come again.
    Resumes,
    /// Send small messages and pings over sockets as fast as they can.
    Messages,
    /// Send frames of a mebibyte.
    Frames,
    /// Send a message in fragments that never end.
    Fragments,
    /// Send bodies that say that they are too long.
    LongBodies,
    /// Send bodies in chunks that never end.
    EndlessBodies,
    /// Ask once and keep the connection.
    Idle,
    /// Listen.
    IdleSockets,
}

/// Requests and frames that are sent at once by those who send as many as they can.
const AT_ONCE: usize = 32;
/// Connections of those.
const FEW: usize = 8;
/// Between two bytes of a slow one.
const DRIP: Duration = Duration::from_millis(100);
/// Before one that was closed comes again.
const PAUSE: Duration = Duration::from_millis(10);
/// What a slow body says it is, and what of it is sent at once: the bound of bodies is 256 KiB.
const BODY_BYTES: usize = 250_000;
const BODY_AT_ONCE: usize = 200_000;
/// What a client takes at once.
const READ_BYTES: usize = 16 * 1024;
/// What the kernel takes for one that reads slowly.
const SLOW_BUFFER_BYTES: u32 = 4 * 1024;
const FRAME_BYTES: usize = 1024 * 1024;
/// What runs a process only where a processor is idle. On Linux by its policy (sched(7), `SCHED_IDLE`): by its priority alone it keeps a
/// processor from who wakes up for as long as its slice lasts, which is some milliseconds.
const WHEN_IDLE: [&str; 3] = if cfg!(target_os = "linux") {
    ["chrt", "--idle", "0"]
} else {
    ["nice", "-n", "19"]
};
/// Processors that they may use.
const PROCESSORS: f64 = 0.25;
const MASK_OF_ZEROS: [u8; 4] = [0; 4];
/// That a frame is masked, and that its length follows in two bytes, or in eight.
const MASKED: u8 = 0x80;
const TWO_BYTES: u8 = 126;
const EIGHT_BYTES: u8 = 127;

impl Attack {
    /// Connections at once.
    pub fn connections(self) -> usize {
        match self {
            Self::HalfOpen => 5_000,
            Self::SlowHeads | Self::SlowSockets => 1_000,
            Self::SlowBodies | Self::SlowReads => 500,
            Self::Idle | Self::IdleSockets => 10_000,
            _ => FEW,
        }
    }

    /// Whether they are there once they are connected, and stay.
    pub fn holds(self) -> bool {
        self.connections() > FEW
    }

    pub fn name(self) -> String {
        self.to_possible_value()
            .map_or(String::new(), |value| value.get_name().to_owned())
    }
}

/// What the hostile ones did.
#[derive(Debug, Default)]
struct Did {
    /// Connections that were opened.
    opened: AtomicU64,
    /// That are open now.
    held: AtomicU64,
    /// Requests, messages or frames that were sent.
    sent: AtomicU64,
}

/// The same, told by the process at its end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Told {
    pub opened: u64,
    pub sent: u64,
}

/// The process, ended with its owner.
pub struct Hostile {
    process: Child,
    /// Removed after it; an error where the system does not allow it.
    quota: Outcome<Quota>,
}

impl Hostile {
    /// Starts it, and waits until everything it holds is there.
    pub fn start(attack: Attack, port: u16) -> Outcome<Self> {
        let [when_idle, options @ ..] = WHEN_IDLE;
        let mut process = Command::new(when_idle)
            .args(options)
            .arg(std::env::current_exe()?)
            .args([
                "--attack",
                &attack.name(),
                "--attack-port",
                &port.to_string(),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let said = process.stdout.take().ok_or("it has an output")?;
        let mut hostile = Self {
            quota: Quota::when_idle(process.id(), PROCESSORS),
            process,
        };
        let mut said = io::BufReader::new(said);
        let mut line = String::new();
        said.read_line(&mut line)?;
        if line.trim() != "ready" {
            return Err(format!("{attack:?} did not come about: {line}").into());
        }
        hostile.process.stdout = Some(said.into_inner());
        Ok(hostile)
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Why it is not held to its part of a processor.
    pub fn why_free(&self) -> Option<String> {
        Some(self.quota.as_ref().err()?.to_string())
    }

    /// Ends it; what it did.
    pub fn end(mut self) -> Outcome<Told> {
        drop(self.process.stdin.take());
        let mut said = String::new();
        if let Some(mut output) = self.process.stdout.take() {
            io::Read::read_to_string(&mut output, &mut said)?;
        }
        let mut numbers = said.split_whitespace().map(str::parse);
        let mut next = || numbers.next().ok_or("it says what it did");
        Ok(Told {
            opened: next()??,
            sent: next()??,
        })
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// What the process runs.
#[expect(clippy::print_stdout, reason = "what its owner waits for")]
pub async fn run(attack: Attack, port: u16) -> Outcome<()> {
    let did = Arc::new(Did::default());
    for _ in 0..attack.connections() {
        let did = Arc::clone(&did);
        tokio::spawn(async move {
            loop {
                let ended = once(attack, port, &did).await;
                // One that sends as fast as it can does not rest, unless it cannot even connect.
                if attack.holds() || ended.is_err() {
                    sleep(PAUSE).await;
                }
            }
        });
    }
    let wanted = if attack.holds() {
        attack.connections() as u64
    } else {
        0
    };
    while did.held.load(Ordering::Relaxed) < wanted {
        sleep(PAUSE).await;
    }
    println!("ready");
    io::stdout().flush()?;
    let before = [&did.opened, &did.sent].map(|count| count.load(Ordering::Relaxed));
    tokio::task::spawn_blocking(|| io::stdin().read_line(&mut String::new())).await??;
    let after = [&did.opened, &did.sent].map(|count| count.load(Ordering::Relaxed));
    println!("{} {}", after[0] - before[0], after[1] - before[1]);
    std::process::exit(0)
}

/// A connection, counted while it is open.
struct Held<'a> {
    stream: TcpStream,
    did: &'a Did,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.did.held.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<'a> Held<'a> {
    async fn open(port: u16, did: &'a Did, receive_bytes: Option<u32>) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        if cfg!(target_os = "linux") {
            socket.bind(SocketAddr::from(([127, 0, 0, 2], 0)))?;
        }
        if let Some(bytes) = receive_bytes {
            socket.set_recv_buffer_size(bytes)?;
        }
        // So that none of its ports is kept after it.
        socket.set_zero_linger()?;
        let stream = socket.connect(SocketAddr::from(([127, 0, 0, 1], port)));
        let stream = stream.await?;
        stream.set_nodelay(true)?;
        did.opened.fetch_add(1, Ordering::Relaxed);
        did.held.fetch_add(1, Ordering::Relaxed);
        Ok(Self { stream, did })
    }

    /// As a live socket.
    async fn listen(
        port: u16,
        path: &str,
        did: &'a Did,
        receive_bytes: Option<u32>,
    ) -> io::Result<Self> {
        let mut one = Self::open(port, did, receive_bytes).await?;
        crowd::shake_hands(&mut one.stream, port, path).await?;
        Ok(one)
    }

    /// Takes what comes until the other side ends it.
    async fn drain(&mut self) -> io::Result<()> {
        take_all(&mut self.stream).await
    }

    /// Sends the same again and again until the other side ends it, and takes what comes.
    async fn pour(&mut self, bytes: &[u8], counts: usize) -> io::Result<()> {
        let did = self.did;
        let (mut reader, mut writer) = self.stream.split();
        let writing = async {
            loop {
                writer.write_all(bytes).await?;
                did.sent.fetch_add(counts as u64, Ordering::Relaxed);
            }
        };
        tokio::select! {
            ended = take_all(&mut reader) => ended,
            ended = writing => ended,
        }
    }

    /// Sends a byte now and then.
    async fn drip(&mut self, bytes: impl Iterator<Item = u8>) -> io::Result<()> {
        for byte in bytes {
            self.stream.write_all(&[byte]).await?;
            sleep(DRIP).await;
        }
        Ok(())
    }

    /// Takes a byte now and then.
    async fn sip(&mut self) -> io::Result<()> {
        loop {
            self.stream.read_u8().await?;
            sleep(DRIP).await;
        }
    }
}

async fn take_all(from: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
    let mut taken = vec![0; READ_BYTES];
    while from.read(&mut taken).await? > 0 {}
    Ok(())
}

/// Before a head says how long its body is.
const POST: &str =
    "POST /api/stock/query HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";

/// What one of them does on one connection.
async fn once(attack: Attack, port: u16, did: &Did) -> io::Result<()> {
    let open = || Held::open(port, did, None);
    match attack {
        Attack::HalfOpen => open().await?.drain().await,
        Attack::SlowHeads => {
            let head = b"GET /livez HTTP/1.1\r\nhost: x\r\nx-more: "
                .iter()
                .copied();
            let mut one = open().await?;
            one.drip(head.chain(std::iter::repeat(b'x'))).await
        }
        Attack::SlowBodies => {
            let mut one = open().await?;
            let mut request = format!("{POST}content-length: {BODY_BYTES}\r\n\r\n").into_bytes();
            request.resize(request.len() + BODY_AT_ONCE, b' ');
            one.stream.write_all(&request).await?;
            one.drip(std::iter::repeat(b' ')).await
        }
        Attack::SlowReads => {
            let mut one = Held::open(port, did, Some(SLOW_BUFFER_BYTES)).await?;
            let request = b"GET /api/products?limit=1000 HTTP/1.1\r\nhost: x\r\n\r\n";
            one.stream.write_all(request).await?;
            one.sip().await
        }
        Attack::Requests => {
            let request = "GET /api/warehouses HTTP/1.1\r\nhost: x\r\n\r\n".repeat(AT_ONCE);
            open().await?.pour(request.as_bytes(), AT_ONCE).await
        }
        Attack::Connections => open().await.map(drop),
        Attack::Bytes => open().await?.stream.write_all(b"x").await,
        Attack::LongBodies => {
            let mut one = open().await?;
            let head = format!("{POST}content-length: {}\r\n\r\n", 1_u64 << 30);
            one.stream.write_all(head.as_bytes()).await?;
            one.pour(&[b' '; READ_BYTES], 1).await
        }
        Attack::EndlessBodies => {
            let mut one = open().await?;
            let head = format!("{POST}transfer-encoding: chunked\r\n\r\n");
            one.stream.write_all(head.as_bytes()).await?;
            let chunk = [b"4000\r\n".as_slice(), &[b' '; 0x4000], b"\r\n"].concat();
            one.pour(&chunk, 1).await
        }
        Attack::Idle => {
            let mut one = open().await?;
            one.stream
                .write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
                .await?;
            one.drain().await
        }
        _ => once_live(attack, port, did).await,
    }
}

/// The same on a live socket.
async fn once_live(attack: Attack, port: u16, did: &Did) -> io::Result<()> {
    match attack {
        Attack::SlowSockets => {
            let slow = Some(SLOW_BUFFER_BYTES);
            Held::listen(port, "/ws", did, slow).await?.sip().await
        }
        Attack::Resumes => {
            let path = "/ws?since=1-00000001";
            let mut one = Held::listen(port, path, did, None).await?;
            did.sent.fetch_add(1, Ordering::Relaxed);
            one.stream.read_u8().await.map(drop)
        }
        Attack::Messages => {
            let both = [frame(0x81, b"{}"), frame(0x89, b"ping")].concat();
            let mut one = Held::listen(port, "/ws?below_min=true", did, None).await?;
            one.pour(&both.repeat(AT_ONCE), 2 * AT_ONCE).await
        }
        Attack::Frames => {
            let mut one = Held::listen(port, "/ws?below_min=true", did, None).await?;
            one.pour(&frame(0x81, &vec![b'x'; FRAME_BYTES]), 1).await
        }
        Attack::Fragments => {
            let mut one = Held::listen(port, "/ws?below_min=true", did, None).await?;
            one.stream.write_all(&frame(0x01, b"{")).await?;
            one.pour(&frame(0x00, b" ").repeat(AT_ONCE), AT_ONCE).await
        }
        Attack::IdleSockets => {
            let path = "/ws?below_min=true";
            Held::listen(port, path, did, None).await?.drain().await
        }
        _ => Ok(()),
    }
}

/// A frame as a client sends it (RFC 6455, 5.2); a mask of zeros changes nothing.
fn frame(first: u8, content: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match (u8::try_from(content.len()), u16::try_from(content.len())) {
        (Ok(length), _) if length < TWO_BYTES => frame.push(MASKED | length),
        (_, Ok(length)) => {
            frame.push(MASKED | TWO_BYTES);
            frame.extend(length.to_be_bytes());
        }
        _ => {
            frame.push(MASKED | EIGHT_BYTES);
            frame.extend((content.len() as u64).to_be_bytes());
        }
    }
    frame.extend(MASK_OF_ZEROS);
    frame.extend_from_slice(content);
    frame
}
