//! Live clients: each holds a socket, a picture of what it was told, and comes back with its cursor when it is cut off.

use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{Error, Message, protocol::WebSocketConfig},
};
use tokio_util::sync::CancellationToken;

use super::{
    figures::Came, invariants::Invariant, operations::Operation, oracle::Key, picture::Picture,
    run::Run,
};
use crate::{live::retry, tls::Stream};

/// Longest a handshake may take.
const HANDSHAKE_MAX: Duration = Duration::from_secs(30);
/// Clients that shake hands at once.
const HANDSHAKES: usize = 64;
/// Before a client that was cut off comes back.
const AGAIN_AFTER: Duration = Duration::from_millis(200);
/// A client hears something every 5 s; twice that, because both ends may share a busy machine.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// What is read at once: many clients, small frames.
const READ_BUFFER_BYTES: usize = 4 * 1024;
/// One client of so many tells the account what it saw.
const TELLS: usize = 16;
/// Longest a client may take to be told everything that was committed.
const CURRENT_MAX: Duration = Duration::from_mins(1);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Connected clients, by what they asked to see. They end when told to, or with this.
pub(super) struct Sockets {
    run: Arc<Run>,
    clients: Vec<Client>,
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

struct Client {
    name: String,
    /// The product it sees.
    product: Arc<str>,
    picture: Arc<Mutex<Picture>>,
}

/// The product that a client asks to see.
#[derive(Clone, Debug)]
pub(super) struct Watched {
    /// By its sku or id.
    product: Arc<str>,
    /// It is that of the marked messages.
    is_marked: bool,
}

impl Watched {
    pub(super) fn product(name: &Arc<str>) -> Self {
        Self {
            product: Arc::clone(name),
            is_marked: false,
        }
    }

    pub(super) fn marked(name: &Arc<str>) -> Self {
        Self {
            is_marked: true,
            ..Self::product(name)
        }
    }
}

fn locked(picture: &Mutex<Picture>) -> MutexGuard<'_, Picture> {
    picture.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sockets {
    pub(super) fn new(run: &Arc<Run>) -> Self {
        Self {
            run: Arc::clone(run),
            clients: Vec::new(),
            tasks: JoinSet::new(),
            stop: CancellationToken::new(),
        }
    }

    pub(super) fn count(&self) -> usize {
        self.clients.len()
    }

    /// So many more clients, which look at these in turn; all of them are connected then, or were refused.
    pub(super) async fn connect(&mut self, count: usize, watched: &[Watched]) {
        let mut shaking = JoinSet::new();
        for number in self.clients.len()..self.clients.len() + count {
            let watched = &watched[number % watched.len().max(1)];
            let picture = Arc::<Mutex<Picture>>::default();
            self.clients.push(Client {
                name: format!("socket {number}"),
                product: Arc::clone(&watched.product),
                picture: Arc::clone(&picture),
            });
            let listener = Listener {
                run: Arc::clone(&self.run),
                number,
                host: number,
                query: format!("product={}", watched.product),
                is_marked: watched.is_marked,
                picture,
            };
            if shaking.len() >= HANDSHAKES {
                self.shaken(shaking.join_next().await);
            }
            shaking.spawn(async move {
                let socket = listener.open().await;
                (listener, socket)
            });
        }
        while !shaking.is_empty() {
            self.shaken(shaking.join_next().await);
        }
    }

    fn shaken(
        &mut self,
        shaken: Option<Result<(Listener, Option<Socket>), tokio::task::JoinError>>,
    ) {
        if let Some(Ok((listener, socket))) = shaken {
            let stop = self.stop.clone();
            self.tasks.spawn(async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = listener.listen(socket) => {}
                }
            });
        }
    }

    /// Waits until everybody was told everything up to that version; says who was not.
    pub(super) async fn are_current(&self, version: i64) {
        let began = self.run.clock.elapsed();
        let is_behind = |client: &&Client| locked(&client.picture).version() < version;
        while self.clients.iter().any(|client| is_behind(&client)) {
            if self.run.clock.elapsed().saturating_sub(began) > CURRENT_MAX {
                break;
            }
            sleep(LOOK_EVERY).await;
        }
        for client in &self.clients {
            let reached = locked(&client.picture).version();
            self.run
                .oracle
                .findings
                .look(Invariant::SocketIsDatabase, reached >= version, || {
                    format!(
                        "{}: version {reached} and not {version} within {CURRENT_MAX:?}",
                        client.name
                    )
                });
        }
    }

    /// Compares every picture with what the database holds. Where the service says that it conflated, frames may jump.
    pub(super) fn compare(&self, found: &[(Key, super::oracle::Told)], has_conflated: bool) {
        let findings = &self.run.oracle.findings;
        let mut by_product: HashMap<&str, Vec<&(Key, super::oracle::Told)>> = HashMap::new();
        for entry in found {
            by_product.entry(&entry.0.product).or_default().push(entry);
        }
        for client in &self.clients {
            let picture = locked(&client.picture);
            if !has_conflated && !self.run.is_disturbed {
                for jump in picture.jumps() {
                    findings.broken(Invariant::NoGap, jump.clone());
                }
            }
            for (key, told) in by_product.get(&*client.product).into_iter().flatten() {
                let held = picture.levels().get(key).map(|held| held.told);
                // A key that never changed is in no snapshot.
                let is_same = held == Some(*told) || held.is_none() && told.revision == 0;
                findings.look(Invariant::SocketIsDatabase, is_same, || {
                    let held = held.map_or("nothing".to_owned(), |held| held.to_string());
                    format!("{}: {key}: {held}, and not {told}", client.name)
                });
            }
            picture.alerts_are_right(findings, &client.name);
        }
    }

    /// Ends all of them.
    pub(super) async fn close(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

type Socket = WebSocketStream<Stream>;

/// Why a connection is over, and when to come back if that was said.
struct Over {
    what: String,
    retry_after: Option<Duration>,
}

impl Over {
    fn because(what: &dyn ToString) -> Self {
        Self {
            what: what.to_string(),
            retry_after: None,
        }
    }
}

struct Listener {
    run: Arc<Run>,
    number: usize,
    /// The next one to go to.
    host: usize,
    query: String,
    is_marked: bool,
    picture: Arc<Mutex<Picture>>,
}

impl Listener {
    fn name(&self) -> String {
        format!("socket {}", self.number)
    }

    /// A connection, from the last cursor if there is one; counted as a request.
    async fn open(&self) -> Option<Socket> {
        let began = self.run.clock.elapsed();
        let opened = timeout(HANDSHAKE_MAX, self.shake_hands()).await;
        let took = self.run.clock.elapsed().saturating_sub(began);
        let (socket, came) = match opened {
            Ok(Ok(socket)) => (Some(socket), Came::Fine),
            Ok(Err(error)) => (None, Came::Failed(error.to_string())),
            Err(_) => {
                let why = format!("no handshake within {HANDSHAKE_MAX:?}");
                (None, Came::Failed(why))
            }
        };
        self.run.figures.add(Operation::OpenSocket, took, &came, 0);
        socket
    }

    async fn shake_hands(&self) -> Result<Socket, Error> {
        let authority = self.run.hosts.name(self.host);
        let stream = self.run.hosts.connect(self.host).await?;
        let since = {
            let mut picture = locked(&self.picture);
            picture.begin_again();
            picture.cursor().map_or(Cow::Borrowed(""), |cursor| {
                format!("&since={cursor}").into()
            })
        };
        let url = format!("ws://{authority}/ws?{}{since}", self.query);
        let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER_BYTES);
        let (socket, _) = client_async_with_config(url, stream, Some(config)).await?;
        Ok(socket)
    }

    async fn listen(mut self, mut socket: Option<Socket>) {
        loop {
            let mut again_after = AGAIN_AFTER;
            if let Some(socket) = &mut socket {
                // A run that is over closes nothing itself before it has compared.
                let over = self.hear(socket).await;
                match over.retry_after {
                    // As a service does that stops in order: another one has to know what this client has seen.
                    Some(told) => again_after = told,
                    None => self.run.figures.broke(Operation::OpenSocket, &over.what),
                }
            }
            sleep(again_after).await;
            // Another one may still be there.
            self.host += 1;
            socket = self.open().await;
        }
    }

    /// Takes frames until the connection is over; why it is.
    async fn hear(&self, socket: &mut Socket) -> Over {
        let name = self.name();
        let findings = &self.run.oracle.findings;
        loop {
            let Ok(heard) = timeout(SILENCE_MAX, socket.next()).await else {
                if !self.run.is_disturbed {
                    let why = format!("{name}: nothing heard for {SILENCE_MAX:?}");
                    findings.broken(Invariant::NoGap, why);
                }
                return Over::because(&"nothing heard");
            };
            match heard {
                Some(Ok(Message::Text(text))) => {
                    let mut picture = locked(&self.picture);
                    let resyncs = picture.resyncs();
                    let brought = picture.hear(&text, findings, &name);
                    if picture.resyncs() > resyncs {
                        self.run
                            .figures
                            .broke(Operation::OpenSocket, "told to begin anew");
                    }
                    drop(picture);
                    let after = brought.committed_at.map(|at| {
                        let micros = self.run.clock.unix_micros() - at.micros();
                        Duration::from_micros(u64::try_from(micros).unwrap_or(0))
                    });
                    self.run.figures.add_frame(after);
                    if let Some((key, told)) = brought.key {
                        let now = self.run.clock.elapsed();
                        if self.number.is_multiple_of(TELLS) {
                            self.run.oracle.saw(&key, told.revision, now);
                        }
                        if self.is_marked {
                            self.run.markers.told(&self.run, told, now);
                        }
                    }
                }
                Some(Ok(Message::Close(frame))) => {
                    let code = frame.as_ref().map_or(0, |frame| u16::from(frame.code));
                    return Over {
                        what: format!("closed with {code}"),
                        retry_after: frame.and_then(|frame| retry::told(&frame.reason)),
                    };
                }
                Some(Ok(Message::Ping(_))) => {
                    // The library has its pong ready; this sends it.
                    if let Err(error) = socket.flush().await {
                        return Over::because(&error);
                    }
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Over::because(&error),
                None => return Over::because(&"connection lost"),
            }
        }
    }
}
