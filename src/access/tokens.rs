//! JSON Web Tokens (RFC 7519) of one issuer, for one audience, signed in one of the ways that the settings name (RFC 8725).

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

use jsonwebtoken::{Algorithm, Validation, decode, decode_header, errors::ErrorKind};
use moka::sync::Cache;
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    hash,
    jwks::{Jwks, PublicKey, Source},
};
use crate::{
    clock::{Beat, Clock},
    domain::{
        Timestamp, WarehouseId,
        access::{Principal, Reach, Scope},
    },
    store::access::Hash,
};

/// Longest token, in bytes.
const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// Longest name of whom a token is for, in characters.
const SUBJECT_CHARS_MAX: usize = 255;
/// What a name begins with that a token gives: no key has such a name.
const NAME_PREFIX: &str = "token:";
/// Tokens that were verified, and how long they are not verified again, unless the issuer's keys were read anew.
const VERIFIED_MAX: u64 = 10_000;
const VERIFIED_LASTS: Duration = Duration::from_secs(30);
/// Stands for all warehouses in the claim.
const ALL_WAREHOUSES: &str = "*";

/// Which tokens are taken.
#[derive(Clone, Debug)]
pub struct TokenSettings {
    pub issuer: String,
    pub audience: String,
    /// Their names in RFC 7518, none of them of a shared secret.
    pub algorithms: Vec<String>,
    /// Where the issuer's keys are: an address, a file, or empty for what the issuer says.
    pub keys: String,
    pub refresh_every: Duration,
    pub leeway: Duration,
    pub scope_claim: String,
    /// Empty: tokens reach all warehouses.
    pub warehouses_claim: String,
}

/// Why a token is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("It is no key, and no token either")]
    Form,
    #[error("Tokens signed in this way are not taken")]
    Algorithm,
    #[error("The token is not signed by its issuer")]
    Signature,
    #[error("The token has expired")]
    Expired,
    #[error("The token is not good yet")]
    NotYet,
    #[error("The token is of another issuer")]
    Issuer,
    #[error("The token is for another audience")]
    Audience,
    #[error("The token lacks exp, iss, aud or sub")]
    Lacking,
    #[error("The token's sub is no name: 1 to {SUBJECT_CHARS_MAX} printable characters")]
    Subject,
    /// The issuer's keys were never read, or this one is new and they cannot be read now.
    #[error("The keys of the token issuer cannot be had now")]
    NoKeys,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    /// Seconds since 1970; it may have a fraction.
    exp: f64,
    #[serde(flatten)]
    others: Map<String, Value>,
}

/// Verifies tokens.
#[derive(Debug)]
pub(super) struct Tokens {
    jwks: Arc<Jwks>,
    algorithms: Vec<Algorithm>,
    settings: TokenSettings,
    /// By token, and by how often the keys had been read.
    verified: Cache<(Hash, u64), Arc<Principal>>,
}

impl Tokens {
    pub(super) fn new(settings: TokenSettings, clock: Clock) -> Result<Self, reqwest::Error> {
        let names = settings.algorithms.iter();
        let algorithms = names.filter_map(|name| name.parse().ok()).collect();
        let source = Source::of(&settings.keys, &settings.issuer);
        Ok(Self {
            jwks: Arc::new(Jwks::new(source, clock)?),
            algorithms,
            settings,
            verified: Cache::builder()
                .max_capacity(VERIFIED_MAX)
                .time_to_live(VERIFIED_LASTS)
                .build(),
        })
    }

    /// Reads the issuer's keys now and then.
    pub(super) async fn run(&self, stop: &CancellationToken) {
        let mut beat = Beat::at_once(self.settings.refresh_every, stop.clone());
        while beat.next().await {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.jwks.refresh(Duration::ZERO) => {}
            }
        }
    }

    /// Whose token it is. One that has expired since it was verified is not refused here.
    pub(super) async fn principal(&self, token: &str) -> Result<Arc<Principal>, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Form);
        }
        let hash = hash(token);
        if let Some(principal) = self.verified.get(&(hash, self.jwks.reading())) {
            return Ok(principal);
        }
        let header = decode_header(token).map_err(|_| TokenError::Form)?;
        // What it says has to be understood is not.
        if header.crit.is_some() {
            return Err(TokenError::Form);
        }
        if !self.algorithms.contains(&header.alg) {
            return Err(TokenError::Algorithm);
        }
        let kid = header.kid.as_deref();
        let known = self.jwks.candidates(kid, header.alg).await;
        let known = known.ok_or(TokenError::NoKeys)?;
        let mut verified = Err(TokenError::Signature);
        for key in known.keys.iter().filter(|key| key.is_for(kid, header.alg)) {
            verified = self.verify(token, header.alg, key);
            // Another key may have signed it.
            if !matches!(verified, Err(TokenError::Signature)) {
                break;
            }
        }
        let principal = Arc::new(verified?);
        self.verified
            .insert((hash, known.reading), Arc::clone(&principal));
        Ok(principal)
    }

    fn verify(
        &self,
        token: &str,
        algorithm: Algorithm,
        key: &PublicKey,
    ) -> Result<Principal, TokenError> {
        let mut validation = Validation::new(algorithm);
        validation.set_issuer(&[&self.settings.issuer]);
        validation.set_audience(&[&self.settings.audience]);
        validation.required_spec_claims =
            HashSet::from(["exp", "iss", "aud", "sub"].map(Into::into));
        validation.leeway = self.settings.leeway.as_secs();
        validation.validate_nbf = true;
        let decoded = decode::<Claims>(token, &key.key, &validation);
        let claims = decoded.map_err(|error| refusal(error.kind()))?.claims;
        let is_name = (1..=SUBJECT_CHARS_MAX).contains(&claims.sub.chars().count())
            && !claims.sub.chars().any(char::is_control);
        if !is_name {
            return Err(TokenError::Subject);
        }
        let until = (claims.exp + self.settings.leeway.as_secs_f64()) * 1e6;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "what is beyond the range is its end"
        )]
        let until = until as i64;
        Ok(Principal {
            name: format!("{NAME_PREFIX}{}", claims.sub).into(),
            scopes: scopes(claims.others.get(&self.settings.scope_claim)),
            reach: self.reach(&claims.others),
            expires_at: Some(Timestamp::from_micros(until)),
        })
    }

    fn reach(&self, claims: &Map<String, Value>) -> Reach {
        if self.settings.warehouses_claim.is_empty() {
            return Reach::All;
        }
        let named = texts(claims.get(&self.settings.warehouses_claim));
        if named.contains(&ALL_WAREHOUSES) {
            return Reach::All;
        }
        let ids = named
            .into_iter()
            .filter_map(|text| Uuid::try_parse(text).ok());
        // What is beyond the bound is not reached.
        let ids = ids.filter_map(WarehouseId::new).take(Reach::WAREHOUSES_MAX);
        Reach::Only(ids.collect())
    }
}

/// Those of the claim that are known here: a token may be for other services, too.
fn scopes(claim: Option<&Value>) -> BTreeSet<Scope> {
    texts(claim).into_iter().filter_map(Scope::named).collect()
}

/// The texts of a claim: words of one text (RFC 8693, 4.2), or a list.
fn texts(claim: Option<&Value>) -> Vec<&str> {
    match claim {
        Some(Value::String(text)) => text.split_ascii_whitespace().collect(),
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

fn refusal(kind: &ErrorKind) -> TokenError {
    match kind {
        ErrorKind::ExpiredSignature => TokenError::Expired,
        ErrorKind::ImmatureSignature => TokenError::NotYet,
        ErrorKind::InvalidIssuer => TokenError::Issuer,
        ErrorKind::InvalidAudience => TokenError::Audience,
        ErrorKind::MissingRequiredClaim(_)
        | ErrorKind::InvalidClaimFormat(_)
        | ErrorKind::Json(_) => TokenError::Lacking,
        ErrorKind::InvalidAlgorithm => TokenError::Algorithm,
        _ => TokenError::Signature,
    }
}
