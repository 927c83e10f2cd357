//! What Stockyard reaches, beside what the machine allows and beside what one would use instead, in one run.
//!
//! `make bench` starts the servers (durable: fsync, synchronous commit and full page writes on) and prints Markdown
//! tables of medians and spreads. Every ratio is taken pair by pair within a repetition, because these machines drift.
#![expect(unreachable_pub, reason = "a binary has no outside")]

mod alone;
mod at;
mod attack;
mod backlog;
mod bare;
mod crowd;
mod fanout;
mod freshness;
mod growth;
mod hostile;
mod hot;
mod limit;
mod load;
mod machine;
mod peer;
mod quota;
mod reads;
mod roles;
mod stream;
mod table;
mod world;

use std::collections::BTreeMap;

use clap::{Parser, ValueEnum};
use stockyard::produce::plan::PlanOptions;

use table::{Figures, Row, percentile, print, progress, remark, row};
use world::{Backlog, Database, Outcome};

/// What is measured, all of it if nothing is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// From a backlog to lag 0, against the limit of the machine and a peer.
    Backlog,
    /// The same with a few products moved most.
    Skewed,
    /// Where a lane's time goes, by its stages.
    Stages,
    /// From Kafka's acknowledgement to the commit and the answer, under load.
    Freshness,
    /// Reads against a bare handler and a bare select.
    Reads,
    /// Ingest and answers in processes of their own: what the load of one does to the other.
    Roles,
    /// The backlog with a ledger of up to ten million rows behind it.
    Growth,
    /// The backlog beside a dump, and on a slow disk.
    Disturbed,
    /// Reservations of one product, against the plain way and the best one without combining.
    Reserve,
    /// Questions about the past with ten million ledger rows, three of ten of them of one key.
    At,
    /// Half-open, slow, flooding, oversized and idle clients: the others beside them, and the memory.
    Hostile,
    /// Live clients: idle ones, a thousand of one warehouse beside a bare broadcast, one that stops reading.
    Live,
}

#[derive(Debug, Parser)]
struct Options {
    #[arg(value_enum)]
    parts: Vec<Part>,
    /// Messages of a backlog.
    #[arg(long, default_value_t = 1_000_000)]
    events: u64,
    #[arg(long, default_value_t = 3)]
    repetitions: usize,
    /// Events a second that the shares of freshness and reads are of; measured first if it is not given. Of the live clients, the
    /// only rate that is tried.
    #[arg(long)]
    rate: Option<u64>,
    /// Of the hostile clients, only these.
    #[arg(long, value_enum)]
    only: Vec<attack::Attack>,
    /// How often those are compared, where it is not five times.
    #[arg(long)]
    pairs: Option<usize>,
    /// Of the roles, only with each held to so many processors (0: not held); else both ways.
    #[arg(long)]
    processors: Option<f64>,
    #[arg(long, hide = true, requires = "attack_port")]
    attack: Option<attack::Attack>,
    #[arg(long, hide = true)]
    attack_port: Option<u16>,
    #[arg(long, hide = true, requires = "bare_body")]
    bare_port: Option<u16>,
    #[arg(long, hide = true)]
    broadcast_port: Option<u16>,
    #[arg(long, hide = true)]
    reserve: Option<hot::Peer>,
    #[arg(long, hide = true)]
    bare_body: Option<String>,
    /// What cargo passes to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let options = Options::parse();
    if let Some(ended) = serve(&options).await {
        return ended;
    }
    let measured = |part| options.parts.is_empty() || options.parts.contains(&part);
    describe().await?;
    if measured(Part::Backlog) {
        limit::compare(
            "From a backlog to lag 0, products moved evenly",
            &plan(&options, 0.0),
            options.repetitions,
        )
        .await?;
    }
    if measured(Part::Skewed) {
        limit::compare(
            "The same, products by Zipf's law with exponent 1.1",
            &plan(&options, 1.1),
            options.repetitions,
        )
        .await?;
    }
    let even = plan(&options, 0.0);
    if measured(Part::Stages) {
        stages(&even, options.repetitions).await?;
    }
    if [Part::Freshness, Part::Reads].into_iter().any(measured) {
        let rate = match options.rate {
            Some(rate) => rate,
            None => rate_of(&even).await?,
        };
        if measured(Part::Freshness) {
            freshness::measure(&even, rate).await?;
        }
        if measured(Part::Reads) {
            reads::measure(&even, rate, options.repetitions).await?;
        }
    }
    if measured(Part::Roles) {
        let ways = options.processors.map_or(roles::WAYS.to_vec(), |most| {
            vec![(most > 0.0).then_some(most)]
        });
        for processors in ways {
            roles::measure(&even, options.repetitions, processors).await?;
        }
    }
    if measured(Part::Growth) {
        growth::grown(&even, options.repetitions).await?;
    }
    if measured(Part::Disturbed) {
        growth::disturbed(&even, options.repetitions).await?;
    }
    if measured(Part::Reserve) {
        hot::measure(options.repetitions).await?;
    }
    if measured(Part::At) {
        at::measure(options.repetitions).await?;
    }
    if measured(Part::Hostile) {
        let attacks = if options.only.is_empty() {
            attack::Attack::value_variants()
        } else {
            &options.only
        };
        hostile::measure(&even, attacks, options.pairs).await?;
    }
    if measured(Part::Live) {
        fanout::measure(options.repetitions, options.rate).await?;
    }
    Ok(())
}

/// What a process runs that was started beside a measurement.
async fn serve(options: &Options) -> Option<Outcome<()>> {
    if let (Some(port), Some(body)) = (options.bare_port, options.bare_body.clone()) {
        return Some(reads::serve_bare(port, body).await);
    }
    if let Some(port) = options.broadcast_port {
        return Some(fanout::serve_broadcast(port).await);
    }
    if let (Some(attack), Some(port)) = (options.attack, options.attack_port) {
        return Some(attack::run(attack, port).await);
    }
    let peer = options.reserve.clone()?;
    Some(hot::serve(peer).await)
}

/// What one run reaches.
async fn rate_of(plan: &PlanOptions) -> Outcome<u64> {
    let backlog = Backlog::publish(plan).await?;
    let database = Database::create().await?;
    let run = backlog::take(&backlog, &database).await?;
    database.remove().await?;
    Ok(table::rounded(run.events_per_second))
}

/// Where the time of the lanes goes.
async fn stages(plan: &PlanOptions, repetitions: usize) -> Outcome<()> {
    let backlog = Backlog::publish(plan).await?;
    let mut rates = Figures::default();
    let mut seconds: BTreeMap<String, Figures> = BTreeMap::new();
    for _ in 0..repetitions {
        let database = Database::create().await?;
        let run = backlog::take(&backlog, &database).await?;
        database.remove().await?;
        progress(&format!(
            "{:.0} events/s, {:.1} + {:.1} s",
            run.events_per_second, run.service_seconds, run.postgres_seconds
        ));
        rates.push(run.events_per_second);
        for (stage, sum) in run.stages {
            seconds.entry(stage).or_default().push(sum);
        }
    }
    let rows: Vec<Row> = seconds
        .iter()
        .map(|(stage, sum)| row(stage, [sum.show(1)]))
        .collect();
    print(
        "Where a million events spend the time of the lanes",
        &["seconds of all lanes"],
        &rows,
    );
    remark(&format!("At {} events/s.", rates.show(0)));
    Ok(())
}

/// What is published: half of the messages departures, half arrivals, 100,000 stock keys.
fn plan(options: &Options, skew: f64) -> PlanOptions {
    PlanOptions {
        count: options.events,
        warehouses: 50,
        products: 2_000,
        skew,
        duplicates: 10.0,
        out_of_order: 5.0,
        losses: 0.0,
        poison: 0.0,
        seed: 1,
        namespace: 0,
    }
}

/// The machine, the server's settings, the flush time.
async fn describe() -> Outcome<()> {
    remark(&machine::describe());
    let mut settings = Vec::new();
    for name in [
        "server_version",
        "shared_buffers",
        "max_wal_size",
        "checkpoint_timeout",
        "wal_compression",
        "commit_delay",
    ] {
        settings.push(format!("{name} {}", world::setting(name).await?));
    }
    for name in ["fsync", "synchronous_commit", "full_page_writes"] {
        if world::setting(name).await? != "on" {
            return Err(format!("{name} is off: no figure would mean anything").into());
        }
        settings.push(format!("{name} on"));
    }
    remark(&format!("PostgreSQL: {}", settings.join(", ")));
    let flushes = machine::flush_times(&std::env::temp_dir())?;
    let at =
        |percent| percentile(&flushes, percent).map_or(f64::NAN, |flush| flush.as_secs_f64() * 1e6);
    remark(&format!(
        "A flush of 8 KiB: {:.0} µs (p50), {:.0} µs (p99)",
        at(50),
        at(99)
    ));
    Ok(())
}
