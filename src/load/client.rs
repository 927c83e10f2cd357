//! Requests over one connection that stays open, as one user has it; every answer is counted, timed and judged on its way.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request,
    client::conn::http1::{self, SendRequest},
    header::{self, HeaderValue},
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::time::timeout;
use uuid::Uuid;

use super::{
    figures::Came, hosts::Hosts, invariants::Invariant, operations::Operation, oracle::Effect,
    run::Run,
};

/// Longest a request may take; the service itself gives up before.
const REQUEST_MAX: Duration = Duration::from_secs(15);
/// Largest answer that is read.
const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How long a command is asked again while nobody says what became of it.
const UNDECIDED_MAX: Duration = Duration::from_mins(2);
/// Between two tries.
const AGAIN_AFTER_MIN: Duration = Duration::from_millis(50);
const AGAIN_AFTER_MAX: Duration = Duration::from_secs(1);

/// What the service said.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub status: u16,
    pub body: Bytes,
    /// The commit as of which it is true.
    pub version: Option<String>,
    /// When it was sent, and when it was whole.
    pub sent: Duration,
    pub at: Duration,
}

impl Answer {
    /// `Null` where it is no JSON.
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// A request.
#[derive(Clone, Debug)]
pub(super) struct Call<'c> {
    pub operation: Operation,
    pub path: String,
    pub body: Option<Value>,
    /// Answers that are no failure although they are no success.
    pub expects: &'c [u16],
    /// Answer as of this commit or later.
    pub min_version: Option<&'c str>,
}

impl Call<'_> {
    pub(super) fn new(operation: Operation, path: impl Into<String>) -> Self {
        Self {
            operation,
            path: path.into(),
            body: None,
            expects: &[],
            min_version: None,
        }
    }
}

impl<'c> Call<'c> {
    #[must_use]
    pub(super) fn body(mut self, body: Value) -> Self {
        self.body = Some(body);
        self
    }

    #[must_use]
    pub(super) fn expects(mut self, statuses: &'c [u16]) -> Self {
        self.expects = statuses;
        self
    }
}

/// What became of a command.
#[derive(Clone, Debug)]
pub(super) enum Decided {
    Done(Answer),
    Refused(Answer),
    /// Nobody knows.
    Lost,
}

/// A user's connection. Where it is lost the next host is tried.
pub(super) struct Client {
    run: Arc<Run>,
    connection: Option<SendRequest<Full<Bytes>>>,
    host: usize,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum NoAnswer {
    #[error("cannot connect: {0}")]
    Connect(#[from] std::io::Error),
    #[error("connection lost")]
    Lost(#[from] hyper::Error),
    #[error("no answer within {REQUEST_MAX:?}")]
    Late,
    #[error("answer cannot be read: {0}")]
    Body(String),
    #[error("the request cannot be written: {0}")]
    Request(#[from] hyper::http::Error),
}

impl NoAnswer {
    /// Without what differs from one time to the next.
    fn kind(&self) -> String {
        match self {
            Self::Connect(error) => format!("cannot connect: {}", error.kind()),
            Self::Lost(_) => "connection lost".to_owned(),
            other => other.to_string(),
        }
    }
}

impl Client {
    /// The first host is that of the user's number.
    pub(super) fn new(run: &Arc<Run>, number: usize) -> Self {
        Self {
            run: Arc::clone(run),
            connection: None,
            host: number,
        }
    }

    /// Asks once, and counts the answer; `None` where there was none or it is a failure.
    pub(super) async fn ask(&mut self, due: Duration, call: Call<'_>) -> Option<Answer> {
        let (answer, came) = self.try_once(due, &call, None).await;
        answer.filter(|_| !matches!(came, Came::Failed(_)))
    }

    /// Asks under a key until it is known whether it was done, and keeps the account of it.
    pub(super) async fn decide(
        &mut self,
        due: Duration,
        call: Call<'_>,
        effects: &[Effect],
        is_repeated: bool,
    ) -> Decided {
        let run = Arc::clone(&self.run);
        let key = Uuid::new_v4().to_string();
        let asked = run.clock.elapsed();
        run.oracle.asks(effects, asked);
        let decided = self.until_decided(due, &call, &key).await;
        let now = run.clock.elapsed();
        match &decided {
            Decided::Done(_) => run.oracle.done(effects, now),
            Decided::Refused(answer) => {
                if answer.status == 409 && call.expects.contains(&409) {
                    run.oracle.sold_out(effects, asked);
                }
                run.oracle.refused(effects, now);
            }
            Decided::Lost => run.oracle.lost(effects),
        }
        if is_repeated && let Decided::Done(first) | Decided::Refused(first) = &decided {
            let now = run.clock.elapsed();
            let again = self.until_decided(now, &call, &key).await;
            if let Decided::Done(second) | Decided::Refused(second) = again {
                let is_same = (first.status, &first.body) == (second.status, &second.body);
                run.oracle
                    .findings
                    .look(Invariant::CommandsOnce, is_same, || {
                        format!(
                            "{}, sent twice under {key}: {} {}, and then {} {}",
                            call.path,
                            first.status,
                            text(&first.body),
                            second.status,
                            text(&second.body)
                        )
                    });
            }
        }
        decided
    }

    async fn until_decided(&mut self, mut due: Duration, call: &Call<'_>, key: &str) -> Decided {
        let run = Arc::clone(&self.run);
        let (began, mut rest) = (run.clock.elapsed(), AGAIN_AFTER_MIN);
        loop {
            let (answer, came) = self.try_once(due, call, Some(key)).await;
            match (answer, came) {
                (Some(answer), Came::Fine) => return Decided::Done(answer),
                // The twin of a lost connection may still be under way.
                (Some(answer), _) if is_in_progress(&answer) => {}
                (Some(answer), _) if (400..500).contains(&answer.status) => {
                    return Decided::Refused(answer);
                }
                _ => {}
            }
            if run.clock.elapsed().saturating_sub(began) > UNDECIDED_MAX {
                return Decided::Lost;
            }
            tokio::time::sleep(rest).await;
            rest = (rest * 2).min(AGAIN_AFTER_MAX);
            due = run.clock.elapsed();
        }
    }

    async fn try_once(
        &mut self,
        due: Duration,
        call: &Call<'_>,
        key: Option<&str>,
    ) -> (Option<Answer>, Came) {
        let run = Arc::clone(&self.run);
        run.figures
            .sent_late(run.clock.elapsed().saturating_sub(due));
        let answer = match timeout(REQUEST_MAX, self.send(call, key)).await {
            Ok(answer) => answer,
            Err(_) => Err(NoAnswer::Late),
        };
        let took = run.clock.elapsed().saturating_sub(due);
        let (answer, came) = match answer {
            Ok(answer) => {
                let came = judge(&answer, call);
                (Some(answer), came)
            }
            Err(error) => {
                self.connection = None;
                self.host += 1;
                (None, Came::Failed(error.kind()))
            }
        };
        let bytes = answer.as_ref().map_or(0, |answer| answer.body.len());
        if let Came::Failed(reason) = &came {
            let operation = call.operation;
            tracing::debug!("{} {}: {reason}", operation.method(), call.path);
        }
        run.figures.add(call.operation, took, &came, bytes);
        (answer, came)
    }

    async fn send(&mut self, call: &Call<'_>, key: Option<&str>) -> Result<Answer, NoAnswer> {
        let method = call.operation.method();
        let method = Method::from_bytes(method.as_bytes()).unwrap_or(Method::GET);
        let run = Arc::clone(&self.run);
        let authority = run.hosts.name(self.host);
        let mut request = Request::builder()
            .method(method)
            .uri(&call.path)
            .header(header::HOST, authority);
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        if let Some(version) = call.min_version {
            request = request.header("stock-min-version", version);
        }
        let body = match &call.body {
            Some(body) => {
                request = request.header(
                    header::CONTENT_TYPE,
                    HeaderValue::from_static("application/json"),
                );
                Bytes::from(body.to_string())
            }
            None => Bytes::new(),
        };
        let request = request.body(Full::new(body))?;
        let connection = match &mut self.connection {
            Some(connection) if !connection.is_closed() => connection,
            place => place.insert(connect(&run.hosts, self.host).await?),
        };
        connection.ready().await?;
        let sent = run.clock.elapsed();
        let response = connection.send_request(request).await?;
        let status = response.status().as_u16();
        let version = response.headers().get("stock-version");
        let version = version.and_then(|version| Some(version.to_str().ok()?.to_owned()));
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
        let body = body.collect().await;
        let body = body.map_err(|error| NoAnswer::Body(error.to_string()))?;
        Ok(Answer {
            status,
            body: body.to_bytes(),
            version,
            sent,
            at: run.clock.elapsed(),
        })
    }
}

async fn connect(hosts: &Hosts, number: usize) -> Result<SendRequest<Full<Bytes>>, NoAnswer> {
    let stream = hosts.connect(number).await?;
    let (connection, driving) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        // Whoever sends is told of it.
        drop(driving.await);
    });
    Ok(connection)
}

fn judge(answer: &Answer, call: &Call<'_>) -> Came {
    if answer.is_success() {
        Came::Fine
    } else if call.expects.contains(&answer.status) && !is_in_progress(answer) {
        Came::Refused
    } else {
        let title = answer.json()["title"].as_str().unwrap_or("").to_owned();
        Came::Failed(format!("HTTP {} {title}", answer.status).trim().to_owned())
    }
}

/// The same key is being answered elsewhere.
fn is_in_progress(answer: &Answer) -> bool {
    answer.status == 409 && answer.json()["in_progress"] == true
}

fn text(body: &[u8]) -> String {
    const SHOWN: usize = 200;
    String::from_utf8_lossy(&body[..body.len().min(SHOWN)]).into_owned()
}
