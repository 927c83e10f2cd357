//! The public keys of an identity provider: a JSON Web Key Set (RFC 7517) in a file, at an address, or where the provider's own
//! document says (`OpenID` Connect Discovery 1.0).
//!
//! They are read anew now and then, and as soon as a token names one that is not known: a provider changes its keys whenever it likes.
//! If they cannot be read, those that were known stay. Nobody waits for that whose key is known.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{Jwk, JwkSet, PublicKeyUse},
};
use serde::Deserialize;
use tokio::sync::Mutex;

use crate::{clock::Clock, config::is_loopback};

/// Longest the provider may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(3);
/// Largest document that is read, in bytes.
const DOCUMENT_BYTES_MAX: usize = 256 * 1024;
/// Most keys of a set that are looked at.
const KEYS_MAX: usize = 50;
/// How long after they were read an unknown key does not have them read again: anybody can name one.
const UNKNOWN_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// Where the keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    File(PathBuf),
    Address(String),
    /// The issuer says where.
    Discovery(String),
}

impl Source {
    /// What the setting means; empty: what the issuer says.
    pub(super) fn of(setting: &str, issuer: &str) -> Self {
        let is_address = |text: &str| text.starts_with("https://") || text.starts_with("http://");
        match setting {
            "" => Self::Discovery(issuer.to_owned()),
            address if is_address(address) => Self::Address(address.to_owned()),
            path => Self::File(path.into()),
        }
    }
}

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub(super) enum JwksError {
    #[error("{0}")]
    File(#[from] std::io::Error),
    #[error("{0}")]
    Http(#[from] reqwest::Error),
    #[error("the document is larger than {DOCUMENT_BYTES_MAX} bytes")]
    TooLarge,
    #[error("the document is not what it should be: {0}")]
    Document(#[from] serde_json::Error),
    #[error("the document is another issuer's")]
    Issuer,
    #[error("{0} is no safe way to them")]
    Unsafe(String),
}

/// A public key, and which signatures it is for.
pub(super) struct PublicKey {
    kid: Option<String>,
    /// `None`: any of its family.
    algorithm: Option<String>,
    pub(super) key: DecodingKey,
}

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PublicKey")
            .field("kid", &self.kid)
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

impl PublicKey {
    fn of(jwk: &Jwk) -> Option<Self> {
        let common = &jwk.common;
        let is_for_signatures = common
            .public_key_use
            .as_ref()
            .is_none_or(|use_| *use_ == PublicKeyUse::Signature);
        let key = DecodingKey::from_jwk(jwk).ok()?;
        // A secret that both sides know is no public key, whoever publishes it.
        let is_public = key.family() != jsonwebtoken::AlgorithmFamily::Hmac;
        (is_for_signatures && is_public).then(|| Self {
            kid: common.key_id.clone(),
            algorithm: common.key_algorithm.map(|algorithm| algorithm.to_string()),
            key,
        })
    }

    pub(super) fn is_for(&self, kid: Option<&str>, algorithm: Algorithm) -> bool {
        kid.is_none_or(|kid| self.kid.as_deref() == Some(kid))
            && self
                .algorithm
                .as_deref()
                .is_none_or(|named| named.parse() == Ok(algorithm))
            && self.key.family().algorithms().contains(&algorithm)
    }
}

#[derive(Deserialize)]
struct Discovered {
    issuer: String,
    jwks_uri: String,
}

/// The keys as they were read at some time.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) keys: Vec<PublicKey>,
    /// How often they had been read.
    pub(super) reading: u64,
}

/// The keys as they were read last.
#[derive(Debug)]
pub(super) struct Jwks {
    source: Source,
    /// `None` where nothing is fetched.
    client: Option<reqwest::Client>,
    clock: Clock,
    /// `None`: they were never read.
    known: RwLock<Option<Arc<Known>>>,
    /// The last time they could not be read.
    has_failed: AtomicBool,
    /// When they were last asked for, whatever came of it. Who holds it asks.
    asked_at: Mutex<Option<Duration>>,
}

impl Jwks {
    pub(super) fn new(source: Source, clock: Clock) -> Result<Self, reqwest::Error> {
        let client = || {
            reqwest::Client::builder()
                .timeout(ANSWER_MAX)
                // It is the provider itself that is trusted.
                .redirect(reqwest::redirect::Policy::none())
                .build()
        };
        let is_file = matches!(source, Source::File(_));
        Ok(Self {
            source,
            client: (!is_file).then(client).transpose()?,
            clock,
            known: RwLock::default(),
            has_failed: AtomicBool::new(false),
            asked_at: Mutex::default(),
        })
    }

    /// The keys, read anew if such a signature can be of none that are known; `None` if they were never read, or it can still be of
    /// none and they could not be read.
    pub(super) async fn candidates(
        self: &Arc<Self>,
        kid: Option<&str>,
        algorithm: Algorithm,
    ) -> Option<Arc<Known>> {
        let known = self.known();
        let has_one = |known: &Arc<Known>| known.keys.iter().any(|key| key.is_for(kid, algorithm));
        if known.as_ref().is_some_and(has_one) {
            return known;
        }
        self.refresh(UNKNOWN_AGAIN_AFTER).await;
        let is_trusted =
            |known: &Arc<Known>| has_one(known) || !self.has_failed.load(Ordering::Acquire);
        self.known().filter(is_trusted)
    }

    fn known(&self) -> Option<Arc<Known>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.clone()
    }

    /// How often they have been read.
    pub(super) fn reading(&self) -> u64 {
        self.known().map_or(0, |known| known.reading)
    }

    /// Reads them anew if that was not tried for so long. Who asks may go: it is read to the end.
    pub(super) async fn refresh(self: &Arc<Self>, after: Duration) {
        let this = Arc::clone(self);
        // It cannot panic, and if it did, nothing was read.
        drop(tokio::spawn(async move { this.read_anew(after).await }).await);
    }

    /// One asks, the others wait for the answer.
    async fn read_anew(&self, after: Duration) {
        let mut asked_at = self.asked_at.lock().await;
        let now = self.clock.elapsed();
        if asked_at.is_some_and(|at| now.saturating_sub(at) < after) {
            return;
        }
        *asked_at = Some(now);
        let read = self.read().await;
        self.has_failed.store(read.is_err(), Ordering::Release);
        match read {
            Ok(keys) => {
                let reading = self.reading() + 1;
                let known = Some(Arc::new(Known { keys, reading }));
                *self.known.write().unwrap_or_else(PoisonError::into_inner) = known;
            }
            Err(error) => tracing::warn!(%error, "the keys of the token issuer cannot be read"),
        }
    }

    /// None of a set are none: it is its issuer that says so.
    async fn read(&self) -> Result<Vec<PublicKey>, JwksError> {
        let document = match &self.source {
            Source::File(path) => read_file(path).await?,
            Source::Address(address) => self.get(address).await?,
            Source::Discovery(issuer) => {
                let issuer = issuer.trim_end_matches('/');
                let address = format!("{issuer}/.well-known/openid-configuration");
                let found: Discovered = serde_json::from_slice(&self.get(&address).await?)?;
                if found.issuer.trim_end_matches('/') != issuer {
                    return Err(JwksError::Issuer);
                }
                self.get(&found.jwks_uri).await?
            }
        };
        let set: JwkSet = serde_json::from_slice(&document)?;
        let keys = set.keys.iter().take(KEYS_MAX);
        Ok(keys.filter_map(PublicKey::of).collect())
    }

    async fn get(&self, address: &str) -> Result<Vec<u8>, JwksError> {
        let is_safe = address.starts_with("https://") || is_loopback(address);
        let Some(client) = self.client.as_ref().filter(|_| is_safe) else {
            return Err(JwksError::Unsafe(address.to_owned()));
        };
        let mut response = client.get(address).send().await?.error_for_status()?;
        let mut document = Vec::new();
        while let Some(part) = response.chunk().await? {
            if document.len() + part.len() > DOCUMENT_BYTES_MAX {
                return Err(JwksError::TooLarge);
            }
            document.extend_from_slice(&part);
        }
        Ok(document)
    }
}

async fn read_file(path: &Path) -> Result<Vec<u8>, JwksError> {
    let bound = u64::try_from(DOCUMENT_BYTES_MAX).unwrap_or(u64::MAX);
    if tokio::fs::metadata(path).await?.len() > bound {
        return Err(JwksError::TooLarge);
    }
    Ok(tokio::fs::read(path).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_setting_says_where_the_keys_are() {
        let issuer = "https://id.example/realm/";
        assert_eq!(Source::of("", issuer), Source::Discovery(issuer.into()));
        assert_eq!(
            Source::of("https://id.example/keys", issuer),
            Source::Address("https://id.example/keys".into())
        );
        assert_eq!(
            Source::of("/etc/stockyard/keys.json", issuer),
            Source::File("/etc/stockyard/keys.json".into())
        );
    }

    #[test]
    fn a_shared_secret_or_a_key_for_something_else_is_none_of_these() {
        let public = |jwk: &str| PublicKey::of(&serde_json::from_str(jwk).unwrap()).is_some();
        let ec = r#""kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM""#;
        assert!(public(&format!("{{{ec}}}")));
        assert!(public(&format!(r#"{{{ec},"use":"sig"}}"#)));
        assert!(!public(&format!(r#"{{{ec},"use":"enc"}}"#)));
        assert!(!public(r#"{"kty":"oct","k":"c2VjcmV0"}"#));
    }
}
