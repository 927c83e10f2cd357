//! The figures as a table of text, and an earlier run's read back.

use std::{path::Path, time::Duration};

use crate::load::{
    LoadError,
    figures::{Tally, sum},
    operations::Operation,
    outcome::Outcome,
    thresholds::ms,
};

/// Locust's percentiles of a request.
const PERCENTILES: [f64; 10] = [50.0, 66.0, 75.0, 80.0, 90.0, 95.0, 98.0, 99.0, 99.9, 99.99];

const HEADER: [&str; 22] = [
    "Type",
    "Name",
    "Request Count",
    "Failure Count",
    "Median Response Time",
    "Average Response Time",
    "Min Response Time",
    "Max Response Time",
    "Average Content Size",
    "Requests/s",
    "Failures/s",
    "50%",
    "66%",
    "75%",
    "80%",
    "90%",
    "95%",
    "98%",
    "99%",
    "99.9%",
    "99.99%",
    "100%",
];

/// The name of the last row.
const AGGREGATED: &str = "Aggregated";

/// A row by operation, and one of all requests. Times are milliseconds.
pub(super) fn csv(outcome: &Outcome) -> Result<Vec<u8>, LoadError> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let report = |error: csv::Error| LoadError::Report(error.to_string());
    writer.write_record(HEADER).map_err(report)?;
    let measured = &outcome.measured;
    for (operation, tally) in &measured.tallies {
        let row = row(operation.method(), operation.name(), tally, measured.took);
        writer.write_record(row).map_err(report)?;
    }
    let all = sum(&measured.tallies);
    let row = row("", AGGREGATED, &all, measured.took);
    writer.write_record(row).map_err(report)?;
    let written = writer.into_inner();
    written.map_err(|error| LoadError::Report(error.to_string()))
}

#[expect(
    clippy::cast_precision_loss,
    reason = "rates and averages are no counts"
)]
fn row(method: &str, name: &str, tally: &Tally, took: Duration) -> Vec<String> {
    let seconds = took.as_secs_f64().max(f64::EPSILON);
    let requests = tally.requests() as f64;
    let number = |number: f64| format!("{number:.3}");
    let mut row = vec![
        method.to_owned(),
        name.to_owned(),
        tally.requests().to_string(),
        tally.failures.to_string(),
        number(ms(tally.times.percentile(50.0))),
        number(ms(tally.times.mean())),
        number(ms(tally.times.min())),
        number(ms(tally.times.max())),
        number(tally.bytes as f64 / requests.max(1.0)),
        number(requests / seconds),
        number(tally.failures as f64 / seconds),
    ];
    let times = PERCENTILES.map(|percentile| number(ms(tally.times.percentile(percentile))));
    row.extend(times);
    row.push(number(ms(tally.times.max())));
    row
}

/// Some figures of a row of an earlier run.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::load) struct Was {
    pub(super) per_second: f64,
    pub(super) p50: f64,
    pub(super) p95: f64,
    pub(super) p99: f64,
}

impl Was {
    /// The same figures of this run.
    #[expect(clippy::cast_precision_loss, reason = "a rate is no count")]
    pub(super) fn of(tally: &Tally, took: Duration) -> Self {
        Self {
            per_second: tally.requests() as f64 / took.as_secs_f64().max(f64::EPSILON),
            p50: ms(tally.times.percentile(50.0)),
            p95: ms(tally.times.percentile(95.0)),
            p99: ms(tally.times.percentile(99.0)),
        }
    }
}

/// An earlier run, as its CSV tells.
#[derive(Clone, Debug)]
pub(in crate::load) struct Earlier {
    pub(super) name: String,
    rows: Vec<(String, String, Was)>,
}

impl Earlier {
    pub(super) fn read(path: &Path) -> Result<Self, LoadError> {
        let wrong = |why: String| LoadError::Report(format!("{}: {why}", path.display()));
        let mut reader = csv::Reader::from_path(path).map_err(|error| wrong(error.to_string()))?;
        let header = reader.headers().map_err(|error| wrong(error.to_string()))?;
        let header = header.clone();
        let place = |name: &str| {
            let place = header.iter().position(|column| column == name);
            place.ok_or_else(|| wrong(format!("there is no column {name}")))
        };
        let (method, name) = (place("Type")?, place("Name")?);
        let (rate, p50, p95, p99) = (
            place("Requests/s")?,
            place("50%")?,
            place("95%")?,
            place("99%")?,
        );
        let mut rows = Vec::new();
        for record in reader.records() {
            let record = record.map_err(|error| wrong(error.to_string()))?;
            let text = |place: usize| record.get(place).unwrap_or_default();
            let number = |place: usize| text(place).parse().unwrap_or(0.0);
            let was = Was {
                per_second: number(rate),
                p50: number(p50),
                p95: number(p95),
                p99: number(p99),
            };
            rows.push((text(method).to_owned(), text(name).to_owned(), was));
        }
        let file = path.file_stem().and_then(|name| name.to_str());
        Ok(Self {
            name: file.unwrap_or_default().to_owned(),
            rows,
        })
    }

    fn find(&self, method: &str, name: &str) -> Option<Was> {
        let mut rows = self.rows.iter();
        rows.find(|row| row.0 == method && row.1 == name)
            .map(|row| row.2)
    }

    pub(super) fn operation(&self, operation: Operation) -> Option<Was> {
        self.find(operation.method(), operation.name())
    }

    pub(super) fn all(&self) -> Option<Was> {
        self.find("", AGGREGATED)
    }
}
