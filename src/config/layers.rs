//! Defaults, a file and the environment, one above the other, made into one configuration.
//!
//! `STOCKYARD__SECTION__KEY` sets a key, `STOCKYARD__SECTION__KEY_FILE` says which file holds its value. Values are taken as text and
//! read as what the key wants, so that a password of digits stays as it was written.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    io::{self, Read},
    path::Path,
};

use config::{Config as Layers, ConfigError as Error, File, FileFormat};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};

use super::{ConfigError, DEFAULTS};

/// How our own variables begin.
const PREFIX: &str = "STOCKYARD__";
/// How the variables end that name a file.
const FILE_SUFFIX: &str = "_FILE";
/// The variables that other tools know too, and what they set. An explicit `STOCKYARD__…` goes before them.
const KNOWN_VARIABLES: [(&str, &str); 9] = [
    ("DATABASE_URL", "database.url"),
    ("REDIS_URL", "redis.url"),
    ("KAFKA_BOOTSTRAP_SERVERS", "kafka.bootstrap_servers"),
    ("KAFKA_TOPIC_NAME", "kafka.topic"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "traces.endpoint"),
    ("OTEL_EXPORTER_OTLP_HEADERS", "traces.headers"),
    ("OTEL_TRACES_SAMPLER_ARG", "traces.sample_ratio"),
    ("OTEL_SERVICE_NAME", "traces.service_name"),
    ("OTEL_RESOURCE_ATTRIBUTES", "traces.attributes"),
];
/// Settings that are lists; a variable has their items with commas between.
const LISTS: [&str; 5] = [
    "http.listen",
    "http.admin_listen",
    "http.trusted_proxies",
    "http.allowed_origins",
    "access.tokens.algorithms",
];
/// Largest file of settings, and largest file with one value, in bytes.
const SETTINGS_BYTES_MAX: u64 = 1024 * 1024;
const VALUE_BYTES_MAX: u64 = 64 * 1024;

/// What the layers come to.
pub(super) fn read<C: DeserializeOwned>(
    file: Option<&Path>,
    environment: HashMap<String, String>,
) -> Result<C, ConfigError> {
    let mut layers = Layers::builder().add_source(File::from_str(DEFAULTS, FileFormat::Toml));
    if let Some(path) = file {
        layers = layers.add_source(File::from_str(&settings(path)?, FileFormat::Toml));
    }
    let environment: BTreeMap<String, String> = environment.into_iter().collect();
    for (variable, key) in KNOWN_VARIABLES {
        let value = match environment.get(variable) {
            Some(value) => Some(value.clone()),
            None => of_file(&environment, &format!("{variable}{FILE_SUFFIX}"))?,
        };
        layers = layers.set_override_option(key, value).map_err(plain)?;
    }
    // Later, so that what is explicit goes before.
    for (variable, value) in &environment {
        let Some(name) = variable.strip_prefix(PREFIX) else {
            continue;
        };
        let (name, value) = match name.strip_suffix(FILE_SUFFIX) {
            Some(name) => {
                let by_itself = format!("{PREFIX}{name}");
                if environment.contains_key(&by_itself) {
                    return Err(ConfigError::Twice(by_itself));
                }
                let value = of_file(&environment, variable)?;
                (name, value.unwrap_or_default())
            }
            None => (name, value.clone()),
        };
        let key = name.to_lowercase().replace("__", ".");
        layers = if LISTS.contains(&key.as_str()) {
            let items = value.split(',').filter(|item| !item.is_empty());
            let items: Vec<String> = items.map(str::to_owned).collect();
            layers.set_override(key, items)
        } else {
            layers.set_override(key, value)
        }
        .map_err(plain)?;
    }
    let layers = layers.build().map_err(plain)?;
    layers.try_deserialize().map_err(plain)
}

/// The value in the file that a variable names, without the line's end; `None` where there is no such variable.
fn of_file(
    environment: &BTreeMap<String, String>,
    variable: &str,
) -> Result<Option<String>, ConfigError> {
    let Some(path) = environment.get(variable).map(Path::new) else {
        return Ok(None);
    };
    let text = text_of(path, VALUE_BYTES_MAX).map_err(|error| ConfigError::ValueFile {
        variable: variable.to_owned(),
        path: path.to_owned(),
        why: error.to_string(),
    })?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    Ok(Some(line.to_owned()))
}

/// The text of a file of settings, once it is known to be TOML: what is wrong with it is told without showing it.
fn settings(path: &Path) -> Result<String, ConfigError> {
    let wrong = |why: String| ConfigError::File {
        path: path.to_owned(),
        why,
    };
    let text = text_of(path, SETTINGS_BYTES_MAX).map_err(|error| wrong(error.to_string()))?;
    if let Err(error) = toml::from_str::<toml::Table>(&text) {
        let before = error.span().and_then(|span| text.get(..span.start));
        let line = before.map_or(0, |before| before.matches('\n').count()) + 1;
        return Err(wrong(format!("line {line}: {}", error.message())));
    }
    Ok(text)
}

fn text_of(path: &Path, bytes_max: u64) -> io::Result<String> {
    let mut text = String::new();
    fs::File::open(path)?
        .take(bytes_max + 1)
        .read_to_string(&mut text)?;
    if text.len() as u64 > bytes_max {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(text)
}

/// What is wrong, without the value that is: it may be a secret in the wrong place.
fn plain(error: Error) -> ConfigError {
    ConfigError::Layers(told(error))
}

fn told(error: Error) -> String {
    match error {
        Error::Type { expected, key, .. } => {
            let key = key.unwrap_or_default();
            format!("{key} has to be {expected}")
        }
        Error::At { error, key, .. } => {
            let key = key.unwrap_or_default();
            format!("{key}: {}", told(*error))
        }
        other => without_quoted(&other.to_string()),
    }
}

/// Values are in double quotes there, names of keys in others.
fn without_quoted(message: &str) -> String {
    match (message.find('"'), message.rfind('"')) {
        (Some(from), Some(to)) if from < to => {
            format!("{}\"***{}", &message[..from], &message[to..])
        }
        _ => message.to_owned(),
    }
}

/// Names and values of tables in tables, by names with dots: as TOML and the environment have names that hold dots.
pub(super) fn flat<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Option {
        Text(String),
        Truth(bool),
        Whole(i64),
        Number(f64),
        Table(BTreeMap<String, Self>),
    }
    fn add(into: &mut BTreeMap<String, String>, name: String, option: Option) {
        match option {
            Option::Text(text) => drop(into.insert(name, text)),
            Option::Truth(truth) => drop(into.insert(name, truth.to_string())),
            Option::Whole(number) => drop(into.insert(name, number.to_string())),
            Option::Number(number) => drop(into.insert(name, number.to_string())),
            Option::Table(table) => {
                for (rest, option) in table {
                    add(into, format!("{name}.{rest}"), option);
                }
            }
        }
    }
    let options = BTreeMap::<String, Option>::deserialize(deserializer)?;
    // Names that were written in one go first: what the environment says is in tables, and goes above them.
    let (tables, whole): (Vec<_>, Vec<_>) = options
        .into_iter()
        .partition(|(_, option)| matches!(option, Option::Table(_)));
    let mut flat = BTreeMap::new();
    for (name, option) in whole.into_iter().chain(tables) {
        add(&mut flat, name, option);
    }
    Ok(flat)
}
