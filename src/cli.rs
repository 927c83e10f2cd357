//! The command line, as it is read. What the commands do is elsewhere.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};

use crate::{domain::Timestamp, event::dead_letter::Reason};

/// What stands in which warehouse, at every moment.
#[derive(Debug, Parser)]
#[command(version, about)]
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
    /// Look at dead letters, and bring them back.
    #[command(subcommand)]
    Dlq(DlqCommand),
    /// Print the `OpenAPI` document.
    Openapi,
    /// Print the effective settings, with passwords hidden.
    Config,
    /// Ask a running service whether it is ready; exits with 0 if it is.
    Healthcheck {
        /// Where to ask.
        #[arg(long, default_value = "http://127.0.0.1:8000/readyz")]
        url: String,
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
