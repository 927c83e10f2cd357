//! Members of a consumer group that are processes of their own.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use stockyard::config::Config;

use super::{
    eventually,
    process::{Process, free_port, signal},
    unique,
};

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
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        config.http.listen = vec![address];
        let options = options.iter().map(|(name, value)| (*name, *value));
        config
            .kafka
            .options
            .extend(options.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let settings = std::env::temp_dir().join(unique("member"));
        std::fs::write(&settings, toml::to_string(&config).unwrap()).unwrap();
        Self {
            process: Self::run(&settings, points),
            settings,
            address,
        }
    }

    fn run(settings: &Path, points: &str) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stockyard"));
        command.args(["serve", "--role", "ingest", "--config"]);
        Process::start(command.arg(settings).env("FAILPOINTS", points))
    }

    /// Starts it again with the same settings, after its end.
    pub fn begin(&mut self) {
        self.process = Self::run(&self.settings, "");
    }

    /// Sends a signal that ends it, and waits until it has.
    pub async fn end(&mut self, how: &str) {
        signal(self.process.id(), how);
        let process = &mut self.process;
        eventually("the member has ended", async || {
            process.has_ended().then_some(())
        })
        .await;
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
