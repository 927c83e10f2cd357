//! When a client comes back to a service that stops: each is told another time, so that all of them do not come at once.

use std::time::Duration;

/// How many come back in a second: a handshake and what they missed cost each of them less than 0.1 ms of a processor.
const RETURNS_PER_SECOND: f64 = 2_000.0;
/// Shortest stretch over which they come.
const SPREAD_MIN: Duration = Duration::from_millis(500);
/// Longest hint that is believed.
const RETRY_MAX: Duration = Duration::from_mins(1);
const PREFIX: &str = "the service stops; retry_ms=";

/// When one of so many clients comes back; `share` is where it stands among them, from 0 to 1.
pub fn after(clients: usize, share: f64) -> Duration {
    let clients = u32::try_from(clients).unwrap_or(u32::MAX);
    let spread = Duration::from_secs_f64(f64::from(clients) / RETURNS_PER_SECOND);
    spread.max(SPREAD_MIN).min(RETRY_MAX).mul_f64(share)
}

/// What the closing frame says.
pub fn reason(after: Duration) -> String {
    format!("{PREFIX}{}", after.as_millis())
}

/// When to come back, of what a closing frame says.
pub fn told(reason: &str) -> Option<Duration> {
    let millis = reason.strip_prefix(PREFIX)?.parse().ok()?;
    Some(Duration::from_millis(millis).min(RETRY_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_come_back_one_after_the_other() {
        assert_eq!(after(10_000, 1.0), Duration::from_secs(5));
        assert_eq!(after(10_000, 0.5), Duration::from_millis(2_500));
        assert_eq!(after(1, 1.0), SPREAD_MIN);
        assert_eq!(after(0, 0.0), Duration::ZERO);
        assert_eq!(after(usize::MAX, 1.0), RETRY_MAX);
    }

    #[test]
    fn what_is_said_is_understood() {
        let after = Duration::from_millis(1_234);
        assert_eq!(reason(after), "the service stops; retry_ms=1234");
        assert_eq!(told(&reason(after)), Some(after));
        assert_eq!(told(&format!("{PREFIX}{}", u64::MAX)), Some(RETRY_MAX));
        for other in ["", "the service stops", "the service stops; retry_ms=soon"] {
            assert_eq!(told(other), None, "{other}");
        }
    }
}
