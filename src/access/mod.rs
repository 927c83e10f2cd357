//! Who somebody is: API keys, tokens of an identity provider, and tickets that stand for either once.
//!
//! Invariants: of a key only its hash is kept, and no key, token or ticket is ever logged or shown; every process learns of a new or
//! revoked key within one refresh; while the database is away the keys that were known stay good.

pub mod issue;
mod jwks;
mod keys;
mod tokens;

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use sha2::{Digest, Sha256};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    domain::{Timestamp, access::Principal},
    store::{
        Store, StoreError,
        access::{Hash, Ticket},
    },
};
use keys::{Key, Keys};
pub use keys::{Secret, is_key};
use tokens::Tokens;
pub use tokens::{TokenError, TokenSettings};

/// How often a ticket or a list of keys is tried again that met a lost connection.
const TRIES: usize = 2;

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
            // A clock may be set while somebody sleeps.
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

const LOOK_AGAIN: Duration = Duration::from_secs(30);

fn left_until(at: Timestamp, clock: &Clock) -> Option<Duration> {
    let left = at.micros() - clock.unix_micros();
    (left > 0).then(|| Duration::from_micros(left.unsigned_abs()))
}

impl Access {
    pub fn new(settings: Settings, store: Store, clock: Clock) -> Self {
        Self {
            keys: RwLock::default(),
            tokens: settings
                .tokens
                .map(|tokens| Tokens::new(tokens, clock.clone())),
            store,
            clock,
            refresh_every: settings.refresh_every,
            ticket_lasts: settings.ticket_lasts,
        }
    }

    /// Keeps the keys current until told to stop.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut tick = interval(self.refresh_every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            if let Err(error) = self.refresh().await {
                tracing::debug!(%error, "the keys could not be read");
            }
        }
    }

    /// Reads the keys anew.
    pub async fn refresh(&self) -> Result<(), StoreError> {
        let read = self.tried(|| self.store.api_keys()).await?;
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        keys.become_those(read);
        Ok(())
    }

    /// Who sent this key or token.
    pub async fn caller(&self, credential: &str) -> Result<Caller, Denied> {
        let caller = if is_key(credential) {
            let hash = hash(credential);
            let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
            let known = keys.find(&hash).map(|key| caller_of(key, hash));
            known.ok_or_else(|| keys.refusal())?
        } else {
            let tokens = self.tokens.as_ref().ok_or(Denied::UnknownKey)?;
            of_token(tokens.principal(credential).await?)
        };
        self.is_current(caller)
    }

    /// A ticket for one connection of this caller, and until when it is good.
    pub async fn ticket(&self, caller: &Caller) -> Result<(Secret, Timestamp), StoreError> {
        let ticket = Secret::ticket();
        let lasts = i64::try_from(self.ticket_lasts.as_micros()).unwrap_or(i64::MAX);
        let until = Timestamp::from_micros(self.clock.unix_micros().saturating_add(lasts));
        let given = Ticket {
            principal: Principal::clone(&caller.principal),
            key: caller.key,
        };
        let hash = ticket.hash();
        self.tried(|| self.store.put_ticket(&hash, &given, until))
            .await?;
        Ok((ticket, until))
    }

    /// Who was given this ticket, which is used up.
    pub async fn bearer(&self, ticket: &str) -> Result<Caller, Denied> {
        // Not tried again: the first try may have used it up.
        let taken = self.store.take_ticket(&hash(ticket)).await;
        let taken = taken.map_err(|error| {
            tracing::warn!(%error, "a ticket could not be looked up");
            Denied::Unavailable
        })?;
        let ticket = taken.ok_or(Denied::NoTicket)?;
        let caller = match ticket.key {
            None => of_token(Arc::new(ticket.principal)),
            Some(hash) => {
                let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
                let known = keys.find(&hash).map(|key| caller_of(key, hash));
                known.ok_or_else(|| keys.refusal())?
            }
        };
        self.is_current(caller)
    }

    fn is_current(&self, caller: Caller) -> Result<Caller, Denied> {
        let now = Timestamp::from_micros(self.clock.unix_micros());
        if caller.principal.has_expired(now) {
            return Err(Denied::Expired);
        }
        Ok(caller)
    }

    /// The same again where a connection was lost under it.
    async fn tried<T, F: Future<Output = Result<T, StoreError>>>(
        &self,
        question: impl Fn() -> F,
    ) -> Result<T, StoreError> {
        let mut answer = self.store.in_time(question()).await;
        for _ in 1..TRIES {
            if answer.is_ok() {
                break;
            }
            answer = self.store.in_time(question()).await;
        }
        answer
    }
}

fn caller_of(key: &Key, hash: Hash) -> Caller {
    Caller {
        principal: Arc::clone(&key.principal),
        key: Some(hash),
        revoked: key.revoked.clone(),
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
