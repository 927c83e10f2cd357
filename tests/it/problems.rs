//! Every error is a problem document, whoever makes it: a handler, the framework, or the HTTP library below it.

use std::time::Duration;

use serde_json::Value;
use stockyard::app::Parts;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use uuid::Uuid;

use crate::support::{Service, World, messages::Move};

/// Sends bytes and reads until the service closes.
async fn exchange(service: &Service, request: &[u8]) -> (u16, String, Value) {
    let address = service.base.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut answer));
    read.await.expect("it closes").unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
    let status = head.get(9..12).unwrap().parse().unwrap();
    (
        status,
        head.to_ascii_lowercase(),
        serde_json::from_str(body).unwrap_or(Value::Null),
    )
}

fn is_problem(status: u16, head: &str, body: &Value) {
    assert!(
        head.contains("content-type: application/problem+json"),
        "{head}"
    );
    assert_eq!(body["status"], status, "{body}");
    for field in ["type", "title", "detail", "error"] {
        assert!(
            body[field].as_str().is_some_and(|text| !text.is_empty()),
            "{field} in {body}"
        );
    }
}

#[tokio::test]
async fn every_error_is_a_problem_document() {
    let world = World::new().await;
    let service = world.start().await;
    let ask = |line: &str, more: &str| {
        format!("{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{more}\r\n")
    };
    let long = "x".repeat(20_000);
    let headers: Vec<String> = (0..150).map(|n| format!("x-{n}: y\r\n")).collect();
    let headers = headers.concat();
    let large = format!("content-length: 300000\r\n\r\n{}", "x".repeat(300_000));
    let cases: Vec<(u16, String)> = vec![
        (404, ask("GET /nowhere", "")),
        (
            404,
            ask(&format!("GET /api/movements/{}", Uuid::new_v4()), ""),
        ),
        (400, ask("GET /api/movements/junk", "")),
        (400, ask("GET /api/movements/%ff", "")),
        (400, ask("GET /api/warehouses/x/products/%FF%FE", "")),
        (400, ask("GET /api/warehouses/x/products/y", "")),
        (
            400,
            ask(
                &format!("GET /api/movements/{}", Uuid::new_v4()),
                "stock-min-version: soon\r\n",
            ),
        ),
        (405, ask("POST /api/movements/x", "content-length: 0\r\n")),
        (405, ask("DELETE /livez", "")),
        (405, ask("BREW /readyz", "")),
        (
            410,
            ask(
                &format!("GET /api/movements/{}", Uuid::new_v4()),
                "stock-min-version: 0-00000000\r\n",
            ),
        ),
        (406, ask("GET /livez", "accept-encoding: identity;q=0\r\n")),
        (413, ask("POST /nowhere", &large)),
        (
            503,
            ask(
                &format!("GET /api/movements/{}", Uuid::new_v4()),
                "stock-min-version: 99\r\n",
            ),
        ),
        (431, ask("GET /livez", &format!("x: {long}\r\n"))),
        (431, ask("GET /livez", &headers)),
        (400, "THIS IS NOT HTTP\r\n\r\n".to_owned()),
        (
            400,
            "GET /livez HTTP/1.1\r\nhost: x\r\ncontent-length: x\r\n\r\n".to_owned(),
        ),
    ];
    for (status, request) in cases {
        let (got, head, body) = exchange(&service, request.as_bytes()).await;
        let shown = &request[..request.len().min(120)];
        assert_eq!(got, status, "{shown}: {body}");
        is_problem(status, &head, &body);
        assert_eq!(
            status == 405,
            head.contains("\r\nallow: get,head"),
            "{head}"
        );
    }
    let (got, head, body) = exchange(&service, ask(&format!("GET /{long}"), "").as_bytes()).await;
    assert!([414, 431].contains(&got), "{got}");
    is_problem(got, &head, &body);
    service.stop().await;
    world.database.remove().await;
}

#[tokio::test]
async fn without_a_database_nothing_is_made_up() {
    let world = World::with(|config| config.database.acquire_timeout_ms = 200).await;
    let service = world
        .start_parts(Parts {
            answers: true,
            ingests: false,
        })
        .await;
    service.is_ready().await;
    world.database.remove().await;
    for path in [
        "/readyz".to_owned(),
        format!("/api/movements/{}", Uuid::new_v4()),
        format!(
            "/api/warehouses/{}/products/{}",
            Uuid::new_v4(),
            Uuid::new_v4()
        ),
        "/api/warehouses/WH-1/products/x".to_owned(),
    ] {
        let answer = service.get(&path).await;
        assert_eq!(answer.status, 503, "{path}: {}", answer.body);
        assert_eq!(answer.header("content-type"), "application/problem+json");
        let text = answer.body.to_string();
        assert!(
            !text.contains("select") && !text.contains(&world.database.name),
            "{text}"
        );
    }
    assert_eq!(service.get("/livez").await.status, 200);
    assert_eq!(service.get("/health").await.body["database"], "failing");
    service.stop().await;
}

#[tokio::test]
async fn pages_of_this_machine_may_ask_and_others_may_not() {
    let world = World::new().await;
    let service = world.start().await;
    let moved = Move::new(Uuid::new_v4(), Uuid::new_v4(), 1);
    let path = format!("/api/movements/{}", moved.movement);
    let from = async |origin: &str| {
        let answer = service.get_with(&path, &[("origin", origin)]).await;
        answer.header("access-control-allow-origin").to_owned()
    };
    assert_eq!(from("http://localhost:3000").await, "http://localhost:3000");
    assert_eq!(from("http://localhost.evil.example").await, "");
    service.stop().await;
    world.database.remove().await;
}
