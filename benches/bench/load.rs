//! Requests over connections that stay open, one after another on each: as little as possible of it is the client's.

use std::{sync::Arc, time::Duration};

use stockyard::clock::Clock;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
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

/// Asks for the paths in turn, over that many connections, for that long; each connection begins elsewhere among them.
pub async fn ask(
    port: u16,
    paths: Vec<String>,
    connections: usize,
    duration: Duration,
) -> Outcome<Answered> {
    let requests = paths.iter().map(|path| request(path)).collect();
    send(port, requests, connections, duration).await
}

/// The same with requests that are written already.
pub async fn send(
    port: u16,
    requests: Vec<Vec<u8>>,
    connections: usize,
    duration: Duration,
) -> Outcome<Answered> {
    let requests = Arc::new(requests);
    let mut streams = Vec::with_capacity(connections);
    for _ in 0..connections {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        streams.push(stream);
    }
    let clock = Clock::system();
    let mut askers = JoinSet::new();
    for (number, mut stream) in streams.into_iter().enumerate() {
        let (requests, clock) = (Arc::clone(&requests), clock.clone());
        askers.spawn(async move {
            let mut times = Vec::new();
            let mut answer = vec![0; ANSWER_BYTES_MAX];
            let mut next = number * requests.len() / connections;
            loop {
                let began = clock.elapsed();
                if began >= duration {
                    return Ok(times);
                }
                stream.write_all(&requests[next % requests.len()]).await?;
                next += 1;
                read_answer(&mut stream, &mut answer).await?;
                times.push(micros(clock.elapsed().saturating_sub(began)));
            }
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

fn request(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").into_bytes()
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
