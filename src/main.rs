//! Reads the command line, runs the command, turns an error into one line and an exit code.

use std::{error::Error, process::ExitCode};

use clap::Parser;
use stockyard::{
    app::{self, Parts},
    cli::{Cli, Command, Role},
    http, telemetry,
};

#[tokio::main]
#[expect(clippy::print_stderr, reason = "the one line for whoever called")]
async fn main() -> ExitCode {
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
        Command::Produce(_) | Command::Verify { .. } => {}
        Command::Config => print!("{}", config.shown()?),
        Command::Openapi | Command::Healthcheck { .. } => {}
    }
    Ok(())
}
