//! The tier that processes share. A fault is a miss: Redis being away, slow, flushed or restored from an old dump changes
//! how fast an answer comes.

use std::{
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use prometheus::IntGauge;
use redis::{
    AsyncCommands, Client, IntoConnectionInfo, RedisError, SetExpiry, SetOptions, TlsCertificates,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use tokio::{
    runtime::Handle,
    sync::Semaphore,
    time::{Instant, sleep},
};

use super::{CacheKey, Entry};
use crate::{
    domain::{CommitPoint, Tag, Timestamp, Version},
    metrics::Metrics,
    tls::{self, TlsError},
};

/// Where Redis is and how patient to be with it.
#[derive(Clone)]
pub struct RedisSettings {
    pub url: String,
    /// In place of the one in the URL; empty: that one.
    pub password: String,
    /// Who signed the certificate it has to show, a PEM file; empty: whom this system trusts.
    pub ca_certificate: String,
    pub prefix: String,
    pub timeout: Duration,
    /// Longest time between two looks whether one that is left aside answers again.
    pub retry_after: Duration,
    pub ttl: Duration,
}

/// Without address and password.
impl std::fmt::Debug for RedisSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisSettings")
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

/// Redis settings that are of no use.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    #[error(transparent)]
    Client(#[from] RedisError),
    #[error(transparent)]
    Certificate(#[from] TlsError),
}

/// Most writes under way at once; what comes beyond is not cached in Redis.
const WRITES_MAX: usize = 256;
const PROBE_TTL_MS: u64 = 1_000;
/// Of the stored form: another form of entry gets another number, and the old ones are never read.
const FORM: u8 = 2;
/// Form, version, tag, until when it is true, whether there is a body.
const HEADER_BYTES: usize = 1 + 8 + 4 + 8 + 1;
/// Stands for an entry that is true until a commit says otherwise: no time of a database.
const FOR_EVER: i64 = i64::MAX;

#[derive(Clone, Debug)]
pub(super) struct RedisTier(Arc<Inner>);

struct Inner {
    client: Client,
    config: ConnectionManagerConfig,
    /// Connects by itself, and again when it is told that a connection is gone.
    connection: Mutex<ConnectionManager>,
    prefix: String,
    ttl: Duration,
    timeout: Duration,
    retry_after: Duration,
    /// When it was used again, and how long before it had been looked at in vain.
    came_back: Mutex<Option<(Instant, Duration)>>,
    /// Nobody asks it but who looks whether it answers again.
    is_aside: AtomicBool,
    writes: Arc<Semaphore>,
    metrics: Metrics,
    /// Whether it is used.
    up: IntGauge,
    /// Where what nobody waits for is done, whoever asks for it: the connection lives there.
    runtime: Handle,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisTier")
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

/// Redis did not answer, or is left aside because it did not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Away;

impl RedisTier {
    pub(super) fn new(settings: &RedisSettings, metrics: Metrics) -> Result<Self, CacheError> {
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(settings.timeout))
            .set_response_timeout(Some(settings.timeout))
            .set_number_of_retries(0);
        // As far as anybody knows.
        let up = metrics.server_up.with_label_values(&["redis"]);
        up.set(1);
        let client = client(settings)?;
        let connection = ConnectionManager::new_lazy_with_config(client.clone(), config.clone())?;
        Ok(Self(Arc::new(Inner {
            client,
            config,
            connection: Mutex::new(connection),
            prefix: settings.prefix.clone(),
            ttl: settings.ttl,
            timeout: settings.timeout,
            retry_after: settings.retry_after,
            came_back: Mutex::new(None),
            is_aside: AtomicBool::new(false),
            writes: Arc::new(Semaphore::new(WRITES_MAX)),
            runtime: Handle::current(),
            up,
            metrics,
        })))
    }

    pub(super) async fn get(&self, key: CacheKey) -> Result<Option<Entry>, Away> {
        let inner = &self.0;
        inner.in_use()?;
        let mut connection = inner.connection();
        let stored: Result<Option<Vec<u8>>, RedisError> = connection.get(inner.key(key)).await;
        match stored {
            Ok(bytes) => Ok(bytes.and_then(decode)),
            Err(error) => Err(leave_aside(inner, &error)),
        }
    }

    /// Stores the entry without making anybody wait for it.
    pub(super) fn set_later(&self, key: CacheKey, entry: &Entry) {
        let inner = Arc::clone(&self.0);
        if inner.in_use().is_err() {
            return;
        }
        let Ok(permit) = Arc::clone(&inner.writes).try_acquire_owned() else {
            return;
        };
        let bytes = encode(entry);
        self.0.runtime.spawn(async move {
            let mut connection = inner.connection();
            let ttl_ms = u64::try_from(inner.ttl.as_millis()).unwrap_or(u64::MAX);
            let options = SetOptions::default().with_expiration(SetExpiry::PX(ttl_ms));
            let stored: Result<(), RedisError> =
                connection.set_options(inner.key(key), bytes, options).await;
            if let Err(error) = stored {
                inner
                    .metrics
                    .cache_lookups_total
                    .with_label_values(&["redis", "error"])
                    .inc();
                leave_aside(&inner, &error);
            }
            drop(permit);
        });
    }

    /// Drops entries without making anybody wait for it.
    pub(super) fn unlink_later(&self, keys: &[CacheKey]) {
        let inner = Arc::clone(&self.0);
        let is_away = inner.in_use().is_err();
        let Some(permit) = Arc::clone(&inner.writes).try_acquire_owned().ok() else {
            return;
        };
        if is_away || keys.is_empty() {
            return;
        }
        let keys: Vec<_> = keys.iter().map(|key| inner.key(*key)).collect();
        self.0.runtime.spawn(async move {
            let mut connection = inner.connection();
            let dropped: Result<(), RedisError> = connection.unlink(keys).await;
            if let Err(error) = dropped {
                leave_aside(&inner, &error);
            }
            drop(permit);
        });
    }

    /// Whether it answers, and is used.
    pub(super) async fn answers(&self) -> bool {
        let mut connection = self.0.connection();
        let answer: Result<String, RedisError> =
            redis::cmd("PING").query_async(&mut connection).await;
        let answer = answer.map_err(|error| leave_aside(&self.0, &error));
        answer.and_then(|_| self.0.in_use()).is_ok()
    }
}

impl Inner {
    fn key(&self, key: CacheKey) -> String {
        match key {
            CacheKey::Stock(key) => {
                format!(
                    "{}s:{}:{}",
                    self.prefix,
                    key.warehouse.uuid().simple(),
                    key.product.uuid().simple()
                )
            }
            CacheKey::Movement(id) => format!("{}m:{}", self.prefix, id.uuid().simple()),
        }
    }

    fn connection(&self) -> ConnectionManager {
        // Replaced as a whole: there is no half of it.
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn in_use(&self) -> Result<(), Away> {
        if self.is_aside.load(Ordering::Relaxed) {
            Err(Away)
        } else {
            Ok(())
        }
    }

    /// Whether it takes what it is given: one that only answers (full, or it cannot save) is of no use.
    async fn takes(&self) -> Result<(), RedisError> {
        let mut connection = self.connection();
        let options = SetOptions::default().with_expiration(SetExpiry::PX(PROBE_TTL_MS));
        let key = format!("{}probe", self.prefix);
        connection.set_options(key, "", options).await
    }

    /// Looks until it takes things again. No request waits for that.
    async fn come_back(&self, first: Duration) {
        let mut pause = first;
        loop {
            sleep(pause).await;
            if self.takes().await.is_ok() {
                break;
            }
            // A connection keeps a refusal for good, and one that is dead may never say so.
            self.connect_anew();
            pause = (2 * pause).min(self.retry_after);
        }
        *self.last_return() = Some((Instant::now(), pause));
        self.up.set(1);
        self.is_aside.store(false, Ordering::Relaxed);
    }

    /// How long after it was left aside it is looked at for the first time. What was asked before has failed by then, too; and one that
    /// is left aside again and again is looked at less and less often.
    fn first_pause(&self) -> (Duration, bool) {
        let longer = |(at, pause): (Instant, Duration)| {
            (at.elapsed() < self.retry_after).then_some(2 * pause)
        };
        let again = self.last_return().and_then(longer);
        let pause = again.unwrap_or(self.timeout).min(self.retry_after);
        (pause, again.is_some())
    }

    fn last_return(&self) -> MutexGuard<'_, Option<(Instant, Duration)>> {
        self.came_back
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn connect_anew(&self) {
        let anew =
            ConnectionManager::new_lazy_with_config(self.client.clone(), self.config.clone());
        if let Ok(anew) = anew {
            *self
                .connection
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = anew;
        }
    }
}

fn leave_aside(inner: &Arc<Inner>, error: &RedisError) -> Away {
    // One line and one who looks per fault, not one per request that met it.
    if !inner.is_aside.swap(true, Ordering::Relaxed) {
        inner.up.set(0);
        let (pause, is_again) = inner.first_pause();
        if is_again {
            tracing::debug!(%error, "redis is left aside again");
        } else {
            tracing::warn!(%error, "redis is left aside for a moment");
        }
        // One that answers nothing may be dead without anybody having been told.
        if error.is_timeout() {
            inner.connect_anew();
        }
        let left = Arc::clone(inner);
        inner
            .runtime
            .spawn(async move { left.come_back(pause).await });
    }
    Away
}

fn client(settings: &RedisSettings) -> Result<Client, CacheError> {
    let mut to = settings.url.as_str().into_connection_info()?;
    if !settings.password.is_empty() {
        let login = to.redis_settings().clone();
        to = to.set_redis_settings(login.set_password(&settings.password));
    }
    if settings.ca_certificate.is_empty() {
        return Ok(Client::open(to)?);
    }
    let trusted = tls::trusted_pem(Path::new(&settings.ca_certificate))?;
    let certificates = TlsCertificates {
        client_tls: None,
        root_cert: Some(trusted),
    };
    Ok(Client::build_with_tls(to, certificates)?)
}

fn encode(entry: &Entry) -> Vec<u8> {
    let body = entry.body.as_deref().unwrap_or_default();
    let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
    bytes.push(FORM);
    bytes.extend_from_slice(&entry.as_of.version.number().to_be_bytes());
    bytes.extend_from_slice(&entry.as_of.tag.0.to_be_bytes());
    let until = entry.valid_until.map_or(FOR_EVER, Timestamp::micros);
    bytes.extend_from_slice(&until.to_be_bytes());
    bytes.push(u8::from(entry.body.is_some()));
    bytes.extend_from_slice(body);
    bytes
}

/// `None` for bytes that this program did not write: somebody else's key, or another form.
fn decode(bytes: Vec<u8>) -> Option<Entry> {
    let (header, _) = bytes.split_first_chunk::<HEADER_BYTES>()?;
    let (form, rest) = header.split_first()?;
    let (version, rest) = rest.split_first_chunk::<8>()?;
    let (tag, rest) = rest.split_first_chunk::<4>()?;
    let (until, has_body) = rest.split_first_chunk::<8>()?;
    if *form != FORM {
        return None;
    }
    let as_of = CommitPoint {
        version: Version::new(i64::from_be_bytes(*version))?,
        tag: Tag(u32::from_be_bytes(*tag)),
    };
    let until = i64::from_be_bytes(*until);
    let valid_until = (until != FOR_EVER).then_some(Timestamp::from_micros(until));
    let body = match has_body {
        [1] => Some(Bytes::from(bytes).slice(HEADER_BYTES..)),
        [0] if bytes.len() == HEADER_BYTES => None,
        _ => return None,
    };
    Some(Entry {
        as_of,
        valid_until,
        body,
        level: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_comes_back_as_it_was() {
        let as_of = CommitPoint {
            version: Version::new(812).unwrap(),
            tag: Tag(0x5f3a_9c01),
        };
        for body in [None, Some(Bytes::new()), Some(Bytes::from_static(b"{}"))] {
            for valid_until in [None, Some(Timestamp::from_micros(1_764_192_000_000_000))] {
                let entry = Entry {
                    as_of,
                    valid_until,
                    body: body.clone(),
                    level: None,
                };
                assert_eq!(decode(encode(&entry)), Some(entry));
            }
        }
    }

    #[test]
    fn foreign_bytes_are_no_entry() {
        let good = encode(&Entry {
            as_of: CommitPoint {
                version: Version::ZERO,
                tag: Tag(1),
            },
            valid_until: None,
            body: None,
            level: None,
        });
        let mut other_form = good.clone();
        other_form[0] = FORM + 1;
        let mut negative = good.clone();
        negative[1] = 0xff;
        for bytes in [
            vec![],
            vec![FORM],
            b"hello world, this is long enough".to_vec(),
            other_form,
            negative,
        ] {
            assert_eq!(decode(bytes), None);
        }
    }
}
