//! Reads the command line, runs the command, turns an error into one line and an exit code.

use std::{error::Error, path::Path, process::ExitCode};

use clap::Parser;
use stockyard::{
    app::{self, Parts},
    cli::{Cli, Command, ProduceArgs, Role},
    clock::Clock,
    config::Config,
    http,
    inventory::verify::{Expected, Verifier},
    produce::{self, Oracle, Pace, plan::PlanOptions},
    telemetry,
};

#[tokio::main]
#[expect(clippy::print_stderr, reason = "the one line for whoever called")]
async fn main() -> ExitCode {
    let _crash_points = fail::FailScenario::setup();
    match run(Cli::parse()).await {
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
    if let Command::Healthcheck { url } = &cli.command {
        return Ok(app::healthcheck(url).await?);
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
        Command::Verify { oracle } => verify(&config, oracle.as_deref()).await?,
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
        println!("one of the movements: curl http://{address}/api/movements/{movement}");
    }
    if let Some(path) = &args.oracle {
        produce::write_oracle(&produced.oracle, path)?;
        println!("what the tables should hold: {}", path.display());
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
