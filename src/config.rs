//! Settings: the embedded `config.default.toml`, below a file, below the environment, whose variables may name files that hold the
//! values. An unknown key stops the start.
//!
//! Invariant: no value that may hold a secret is in what is shown, in a `Debug` form or in an error. This is the only place that reads
//! the environment.

mod layers;
mod secrets;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use secrets::{hide_option, hide_password};

/// Every setting with its default and what it is for.
pub const DEFAULTS: &str = include_str!("config.default.toml");

/// Everything that can be set.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub http: Http,
    pub access: Access,
    pub database: Database,
    pub redis: Redis,
    pub cache: Cache,
    pub follow: Follow,
    pub kafka: Kafka,
    pub ingest: Ingest,
    pub live: Live,
    pub commands: Commands,
    pub reservations: Reservations,
    pub orders: Orders,
    pub transit: Transit,
    pub summary: Summary,
    pub verify: Verify,
    pub log: Log,
    pub traces: Traces,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    pub listen: Vec<SocketAddr>,
    pub admin_listen: Vec<SocketAddr>,
    pub allowed_origins: Vec<String>,
    pub connections_max: usize,
    pub connections_per_address_max: usize,
    pub connections_per_second: u32,
    pub connections_burst: u32,
    pub requests_per_second: u32,
    pub requests_burst: u32,
    pub trusted_proxies: Vec<IpAddr>,
    pub body_bytes_max: usize,
    pub request_timeout_ms: u64,
    pub header_timeout_ms: u64,
    pub lame_duck_ms: u64,
    pub drain_timeout_ms: u64,
    pub tls: HttpTls,
}

impl Http {
    /// How its addresses begin.
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_on() { "https" } else { "http" }
    }

    fn rules(&self) -> [(bool, &'static str, &'static str); 4] {
        [
            (
                !self.listen.is_empty(),
                "http.listen",
                "at least one address",
            ),
            (
                self.lame_duck_ms <= 4_000,
                "http.lame_duck_ms",
                "at most 4000: a process has 10 s to stop",
            ),
            (
                self.requests_per_second <= RATE_MAX,
                "http.requests_per_second",
                "at most 1000000, or 0 for no limit",
            ),
            (
                self.connections_per_second <= RATE_MAX,
                "http.connections_per_second",
                "at most 1000000, or 0 for no limit",
            ),
        ]
    }
}

/// How often a second something may be that is counted one by one.
const RATE_MAX: u32 = 1_000_000;

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct HttpTls {
    pub certificate: String,
    pub key: String,
    pub admin_client_ca: String,
    pub refresh_seconds: u64,
}

impl HttpTls {
    /// Whether it is HTTPS.
    pub fn is_on(&self) -> bool {
        !self.certificate.is_empty()
    }
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Access {
    pub enabled: bool,
    pub trust_network: bool,
    pub refresh_ms: u64,
    pub ticket_seconds: u64,
    pub tokens: Tokens,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Tokens {
    pub issuer: String,
    pub audience: String,
    pub algorithms: Vec<String>,
    pub keys: String,
    pub refresh_seconds: u64,
    pub leeway_seconds: u64,
    pub scope_claim: String,
    pub warehouses_claim: String,
}

impl Tokens {
    /// Signatures that are verified with a public key, by their names in RFC 7518 and RFC 8037.
    const ALGORITHMS: [&str; 9] = [
        "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA",
    ];

    /// Whether there is an issuer whose tokens are taken.
    pub fn are_taken(&self) -> bool {
        !self.issuer.is_empty()
    }

    /// Nobody on the way can change the keys.
    fn have_safe_keys(&self) -> bool {
        let address = if self.keys.is_empty() {
            &self.issuer
        } else {
            &self.keys
        };
        !address.starts_with("http://") || is_loopback(address)
    }

    fn have_known_algorithms(&self) -> bool {
        let is_known = |name: &String| Self::ALGORITHMS.contains(&name.as_str());
        !self.algorithms.is_empty() && self.algorithms.iter().all(is_known)
    }
}

#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Database {
    pub url: String,
    pub password: String,
    pub role: String,
    pub read_connections_max: u32,
    pub scan_connections_max: u32,
    pub acquire_timeout_ms: u64,
    pub read_timeout_ms: u64,
    pub write_timeout_ms: u64,
    pub ledger_partition_bytes_max: i64,
}

#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Redis {
    pub url: String,
    pub password: String,
    pub ca_certificate: String,
    pub prefix: String,
    pub timeout_ms: u64,
    pub retry_after_ms: u64,
    pub enabled: bool,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Cache {
    pub redis_ttl_seconds: u64,
    pub memory_ttl_seconds: u64,
    pub memory_bytes_max: u64,
    pub entry_bytes_max: usize,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Follow {
    pub poll_interval_ms: u64,
    pub commits_max: i64,
}

#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Kafka {
    pub bootstrap_servers: String,
    pub topic: String,
    pub dead_letter_topic: String,
    pub group: String,
    pub partitions: i32,
    pub replication: i32,
    pub message_bytes_max: usize,
    /// By their names with dots, however they were written.
    #[serde(deserialize_with = "layers::flat")]
    pub options: BTreeMap<String, String>,
}

impl Kafka {
    /// The topic for messages that cannot be applied.
    pub fn dead_letter_topic(&self) -> String {
        if self.dead_letter_topic.is_empty() {
            format!("{}.dlq", self.topic)
        } else {
            self.dead_letter_topic.clone()
        }
    }
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Ingest {
    pub lanes: usize,
    pub max_batch_events: usize,
    pub max_batch_bytes: usize,
    pub max_batch_wait_ms: u64,
    pub max_batch_rest_ms: u64,
    pub max_message_bytes: usize,
    pub offset_commit_interval_ms: u64,
    pub position_check_interval_ms: u64,
    pub stalled_after_ms: u64,
    pub on_gap: OnGap,
    pub retry_min_ms: u64,
    pub retry_max_ms: u64,
}

impl Ingest {
    fn rules(&self) -> [(bool, &'static str, &'static str); 5] {
        [
            ((1..=4).contains(&self.lanes), "ingest.lanes", "from 1 to 4"),
            (
                (1..=100_000).contains(&self.max_batch_events),
                "ingest.max_batch_events",
                "from 1 to 100000",
            ),
            (
                self.max_batch_wait_ms <= 10_000,
                "ingest.max_batch_wait_ms",
                "at most 10000",
            ),
            (
                self.max_batch_rest_ms <= 1_000,
                "ingest.max_batch_rest_ms",
                "at most 1000",
            ),
            (
                (1..=self.retry_max_ms).contains(&self.retry_min_ms),
                "ingest.retry_min_ms",
                "from 1 to ingest.retry_max_ms",
            ),
        ]
    }
}

/// What to do about facts that Kafka no longer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnGap {
    Stop,
    Continue,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Live {
    pub default_product: String,
    pub connections_max: usize,
    pub ring_items_max: usize,
    pub snapshot_bytes_max: u64,
    pub snapshot_part_bytes_max: usize,
    pub heartbeat_ms: u64,
    pub ping_ms: u64,
    pub pong_timeout_ms: u64,
    pub stalled_after_ms: u64,
    pub close_timeout_ms: u64,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Commands {
    pub wait_max_ms: u64,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Reservations {
    pub ttl_default_seconds: u32,
    pub ttl_max_seconds: u32,
    pub sweep_interval_ms: u64,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Orders {
    pub default_warehouse: String,
    pub ttl_seconds: u32,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Transit {
    pub late_after_hours: u64,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Summary {
    pub refresh_seconds: u64,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Verify {
    pub interval_seconds: u64,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    pub filter: String,
    pub format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Traces {
    pub endpoint: String,
    pub sample_ratio: f64,
    pub service_name: String,
    pub attributes: String,
    pub headers: String,
}

impl Traces {
    /// Whether there is somebody to send them to.
    pub fn are_on(&self) -> bool {
        !self.endpoint.is_empty()
    }

    /// What the process is known by beside its name.
    pub fn attributes(&self) -> Vec<(String, String)> {
        pairs(&self.attributes).unwrap_or_default()
    }

    /// What the receiver is told with each request.
    pub fn headers(&self) -> Vec<(String, String)> {
        pairs(&self.headers).unwrap_or_default()
    }

    fn rules(&self) -> [(bool, &'static str, &'static str); 4] {
        let schemes = ["http://", "https://"];
        let is_address = |address: &str| schemes.iter().any(|scheme| address.starts_with(scheme));
        [
            (
                !self.are_on() || is_address(&self.endpoint),
                "traces.endpoint",
                "an address with http:// or https://",
            ),
            (
                (0.0..=1.0).contains(&self.sample_ratio),
                "traces.sample_ratio",
                "from 0 to 1",
            ),
            (
                pairs(&self.attributes).is_some(),
                "traces.attributes",
                "name=value, separated by commas",
            ),
            (
                pairs(&self.headers).is_some(),
                "traces.headers",
                "name=value, separated by commas",
            ),
        ]
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The layers do not make a configuration: a wrong type, or a key that does not exist. Without the value, which may be a secret.
    #[error("configuration: {0}")]
    Layers(String),
    /// The file of settings.
    #[error("configuration: {path}: {why}")]
    File { path: PathBuf, why: String },
    /// A variable that names a file with a value.
    #[error("configuration: {variable} names {path}: {why}")]
    ValueFile {
        variable: String,
        path: PathBuf,
        why: String,
    },
    #[error("configuration: {0} is given twice, by itself and by {0}_FILE")]
    Twice(String),
    /// A value is of the right type but makes no sense.
    #[error("configuration: {key} must be {must}")]
    Value {
        key: &'static str,
        must: &'static str,
    },
    #[error("configuration cannot be shown: {0}")]
    Shown(#[from] toml::ser::Error),
}

impl Config {
    /// The configuration of this process: defaults, then the file if one is given, then the environment.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        // A variable that is no text is none of ours.
        let text = |(name, value): (OsString, OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self::from_layers(file, std::env::vars_os().filter_map(text).collect())
    }

    /// The same from an environment that is given.
    pub fn from_layers(
        file: Option<&Path>,
        environment: std::collections::HashMap<String, String>,
    ) -> Result<Self, ConfigError> {
        let config: Self = layers::read(file, environment)?;
        config.validate()?;
        Ok(config)
    }

    /// The effective settings as TOML, with passwords hidden.
    pub fn shown(&self) -> Result<String, ConfigError> {
        Ok(toml::to_string(&Self {
            database: self.database.without_secrets(),
            redis: self.redis.without_secrets(),
            kafka: self.kafka.without_secrets(),
            traces: self.traces.without_secrets(),
            ..self.clone()
        })?)
    }

    /// What has to be at least 1.
    fn at_least_one(&self) -> [(bool, &'static str); 11] {
        [
            (self.http.requests_burst > 0, "http.requests_burst"),
            (self.http.connections_burst > 0, "http.connections_burst"),
            (self.http.connections_max > 0, "http.connections_max"),
            (
                self.database.read_connections_max > 0,
                "database.read_connections_max",
            ),
            (
                self.database.scan_connections_max > 0,
                "database.scan_connections_max",
            ),
            (self.redis.retry_after_ms > 0, "redis.retry_after_ms"),
            (self.ingest.max_batch_bytes > 0, "ingest.max_batch_bytes"),
            (self.summary.refresh_seconds > 0, "summary.refresh_seconds"),
            (self.commands.wait_max_ms > 0, "commands.wait_max_ms"),
            (
                self.http.tls.refresh_seconds > 0,
                "http.tls.refresh_seconds",
            ),
            (
                self.reservations.ttl_default_seconds > 0,
                "reservations.ttl_default_seconds",
            ),
        ]
    }

    /// That strangers are kept out, of a process that listens.
    pub fn keeps_strangers_out(&self) -> Result<(), ConfigError> {
        let mut addresses = self.http.listen.iter().chain(&self.http.admin_listen);
        let are_local = addresses.all(|address| address.ip().is_loopback());
        if self.access.enabled || self.access.trust_network || are_local {
            return Ok(());
        }
        Err(ConfigError::Value {
            key: "http.listen and http.admin_listen",
            must: "on loopback where nobody has to prove who they are: set access.enabled, or access.trust_network if whoever \
                reaches the service may do everything",
        })
    }

    fn tls_rules(&self) -> [(bool, &'static str, &'static str); 4] {
        let (tls, redis) = (&self.http.tls, &self.redis);
        [
            (
                tls.is_on() != tls.key.is_empty(),
                "http.tls.key",
                "given where http.tls.certificate is, and only there",
            ),
            (
                tls.admin_client_ca.is_empty() || tls.is_on(),
                "http.tls.admin_client_ca",
                "empty where http.tls.certificate is",
            ),
            (
                tls.admin_client_ca.is_empty() || !self.http.admin_listen.is_empty(),
                "http.tls.admin_client_ca",
                "empty where http.admin_listen is: only there clients are asked for certificates",
            ),
            (
                redis.ca_certificate.is_empty() || redis.is_encrypted(),
                "redis.ca_certificate",
                "empty unless redis.url begins with rediss://",
            ),
        ]
    }

    fn access_rules(&self) -> [(bool, &'static str, &'static str); 7] {
        let (access, tokens) = (&self.access, &self.access.tokens);
        [
            (
                (10..=86_400).contains(&tokens.refresh_seconds),
                "access.tokens.refresh_seconds",
                "from 10 to 86400",
            ),
            (
                tokens.leeway_seconds <= 300,
                "access.tokens.leeway_seconds",
                "at most 300",
            ),
            (
                tokens.have_safe_keys(),
                "access.tokens.keys",
                "a file, or an address with https (as the issuer's is, where it is to say): whoever changes keys on the way lets \
                anybody in",
            ),
            (
                (100..=60_000).contains(&access.refresh_ms),
                "access.refresh_ms",
                "from 100 to 60000",
            ),
            (
                (1..=3_600).contains(&access.ticket_seconds),
                "access.ticket_seconds",
                "from 1 to 3600",
            ),
            (
                !tokens.are_taken() || !tokens.audience.is_empty(),
                "access.tokens.audience",
                "given where access.tokens.issuer is: a token for another service is none for this one",
            ),
            (
                tokens.have_known_algorithms(),
                "access.tokens.algorithms",
                "some of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 and EdDSA",
            ),
        ]
    }

    fn validate(&self) -> Result<(), ConfigError> {
        let at_least_one = self.at_least_one();
        let at_least_one = at_least_one.map(|(holds, key)| (holds, key, "at least 1"));
        let rules = [
            (
                self.database.write_timeout_ms >= 1_000,
                "database.write_timeout_ms",
                "at least 1000",
            ),
            (
                (1..=900).contains(&self.follow.poll_interval_ms),
                "follow.poll_interval_ms",
                "from 1 to 900: the cache trusts a look that began within the last second",
            ),
            (
                (1..=900).contains(&self.follow.commits_max),
                "follow.commits_max",
                "from 1 to 900: who is further behind would not notice that the tables were made anew",
            ),
            (
                !self.kafka.topic.is_empty(),
                "kafka.topic",
                "a topic's name",
            ),
            (
                (1..=100_000).contains(&self.transit.late_after_hours),
                "transit.late_after_hours",
                "from 1 to 100000",
            ),
        ];
        let rules = rules.into_iter().chain(self.http.rules());
        let rules = rules.chain(self.access_rules());
        let rules = rules.chain(self.ingest.rules());
        let rules = rules.chain(self.traces.rules());
        let rules = rules.chain(self.tls_rules());
        let mut rules = rules.chain(at_least_one);
        match rules.find(|(holds, _, _)| !holds) {
            Some((_, key, must)) => Err(ConfigError::Value { key, must }),
            None => Ok(()),
        }
    }
}

impl Database {
    fn without_secrets(&self) -> Self {
        Self {
            url: hide_password(&self.url),
            password: hide(&self.password),
            ..self.clone()
        }
    }
}

impl Redis {
    /// Whether it is reached by TLS.
    pub fn is_encrypted(&self) -> bool {
        self.url.starts_with("rediss://") || self.url.starts_with("valkeys://")
    }

    fn without_secrets(&self) -> Self {
        Self {
            url: hide_password(&self.url),
            password: hide(&self.password),
            ..self.clone()
        }
    }
}

impl Kafka {
    fn without_secrets(&self) -> Self {
        let mut shown = self.clone();
        for (option, value) in &mut shown.options {
            if hide_option(option) {
                *value = hide(value);
            }
        }
        shown
    }
}

impl Traces {
    fn without_secrets(&self) -> Self {
        Self {
            endpoint: hide_password(&self.endpoint),
            headers: hide(&self.headers),
            ..self.clone()
        }
    }
}

/// What `config` shows is all there is to see of what may hold a secret.
macro_rules! debug_without_secrets {
    ($($section:ident),*) => {$(
        impl fmt::Debug for $section {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let shown = toml::to_string(&self.without_secrets());
                f.debug_tuple(stringify!($section)).field(&shown.unwrap_or_default()).finish()
            }
        }
    )*};
}
debug_without_secrets!(Database, Redis, Kafka, Traces);

/// A secret as it is shown: whether there is one.
fn hide(secret: &str) -> String {
    if secret.is_empty() { "" } else { "***" }.to_owned()
}

/// Whether an address is one of this machine.
pub fn is_loopback(address: &str) -> bool {
    let host = address.strip_prefix("http://").unwrap_or_default();
    let host = host.split('/').next().unwrap_or_default();
    let is_of = |name: &str| {
        let port = host
            .strip_prefix(name)
            .map(|rest| rest.strip_prefix(':').unwrap_or(rest));
        port.is_some_and(|port| port.bytes().all(|b| b.is_ascii_digit()))
    };
    ["127.0.0.1", "localhost", "[::1]"].into_iter().any(is_of)
}

/// A duration setting, in milliseconds.
pub const fn millis(setting: u64) -> Duration {
    Duration::from_millis(setting)
}

/// Names and values as variables of OpenTelemetry write them: separated by commas, with %XX for what could not stand there. `None`
/// where that is not what it is.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let pairs = text
        .split(',')
        .map(str::trim)
        .filter(|pair| !pair.is_empty());
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=')?;
        Some((name.trim().to_owned(), unescaped(value.trim())?))
    };
    pairs.map(pair).collect()
}

fn unescaped(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let (code, rest) = part.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(code, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let environment = environment
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        Config::from_layers(None, environment)
    }

    #[test]
    fn the_defaults_are_a_configuration() {
        let config = load(&[]).unwrap();
        assert_eq!(config.http.listen, ["127.0.0.1:8000".parse().unwrap()]);
        assert_eq!(config.kafka.dead_letter_topic(), "movements.dlq");
    }

    #[test]
    fn the_environment_goes_before_the_defaults() {
        let config = load(&[
            ("DATABASE_URL", "postgres://elsewhere/db"),
            ("KAFKA_TOPIC_NAME", "moves"),
            ("STOCKYARD__KAFKA__TOPIC", "mine"),
            ("STOCKYARD__INGEST__LANES", "1"),
            ("STOCKYARD__HTTP__LISTEN", "127.0.0.1:1,127.0.0.1:2"),
        ])
        .unwrap();
        assert_eq!(config.database.url, "postgres://elsewhere/db");
        assert_eq!(
            (config.kafka.topic.as_str(), config.ingest.lanes),
            ("mine", 1)
        );
        assert_eq!(config.http.listen.len(), 2);
    }

    #[test]
    fn an_unknown_key_is_named() {
        let error = load(&[("STOCKYARD__INGEST__LANESS", "1")])
            .unwrap_err()
            .to_string();
        assert!(error.contains("laness"), "{error}");
    }

    #[test]
    fn nonsense_is_named_with_its_key() {
        for (variable, key) in [
            ("STOCKYARD__INGEST__LANES", "ingest.lanes"),
            (
                "STOCKYARD__FOLLOW__POLL_INTERVAL_MS",
                "follow.poll_interval_ms",
            ),
        ] {
            let error = load(&[(variable, "1000")]).unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
        }
    }

    #[test]
    fn strangers_are_kept_out_or_somebody_says_that_the_network_does() {
        let keeps = |more: &[(&str, &str)]| {
            let listen = ("STOCKYARD__HTTP__LISTEN", "127.0.0.1:1,0.0.0.0:8000");
            load(&[&[listen], more].concat())
                .unwrap()
                .keeps_strangers_out()
        };
        let error = keeps(&[]).unwrap_err().to_string();
        assert!(error.contains("access.enabled"), "{error}");
        keeps(&[("STOCKYARD__ACCESS__ENABLED", "true")]).unwrap();
        keeps(&[("STOCKYARD__ACCESS__TRUST_NETWORK", "true")]).unwrap();
        load(&[]).unwrap().keeps_strangers_out().unwrap();
        let admin = ("STOCKYARD__HTTP__ADMIN_LISTEN", "0.0.0.0:8001");
        let config = load(&[admin]).unwrap();
        config.keeps_strangers_out().unwrap_err();
    }

    #[test]
    fn keys_of_an_issuer_come_by_a_safe_way() {
        let loads = |issuer, keys| {
            let audience = ("STOCKYARD__ACCESS__TOKENS__AUDIENCE", "stockyard");
            let issuer = ("STOCKYARD__ACCESS__TOKENS__ISSUER", issuer);
            load(&[audience, issuer, ("STOCKYARD__ACCESS__TOKENS__KEYS", keys)]).is_ok()
        };
        assert!(loads("https://id.example", "") && !loads("http://id.example", ""));
        assert!(loads("http://id.example", "https://id.example/keys"));
        assert!(loads("http://id.example", "/etc/keys.json"));
        assert!(!loads("https://id.example", "http://id.example/keys"));
        assert!(loads("http://127.0.0.1:8080", ""));
        assert!(!loads("http://127.0.0.1.id.example", ""));
        assert!(!loads("http://localhost:x@id.example", ""));
    }

    #[test]
    fn traces_are_configured_as_elsewhere() {
        assert!(!load(&[]).unwrap().traces.are_on());
        let config = load(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318"),
            (
                "OTEL_EXPORTER_OTLP_HEADERS",
                "authorization=Basic%20hunter2, x=a=b",
            ),
            ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
            (
                "OTEL_RESOURCE_ATTRIBUTES",
                "deployment.environment.name=prod",
            ),
        ]);
        let config = config.unwrap();
        assert!(config.traces.are_on());
        assert!((config.traces.sample_ratio - 0.25).abs() < f64::EPSILON);
        let pair = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let headers = [("authorization", "Basic hunter2"), ("x", "a=b")];
        assert_eq!(config.traces.headers(), headers.map(pair));
        let attributes = [("deployment.environment.name", "prod")];
        assert_eq!(config.traces.attributes(), attributes.map(pair));
        assert!(!config.shown().unwrap().contains("hunter2"));
        for (variable, nonsense) in [
            ("STOCKYARD__TRACES__ENDPOINT", "127.0.0.1:4318"),
            ("STOCKYARD__TRACES__SAMPLE_RATIO", "1.5"),
            ("STOCKYARD__TRACES__HEADERS", "authorization"),
            ("STOCKYARD__TRACES__ATTRIBUTES", "a=%zz"),
        ] {
            let error = load(&[(variable, nonsense)]).unwrap_err().to_string();
            assert!(error.contains("traces."), "{error}");
        }
    }
}
