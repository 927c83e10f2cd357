//! The command line, as it is read. What the commands do is elsewhere.

use std::{path::PathBuf, sync::LazyLock, time::Duration};

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};

use crate::{
    domain::{Timestamp, access::Scope},
    event::dead_letter::Reason,
    load::Scenario,
    metrics::{REVISION, VERSION},
};

/// As `warehouse_build_info` has it.
static BUILD: LazyLock<String> = LazyLock::new(|| format!("{VERSION} ({REVISION})"));

/// What stands in which warehouse, at every moment.
#[derive(Debug, Parser)]
#[command(version = BUILD.as_str(), about)]
pub struct Cli {
    /// A file of settings, above the defaults and below the environment.
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the service.
    Serve {
        /// What this process does.
        #[arg(long, value_enum, default_value_t = Role::All)]
        role: Role,
    },
    /// Bring the database's schema up to date and make the topics that are missing.
    Migrate,
    /// Publish movement messages, for trying and for measuring.
    Produce(ProduceArgs),
    /// Compare ledger, levels and movements with each other, and with what `produce` expects.
    Verify {
        /// The file that `produce --oracle` wrote.
        #[arg(long, value_name = "FILE")]
        oracle: Option<PathBuf>,
    },
    /// Load a small catalogue with stock, as the examples of the documentation use it. Again, nothing changes.
    SeedDemo,
    /// Make levels and movements anew from the ledger, beside a service that goes on.
    Rebuild {
        /// Compare only.
        #[arg(long)]
        dry_run: bool,
    },
    /// Load a running service, prove that it keeps its promises, and write a report.
    Load(LoadArgs),
    /// Look at dead letters, and bring them back.
    #[command(subcommand)]
    Dlq(DlqCommand),
    /// Make, list and revoke the keys of those who may use the API.
    #[command(subcommand)]
    Key(KeyCommand),
    /// Print the `OpenAPI` document.
    Openapi,
    /// Print the effective settings, with passwords hidden.
    Config,
    /// Ask a running service whether it is ready; exits with 0 if it is.
    Healthcheck {
        /// Where to ask.
        #[arg(long, default_value = "http://127.0.0.1:8000/readyz")]
        url: String,
        /// With https: who signed the certificate, a PEM file; without it, one whom this system trusts.
        #[arg(long, value_name = "FILE")]
        ca: Option<PathBuf>,
        /// Connect here, and not to the host of the address, whose certificate it has to show: for a check beside the service.
        #[arg(long, value_name = "HOST:PORT")]
        at: Option<String>,
    },
}

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Everything.
    All,
    /// Answers queries.
    Api,
    /// Takes messages from Kafka.
    Ingest,
}

/// What to publish. The same options and seed give the same messages.
#[derive(Clone, Debug, Args)]
pub struct ProduceArgs {
    /// How many messages, duplicates and poison included.
    #[arg(long, default_value_t = 10_000)]
    pub count: u64,
    /// Messages per second; 0: as fast as Kafka takes them.
    #[arg(long, default_value_t = 0)]
    pub rate: u64,
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    pub warehouses: u32,
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub products: u32,
    /// How unevenly products are moved: the exponent of Zipf's law; 0: evenly.
    #[arg(long, default_value_t = 0.0, value_parser = exponent)]
    pub skew: f64,
    /// Percentage of messages that repeat an earlier one.
    #[arg(long, default_value_t = 0.0, value_parser = percentage)]
    pub duplicates: f64,
    /// Percentage of movements whose arrival is published before their departure.
    #[arg(long, default_value_t = 0.0, value_parser = percentage)]
    pub out_of_order: f64,
    /// Percentage of movements that never arrive.
    #[arg(long, default_value_t = 0.0, value_parser = percentage)]
    pub losses: f64,
    /// Percentage of messages that are none.
    #[arg(long, default_value_t = 0.0, value_parser = percentage)]
    pub poison: f64,
    /// What the random choices begin with; another seed, other movements. The same options again publish duplicates only.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Write what the tables should hold afterwards to this file, for `verify --oracle`.
    #[arg(long, value_name = "FILE")]
    pub oracle: Option<PathBuf>,
    /// Show no progress.
    #[arg(long)]
    pub quiet: bool,
}

/// What to load it with. What is not said is the scenario's. Ends with 0 if every promise held and every floor was met.
#[derive(Clone, Debug, Args)]
pub struct LoadArgs {
    #[arg(value_enum)]
    pub scenario: Scenario,
    /// How many users there are, in every stage.
    #[arg(long, value_name = "N")]
    pub users: Option<usize>,
    /// Users that come in a second.
    #[arg(long, value_name = "N", value_parser = positive)]
    pub spawn_rate: Option<f64>,
    /// How long the load lasts, for example 30s, 5m or 1h30m.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub run_time: Option<Duration>,
    /// Requests a second at set times, timed from when they were due; of `ingest` messages, of `live` writes. Without it users
    /// decide when they ask.
    #[arg(long, value_name = "N", value_parser = positive)]
    pub rate: Option<f64>,
    /// What the random choices begin with; a report names the one it ran with.
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Where the service is, for example `http://127.0.0.1:8000`; several of one database may be given, all with https or none.
    /// Without it: where this configuration listens.
    #[arg(long = "host", value_name = "URL", value_parser = host)]
    pub hosts: Vec<Host>,
    /// With https: who signed the service's certificate, a PEM file; without it, one whom this system trusts.
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Show no progress, and no page.
    #[arg(long)]
    pub headless: bool,
    /// Where the page that shows the run listens, on loopback; 8089 unless it is said.
    #[arg(long, value_name = "PORT")]
    pub page_port: Option<u16>,
    /// Where reports go.
    #[arg(long, value_name = "FOLDER", default_value = "load_test_results")]
    pub reports: PathBuf,
    /// The CSV of an earlier run to compare with; without it the newest of the scenario among the reports.
    #[arg(long, value_name = "CSV")]
    pub compare: Option<PathBuf>,
    /// Write the charts as one SVG, too.
    #[arg(long, value_name = "FOLDER")]
    pub charts: Option<PathBuf>,
    /// Missed goals count as well as floors.
    #[arg(long)]
    pub strict: bool,
}

/// What to do with dead letters. An origin is where a message came from: `topic/partition@offset`, or `partition@offset` of
/// the configured topic.
#[derive(Debug, Subcommand)]
pub enum DlqCommand {
    /// A line for each message, the newest last.
    List {
        #[command(flatten)]
        which: DlqArgs,
        /// Only the newest so many.
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
        /// A JSON document for each message, a line each.
        #[arg(long)]
        json: bool,
    },
    /// Headers, key and value of a message's letters.
    Show {
        /// Where the message came from.
        origin: String,
    },
    /// Send messages again to the topic they came from; exits with 0 if Kafka took each of them.
    #[command(group(ArgGroup::new("selected").args(["all", "reasons", "origins"]).required(true)))]
    Replay {
        /// Where the messages came from.
        #[arg(value_name = "ORIGIN")]
        origins: Vec<String>,
        /// All of them.
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        which: DlqArgs,
        /// Also what is a tombstone or still cannot be decoded. (An origin that is named is always sent.)
        #[arg(long)]
        force: bool,
        /// Send nothing; say what would be sent.
        #[arg(long)]
        dry_run: bool,
    },
}

/// The keys of those who may use the API, where `access.enabled` is set.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Make a key and print it, this once: only its hash is kept.
    Create {
        /// Whose it is: what the ledger says of what is done with it. Up to 100 characters, without colons and parentheses.
        name: String,
        /// What it may do; may be given more than once, or as a list with commas.
        #[arg(long = "scope", value_name = "SCOPE", value_parser = scope, required = true, value_delimiter = ',')]
        scopes: Vec<Scope>,
        /// UUID or code of a warehouse that it is limited to; may be given up to 32 times. Without it: all warehouses.
        #[arg(long = "warehouse", value_name = "WAREHOUSE", value_delimiter = ',')]
        warehouses: Vec<String>,
        /// How long it is good, in days; for good, if it is not said.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=36_500))]
        days: Option<u32>,
    },
    /// A line for each key there is or was.
    List,
    /// End a key; every process knows within `access.refresh_ms`.
    Revoke {
        /// Whose it is.
        name: String,
    },
}

fn scope(text: &str) -> Result<Scope, String> {
    let names = Scope::ALL.map(Scope::as_str).join(", ");
    Scope::named(text).ok_or_else(|| format!("a scope is one of {names}"))
}

/// Which dead letters.
#[derive(Clone, Debug, Args)]
pub struct DlqArgs {
    /// Refused for this reason; may be given more than once.
    #[arg(long = "reason", value_name = "REASON", value_parser = reason)]
    pub reasons: Vec<Reason>,
    /// From that topic.
    #[arg(long, value_name = "TOPIC")]
    pub origin_topic: Option<String>,
    /// Whose letter was written then or later, for example 2025-02-18T12:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = Timestamp::parse_fact_time)]
    pub since: Option<Timestamp>,
    /// Whose letter was written before then.
    #[arg(long, value_name = "TIME", value_parser = Timestamp::parse_fact_time)]
    pub until: Option<Timestamp>,
}

fn reason(text: &str) -> Result<Reason, String> {
    let names = Reason::ALL.map(Reason::as_str).join(", ");
    Reason::parse(text).ok_or_else(|| format!("a reason is one of {names}"))
}

fn percentage(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if (0.0..=100.0).contains(&number) => Ok(number),
        _ => Err("a percentage is from 0 to 100".to_owned()),
    }
}

fn exponent(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if (0.0..=10.0).contains(&number) => Ok(number),
        _ => Err("the exponent is from 0 to 10".to_owned()),
    }
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if number > 0.0 && number <= 1e6 => Ok(number),
        _ => Err("a rate is above 0 and at most 1000000".to_owned()),
    }
}

/// `host:port` of a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    pub is_encrypted: bool,
    pub authority: String,
}

fn host(text: &str) -> Result<Host, String> {
    let wrong = || format!("an address is http://host:port or https://host:port, and not {text}");
    let (is_encrypted, rest) = match text.strip_prefix("https://") {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix("http://").unwrap_or(text)),
    };
    let authority = rest.trim_end_matches('/');
    let (name, port) = authority.rsplit_once(':').ok_or_else(wrong)?;
    let is_one = !name.is_empty() && !name.contains('/') && port.parse::<u16>().is_ok();
    let one = || Host {
        is_encrypted,
        authority: authority.to_owned(),
    };
    is_one.then(one).ok_or_else(wrong)
}

/// Hours, minutes and seconds, as `1h30m` or `90s`; a number alone is seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("a time is 30s, 5m or 1h30m, and not {text}");
    let (mut seconds, mut digits) = (0_u64, String::new());
    for character in text.chars() {
        let unit = match character {
            'h' => 3_600,
            'm' => 60,
            's' => 1,
            digit => {
                digits.push(digit);
                continue;
            }
        };
        let count: u64 = std::mem::take(&mut digits).parse().map_err(|_| wrong())?;
        seconds += count.checked_mul(unit).ok_or_else(wrong)?;
    }
    if !digits.is_empty() {
        seconds += digits.parse::<u64>().map_err(|_| wrong())?;
    }
    // Reservations are kept for a day at most.
    let is_one = (1..=20 * 3_600).contains(&seconds);
    is_one
        .then(|| Duration::from_secs(seconds))
        .ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_locust_writes_them() {
        let seconds = |text| duration(text).map(|time| time.as_secs());
        assert_eq!(seconds("90"), Ok(90));
        assert_eq!(seconds("90s"), Ok(90));
        assert_eq!(seconds("1h30m"), Ok(5_400));
        for wrong in ["", "0", "m", "5x", "5m-", "99999999999999999999s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_address_is_host_and_port() {
        for (text, is_encrypted, authority) in [
            ("http://127.0.0.1:8000/", false, "127.0.0.1:8000"),
            ("localhost:8000", false, "localhost:8000"),
            ("https://localhost:1", true, "localhost:1"),
        ] {
            let host = host(text).unwrap();
            assert_eq!(
                (host.is_encrypted, host.authority.as_str()),
                (is_encrypted, authority)
            );
        }
        for wrong in ["", "http://localhost", "https://localhost", "http://a:1/b"] {
            assert!(host(wrong).is_err(), "{wrong}");
        }
    }
}
