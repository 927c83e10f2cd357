//! What a run was made on, and with: read from the system, Linux only where it must be.

use std::{fs, process::Command, sync::Arc};

use rdkafka::util::get_rdkafka_version;

use crate::load::{
    Target,
    client::{Call, Client},
    operations::Operation,
    run::Run,
};

/// Processor, memory and system, in words.
pub fn host() -> Vec<(&'static str, String)> {
    let field = |path: &str, name: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| Some(line.split_once(':')?.1.trim().to_owned()))
            .unwrap_or_else(|| "unknown".to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let system = Command::new("uname").arg("-sr").output();
    let system = system.map_or_else(
        |_| "unknown".to_owned(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    );
    vec![
        (
            "Machine",
            format!("{cores} cores of {}", field("/proc/cpuinfo", "model name")),
        ),
        ("Memory", field("/proc/meminfo", "MemTotal")),
        ("System", system),
    ]
}

/// The machine of the generator, and the versions of what it talks to.
pub(in crate::load) async fn describe(target: &Target<'_>) -> Vec<(&'static str, String)> {
    let mut described = host();
    described.push((
        "Generator",
        format!(
            "stockyard {}, librdkafka {}",
            env!("CARGO_PKG_VERSION"),
            get_rdkafka_version().1
        ),
    ));
    if let Some(version) = service_version(target).await {
        described.push(("Service's version", format!("stockyard {version}")));
    }
    if let Some(store) = &target.store
        && let Ok(version) = store.server_version().await
    {
        described.push(("PostgreSQL", version));
    }
    described
}

async fn service_version(target: &Target<'_>) -> Option<String> {
    let run = Arc::new(Run::new(target.hosts.clone(), 0, false));
    let mut client = Client::new(&run, 0);
    let call = Call::new(Operation::GetHealth, "/openapi.json");
    let answer = client.ask(run.clock.elapsed(), call).await?;
    Some(answer.json()["info"]["version"].as_str()?.to_owned())
}
