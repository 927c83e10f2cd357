//! The leanest thing a user would write instead: a batch consumer in Python that keeps sides and sums.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use super::{
    table::as_f64,
    world::{Backlog, Database, Outcome, config},
};

/// Where its source and its interpreter are.
fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peer/consumer.py")
}

#[expect(clippy::disallowed_methods, reason = "where the peer's interpreter is")]
fn python() -> Option<String> {
    std::env::var("STOCKYARD_BENCH_PYTHON")
        .ok()
        .filter(|path| !path.is_empty())
}

/// Events a second of the peer from the same backlog; `None` where there is no Python for it.
pub async fn take(backlog: &Backlog, database: &Database, workers: usize) -> Outcome<Option<f64>> {
    let Some(python) = python() else {
        return Ok(None);
    };
    let kafka = config(&backlog.topic, "none", 0)?.kafka;
    let mut command = Command::new(python);
    command.arg(source()).args([
        "--kafka",
        &kafka.bootstrap_servers,
        "--topic",
        &backlog.topic,
        "--database",
        &database.url,
        "--workers",
        &workers.to_string(),
        "--partitions",
        &kafka.partitions.to_string(),
        "--expect",
        &backlog.options.count.to_string(),
    ]);
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    if !output.status.success() {
        return Err(format!(
            "the peer failed: {}",
            String::from_utf8_lossy(&output.stderr)
        )
        .into());
    }
    let seconds: f64 = String::from_utf8(output.stdout)?.trim().parse()?;
    Ok(Some(as_f64(backlog.options.count) / seconds))
}
