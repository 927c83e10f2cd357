//! Who somebody is: API keys, tokens of an identity provider, and tickets that stand for either once.
//!
//! Invariants: of a key only its hash is kept, and no key, token or ticket is ever logged or shown; every process that reaches the
//! database learns of a new or revoked key within one refresh; while it is away the keys that were known stay good.

pub mod issue;
mod jwks;
mod keys;
mod tokens;

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use prometheus::IntGauge;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::{
    clock::{Beat, Clock},
    domain::{Timestamp, access::Principal},
    metrics::Metrics,
    store::{
        Store, StoreError,
        access::{Hash, Ticket},
    },
};
pub use keys::Secret;
use keys::{Keys, is_key, is_ticket};
use tokens::Tokens;
pub use tokens::{TokenError, TokenSettings};

/// Most tickets that are looked up at once, of the connections that all reads have.
const TICKETS_AT_ONCE: usize = 2;
/// Longest somebody sleeps until a time: the clock may be set meanwhile.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// What proving needs to be told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How often keys are read anew.
    pub refresh_every: Duration,
    pub ticket_lasts: Duration,
    /// `None`: no tokens are taken.
    pub tokens: Option<TokenSettings>,
}

/// Who may use the API of this process.
#[derive(Debug)]
pub struct Access {
    keys: RwLock<Keys>,
    tokens: Option<Tokens>,
    /// When keys were last read, in seconds since 1970.
    read_seconds: IntGauge,
    /// Strangers can make tickets up: they are looked up by few at once.
    tickets: Semaphore,
    store: Store,
    clock: Clock,
    refresh_every: Duration,
    ticket_lasts: Duration,
}

/// Somebody who proved who they are.
#[derive(Clone, Debug)]
pub struct Caller {
    pub principal: Arc<Principal>,
    /// Of the key they did it with.
    key: Option<Hash>,
    /// When that key is no more; never for a token.
    revoked: CancellationToken,
}

/// Why somebody is not let in.
#[derive(Debug, thiserror::Error)]
pub enum Denied {
    #[error("There is no such key")]
    UnknownKey,
    #[error("It has expired")]
    Expired,
    #[error("The ticket is not there, was used, or is too old")]
    NoTicket,
    #[error(transparent)]
    Token(#[from] TokenError),
    /// Nobody can say.
    #[error("Who you are cannot be found out now")]
    Unavailable,
}

impl Caller {
    /// Returns once they have to prove anew who they are.
    pub async fn ends(self, clock: Clock) {
        let expires = async {
            let Some(at) = self.principal.expires_at else {
                return std::future::pending().await;
            };
            while let Some(left) = left_until(at, &clock) {
                tokio::time::sleep(left.min(LOOK_AGAIN)).await;
            }
        };
        tokio::select! {
            () = self.revoked.cancelled() => {}
            () = expires => {}
        }
    }
}

fn left_until(at: Timestamp, clock: &Clock) -> Option<Duration> {
    let left = at.micros() - clock.unix_micros();
    (left > 0).then(|| Duration::from_micros(left.unsigned_abs()))
}

impl Access {
    /// Fails where the certificates that this machine trusts cannot be read.
    pub fn new(
        settings: Settings,
        store: Store,
        clock: Clock,
        metrics: &Metrics,
    ) -> Result<Self, reqwest::Error> {
        let tokens = settings.tokens;
        let tokens = tokens.map(|tokens| Tokens::new(tokens, clock.clone()));
        Ok(Self {
            keys: RwLock::default(),
            tokens: tokens.transpose()?,
            read_seconds: metrics.access_keys_read_seconds.clone(),
            tickets: Semaphore::new(TICKETS_AT_ONCE),
            store,
            clock,
            refresh_every: settings.refresh_every,
            ticket_lasts: settings.ticket_lasts,
        })
    }

    /// Keeps keys, and those of the token issuer, current until told to stop.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let of_issuer = async {
            match &self.tokens {
                Some(tokens) => tokens.run(&stop).await,
                None => stop.cancelled().await,
            }
        };
        tokio::join!(self.keep_keys(&stop), of_issuer);
    }

    async fn keep_keys(&self, stop: &CancellationToken) {
        let mut beat = Beat::at_once(self.refresh_every, stop.clone());
        let mut has_failed = false;
        while beat.next().await {
            match self.store.in_time(self.store.api_keys()).await {
                Ok(read) => {
                    let keys = self.keys.write();
                    keys.unwrap_or_else(PoisonError::into_inner)
                        .become_those(read);
                    self.read_seconds.set(self.clock.unix_micros() / 1_000_000);
                    if std::mem::take(&mut has_failed) {
                        tracing::info!("the keys can be read again");
                    }
                }
                Err(error) if !has_failed => {
                    has_failed = true;
                    tracing::warn!(%error, "the keys cannot be read: those that were known stay, and revoked ones among them");
                }
                Err(_) => {}
            }
        }
    }

    /// Who sent this key or token.
    pub async fn caller(&self, credential: &str) -> Result<Caller, Denied> {
        let caller = if is_key(credential) {
            self.of_key(hash(credential))?
        } else {
            let tokens = self.tokens.as_ref().ok_or(Denied::UnknownKey)?;
            of_token(tokens.principal(credential).await?)
        };
        self.is_current(caller)
    }

    /// A ticket for one connection of this caller, and until when it is good.
    pub async fn ticket(&self, caller: &Caller) -> Result<(Secret, Timestamp), StoreError> {
        let ticket = Secret::ticket();
        let given = Ticket {
            principal: Principal::clone(&caller.principal),
            key: caller.key,
        };
        let hash = ticket.hash();
        let put = self.store.put_ticket(&hash, &given, self.ticket_lasts);
        let until = self.store.in_time(put).await?;
        Ok((ticket, until))
    }

    /// Who was given this ticket, which is used up.
    pub async fn bearer(&self, ticket: &str) -> Result<Caller, Denied> {
        if !is_ticket(ticket) {
            return Err(Denied::NoTicket);
        }
        // Never closed.
        let _place = self.tickets.acquire().await;
        // Not tried again: the first try may have used it up.
        let hash = hash(ticket);
        let taken = self.store.in_time(self.store.take_ticket(&hash)).await;
        let taken = taken.map_err(|error| {
            tracing::warn!(%error, "a ticket could not be looked up");
            Denied::Unavailable
        })?;
        let ticket = taken.ok_or(Denied::NoTicket)?;
        let caller = match ticket.key {
            None => of_token(Arc::new(ticket.principal)),
            Some(hash) => self.of_key(hash)?,
        };
        self.is_current(caller)
    }

    fn of_key(&self, hash: Hash) -> Result<Caller, Denied> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let key = keys.find(&hash).ok_or_else(|| keys.refusal())?;
        Ok(Caller {
            principal: Arc::clone(&key.principal),
            key: Some(hash),
            revoked: key.revoked.clone(),
        })
    }

    fn is_current(&self, caller: Caller) -> Result<Caller, Denied> {
        let now = Timestamp::from_micros(self.clock.unix_micros());
        if caller.principal.has_expired(now) {
            return Err(Denied::Expired);
        }
        Ok(caller)
    }
}

fn of_token(principal: Arc<Principal>) -> Caller {
    Caller {
        principal,
        key: None,
        revoked: CancellationToken::new(),
    }
}

fn hash(secret: &str) -> Hash {
    Sha256::digest(secret.as_bytes()).into()
}
