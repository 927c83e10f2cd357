//! The report as one HTML file: its style, its charts and its figures are in it, and it asks for nothing else.

use std::fmt::Write as _;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{
    chart::CHARTS,
    figures::{Earlier, Was},
};
use crate::load::{
    LoadError,
    figures::{Tally, sum},
    invariants::Finding,
    outcome::Outcome,
    thresholds::{Threshold, Verdict, ms},
};

/// Below so many requests a second a run is not about requests.
const RATE_MIN: f64 = 20.0;

const STYLE: &str = include_str!("style.css");

/// The whole page.
pub(super) fn page(
    outcome: &Outcome,
    earlier: Option<&Earlier>,
    csv: &[u8],
) -> Result<Markup, LoadError> {
    let title = format!("Load test {}", outcome.scenario);
    let charts = CHARTS
        .iter()
        .filter(|chart| chart.says_something(&outcome.seconds))
        .map(|chart| chart.svg(outcome));
    let charts = charts.collect::<Result<Vec<_>, _>>()?;
    let measured = &outcome.measured;
    let all = sum(&measured.tallies);
    let file = format!("{}.csv", outcome.scenario);
    Ok(html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { (title) }
                p { (outcome.began_at) ", " (format!("{:.0}", measured.took.as_secs_f64())) " s, seed " code { (outcome.seed) } }
                (verdict(outcome))
                h2 { "Thresholds" }
                (thresholds(&outcome.thresholds))
                h2 { "Promises" }
                (invariants(outcome))
                h2 { "Statistics" }
                (statistics(outcome, &all))
                p { a download=(file) href=(data_link(csv)) { "These figures as CSV" } ", in the columns of Locust's statistics" }
                h2 { "Failures" }
                (failures(outcome))
                h2 { "Over time" }
                @for chart in &charts { figure { (PreEscaped(chart)) } }
                @if !outcome.events.is_empty() { (events(outcome)) }
                @if let Some(earlier) = earlier {
                    h2 { "Compared with " (earlier.name) }
                    (comparison(outcome, earlier, &all))
                }
                h2 { "The generator" }
                (generator(outcome))
                h2 { "What was run, and on what" }
                (facts(outcome))
            }
        }
    })
}

fn verdict(outcome: &Outcome) -> Markup {
    let replay = format!(
        "stockyard load {} --seed {}",
        outcome.scenario, outcome.seed
    );
    html! {
        @if outcome.is_red() {
            p.verdict.red {
                strong { "Red. " }
                "A promise was broken or a floor breached. The same choices again: " code { (replay) }
            }
        } @else {
            p.verdict.green {
                strong { "Green. " }
                "Every promise that was looked at held, and every floor was met"
                @match outcome.missed_goals() {
                    0 => { "; every goal too." }
                    missed => { "; " (missed) " goals beyond the floors were missed." }
                }
            }
        }
    }
}

fn thresholds(thresholds: &[Threshold]) -> Markup {
    html! {
        table {
            thead { tr { th { "What" } th.number { "Measured" } th.number { "Floor" } th.number { "Goal" } th { "" } } }
            tbody {
                @for threshold in thresholds {
                    @let (class, words) = match threshold.verdict {
                        Verdict::Met => ("good", "met"),
                        Verdict::GoalMissed => ("fair", "floor met, goal missed"),
                        Verdict::Breached => ("bad", "breached"),
                        Verdict::NotMeasured => ("", "nothing to measure"),
                    };
                    tr class=(class) {
                        td { (threshold.words) }
                        td.number { (super::shown(threshold.measured)) }
                        td.number { (threshold.floor) }
                        td.number { (threshold.goal) }
                        td { (words) }
                    }
                }
            }
        }
    }
}

fn invariants(outcome: &Outcome) -> Markup {
    html! {
        table {
            thead { tr { th { "Promise" } th.number { "Looked at" } th.number { "Broken" } th { "" } } }
            tbody {
                @for (invariant, finding) in &outcome.findings {
                    @let Finding { checked, broken, examples } = finding;
                    @let (class, words) = match (checked, broken) {
                        (0, _) => ("", "not looked at in this scenario"),
                        (_, 0) => ("good", "held"),
                        _ => ("bad", "broken"),
                    };
                    tr class=(class) {
                        td {
                            (invariant.words())
                            @for example in examples { div.example { (example) } }
                        }
                        td.number { (checked) }
                        td.number { (broken) }
                        td { (words) }
                    }
                }
            }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate is no count")]
fn statistics(outcome: &Outcome, all: &Tally) -> Markup {
    let seconds = outcome.measured.took.as_secs_f64().max(f64::EPSILON);
    let row = |method: &str, name: &str, tally: &Tally| {
        let time = |percentile: f64| format!("{:.1}", ms(tally.times.percentile(percentile)));
        html! {
            tr {
                td { (method) " " (name) }
                td.number { (tally.requests()) }
                td.number { (format!("{:.1}", tally.requests() as f64 / seconds)) }
                td.number { (tally.refusals) }
                td.number { (tally.failures) }
                td.number { (format!("{:.1}", ms(tally.times.mean()))) }
                td.number { (time(50.0)) }
                td.number { (time(95.0)) }
                td.number { (time(99.0)) }
                td.number { (time(99.9)) }
                td.number { (format!("{:.1}", ms(tally.times.max()))) }
            }
        }
    };
    let frames = &outcome.measured.frames;
    html! {
        table {
            thead { tr {
                th { "Times in ms" } th.number { "Requests" } th.number { "per s" } th.number { "Refused as expected" } th.number { "Failed" }
                th.number { "Average" } th.number { "p50" } th.number { "p95" } th.number { "p99" } th.number { "p99.9" } th.number { "Most" }
            } }
            tbody {
                @for (operation, tally) in &outcome.measured.tallies {
                    (row(operation.method(), operation.name(), tally))
                }
            }
            tfoot { (row("", "All requests over HTTP", all)) }
        }
        @if frames.count > 0 {
            p {
                (frames.count) " frames to live clients; from the commit to the client p50 "
                (format!("{:.1}", ms(frames.times.percentile(50.0)))) " ms, p99 "
                (format!("{:.1}", ms(frames.times.percentile(99.0)))) " ms, most "
                (format!("{:.1}", ms(frames.times.max()))) " ms."
            }
        }
    }
}

fn failures(outcome: &Outcome) -> Markup {
    html! {
        @if outcome.failures.is_empty() {
            p { "None." }
        } @else {
            table {
                thead { tr { th { "Request" } th { "Why" } th.number { "Times" } } }
                tbody {
                    @for failure in &outcome.failures {
                        tr {
                            td { (failure.operation.method()) " " (failure.operation.name()) }
                            td { (failure.reason) }
                            td.number { (failure.times) }
                        }
                    }
                }
            }
        }
    }
}

fn events(outcome: &Outcome) -> Markup {
    html! {
        p { "The grey lines:" }
        ul {
            @for (at, what) in &outcome.events { li { (format!("{at:.0}")) " s: " (what) } }
        }
    }
}

fn comparison(outcome: &Outcome, earlier: &Earlier, all: &Tally) -> Markup {
    let took = outcome.measured.took;
    let cell = |was: f64, is: f64| {
        let change = if was > 0.0 {
            format!(" ({:.2}x)", is / was)
        } else {
            String::new()
        };
        html! { td.number { (format!("{was:.1} → {is:.1}")) (change) } }
    };
    let row = |name: String, was: Option<Was>, tally: &Tally| {
        let is = Was::of(tally, took);
        html! {
            @if let Some(was) = was {
                tr {
                    td { (name) }
                    (cell(was.per_second, is.per_second))
                    (cell(was.p50, is.p50))
                    (cell(was.p95, is.p95))
                    (cell(was.p99, is.p99))
                }
            }
        }
    };
    html! {
        table {
            thead { tr { th { "Times in ms" } th.number { "per s" } th.number { "p50" } th.number { "p95" } th.number { "p99" } } }
            tbody {
                @for (operation, tally) in &outcome.measured.tallies {
                    @let name = format!("{} {}", operation.method(), operation.name());
                    (row(name, earlier.operation(*operation), tally))
                }
                (row("All requests over HTTP".to_owned(), earlier.all(), all))
            }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate is no count")]
fn generator(outcome: &Outcome) -> Markup {
    let measured = &outcome.measured;
    let all = sum(&measured.tallies);
    let rate = all.requests() as f64 / measured.took.as_secs_f64().max(f64::EPSILON);
    html! {
        @if let Some(alone) = &outcome.alone {
            p {
                "Against a handler that does nothing, on the same machine before the run, it reached "
                (format!("{:.0}", alone.per_second)) " requests/s over " (alone.connections) " connections (p99 "
                (format!("{:.1}", ms(alone.p99))) " ms)"
                @if rate >= RATE_MIN { ": " (format!("{:.1}", alone.per_second / rate)) " times what this run asked for over HTTP" }
                "."
            }
        }
        p {
            "Requests were sent " (format!("{:.1}", ms(measured.late.percentile(99.0))))
            " ms (p99) after they were due, which the times above include"
            @if let Some(unsent) = measured.unsent { "; " (format!("{:.2}", unsent * 100.0)) " % of those that were due were never sent" }
            "."
        }
    }
}

fn facts(outcome: &Outcome) -> Markup {
    html! {
        table {
            tbody {
                @for (what, value) in &outcome.settings { tr { th { (what) } td { (value) } } }
                @for (what, value) in &outcome.figures { tr { th { (what) } td { (value) } } }
                @for (what, value) in &outcome.machine { tr { th { (what) } td { (value) } } }
                @if let (Some(before), Some(after)) = (outcome.measured.before, outcome.measured.after) {
                    @for (when, baseline) in [("before", before), ("after", after)] {
                        tr {
                            th { "The idle service " (when) " the run" }
                            td {
                                "a read takes " (format!("{:.2}", ms(baseline.p50))) " ms (p50), " (format!("{:.2}", ms(baseline.p99))) " ms (p99)"
                                @if let Some(bytes) = baseline.resident_bytes { "; " (format!("{:.0}", bytes / f64::from(1 << 20))) " MiB resident" }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The text as a link that holds it (RFC 2397).
fn data_link(csv: &[u8]) -> String {
    let mut link = String::from("data:text/csv;charset=utf-8,");
    for byte in csv {
        if byte.is_ascii_alphanumeric() || b".-_~".contains(byte) {
            link.push(char::from(*byte));
        } else {
            // Writing to text does not fail.
            let _ = write!(link, "%{byte:02X}");
        }
    }
    link
}
