//! Members of a consumer group that are processes of their own.

use std::{net::SocketAddr, path::PathBuf};

use stockyard::config::Config;

use super::{
    process::{Process, serve, serve_as_written},
    unique,
};

const INGEST: [&str; 2] = ["--role", "ingest"];

/// A service that only ingests, in a process of its own.
pub struct Member {
    settings: PathBuf,
    address: SocketAddr,
    pub process: Process,
}

impl Member {
    /// Starts one with these settings of the Kafka client on top.
    pub fn start(config: &Config, options: &[(&str, &str)]) -> Self {
        Self::at_points(config, options, "")
    }

    /// One to which something happens at named points.
    pub fn at_points(config: &Config, options: &[(&str, &str)], points: &str) -> Self {
        let mut config = config.clone();
        let options = options.iter().map(|(name, value)| (*name, *value));
        config
            .kafka
            .options
            .extend(options.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let settings = std::env::temp_dir().join(unique("member"));
        let (mut command, address) = serve(&config, &settings);
        command.args(INGEST).env("FAILPOINTS", points);
        Self {
            process: Process::start(&mut command),
            settings,
            address,
        }
    }

    /// Starts it again with the same settings, after its end.
    pub fn begin(&mut self) {
        self.process = Process::start(serve_as_written(&self.settings).args(INGEST));
    }

    /// The sum of the series whose names begin like that; `None` while it does not answer.
    pub async fn sum(&self, series: &str) -> Option<u64> {
        let client = reqwest::Client::new();
        let path = format!("http://{}/metrics", self.address);
        let text = client.get(path).send().await.ok()?.text().await.ok()?;
        let values = text.lines().filter(|line| line.starts_with(series));
        values
            .map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum()
    }

    pub async fn assigned(&self) -> u64 {
        let assigned = self.sum("warehouse_ingest_partitions_assigned").await;
        assigned.unwrap_or(0)
    }

    /// Times partitions were given to it or taken from it.
    pub async fn rebalances(&self) -> u64 {
        let rebalances = self.sum("warehouse_ingest_rebalances_total").await;
        rebalances.expect("it answers")
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.settings));
    }
}
