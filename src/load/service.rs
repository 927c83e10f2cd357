//! What the service says of itself while it is under load: its Prometheus metrics, read once a second.

use std::{collections::BTreeMap, time::Duration};

use super::{
    client::{Call, Client},
    operations::Operation,
};

/// Some of its metrics at one moment, summed over all hosts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reading {
    pub resident_bytes: f64,
    /// Processor time since its start, in seconds.
    pub processor_seconds: f64,
    pub pool_used: f64,
    pub pool_idle: f64,
    pub live_connections: f64,
    pub http_connections: f64,
    /// Age of the oldest message that is not in the database yet.
    pub lag_seconds: f64,
    pub lag_offsets: f64,
    pub version: f64,
}

/// Asks for the metrics; `None` where they cannot be had.
pub(super) async fn read(client: &mut Client, now: Duration) -> Option<Reading> {
    let call = Call::new(Operation::GetHealth, "/metrics");
    let answer = client.ask(now, call).await?;
    let text = String::from_utf8_lossy(&answer.body);
    let sums = parse(&text);
    let of = |name: &str| sums.get(name).copied().unwrap_or(0.0);
    Some(Reading {
        resident_bytes: of("process_resident_memory_bytes"),
        processor_seconds: of("process_cpu_seconds_total"),
        pool_used: of("warehouse_database_connections{state=\"used\"}"),
        pool_idle: of("warehouse_database_connections{state=\"idle\"}"),
        live_connections: of("warehouse_live_connections"),
        http_connections: of("warehouse_http_connections"),
        lag_seconds: largest(&text, "warehouse_ingest_lag_seconds"),
        lag_offsets: of("warehouse_ingest_lag_offsets"),
        version: of("warehouse_feed_version"),
    })
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
