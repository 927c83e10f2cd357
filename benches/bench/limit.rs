//! Stockyard beside what the machine allows and beside a peer, in turn within each repetition.

use std::collections::HashMap;

use stockyard::{config::Config, produce::plan::PlanOptions};

use super::{
    alone::{self, Statements},
    backlog, peer,
    table::{Figures, Row, against, print, progress, remark, row},
    world::{Backlog, Database, Outcome},
};

/// Workers of the peer: more are not faster on two cores.
const PEER_WORKERS: usize = 2;

/// What each repetition came to.
#[derive(Default)]
struct Measured {
    kafka: Figures,
    decoding: Figures,
    one_connection: Figures,
    two_connections: Figures,
    without_ledger: Figures,
    limit: Figures,
    own: Figures,
    again: Figures,
    peer: Figures,
    service_seconds: Figures,
    postgres_seconds: Figures,
    peak_mib: Figures,
}

/// Parts 1, 2 and 3.
pub async fn compare(title: &str, plan: &PlanOptions, repetitions: usize) -> Outcome<()> {
    progress("publishing");
    let backlog = Backlog::publish(plan).await?;
    let mut measured = Measured::default();
    for repetition in 1..=repetitions {
        progress(&format!("{title}: {repetition} of {repetitions}"));
        measured.repeat(&backlog).await?;
    }
    measured.print(title);
    Ok(())
}

impl Measured {
    async fn repeat(&mut self, backlog: &Backlog) -> Outcome<()> {
        let plan = &backlog.options;
        let batch = Config::from_layers(None, HashMap::new())?
            .ingest
            .max_batch_events;
        let kafka = alone::kafka_alone(backlog)?;
        let decoding = alone::decoding_alone(plan, batch);
        let one = alone::postgres_alone(plan, batch, 1, Statements::All).await?;
        let two = alone::postgres_alone(plan, batch, 2, Statements::All).await?;
        let without = alone::postgres_alone(plan, batch, 2, Statements::WithoutLedger).await?;
        self.kafka.push(kafka);
        self.decoding.push(decoding);
        self.one_connection.push(one);
        self.two_connections.push(two);
        self.without_ledger.push(without);
        self.limit
            .push(1.0 / (1.0 / kafka + 1.0 / decoding + 1.0 / two));

        let database = Database::create().await?;
        let run = backlog::take(backlog, &database).await?;
        let again = backlog::take_again(backlog, &database).await?;
        database.remove().await?;
        self.again.push(again.events_per_second);
        self.own.push(run.events_per_second);
        self.service_seconds.push(run.service_seconds);
        self.postgres_seconds.push(run.postgres_seconds);
        self.peak_mib.push(run.peak_mib);

        let database = Database::create().await?;
        self.peer
            .0
            .extend(peer::take(backlog, &database, PEER_WORKERS).await?);
        database.remove().await
    }

    fn print(&self, title: &str) {
        let rate = |name: &str, figures: &Figures| row(name, [figures.show(0), String::new()]);
        let of = |name: &str, figures: &Figures, than: &str, other: &Figures, reach: f64| -> Row {
            let ratio = against(&figures.over(other), reach);
            row(name, [figures.show(0), format!("{ratio} of {than}")])
        };
        let mut rows = vec![
            rate("k: Kafka alone", &self.kafka),
            rate("d: decoding and merging alone, two threads", &self.decoding),
            rate("p: PostgreSQL alone, one connection", &self.one_connection),
            of(
                "p: PostgreSQL alone, two connections",
                &self.two_connections,
                "p0",
                &self.without_ledger,
                0.7,
            ),
            rate(
                "p0: the same without ledger and order of commits",
                &self.without_ledger,
            ),
            rate("the limit: 1 / (1/k + 1/d + 1/p)", &self.limit),
            of("Stockyard", &self.own, "the limit", &self.limit, 0.8),
            of(
                "the whole topic again",
                &self.again,
                "the first pass",
                &self.own,
                1.5,
            ),
        ];
        if self.peer.0.is_empty() {
            remark("No peer: there is no Python with benches/peer/requirements.txt.");
        } else {
            rows.push(rate(
                "the peer in Python, two pipelined workers",
                &self.peer,
            ));
            rows.push(of(
                "Stockyard beside the peer",
                &self.own,
                "the peer",
                &self.peer,
                0.8,
            ));
        }
        print(title, &["events/s: median (min..max)", "ratio"], &rows);
        remark(&format!(
            "Processor seconds per million events: Stockyard {}, PostgreSQL {}. Peak memory of the process, MiB: {} (reach: below 150).",
            self.service_seconds.show(1),
            self.postgres_seconds.show(1),
            self.peak_mib.show(0)
        ));
    }
}
