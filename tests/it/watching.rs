//! What Prometheus watches for: every alert is tested, is explained in the runbook, and reaches Alertmanager.

use std::{collections::BTreeSet, fs, path::Path, process::Command, time::Duration};

use serde_json::Value;

use crate::support::{
    eventually,
    process::{Process, free_port, said},
    unique, variable,
};

const RULES: &str = "prometheus/alerts.yml";
const TESTS: &str = "prometheus/alerts.test.yml";
const RUNBOOK: &str = "docs/runbook.md";

/// An alert as the rules have it.
struct Alert {
    name: String,
    severity: String,
    runbook_url: String,
}

fn alerts() -> Vec<Alert> {
    let rules = fs::read_to_string(RULES).unwrap();
    let alerts: Vec<Alert> = rules
        .split("- alert: ")
        .skip(1)
        .map(|text| Alert {
            name: text.lines().next().unwrap().to_owned(),
            severity: word_after("severity: ", text),
            runbook_url: word_after("runbook_url: ", text),
        })
        .collect();
    assert!(alerts.len() >= 30, "{}", alerts.len());
    alerts
}

fn word_after(what: &str, text: &str) -> String {
    let (_, rest) = text
        .split_once(what)
        .unwrap_or_else(|| panic!("no {what} in {text}"));
    let end = rest.find([',', '}', '\n']).unwrap_or(rest.len());
    rest[..end].to_owned()
}

/// Runs the program that comes with Prometheus, where it does.
fn promtool(arguments: &[&str]) {
    let prometheus = variable("STOCKYARD_TEST_PROMETHEUS");
    let program = prometheus.map(|program| Path::new(&program).with_file_name("promtool"));
    let Some(program) = program.filter(|program| program.exists()) else {
        eprintln!("skipped: there is no promtool");
        return;
    };
    let output = Command::new(program).args(arguments).output().unwrap();
    let what = said(&output);
    assert!(output.status.success(), "promtool {arguments:?}: {what}");
}

#[test]
fn every_alert_is_tested_where_it_fires_and_where_it_does_not() {
    let tests = fs::read_to_string(TESTS).unwrap();
    for Alert { name, severity, .. } in alerts() {
        assert!(["page", "ticket"].contains(&severity.as_str()), "{name}");
        let of_it: Vec<&str> = tests
            .split("\n  - name: ")
            .filter(|test| test.starts_with(&name))
            .collect();
        let fires = format!("labels: 'ALERTS{{alertname=\"{name}\", alertstate=\"firing\", ");
        let severity = format!("severity=\"{severity}\"");
        let is_told = of_it
            .iter()
            .flat_map(|test| test.lines())
            .any(|line| line.contains(&fires) && line.contains(&severity));
        assert!(is_told, "{name} fires in no test");
        // Of several series one is to stay quiet, or all of them are at some moment.
        let is_quiet = |test: &&str| {
            test.contains("exp_samples: []")
                || test.matches("series: ").count() > test.matches(&fires).count()
        };
        assert!(of_it.iter().any(is_quiet), "{name} is quiet in no test");
    }
}

#[test]
fn every_alert_is_explained_in_the_runbook_and_nothing_else_is() {
    let runbook = fs::read_to_string(RUNBOOK).unwrap();
    let explained: BTreeSet<&str> = runbook
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
        .collect();
    let alerts = alerts();
    let known: BTreeSet<&str> = alerts.iter().map(|alert| alert.name.as_str()).collect();
    assert_eq!(explained, known);
    assert_eq!(known.len(), alerts.len(), "a name is used once");
    for alert in &alerts {
        let anchor = alert.name.to_lowercase();
        assert_eq!(alert.runbook_url, format!("{RUNBOOK}#{anchor}"));
        // An entry links to others by the same anchors.
        let (_, entry) = runbook
            .split_once(&format!("### {}\n", alert.name))
            .unwrap();
        let entry = entry.split("\n## ").next().unwrap_or(entry);
        let entry = entry.split("\n### ").next().unwrap_or(entry);
        assert!(entry.contains("**Users**"), "{}", alert.name);
        assert!(entry.contains("**Over**"), "{}", alert.name);
    }
    for link in runbook.split("](#").skip(1) {
        let anchor = link.split(')').next().unwrap_or(link);
        let is_there = known.iter().any(|name| name.to_lowercase() == anchor);
        assert!(is_there, "#{anchor}");
    }
}

#[test]
fn the_runbook_names_rows_of_the_dashboard() {
    let dashboard = fs::read_to_string("grafana/dashboard.json").unwrap();
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let rows: Vec<&str> = panels
        .iter()
        .filter(|panel| panel["type"] == "row")
        .filter_map(|panel| panel["title"].as_str())
        .collect();
    let runbook = fs::read_to_string(RUNBOOK).unwrap();
    let words: Vec<&str> = runbook.split_whitespace().collect();
    let named = words.join(" ").replace("Row *", "row *");
    for row in named.split("row *").skip(1) {
        let row = row.split('*').next().unwrap_or(row);
        assert!(rows.contains(&row), "{row}: {rows:?}");
    }
}

#[test]
fn what_is_watched_is_measured() {
    let measured = fs::read_to_string("src/metrics.rs").unwrap();
    for file in [RULES, RUNBOOK] {
        let text = fs::read_to_string(file).unwrap();
        for rest in text.split("warehouse_").skip(1) {
            let is_of_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
            let end = rest.find(|letter: char| !is_of_name(letter));
            let name = &rest[..end.unwrap_or(rest.len())];
            let is_declared = ["", "_bucket", "_count", "_sum"]
                .into_iter()
                .filter_map(|part| name.strip_suffix(part))
                .any(|name| measured.contains(&format!("\"{name}\"")));
            assert!(is_declared, "{file}: warehouse_{name}");
        }
    }
}

#[test]
fn the_rules_and_the_configuration_are_valid() {
    promtool(&["check", "rules", RULES]);
    promtool(&["check", "config", "prometheus.yml"]);
}

#[test]
fn the_rules_do_what_their_tests_say() {
    promtool(&["test", "rules", TESTS]);
}

#[tokio::test]
async fn what_fires_reaches_alertmanager() {
    let [prometheus, alertmanager] =
        ["PROMETHEUS", "ALERTMANAGER"].map(|name| variable(&format!("STOCKYARD_TEST_{name}")));
    let Some((prometheus, alertmanager)) = prometheus.zip(alertmanager) else {
        eprintln!("skipped: there is no Prometheus, or no Alertmanager");
        return;
    };
    let directory = std::env::temp_dir().join(unique("watching"));
    fs::create_dir_all(directory.join("prometheus")).unwrap();
    let [to_tell, to_ask, nobody] = [(); 3].map(|()| free_port());
    let mut command = Command::new(alertmanager);
    command
        .arg("--config.file=alertmanager.yml")
        .arg(format!(
            "--storage.path={}",
            directory.join("alerts").display()
        ))
        .arg(format!("--web.listen-address=127.0.0.1:{to_tell}"))
        .arg("--cluster.listen-address=");
    let alertmanager = Process::start(&mut command);

    // As it is, but sooner, and nobody listens where the service should be.
    let configuration = fs::read_to_string("prometheus.yml").unwrap();
    let configuration = configuration
        .replace(": 5s", ": 1s")
        .replace("stockyard:8000", &format!("127.0.0.1:{nobody}"))
        .replace("alertmanager:9093", &format!("127.0.0.1:{to_tell}"));
    fs::write(directory.join("prometheus.yml"), configuration).unwrap();
    let rules = fs::read_to_string(RULES).unwrap();
    let rules = rules.replace("for: 1m", "for: 1s");
    fs::write(directory.join(RULES), rules).unwrap();
    let prometheus = Process::prometheus(&prometheus, to_ask, &directory);

    let client = reqwest::Client::builder()
        .timeout(Duration::from_secs(10))
        .build()
        .unwrap();
    let down = eventually("Alertmanager has the alert", async || {
        let url = format!("http://127.0.0.1:{to_tell}/api/v2/alerts");
        let answer = client.get(url).send().await.ok()?;
        let alerts: Vec<Value> = answer.json().await.ok()?;
        let is_it = |alert: &Value| alert["labels"]["alertname"] == "StockyardDown";
        alerts.into_iter().find(is_it)
    })
    .await;
    assert_eq!(down["labels"]["severity"], "page", "{down}");
    assert_eq!(down["receivers"][0]["name"], "page", "{down}");
    let entry = "docs/runbook.md#stockyarddown";
    assert_eq!(down["annotations"]["runbook_url"], entry, "{down}");
    drop((prometheus, alertmanager));
    fs::remove_dir_all(&directory).unwrap();
}
