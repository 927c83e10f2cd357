//! Imports only point down, and only one module names each technology.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// From the ground up. No two modules of one floor import each other.
const FLOORS: [&[&str]; 7] = [
    &["domain", "config", "metrics", "clock", "tls"],
    &["event", "store", "cache", "kafka", "traces"],
    &["inventory", "access"],
    &["live"],
    &["ingest", "http", "produce", "dead_letters", "demo"],
    &["load"],
    &["app", "cli", "telemetry"],
];

/// Who may name a technology. `app` reports the errors of all of them.
const TECHNOLOGIES: [(&str, &[&str]); 6] = [
    ("sqlx", &["store"]),
    ("axum", &["http", "load"]),
    ("redis", &["cache", "app"]),
    ("opentelemetry", &["traces"]),
    ("tokio_rustls", &["tls", "http"]),
    (
        "rdkafka",
        &["kafka", "ingest", "produce", "dead_letters", "load", "app"],
    ),
];

/// The libraries `domain` may know: none does I/O, none is async.
const DOMAIN_LIBRARIES: [&str; 5] = ["jiff", "thiserror", "uuid", "proptest", "std"];

fn sources() -> BTreeMap<PathBuf, String> {
    fn gather(directory: &Path, into: &mut BTreeMap<PathBuf, String>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                gather(&path, into);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let code = fs::read_to_string(&path).unwrap();
                // Comments may name anything.
                let code = code
                    .lines()
                    .map(|line| line.split("//").next().unwrap_or_default());
                into.insert(path.clone(), code.collect::<Vec<_>>().join("\n"));
            }
        }
    }
    let mut sources = BTreeMap::new();
    gather(Path::new("src"), &mut sources);
    sources
}

/// The top-level module that a file belongs to; `None` for `lib.rs` and `main.rs`.
fn module(path: &Path) -> Option<String> {
    let first = path.strip_prefix("src").unwrap().components().next()?;
    let name = first
        .as_os_str()
        .to_str()?
        .trim_end_matches(".rs")
        .to_owned();
    (!["lib", "main"].contains(&name.as_str())).then_some(name)
}

fn floor(module: &str) -> usize {
    let floor = FLOORS.iter().position(|modules| modules.contains(&module));
    floor.unwrap_or_else(|| panic!("{module} is on no floor"))
}

/// The names that follow `prefix`, also inside `prefix{…}`.
fn names_after(code: &str, prefix: &str) -> Vec<String> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let mut names = Vec::new();
    for (at, _) in code.match_indices(prefix) {
        if code[..at].chars().next_back().is_some_and(is_name) {
            continue;
        }
        let rest = &code[at + prefix.len()..];
        if !rest.starts_with('{') {
            names.push(rest.chars().take_while(|c| is_name(*c)).collect());
            continue;
        }
        let mut depth = 0;
        let mut expects_name = false;
        for (place, c) in rest.char_indices() {
            match c {
                '{' => (depth, expects_name) = (depth + 1, depth == 0),
                '}' if depth == 1 => break,
                '}' => depth -= 1,
                ',' => expects_name = depth == 1,
                c if is_name(c) && expects_name => {
                    names.push(rest[place..].chars().take_while(|c| is_name(*c)).collect());
                    expects_name = false;
                }
                _ => {}
            }
        }
    }
    names
}

#[test]
fn imports_only_point_down() {
    for (path, code) in sources() {
        let Some(from) = module(&path) else { continue };
        for to in names_after(&code, "crate::") {
            if to != from {
                assert!(
                    floor(&to) < floor(&from),
                    "{}: {from} imports {to}",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn each_technology_has_its_place() {
    for (path, code) in sources() {
        let Some(module) = module(&path) else {
            continue;
        };
        for (technology, allowed) in TECHNOLOGIES {
            let is_named = !names_after(&code, &format!("{technology}::")).is_empty();
            assert!(
                !is_named || allowed.contains(&module.as_str()),
                "{} names {technology}",
                path.display()
            );
        }
        if module == "domain" {
            assert!(
                !code.contains("async") && !code.contains(".await"),
                "{} is async",
                path.display()
            );
            for line in code
                .lines()
                .filter_map(|line| line.trim().strip_prefix("use "))
            {
                let library = line.split(':').next().unwrap();
                let own = [
                    "crate", "super", "self", "ids", "commit", "movement", "quantity", "stock",
                    "time",
                ];
                assert!(
                    DOMAIN_LIBRARIES.contains(&library) || own.contains(&library),
                    "{} uses {library}",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn the_check_sees_what_it_should() {
    let code =
        "use crate::{domain::{A, batch::B}, store, cache::rule::C};\nlet x = crate::http::body();";
    assert_eq!(
        names_after(code, "crate::"),
        ["domain", "store", "cache", "http"]
    );
    assert_eq!(
        names_after("use libsqlx::x; sqlx::query!()", "sqlx::"),
        ["query"]
    );
    assert!(floor("http") > floor("inventory"));
}
