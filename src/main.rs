//! Reads the command line, runs the command, turns an error into one line and an exit code.

use std::{
    error::Error,
    io::{self, BufWriter, Write},
    path::Path,
    process::ExitCode,
};

use clap::Parser;
use stockyard::{
    access::issue::{self, NewKey},
    app::{self, Parts},
    cli::{Cli, Command, DlqArgs, DlqCommand, KeyCommand, LoadArgs, ProduceArgs, Role},
    clock::Clock,
    config::Config,
    dead_letters::{DeadLetters, DeadLettersError, How, Selection},
    domain::{
        Timestamp,
        access::{Reach, Scope},
    },
    event::dead_letter::Origin,
    http,
    inventory::{
        rebuild,
        verify::{Expected, Verifier},
    },
    load::{self, Hosts, Options, Profile, Reported, Scenario, Target, chaos::Stack},
    produce::{self, Oracle, Pace, plan::PlanOptions},
    telemetry, tls,
};
use tokio::{runtime::Runtime, signal::unix::SignalKind};

#[expect(clippy::print_stderr, reason = "the one line for whoever called")]
fn main() -> ExitCode {
    let _crash_points = fail::FailScenario::setup();
    let cli = Cli::parse();
    let result = Runtime::new().map_err(Into::into).and_then(|runtime| {
        let result = runtime.block_on(run(cli));
        // Nothing that hangs keeps the process.
        runtime.shutdown_background();
        result
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("stockyard: {error}");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "what a command prints is its result")]
async fn run(cli: Cli) -> Result<(), Box<dyn Error>> {
    if let Command::Openapi = cli.command {
        print!("{}", http::document());
        return Ok(());
    }
    if let Command::Healthcheck { url, ca, at } = &cli.command {
        return Ok(app::healthcheck(url, ca.as_deref(), at.as_deref()).await?);
    }
    let config = app::configure(cli.config.as_deref())?;
    telemetry::start(&config.log)?;
    match cli.command {
        Command::Serve { role } => {
            let parts = Parts {
                answers: role != Role::Ingest,
                ingests: role != Role::Api,
            };
            app::serve(&config, parts).await?;
        }
        Command::Migrate => app::migrate(&config).await?,
        Command::Produce(options) => produce(&config, options).await?,
        Command::SeedDemo => seed_demo(&config).await?,
        Command::Verify { oracle } => verify(&config, oracle.as_deref()).await?,
        Command::Rebuild { dry_run } => rebuild(&config, dry_run).await?,
        Command::Load(args) => load(&config, args).await?,
        Command::Dlq(command) => tokio::task::block_in_place(|| dlq(&config, command))?,
        Command::Key(command) => key(&config, command).await?,
        Command::Config => print!("{}", config.shown()?),
        Command::Openapi | Command::Healthcheck { .. } => {}
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "what a command prints is its result")]
async fn produce(config: &Config, args: ProduceArgs) -> Result<(), Box<dyn Error>> {
    let options = PlanOptions {
        count: args.count,
        warehouses: args.warehouses,
        products: args.products,
        skew: args.skew,
        duplicates: args.duplicates,
        out_of_order: args.out_of_order,
        losses: args.losses,
        poison: args.poison,
        seed: args.seed,
        namespace: 0,
    };
    let pace = Pace {
        rate: args.rate,
        is_quiet: args.quiet,
    };
    let kafka = config.kafka.clone();
    let produced = tokio::task::spawn_blocking(move || {
        produce::produce(&kafka, &options, pace, &Clock::system())
    })
    .await??;
    let totals = produced.oracle.totals();
    println!(
        "published {} messages to {} in {:.1} s: {} facts, {} duplicates, {} that are none",
        produced.messages,
        config.kafka.topic,
        produced.took.as_secs_f64(),
        totals.facts,
        totals.duplicates,
        totals.dead_letters.values().sum::<u64>()
    );
    if let (Some(movement), Some(address)) = (produced.sample, config.http.listen.first()) {
        let scheme = config.http.scheme();
        println!("one of the movements: curl {scheme}://{address}/api/movements/{movement}");
    }
    if let Some(path) = &args.oracle {
        produce::write_oracle(&produced.oracle, path)?;
        println!("what the tables should hold: {}", path.display());
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "what a command prints is its result")]
async fn seed_demo(config: &Config) -> Result<(), Box<dyn Error>> {
    let loaded = app::seed_demo(config).await?;
    println!(
        "loaded {} products and warehouses and the stock of {} levels; what was there stays as it is",
        loaded.entries, loaded.levels
    );
    if let Some(address) = config.http.listen.first() {
        let scheme = config.http.scheme();
        println!("one of the products: curl {scheme}://{address}/inventory/OLJCESPC7Z");
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "what a command prints is its result")]
async fn key(config: &Config, command: KeyCommand) -> Result<(), Box<dyn Error>> {
    const DAY_US: i64 = 86_400_000_000;
    let store = app::store_of_owner(config)?;
    match command {
        KeyCommand::Create {
            name,
            scopes,
            warehouses,
            days,
        } => {
            let now = Clock::system().unix_micros();
            let new = NewKey {
                name,
                scopes,
                warehouses,
                expires_at: days.map(|days| Timestamp::from_micros(now + i64::from(days) * DAY_US)),
            };
            let secret = issue::create(&store, &new).await?;
            println!("{}", secret.reveal());
        }
        KeyCommand::Revoke { name } => issue::revoke(&store, &name).await?,
        KeyCommand::List => {
            for key in issue::list(&store).await? {
                let principal = &key.principal;
                let scopes: Vec<_> = principal.scopes.iter().map(Scope::to_string).collect();
                let reach = match &principal.reach {
                    Reach::All => "all warehouses".to_owned(),
                    Reach::Only(ids) => format!("{} warehouses", ids.len()),
                };
                let at = |word: &str, at: Option<Timestamp>| {
                    at.map_or(String::new(), |at| format!("\t{word} {at}"))
                };
                println!(
                    "{}\t{}\t{reach}\tmade {}{}{}",
                    principal.name,
                    scopes.join(","),
                    key.created_at,
                    at("expires", principal.expires_at),
                    at("revoked", key.revoked_at)
                );
            }
        }
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "what a command prints is its result")]
async fn verify(config: &Config, oracle: Option<&Path>) -> Result<(), Box<dyn Error>> {
    let oracle = oracle.map(Oracle::read).transpose()?;
    let store = app::store_for_verify(config)?;
    let mut tell = |difference: &_| println!("{difference}");
    let expected = oracle.as_ref().map(|oracle| oracle as &dyn Expected);
    let compared = Verifier::new(&store, Clock::system(), &mut tell)
        .run(expected)
        .await?;
    println!(
        "compared {} levels, {} sides of movements, {} commits: {} differences",
        compared.levels, compared.sides, compared.commits, compared.differences
    );
    if compared.differences > 0 {
        return Err(format!("{} differences", compared.differences).into());
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "what a command prints is its result")]
async fn rebuild(config: &Config, is_dry: bool) -> Result<(), Box<dyn Error>> {
    let store = app::store_of_owner(config)?;
    let mut tell = |difference: &_| println!("{difference}");
    let rebuilt = rebuild::rebuild(&store, &Clock::system(), is_dry, &mut tell).await?;
    let (levels, lines) = (rebuilt.levels, rebuilt.lines);
    let done = match (is_dry, rebuilt.differences() > 0) {
        (true, true) => "nothing was done, and a rebuild is needed",
        (true, false) => "nothing was done, and no rebuild is needed",
        (false, true) => "they are repaired, and every client begins anew",
        (false, false) => "the tables are new, and it was not needed",
    };
    let version = rebuilt.version;
    println!(
        "up to version {version}: {levels} levels and {lines} lines differed from the ledger; {done}"
    );
    Ok(())
}

#[expect(clippy::print_stdout, reason = "what a command prints is its result")]
async fn load(config: &Config, args: LoadArgs) -> Result<(), Box<dyn Error>> {
    // What was started is ended then, and what was done is reported.
    let interrupt = app::stop_on_signal(&[
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
    ])?;
    let options = Options {
        users: args.users,
        spawn_rate: args.spawn_rate,
        run_time: args.run_time,
        rate: args.rate,
        // Short enough to be typed again.
        seed: args
            .seed
            .unwrap_or_else(|| u64::from(rand::random::<u32>())),
        is_quiet: args.headless,
        page_port: args.page_port,
        interrupt: interrupt.clone(),
        folder: args.reports.clone(),
        patience: None,
        earlier: args.compare.clone(),
    };
    let scenarios = match args.scenario {
        Scenario::All => Scenario::EACH.to_vec(),
        one => vec![one],
    };
    if scenarios.contains(&Scenario::Chaos) && !args.hosts.is_empty() {
        return Err("chaos breaks only what it started itself: leave --host out".into());
    }
    let mut red = Vec::new();
    for scenario in scenarios {
        let profile = Profile::of(scenario);
        let reported = if scenario == Scenario::Chaos {
            chaos(profile, &options).await?
        } else {
            load_service(config, &args, profile, &options).await?
        };
        let outcome = &reported.outcome;
        for line in load::summary(outcome) {
            println!("{line}");
        }
        println!("report: {}", reported.html.display());
        if let Some(folder) = &args.charts {
            std::fs::create_dir_all(folder)?;
            let path = folder.join(format!("{}.svg", scenario.name()));
            std::fs::write(path, load::charts(outcome)?)?;
        }
        if outcome.is_red() || args.strict && outcome.missed_goals() > 0 {
            red.push(scenario.name());
        }
        if interrupt.is_cancelled() {
            break;
        }
    }
    if red.is_empty() {
        Ok(())
    } else {
        Err(format!("red: {}", red.join(", ")).into())
    }
}

/// Against a service that runs: at these hosts, or where this configuration listens.
async fn load_service(
    config: &Config,
    args: &LoadArgs,
    profile: Profile,
    options: &Options,
) -> Result<Reported, Box<dyn Error>> {
    let (names, is_encrypted) = if args.hosts.is_empty() {
        let listens = config.http.listen.iter().take(1);
        let names: Vec<_> = listens.map(ToString::to_string).collect();
        (names, config.http.tls.is_on())
    } else {
        let are_encrypted = args.hosts.iter().filter(|host| host.is_encrypted).count();
        if (1..args.hosts.len()).contains(&are_encrypted) {
            return Err("hosts are loaded by https all or none".into());
        }
        let names = args.hosts.iter().map(|host| host.authority.clone());
        (names.collect(), are_encrypted > 0)
    };
    let mut hosts = Hosts::from(names);
    if is_encrypted {
        hosts = hosts.with_tls(tls::trust(args.ca.as_deref())?);
    }
    let target = Target {
        hosts,
        config,
        store: app::store_for_verify(config).ok(),
        stack: None,
    };
    Ok(load::run(&target, profile, options).await?)
}

/// Over servers of its own.
async fn chaos(profile: Profile, options: &Options) -> Result<Reported, Box<dyn Error>> {
    let stack = Stack::start().await?;
    let target = Target {
        hosts: stack.hosts.clone(),
        config: &stack.config,
        store: app::store_for_verify(&stack.config).ok(),
        stack: Some(&stack),
    };
    let reported = load::run(&target, profile, options).await;
    let is_red = !matches!(&reported, Ok(reported) if !reported.outcome.is_red());
    if is_red {
        tracing::warn!("the services' logs are in {}", stack.folder().display());
    }
    stack.end(is_red).await;
    Ok(reported?)
}

/// Blocks.
fn dlq(config: &Config, command: DlqCommand) -> Result<(), Box<dyn Error>> {
    let letters = DeadLetters::new(config, Clock::system());
    let origin = |text: &String| {
        Origin::parse(text, &config.kafka.topic)
            .ok_or_else(|| format!("an origin is topic/partition@offset, and not {text}"))
    };
    let mut out = BufWriter::new(io::stdout().lock());
    let result = match command {
        DlqCommand::List { which, limit, json } => {
            letters.list(&selection(which, Vec::new()), limit, json, &mut out)
        }
        DlqCommand::Show { origin: wanted } => match letters.show(origin(&wanted)?, &mut out) {
            Ok(0) => return Err(format!("there is no dead letter of {wanted}").into()),
            shown => shown.map(drop),
        },
        DlqCommand::Replay {
            origins,
            which,
            force,
            dry_run,
            ..
        } => {
            let how = How {
                is_dry: dry_run,
                // Who names a message wants that one.
                is_forced: force || !origins.is_empty(),
            };
            let origins = origins.iter().map(origin).collect::<Result<_, _>>()?;
            let replayed = letters.replay(&selection(which, origins), how, &mut out)?;
            let sent = if dry_run { "would be sent" } else { "sent" };
            writeln!(
                out,
                "{} {sent}, {} left alone, {} failed",
                replayed.sent, replayed.skipped, replayed.failed
            )?;
            if replayed.failed > 0 {
                out.flush()?;
                return Err(format!("{} messages were not replayed", replayed.failed).into());
            }
            Ok(())
        }
    };
    match result.and_then(|()| Ok(out.flush()?)) {
        // Whoever reads has seen enough.
        Err(DeadLettersError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

fn selection(which: DlqArgs, origins: Vec<Origin>) -> Selection {
    Selection {
        origins,
        reasons: which.reasons,
        origin_topic: which.origin_topic,
        since: which.since,
        until: which.until,
    }
}
