//! What is left of a run: one HTML file that needs nothing else, the figures as CSV in the columns of Locust's statistics
//! (<https://docs.locust.io/en/stable/retrieving-stats.html>), and a log.

mod chart;
mod figures;
mod html;
pub(super) mod machine;

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    LoadError, Options,
    figures::sum,
    outcome::Outcome,
    scenario::Scenario,
    thresholds::{Verdict, ms},
};
use crate::domain::Timestamp;
pub(super) use figures::Earlier;

/// Where the files of a run are.
#[derive(Clone, Debug)]
pub(super) struct Paths {
    pub(super) html: PathBuf,
    pub(super) csv: PathBuf,
    pub(super) log: PathBuf,
}

/// `<scenario>_test_<date>_<time>.{html,csv,log}`; the folder is made where it is missing.
pub(super) fn paths(
    folder: &Path,
    scenario: &str,
    began_at: Timestamp,
) -> Result<Paths, LoadError> {
    fs::create_dir_all(folder)?;
    let digits: String = began_at.to_string();
    let digits: String = digits.chars().filter(char::is_ascii_digit).collect();
    let (date, time) = digits.split_at(8.min(digits.len()));
    let time = time.get(..6).unwrap_or(time);
    let name = format!("{scenario}_test_{date}_{time}");
    let file = |extension: &str| folder.join(format!("{name}.{extension}"));
    Ok(Paths {
        html: file("html"),
        csv: file("csv"),
        log: file("log"),
    })
}

/// The run to compare with: the one that is named, or the newest of the scenario in the folder.
pub(super) fn earlier(options: &Options, scenario: Scenario) -> Result<Option<Earlier>, LoadError> {
    let path = match &options.earlier {
        Some(path) => Some(path.clone()),
        None => newest(&options.folder, scenario.name()),
    };
    match (path.map(|path| Earlier::read(&path)), &options.earlier) {
        // A file that was only found there may be anything.
        (Some(Err(error)), None) => {
            tracing::warn!(%error, "an earlier run cannot be compared with");
            Ok(None)
        }
        (earlier, _) => earlier.transpose(),
    }
}

fn newest(folder: &Path, scenario: &str) -> Option<PathBuf> {
    let prefix = format!("{scenario}_test_");
    let files = fs::read_dir(folder).ok()?.filter_map(Result::ok);
    let csvs = files.map(|file| file.path()).filter(|path| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with(&prefix))
            && path.extension().is_some_and(|extension| extension == "csv")
    });
    // Names sort by time.
    csvs.max()
}

/// Writes everything but the log, which is there already.
pub(super) fn write(
    outcome: &Outcome,
    earlier: Option<&Earlier>,
    paths: &Paths,
) -> Result<(), LoadError> {
    let csv = figures::csv(outcome)?;
    fs::write(&paths.csv, &csv)?;
    let page = html::page(outcome, earlier, &csv)?;
    fs::write(&paths.html, page.into_string())?;
    Ok(())
}

/// The charts of a run in one picture, for a document.
pub fn charts(outcome: &Outcome) -> Result<String, LoadError> {
    chart::overview(outcome)
}

/// A measured figure.
fn shown(measured: Option<f64>) -> String {
    measured.map_or("-".to_owned(), |measured| format!("{measured:.2}"))
}

/// What a terminal is told at the end.
pub fn summary(outcome: &Outcome) -> Vec<String> {
    let measured = &outcome.measured;
    let all = sum(&measured.tallies);
    let seconds = measured.took.as_secs_f64().max(f64::EPSILON);
    #[expect(clippy::cast_precision_loss, reason = "a rate is no count")]
    let rate = all.requests() as f64 / seconds;
    let mut lines = vec![format!(
        "{}: {} requests in {seconds:.0} s, {rate:.0}/s, {} failed, {} refused as expected; average {:.1} ms, p50 {:.1}, p95 {:.1}, p99 {:.1}, most {:.1} ms",
        outcome.scenario,
        all.requests(),
        all.failures,
        all.refusals,
        ms(all.times.mean()),
        ms(all.times.percentile(50.0)),
        ms(all.times.percentile(95.0)),
        ms(all.times.percentile(99.0)),
        ms(all.times.max()),
    )];
    if measured.frames.count > 0 {
        lines.push(format!(
            "{} frames to live clients, from the commit p50 {:.1} ms, p99 {:.1} ms",
            measured.frames.count,
            ms(measured.frames.times.percentile(50.0)),
            ms(measured.frames.times.percentile(99.0)),
        ));
    }
    lines.extend(
        outcome
            .figures
            .iter()
            .map(|(what, figure)| format!("{what}: {figure}")),
    );
    for threshold in &outcome.thresholds {
        let verdict = match threshold.verdict {
            Verdict::Met => "met",
            Verdict::GoalMissed => "floor met, goal missed",
            Verdict::Breached => "BREACHED",
            Verdict::NotMeasured => "not measured",
        };
        lines.push(format!(
            "{}: {} (floor {}, goal {}): {verdict}",
            threshold.words,
            shown(threshold.measured),
            threshold.floor,
            threshold.goal
        ));
    }
    for (invariant, finding) in &outcome.findings {
        let verdict = match (finding.checked, finding.broken) {
            (0, _) => "not looked at".to_owned(),
            (checked, 0) => format!("held, {checked} times looked at"),
            (_, broken) => format!("BROKEN {broken} times: {}", finding.examples.join("; ")),
        };
        lines.push(format!("{}: {verdict}", invariant.words()));
    }
    if outcome.is_red() {
        lines.push(format!(
            "RED; to try the same again: stockyard load {} --seed {}",
            outcome.scenario, outcome.seed
        ));
    }
    lines
}
