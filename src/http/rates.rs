//! How often somebody may ask: the generic cell rate algorithm, a bucket for each caller, told in `RateLimit` fields
//! (draft-ietf-httpapi-ratelimit-headers-10).
//!
//! A caller is who proved to be one, else the network that the request comes from. Invariant: whoever fails to prove who they are is
//! counted by where they come from, so making credentials up helps nobody.

use std::{
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::Response,
};
use governor::{
    NotUntil, Quota, RateLimiter,
    clock::Clock as Ticking,
    middleware::{NoOpMiddleware, StateInformationMiddleware, StateSnapshot},
    state::keyed::DashMapStateStore,
};

use super::error::problem;
use crate::clock::Clock;

pub(super) const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
pub(super) const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const FORWARDED_FOR: &str = "x-forwarded-for";
/// So often it is looked which callers have not asked for so long that nothing has to be known of them.
const FORGET_EVERY: u32 = 4_096;
/// A customer's network in IPv6: whoever has one address of it has all of them.
const NETWORK_BITS: u32 = 64;

/// How often.
#[derive(Clone, Debug)]
pub struct Rate {
    pub requests_per_second: NonZeroU32,
    /// At once, after a pause.
    pub burst: NonZeroU32,
    /// Whose word is taken for where a request comes from.
    pub trusted_proxies: Vec<IpAddr>,
}

/// Where a request comes from; the server sets it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) IpAddr);

/// Whom a bucket is of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Asker {
    Principal(Arc<str>),
    Network(IpAddr),
}

#[derive(Clone, Debug)]
struct Elapsed(Clock);

impl Ticking for Elapsed {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

type Buckets = RateLimiter<Asker, DashMapStateStore<Asker>, Elapsed, StateInformationMiddleware>;

type Unwatched = RateLimiter<Asker, DashMapStateStore<Asker>, Elapsed, NoOpMiddleware<Duration>>;

/// Who has asked how often.
pub(super) struct Rates {
    buckets: Buckets,
    rate: Rate,
    policy: HeaderValue,
    counted: AtomicU32,
    clock: Elapsed,
}

/// What somebody has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Left {
    requests: u32,
    /// Until all of them are there again; where none is left, until one is.
    seconds: u64,
}

impl Rates {
    pub(super) fn new(rate: Rate, clock: Clock) -> Self {
        let quota = Quota::per_second(rate.requests_per_second).allow_burst(rate.burst);
        let window = rate.burst.get().div_ceil(rate.requests_per_second.get());
        let policy = format!("\"caller\";q={};w={window}", rate.burst);
        let clock = Elapsed(clock);
        Self {
            buckets: Unwatched::new(quota, DashMapStateStore::default(), clock.clone())
                .with_middleware(),
            rate,
            // Text and numbers.
            policy: HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static("")),
            counted: AtomicU32::new(0),
            clock,
        }
    }

    /// Counts a request; what is left after it, or how long it is too early.
    pub(super) fn count(&self, asker: &Asker) -> Result<Left, Left> {
        let before = self.counted.fetch_add(1, Ordering::Relaxed);
        if before.is_multiple_of(FORGET_EVERY) {
            self.buckets.retain_recent();
        }
        match self.buckets.check_key(asker) {
            Ok(state) => Ok(self.left(&state)),
            Err(too_early) => Err(self.wait(&too_early)),
        }
    }

    fn left(&self, state: &StateSnapshot) -> Left {
        let requests = state.remaining_burst_capacity();
        let used = self.rate.burst.get().saturating_sub(requests);
        Left {
            requests,
            seconds: used.div_ceil(self.rate.requests_per_second.get()).into(),
        }
    }

    fn wait(&self, too_early: &NotUntil<Duration>) -> Left {
        let wait = too_early.wait_time_from(self.clock.now());
        Left {
            requests: 0,
            seconds: wait.as_secs() + u64::from(wait.subsec_nanos() > 0),
        }
    }

    /// Where a request comes from that nobody proved to be theirs: what the last proxy says that is trusted, else the peer.
    pub(super) fn network(&self, peer: Option<Peer>, headers: &HeaderMap) -> Asker {
        let nobody = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        let mut address = peer.map_or(nobody, |Peer(address)| address.to_canonical());
        let forwarded = headers.get_all(FORWARDED_FOR).iter().rev();
        let mut hops = forwarded
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.rsplit(','));
        while self.rate.trusted_proxies.contains(&address) {
            let Some(hop) = hops
                .next()
                .and_then(|hop| hop.trim().parse::<IpAddr>().ok())
            else {
                break;
            };
            address = hop.to_canonical();
        }
        Asker::Network(network(address))
    }

    /// Tells what is left.
    pub(super) fn tell(&self, left: Left, response: &mut Response) {
        let told = format!("\"caller\";r={};t={}", left.requests, left.seconds);
        let headers = response.headers_mut();
        headers.insert(RATE_LIMIT_POLICY, self.policy.clone());
        if let Ok(told) = HeaderValue::from_str(&told) {
            headers.insert(RATE_LIMIT, told);
        }
    }

    /// The answer to who asks too often.
    pub(super) fn refusal(&self, left: Left) -> Response {
        let mut response = problem(StatusCode::TOO_MANY_REQUESTS, "Too many requests");
        let headers = response.headers_mut();
        headers.insert(header::RETRY_AFTER, HeaderValue::from(left.seconds));
        self.tell(left, &mut response);
        response
    }
}

fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => {
            let mask = u128::MAX << (128 - NETWORK_BITS);
            IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(clock: &Clock) -> Rates {
        let rate = Rate {
            requests_per_second: NonZeroU32::new(2).unwrap(),
            burst: NonZeroU32::new(3).unwrap(),
            trusted_proxies: vec!["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()],
        };
        Rates::new(rate, clock.clone())
    }

    fn left(requests: u32, seconds: u64) -> Left {
        Left { requests, seconds }
    }

    #[test]
    fn what_is_left_and_when_it_comes_again_is_exact() {
        let clock = Clock::manual();
        let rates = rates(&clock);
        let shop = Asker::Principal("shop".into());
        assert_eq!(rates.count(&shop), Ok(left(2, 1)));
        assert_eq!(rates.count(&shop), Ok(left(1, 1)));
        assert_eq!(rates.count(&shop), Ok(left(0, 2)));
        assert_eq!(rates.count(&shop), Err(left(0, 1)));
        let other = Asker::Principal("other".into());
        assert_eq!(rates.count(&other), Ok(left(2, 1)), "another's bucket");
        clock.advance(Duration::from_millis(499));
        assert_eq!(rates.count(&shop), Err(left(0, 1)));
        clock.advance(Duration::from_millis(1));
        assert_eq!(rates.count(&shop), Ok(left(0, 2)));
        clock.advance(Duration::from_mins(1));
        assert_eq!(rates.count(&shop), Ok(left(2, 1)), "no more than a burst");
        let refused = rates.refusal(left(0, 7));
        assert_eq!(refused.headers()["retry-after"], "7");
        assert_eq!(refused.headers()["ratelimit"], "\"caller\";r=0;t=7");
        assert_eq!(refused.headers()["ratelimit-policy"], "\"caller\";q=3;w=2");
    }

    #[test]
    fn where_it_comes_from_is_what_trusted_proxies_say() {
        let rates = rates(&Clock::manual());
        let from = |peer: &str, forwarded: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in forwarded {
                headers.append(FORWARDED_FOR, value.parse().unwrap());
            }
            match rates.network(Some(Peer(peer.parse().unwrap())), &headers) {
                Asker::Network(address) => address.to_string(),
                Asker::Principal(name) => panic!("{name}"),
            }
        };
        assert_eq!(from("192.0.2.7", &["198.51.100.1"]), "192.0.2.7");
        assert_eq!(from("10.0.0.1", &["198.51.100.1"]), "198.51.100.1");
        assert_eq!(
            from("10.0.0.1", &["203.0.113.9, 198.51.100.1"]),
            "198.51.100.1"
        );
        assert_eq!(
            from("10.0.0.1", &["203.0.113.9, 198.51.100.1, 10.0.0.2"]),
            "198.51.100.1"
        );
        assert_eq!(
            from("10.0.0.1", &["203.0.113.9", "198.51.100.1"]),
            "198.51.100.1"
        );
        assert_eq!(from("10.0.0.1", &["nonsense"]), "10.0.0.1");
        assert_eq!(from("::ffff:192.0.2.7", &[]), "192.0.2.7");
        assert_eq!(from("2001:db8:1:2:3:4:5:6", &[]), "2001:db8:1:2::");
    }

    #[test]
    fn who_has_not_asked_for_long_is_forgotten() {
        let clock = Clock::manual();
        let rates = rates(&clock);
        for number in 0..100_u32 {
            let address = IpAddr::from(number.to_be_bytes());
            let _ = rates.count(&Asker::Network(address));
        }
        assert!(rates.buckets.len() >= 100);
        clock.advance(Duration::from_secs(10));
        let shop = Asker::Principal("shop".into());
        for _ in 0..FORGET_EVERY {
            let _ = rates.count(&shop);
        }
        assert!(rates.buckets.len() < 10, "{}", rates.buckets.len());
    }
}
