//! Requests over connections, one after another on each: as little as possible of it is the client's.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use stockyard::clock::Clock;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
};

use super::{
    table::{length, percentile},
    world::Outcome,
};

/// Largest answer, head and body.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

/// What came of a run.
pub struct Answered {
    pub per_second: f64,
    pub p50: Duration,
    pub p99: Duration,
}

impl Answered {
    /// `times` in microseconds.
    pub fn of(mut times: Vec<u32>, took: Duration) -> Self {
        times.sort_unstable();
        let at = |percent| Duration::from_micros(percentile(&times, percent).map_or(0, u64::from));
        Self {
            per_second: length(times.len()) / took.as_secs_f64(),
            p50: at(50),
            p99: at(99),
        }
    }
}

/// How requests are sent.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    pub connections: usize,
    pub duration: Duration,
    pub pace: Pace,
    /// Whether each request comes over a connection of its own, which is timed with it.
    pub is_anew: bool,
    /// Whether each connection comes from an address of its own, on Linux one of 127.0.1.0/24.
    pub is_from_many: bool,
}

/// When requests are sent.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// The next when the one before is answered.
    Closed,
    /// So many a second over all connections, at set times. Each is timed from when it was due: what waits behind a slow answer is slow
    /// as well.
    Open(f64),
}

impl Manner {
    /// As fast as they are answered.
    pub fn closed(connections: usize, duration: Duration) -> Self {
        Self {
            connections,
            duration,
            pace: Pace::Closed,
            is_anew: false,
            is_from_many: false,
        }
    }

    /// So many a second.
    pub fn open(connections: usize, duration: Duration, per_second: f64) -> Self {
        Self {
            pace: Pace::Open(per_second),
            ..Self::closed(connections, duration)
        }
    }

    /// When a connection's next request is due, and `None` if it is over then.
    fn due(&self, number: usize, sent: u32, now: Duration) -> Option<Duration> {
        let due = match self.pace {
            Pace::Closed => now,
            Pace::Open(per_second) => {
                let gap = length(self.connections) / per_second;
                let phase = length(number) / per_second;
                Duration::from_secs_f64(phase + f64::from(sent) * gap)
            }
        };
        (due < self.duration).then_some(due)
    }

    async fn connect(&self, port: u16, number: usize) -> std::io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        if self.is_from_many {
            let last = u8::try_from(number % 250).unwrap_or(0) + 1;
            socket.bind(SocketAddr::from(([127, 0, 1, last], 0)))?;
        }
        let stream = socket.connect(SocketAddr::from(([127, 0, 0, 1], port)));
        let stream = stream.await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// Asks for the paths in turn, over that many connections, for that long; each connection begins elsewhere among them.
pub async fn ask(
    port: u16,
    paths: Vec<String>,
    connections: usize,
    duration: Duration,
) -> Outcome<Answered> {
    let requests = paths.iter().map(|path| get(path)).collect();
    send(port, requests, Manner::closed(connections, duration)).await
}

/// The same with requests that are written already, in another manner.
pub async fn send(port: u16, requests: Vec<Vec<u8>>, manner: Manner) -> Outcome<Answered> {
    let requests = Arc::new(requests);
    let mut streams = Vec::with_capacity(manner.connections);
    for number in 0..manner.connections {
        streams.push(manner.connect(port, number).await?);
    }
    let clock = Clock::system();
    let mut askers = JoinSet::new();
    for (number, mut stream) in streams.into_iter().enumerate() {
        let (requests, clock) = (Arc::clone(&requests), clock.clone());
        askers.spawn(async move {
            let mut times = Vec::new();
            let mut answer = vec![0; ANSWER_BYTES_MAX];
            let first = number * requests.len() / manner.connections;
            let asked = requests.iter().cycle().skip(first);
            for (sent, request) in (0..).zip(asked) {
                let now = clock.elapsed();
                let Some(due) = manner.due(number, sent, now) else {
                    break;
                };
                if due > now {
                    tokio::time::sleep(due.saturating_sub(now)).await;
                }
                if manner.is_anew {
                    stream = manner.connect(port, number).await?;
                }
                stream.write_all(request).await?;
                read_answer(&mut stream, &mut answer).await?;
                times.push(micros(clock.elapsed().saturating_sub(due)));
            }
            Ok(times)
        });
    }
    let mut all = Vec::new();
    while let Some(ended) = askers.join_next().await {
        let times: std::io::Result<Vec<u32>> = ended?;
        all.extend(times?);
    }
    Ok(Answered::of(all, clock.elapsed()))
}

pub fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}

pub fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").into_bytes()
}

/// A request with a JSON body.
pub fn post(path: &str, body: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

async fn read_answer(stream: &mut TcpStream, answer: &mut [u8]) -> std::io::Result<()> {
    let mut filled = 0;
    loop {
        let read = stream.read(&mut answer[filled..]).await?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        filled += read;
        if let Some(whole) = whole_length(&answer[..filled])?
            && filled >= whole
        {
            return Ok(());
        }
    }
}

/// How long the answer is, once its head is there. One that is no success means that something else is measured.
fn whole_length(answer: &[u8]) -> std::io::Result<Option<usize>> {
    const LENGTH: &[u8] = b"content-length: ";
    let Some(head) = answer.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    if !answer.starts_with(b"HTTP/1.1 20") {
        let text = String::from_utf8_lossy(&answer[..head]).into_owned();
        return Err(std::io::Error::other(text));
    }
    let start = answer[..head]
        .windows(LENGTH.len())
        .position(|window| window.eq_ignore_ascii_case(LENGTH));
    let digits = start.map(|start| &answer[start + LENGTH.len()..head]);
    let length = digits.map_or(0, |digits| {
        digits
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0'))
    });
    Ok(Some(head + 4 + length))
}
