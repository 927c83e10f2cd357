//! Clients that send nothing, too slowly, too much or without end are dropped, and the others are answered meanwhile. What that does to
//! the others' times is measured by `make bench ARGS=hostile`.

use std::{process::Command, time::Duration};

use futures_util::future::{join, join_all};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::support::{
    Service, World, eventually,
    process::{Process, serve},
};

/// Longest a hostile client is waited for.
const DROPPED_MAX: Duration = Duration::from_mins(1);
/// Longest a connection may wait to be taken and answered.
const ANSWERED_MAX: Duration = Duration::from_mins(1);
/// Between two writes of one that does not end.
const PAUSE: Duration = Duration::from_millis(5);
const LIVEZ: &str = "GET /livez HTTP/1.1\r\nhost: x\r\n\r\n";
const SOCKET: &str = "GET /ws HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
    sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// Sends something, and then something again and again, until it is dropped; what it was answered.
async fn until_dropped(service: &Service, first: &[u8], again: &[u8]) -> String {
    let address = service.address();
    let stream = TcpStream::connect(address).await.expect("a connection");
    let (mut reader, mut writer) = stream.into_split();
    let mut answer = Vec::new();
    let reading = async {
        let mut some = [0; 4096];
        while let Ok(count @ 1..) = reader.read(&mut some).await {
            answer.extend_from_slice(&some[..count]);
        }
    };
    let writing = async {
        drop(writer.write_all(first).await);
        // Who is dropped may still have an answer to read.
        while !again.is_empty() && writer.write_all(again).await.is_ok() {
            sleep(PAUSE).await;
        }
        std::future::pending::<()>().await;
    };
    let dropped = async {
        tokio::select! {
            () = reading => {}
            () = writing => {}
        }
    };
    let dropped = timeout(DROPPED_MAX, dropped).await;
    dropped.unwrap_or_else(|_| panic!("kept: {}", String::from_utf8_lossy(first)));
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_slow_or_sends_too_much_is_dropped_and_others_are_answered() {
    const HEAD: &str =
        "POST /api/stock/query HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
    let world = World::with(|config| {
        config.http.header_timeout_ms = 1_000;
        config.http.request_timeout_ms = 1_000;
    })
    .await;
    let service = world.start().await;
    let masked = |first: u8, length: &[u8]| [&[first], length, &[0; 4]].concat();
    let with = |head: &str, more: &[u8]| [head.as_bytes(), more].concat();
    let megabyte = masked(0x81, &[0xff, 0, 0, 0, 0, 0, 0x10, 0, 0]);
    let fragment = [masked(0x00, &[0x80 | 64]), vec![b' '; 64]].concat();
    let chunk = [b"1000\r\n".as_slice(), &[b' '; 4096], b"\r\n"].concat();
    let length = |bytes: u64| format!("{HEAD}content-length: {bytes}\r\n\r\n");
    let small = masked(0x81, &[0x80]).repeat(20);
    let cases: [(&str, Vec<u8>, Vec<u8>); 9] = [
        // Nothing, a request and then nothing, a head that does not end.
        ("", vec![], vec![]),
        ("HTTP/1.1 200", LIVEZ.into(), vec![]),
        ("", b"GET /livez HTTP/1.1\r\nx: ".into(), b"x".into()),
        // A body that takes long, is too long, does not end.
        ("HTTP/1.1 503", length(1_000_000 / 4).into(), b" ".into()),
        ("HTTP/1.1 413", length(1 << 30).into(), vec![b' '; 4096]),
        (
            "HTTP/1.1 413",
            with(HEAD, b"transfer-encoding: chunked\r\n\r\n"),
            chunk,
        ),
        // A frame that is too large, a message that does not end.
        ("HTTP/1.1 101", with(SOCKET, &megabyte), vec![b' '; 4096]),
        (
            "HTTP/1.1 101",
            with(SOCKET, &masked(0x01, &[0x80])),
            fragment,
        ),
        // Messages that are small, and do not end.
        ("HTTP/1.1 101", SOCKET.into(), small),
    ];
    let hostile = cases.iter().map(async |(expected, first, again)| {
        let answer = until_dropped(&service, first, again).await;
        let begins: String = answer.chars().take(100).collect();
        let first = String::from_utf8_lossy(first);
        assert!(answer.starts_with(expected), "{first}: {begins}");
    });
    let others = async {
        for _ in 0..50 {
            let path = format!("/api/movements/{}", uuid::Uuid::new_v4());
            assert_eq!(service.get(&path).await.status, 404);
            assert_eq!(service.get("/readyz").await.status, 200);
        }
    };
    join(join_all(hostile), others).await;
    eventually("nothing of them is left", async || {
        let live = service.count(r#"warehouse_live_connections{kind="socket"}"#);
        (live.await == 0).then_some(())
    })
    .await;
    let closed = service.count(r#"warehouse_live_closes_total{code="1008"}"#);
    assert_eq!(closed.await, 1, "who says too much is told so");
    service.stop().await;
    world.database.remove().await;
}

/// A service in a shell that was told how many files it may open.
async fn limited(world: &World, limit: &str) -> (Process, String) {
    let settings = std::env::temp_dir().join(crate::support::unique("files.toml"));
    let (service, address) = serve(&world.config, &settings);
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("ulimit {limit} && exec \"$0\" \"$@\"")])
        .arg(service.get_program())
        .args(service.get_args())
        .env_clear();
    let process = Process::start(&mut command);
    let address = address.to_string();
    eventually("it is ready", async || {
        let mut one = TcpStream::connect(&address).await.ok()?;
        ask(&mut one, "/readyz").await?.then_some(())
    })
    .await;
    drop(std::fs::remove_file(settings));
    (process, address)
}

/// Whether a request is answered with success; `None` if the connection is closed instead.
async fn ask(connection: &mut TcpStream, path: &str) -> Option<bool> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
    connection.write_all(request.as_bytes()).await.ok()?;
    let mut answer = vec![0; 4096];
    let mut filled = 0;
    while !answer[..filled].windows(4).any(|some| some == b"\r\n\r\n") {
        match connection.read(&mut answer[filled..]).await.ok()? {
            0 => return None,
            count => filled += count,
        }
    }
    Some(answer.starts_with(b"HTTP/1.1 200"))
}

/// Connections that were answered, and are kept.
async fn kept(address: &str, count: usize) -> Vec<TcpStream> {
    let mut kept = Vec::with_capacity(count);
    for _ in 0..count {
        let mut one = TcpStream::connect(address).await.expect("a connection");
        let answered = timeout(ANSWERED_MAX, ask(&mut one, "/livez")).await;
        let number = kept.len();
        assert_eq!(answered, Ok(Some(true)), "connection {number}");
        kept.push(one);
    }
    kept
}

#[tokio::test]
async fn files_that_may_be_open_are_raised_to_what_connections_need() {
    let world = World::with(|config| config.http.header_timeout_ms = 600_000).await;
    let (mut process, address) = limited(&world, "-Sn 400").await;
    let kept = kept(&address, 600).await;
    assert_eq!(kept.len(), 600, "more than the limit it was started with");
    process.kill();
    world.database.remove().await;
}

#[tokio::test]
async fn connections_leave_files_for_the_servers() {
    let world = World::with(|config| config.http.header_timeout_ms = 600_000).await;
    // 256 of them are not for connections.
    let (mut process, address) = limited(&world, "-n 400").await;
    let mut kept = kept(&address, 100).await;
    let mut more = Vec::new();
    for _ in 0..400 {
        more.push(TcpStream::connect(&address).await.expect("a connection"));
    }
    // At once: each has a connection to the database.
    let asked = kept.iter_mut().map(async |connection| {
        let path = format!(
            "/api/warehouses/{}/products/{}",
            uuid::Uuid::new_v4(),
            uuid::Uuid::new_v4()
        );
        ask(connection, &path).await
    });
    for answered in join_all(asked).await {
        assert_eq!(answered, Some(true));
    }
    process.kill();
    world.database.remove().await;
}
