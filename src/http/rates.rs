//! How often somebody may ask, and connect: the generic cell rate algorithm, a bucket for each of them. Of requests, what is left is told in
//! `RateLimit` fields (draft-ietf-httpapi-ratelimit-headers-10).
//!
//! A caller is who proved to be one, else the network that the request comes from. Invariant: whoever fails to prove who they are is
//! counted by where they come from, so making credentials up helps nobody.

use std::{
    hash::Hash,
    net::{IpAddr, Ipv6Addr, SocketAddr},
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
    Quota, RateLimiter,
    clock::Clock as Ticking,
    middleware::{NoOpMiddleware, StateInformationMiddleware},
    state::keyed::DashMapStateStore,
};

use super::error::problem;
use crate::clock::Clock;

pub(super) const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
pub(super) const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const FORWARDED_FOR: &str = "x-forwarded-for";
/// A second brings at least one more.
const MORE_AFTER_SECONDS: u64 = 1;
/// So often it is looked which of them have not come for so long that nothing has to be known of them.
const FORGET_EVERY: u32 = 4_096;
/// A customer's network in IPv6: whoever has one address of it has all of them.
const NETWORK_BITS: u32 = 64;

/// How often.
#[derive(Clone, Debug)]
pub struct Rate {
    pub per_second: NonZeroU32,
    /// At once, after a pause.
    pub burst: NonZeroU32,
    /// Whose word is taken for where a request comes from, and who connects for others.
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

type Limiter<K> = RateLimiter<K, DashMapStateStore<K>, Elapsed, StateInformationMiddleware>;

type Unwatched<K> = RateLimiter<K, DashMapStateStore<K>, Elapsed, NoOpMiddleware<Duration>>;

/// Who has come how often.
struct Buckets<K: Hash + Eq + Clone> {
    limiter: Limiter<K>,
    counted: AtomicU32,
}

impl<K: Hash + Eq + Clone> Buckets<K> {
    fn new(rate: &Rate, clock: Clock) -> Self {
        let quota = Quota::per_second(rate.per_second).allow_burst(rate.burst);
        let limiter = Unwatched::new(quota, DashMapStateStore::default(), Elapsed(clock));
        Self {
            limiter: limiter.with_middleware(),
            counted: AtomicU32::new(0),
        }
    }

    /// Counts one time more: how many are left after it, or `None` if it is too early.
    fn count(&self, who: &K) -> Option<u32> {
        let before = self.counted.fetch_add(1, Ordering::Relaxed);
        if before.is_multiple_of(FORGET_EVERY) {
            self.limiter.retain_recent();
        }
        let state = self.limiter.check_key(who).ok()?;
        Some(state.remaining_burst_capacity())
    }
}

/// Who has connected how often.
pub(super) struct Newcomers {
    buckets: Buckets<IpAddr>,
    trusted_proxies: Vec<IpAddr>,
}

impl Newcomers {
    pub(super) fn new(rate: Rate, clock: Clock) -> Self {
        Self {
            buckets: Buckets::new(&rate, clock),
            trusted_proxies: rate.trusted_proxies,
        }
    }

    /// Counts a connection from this address: whether it may be.
    pub(super) fn may_come(&self, address: IpAddr) -> bool {
        self.trusted_proxies.contains(&address) || self.buckets.count(&network(address)).is_some()
    }
}

/// Who has asked how often.
pub(super) struct Rates {
    buckets: Buckets<Asker>,
    rate: Rate,
    policy: HeaderValue,
}

impl Rates {
    pub(super) fn new(rate: Rate, clock: Clock) -> Self {
        let window = rate.burst.get().div_ceil(rate.per_second.get());
        let policy = format!("\"caller\";q={};w={window}", rate.burst);
        Self {
            buckets: Buckets::new(&rate, clock),
            rate,
            // Text and numbers.
            policy: HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static("")),
        }
    }

    /// Counts a request: how many are left after it, or `None` if it is too early.
    pub(super) fn count(&self, asker: &Asker) -> Option<u32> {
        self.buckets.count(asker)
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
            let Some(hop) = hops.next().and_then(hop_address) else {
                break;
            };
            address = hop.to_canonical();
        }
        Asker::Network(network(address))
    }

    /// Tells how many are left.
    pub(super) fn tell(&self, left: u32, response: &mut Response) {
        let told = format!("\"caller\";r={left};t={MORE_AFTER_SECONDS}");
        let headers = response.headers_mut();
        headers.insert(RATE_LIMIT_POLICY, self.policy.clone());
        if let Ok(told) = HeaderValue::from_str(&told) {
            headers.insert(RATE_LIMIT, told);
        }
    }

    /// The answer to who asks too often.
    pub(super) fn refusal(&self) -> Response {
        let mut response = problem(StatusCode::TOO_MANY_REQUESTS, "Too many requests");
        let headers = response.headers_mut();
        headers.insert(header::RETRY_AFTER, HeaderValue::from(MORE_AFTER_SECONDS));
        self.tell(0, &mut response);
        response
    }
}

/// With or without a port, and in brackets: proxies write all of these.
fn hop_address(hop: &str) -> Option<IpAddr> {
    let hop = hop.trim();
    let with_port = || Some(hop.parse::<SocketAddr>().ok()?.ip());
    let in_brackets = || hop.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    hop.parse().ok().or_else(with_port).or_else(in_brackets)
}

/// What one customer has: an address, in IPv6 a /64.
pub(super) fn network(address: IpAddr) -> IpAddr {
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

    fn rate() -> Rate {
        Rate {
            per_second: NonZeroU32::new(2).unwrap(),
            burst: NonZeroU32::new(3).unwrap(),
            trusted_proxies: vec!["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()],
        }
    }

    fn rates(clock: &Clock) -> Rates {
        Rates::new(rate(), clock.clone())
    }

    #[test]
    fn each_network_may_connect_so_often_and_a_proxy_for_all() {
        let clock = Clock::manual();
        let newcomers = Newcomers::new(rate(), clock.clone());
        let come = |address: &str| newcomers.may_come(address.parse().unwrap());
        assert_eq!(
            [(); 4].map(|()| come("10.0.0.9")),
            [true, true, true, false]
        );
        assert!(come("10.0.0.8"), "another address");
        assert_eq!([(); 5].map(|()| come("10.0.0.1")), [true; 5], "a proxy");
        for last in 1..4 {
            assert!(come(&format!("2001:db8::{last}")));
        }
        assert!(!come("2001:db8::4"), "the same network");
        clock.advance(Duration::from_millis(500));
        assert_eq!([(); 2].map(|()| come("10.0.0.9")), [true, false]);
    }

    #[test]
    fn what_is_left_and_when_it_comes_again_is_exact() {
        let clock = Clock::manual();
        let rates = rates(&clock);
        let shop = Asker::Principal("shop".into());
        let left = [(); 4].map(|()| rates.count(&shop));
        assert_eq!(left, [Some(2), Some(1), Some(0), None]);
        let other = Asker::Principal("other".into());
        assert_eq!(rates.count(&other), Some(2), "another's bucket");
        clock.advance(Duration::from_millis(499));
        assert_eq!(rates.count(&shop), None);
        clock.advance(Duration::from_millis(1));
        assert_eq!(rates.count(&shop), Some(0));
        clock.advance(Duration::from_mins(1));
        assert_eq!(rates.count(&shop), Some(2), "no more than a burst");
        let refused = rates.refusal();
        assert_eq!(refused.headers()["retry-after"], "1");
        assert_eq!(refused.headers()["ratelimit"], "\"caller\";r=0;t=1");
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
        assert_eq!(from("10.0.0.1", &["198.51.100.1:51234"]), "198.51.100.1");
        assert_eq!(from("10.0.0.1", &["[2001:db8::1]:443"]), "2001:db8::");
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
        assert!(rates.buckets.limiter.len() >= 100);
        clock.advance(Duration::from_secs(10));
        let shop = Asker::Principal("shop".into());
        for _ in 0..FORGET_EVERY {
            let _ = rates.count(&shop);
        }
        assert!(
            rates.buckets.limiter.len() < 10,
            "{}",
            rates.buckets.limiter.len()
        );
    }
}
