//! Live clients that believe what they are told.

use std::{collections::BTreeMap, time::Duration};

use futures_util::StreamExt;
use serde_json::Value;
use sqlx::Row;
use stockyard::{
    domain::commit::WantedCommit,
    tls::{self, Stream},
};
use tokio::{net::TcpSocket, time::timeout};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Error, Message, client::IntoClientRequest, protocol::CloseFrame},
};
use uuid::Uuid;

use super::{Service, World};

/// Longest a client waits for a frame: heartbeats come more often.
const FRAME_MAX: Duration = Duration::from_secs(30);

/// What a request for a WebSocket has in its head (RFC 6455, 1.3).
pub const UPGRADE: [(&str, &str); 4] = [
    ("connection", "upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

/// What stands of a key: on hand, reserved, revision.
pub type State = (i64, i64, i64);
/// By warehouse and product.
pub type Model = BTreeMap<(String, String), State>;

/// A client over a socket.
pub struct LiveClient {
    socket: WebSocketStream<Stream>,
    pub picture: Picture,
}

/// What a client knows.
#[derive(Clone, Debug, Default)]
pub struct Picture {
    pub model: Model,
    /// The last cursor, and the model as it was then.
    pub last: Option<(String, Model)>,
    pub resyncs: usize,
    pub snapshots: usize,
}

impl Picture {
    /// Takes a frame; its cursor, if it has one.
    pub fn hear(&mut self, frame: &Value) -> Option<String> {
        match frame["type"].as_str().unwrap_or_default() {
            "snapshot" => {
                if frame["part"].as_u64().unwrap_or(1) == 1 {
                    self.model.clear();
                    self.snapshots += 1;
                }
                for product in frame["data"].as_array().expect("products") {
                    for level in product["levels"].as_array().expect("levels") {
                        self.take(&level["warehouse_id"], &product["product_id"], level);
                    }
                }
            }
            "update" => {
                let data = &frame["data"];
                self.take(&data["warehouse_id"], &data["product_id"], data);
            }
            "resync" => self.resyncs += 1,
            _ => {}
        }
        let cursor = frame["cursor"].as_str()?.to_owned();
        self.last = Some((cursor.clone(), self.model.clone()));
        Some(cursor)
    }

    fn take(&mut self, warehouse: &Value, product: &Value, level: &Value) {
        let text = |value: &Value| value.as_str().expect("an id").to_owned();
        let number = |name: &str| level[name].as_i64().expect(name);
        let state = (number("on_hand"), number("reserved"), number("revision"));
        self.model.insert((text(warehouse), text(product)), state);
    }

    /// The version of the last cursor; -1 before the first.
    pub fn version(&self) -> i64 {
        let last = self.last.as_ref();
        last.map_or(-1, |(cursor, _)| version(cursor))
    }
}

pub fn version(cursor: &str) -> i64 {
    let wanted: WantedCommit = cursor.parse().expect("a cursor");
    wanted.version.number()
}

impl LiveClient {
    pub async fn connect(service: &Service, query: &str) -> Self {
        Self::try_connect(service, query)
            .await
            .expect("a connection")
    }

    pub async fn try_connect(service: &Service, query: &str) -> Result<Self, Error> {
        Self::connect_to(service, &format!("/ws?{query}")).await
    }

    /// One of any dialect.
    pub async fn connect_to(service: &Service, path: &str) -> Result<Self, Error> {
        Self::connect_with(service, path, &[]).await
    }

    /// One that sends headers of its own.
    pub async fn connect_with(
        service: &Service,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, Error> {
        let url = format!("{}{path}", service.base.replacen("http", "ws", 1));
        let mut request = url.into_client_request()?;
        for (name, value) in headers {
            let value = value.parse().expect("a header");
            request.headers_mut().insert(*name, value);
        }
        let stream = tls::connect(service.address(), service.tls()).await?;
        let (socket, _) = client_async(request, stream).await?;
        Ok(Self {
            socket,
            picture: Picture::default(),
        })
    }

    /// One whose kernel takes next to nothing while it does not read.
    pub async fn connect_narrowly(service: &Service) -> Self {
        const RECEIVE_BUFFER_BYTES: u32 = 4096;
        let address = service.address();
        let tcp = TcpSocket::new_v4().expect("a socket");
        tcp.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)
            .expect("a size");
        let numbers = address.replace("localhost", "127.0.0.1");
        let stream = tcp.connect(numbers.parse().expect("an address")).await;
        let stream = tls::over(stream.expect("a connection"), service.tls())
            .await
            .expect("a handshake");
        let (socket, _) = client_async(format!("ws://{address}/ws"), stream)
            .await
            .expect("a connection");
        Self {
            socket,
            picture: Picture::default(),
        }
    }

    /// The same client again, from where it was.
    pub async fn resume(
        service: &Service,
        query: &str,
        mut picture: Picture,
    ) -> Result<Self, Error> {
        let since = picture.last.clone();
        let cursor = since.as_ref().map_or("", |(cursor, _)| cursor);
        let mut client = Self::try_connect(service, &format!("{query}&since={cursor}")).await?;
        picture.model = since.map_or_else(Model::default, |(_, model)| model);
        client.picture = picture;
        Ok(client)
    }

    /// The next frame; `None` when the connection is over.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            let heard = timeout(FRAME_MAX, self.socket.next());
            match heard.await.expect("a frame in time") {
                Some(Ok(Message::Text(text))) => {
                    let frame: Value = serde_json::from_str(&text).expect("JSON");
                    self.picture.hear(&frame);
                    return Some(frame);
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                Some(Ok(_)) => {}
            }
        }
    }

    /// Waits for a frame of that type.
    pub async fn hear(&mut self, kind: &str) -> Value {
        loop {
            let frame = self.next().await.expect("the connection");
            if frame["type"] == kind {
                return frame;
            }
        }
    }

    /// Why the server ended the connection.
    pub async fn closed(&mut self) -> Option<u16> {
        self.closing().await.map(|frame| frame.code.into())
    }

    /// The same, with what it said.
    pub async fn closing(&mut self) -> Option<CloseFrame> {
        loop {
            let heard = timeout(FRAME_MAX, self.socket.next());
            match heard.await.expect("an end in time") {
                Some(Ok(Message::Close(frame))) => return frame,
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return None,
            }
        }
    }

    /// Listens until it has everything up to that version.
    pub async fn reach(&mut self, version: i64) {
        while self.picture.version() < version {
            self.next().await.expect("the connection");
        }
    }
}

impl World {
    /// What the database held at that version, by its ledger.
    pub async fn model_at(&self, version: i64) -> Model {
        let mut connection = self.database.connect().await;
        let rows = sqlx::query(
            "select distinct on (g.inventory_id) l.warehouse_id, l.product_id, g.on_hand_after, g.reserved_after, g.revision
            from stock_commits c join stock_ledger g on g.batch = c.batch join stock_levels l on l.inventory_id = g.inventory_id
            where c.version <= $1 order by g.inventory_id, g.revision desc",
        )
        .bind(version)
        .fetch_all(&mut connection)
        .await
        .unwrap();
        let entry = |row: &sqlx::postgres::PgRow| {
            let (warehouse, product): (Uuid, Uuid) = (row.get(0), row.get(1));
            let key = (warehouse.to_string(), product.to_string());
            (key, (row.get(2), row.get(3), row.get(4)))
        };
        rows.iter().map(entry).collect()
    }

    pub async fn newest_version(&self) -> i64 {
        let mut connection = self.database.connect().await;
        sqlx::query_scalar("select max(version) from stock_commits")
            .fetch_one(&mut connection)
            .await
            .unwrap()
    }
}
