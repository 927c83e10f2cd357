//! What the service says of itself: whether it is ready, and under load its Prometheus metrics, read once a second.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};

use super::{
    LoadError,
    client::{Call, Client},
    hosts::Hosts,
    operations::Operation,
    run::Run,
};

/// Longest the metrics are waited for: what cannot be had at once is left out, and nothing else waits for it.
const READ_MAX: Duration = Duration::from_millis(500);
/// Between two questions whether it is ready.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// Waits until all of them are ready.
pub(super) async fn is_ready(hosts: &Hosts, within: Duration) -> Result<(), LoadError> {
    // Beside the run: that one was not ready yet is no failure of it.
    let aside = Arc::new(Run::new(hosts.clone(), 0, true));
    for (number, host) in hosts.names().iter().enumerate() {
        loop {
            let mut client = Client::new(&aside, number);
            let call = Call::new(Operation::GetHealth, "/readyz");
            if client.ask(aside.clock.elapsed(), call).await.is_some() {
                break;
            }
            if aside.clock.elapsed() > within {
                return Err(LoadError::NotReady(host.clone()));
            }
            sleep(ASK_EVERY).await;
        }
    }
    Ok(())
}

/// Some of its metrics at one moment, summed over all hosts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reading {
    pub resident_bytes: f64,
    pub pool_used: f64,
    pub pool_idle: f64,
    /// Age of the oldest message that is not in the database yet.
    pub lag_seconds: f64,
    /// How often a live client was told several commits as one.
    pub conflations: f64,
}

/// Asks for the metrics; `None` where they cannot be had.
async fn read(client: &mut Client, now: Duration) -> Option<Reading> {
    let call = Call::new(Operation::GetHealth, "/metrics");
    let answer = client.ask(now, call).await?;
    let text = String::from_utf8_lossy(&answer.body);
    let sums = parse(&text);
    let of = |name: &str| sums.get(name).copied().unwrap_or(0.0);
    Some(Reading {
        resident_bytes: of("process_resident_memory_bytes"),
        pool_used: of("warehouse_database_read_connections{state=\"used\"}"),
        pool_idle: of("warehouse_database_read_connections{state=\"idle\"}"),
        lag_seconds: largest(&text, "warehouse_ingest_lag_seconds"),
        conflations: of("warehouse_live_conflations_total"),
    })
}

/// Those of all hosts; `None` if one of them does not answer in time.
pub(super) async fn read_all(run: &Arc<Run>) -> Option<Reading> {
    let mut sum = Reading::default();
    for host in 0..run.hosts.names().len() {
        let mut client = Client::new(run, host);
        let read = timeout(READ_MAX, read(&mut client, run.clock.elapsed()));
        let reading = read.await.ok()??;
        sum = Reading {
            resident_bytes: sum.resident_bytes + reading.resident_bytes,
            pool_used: sum.pool_used + reading.pool_used,
            pool_idle: sum.pool_idle + reading.pool_idle,
            lag_seconds: sum.lag_seconds.max(reading.lag_seconds),
            conflations: sum.conflations + reading.conflations,
        };
    }
    Some(sum)
}

/// Sums by name, and values by name and labels.
fn parse(text: &str) -> BTreeMap<String, f64> {
    let mut sums = BTreeMap::new();
    for (name, value) in samples(text) {
        let family = name.split('{').next().unwrap_or(name);
        *sums.entry(family.to_owned()).or_insert(0.0) += value;
        if family != name {
            sums.insert(name.to_owned(), value);
        }
    }
    sums
}

fn largest(text: &str, family: &str) -> f64 {
    let of_family = samples(text).filter(|(name, _)| name.split('{').next() == Some(family));
    of_family.map(|(_, value)| value).fold(0.0, f64::max)
}

fn samples(text: &str) -> impl Iterator<Item = (&str, f64)> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| {
        let (name, value) = line.rsplit_once(' ')?;
        Some((name, value.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read_by_name_and_by_labels() {
        let text = "# HELP a b\n# TYPE a gauge\na{x=\"1\"} 2\na{x=\"2\"} 3.5\nb 7\n";
        let sums = parse(text);
        let wanted = [
            ("a", 5.5),
            ("a{x=\"1\"}", 2.0),
            ("a{x=\"2\"}", 3.5),
            ("b", 7.0),
        ];
        let wanted = wanted.map(|(name, value)| (name.to_owned(), value));
        assert_eq!(sums.into_iter().collect::<Vec<_>>(), wanted);
        assert!((largest(text, "a") - 3.5).abs() < f64::EPSILON);
    }
}
