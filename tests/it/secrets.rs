//! Secrets come from files or the environment, and are shown to nobody.

use std::{collections::HashMap, fs::File, path::PathBuf};

use stockyard::{
    config::Config,
    store::{Store, StoreSettings},
};

use crate::support::{
    Service, eventually,
    process::{Process, command, free_port, said, stockyard},
    server, unique,
};

/// In every secret.
const MARK: &str = "hunter2";

/// A secret of that setting.
fn secret(of: &str) -> String {
    format!("{MARK}-{of}")
}

/// Every setting that may hold one, and one that is misspelt.
fn marked() -> Vec<(&'static str, String)> {
    vec![
        (
            "STOCKYARD__DATABASE__URL",
            format!("postgres://stockyard:{}@127.0.0.1:1/none", secret("url")),
        ),
        ("STOCKYARD__DATABASE__PASSWORD", secret("database")),
        (
            "STOCKYARD__REDIS__URL",
            format!("redis://:{}@127.0.0.1:1", secret("url")),
        ),
        ("STOCKYARD__REDIS__PASSWORD", secret("redis")),
        (
            "STOCKYARD__TRACES__HEADERS",
            format!("authorization={}", secret("traces")),
        ),
        ("STOCKYARD__KAFKA__OPTIONS__SASL__PASSWORD", secret("kafka")),
        (
            "STOCKYARD__KAFKA__OPTIONS__SSL__KEY__PASSWORD",
            secret("key"),
        ),
        ("STOCKYARD__KAFKA__OPTIONS__SSL__KEY__PEM", secret("pem")),
        (
            "STOCKYARD__KAFKA__OPTIONS__SASL__OAUTHBEARER__CONFIG",
            secret("oauth"),
        ),
    ]
}

fn config(environment: &[(&str, String)]) -> Config {
    let environment = environment
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.clone()));
    Config::from_layers(None, environment.collect()).expect("settings")
}

/// A file that is gone with it.
struct Held(PathBuf);

impl Held {
    fn new(text: &str) -> Self {
        let path = std::env::temp_dir().join(unique("secret"));
        std::fs::write(&path, text).expect("a file");
        Self(path)
    }

    fn path(&self) -> String {
        self.0.display().to_string()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0));
    }
}

#[test]
fn a_setting_can_be_in_a_file() {
    let url = format!("postgres://stockyard:{MARK}@elsewhere/db");
    let held = [
        Held::new(&format!("{url}\n")),
        Held::new("0123\r\n"),
        Held::new("3"),
    ];
    let [address, password, lanes] = [0, 1, 2].map(|place| held[place].path());
    let config = config(&[
        ("DATABASE_URL_FILE", address.clone()),
        (
            "STOCKYARD__KAFKA__OPTIONS__SASL__PASSWORD_FILE",
            password.clone(),
        ),
        ("STOCKYARD__INGEST__LANES_FILE", lanes),
        ("STOCKYARD__REDIS__PASSWORD", "007".to_owned()),
    ]);
    assert_eq!((config.database.url, config.ingest.lanes), (url, 3));
    // As it was written, though it looks like a number.
    assert_eq!(config.kafka.options["sasl.password"], "0123");
    assert_eq!(config.redis.password, "007");

    let fails = |environment: &[(&str, &str)]| {
        let environment: HashMap<_, _> = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Config::from_layers(None, environment)
            .expect_err("no settings")
            .to_string()
    };
    let error = fails(&[("STOCKYARD__REDIS__PASSWORD_FILE", "/no/such/file")]);
    assert!(
        error.contains("STOCKYARD__REDIS__PASSWORD_FILE") && error.contains("/no/such/file"),
        "{error}"
    );
    let error = fails(&[
        ("STOCKYARD__DATABASE__URL", MARK),
        ("STOCKYARD__DATABASE__URL_FILE", &address),
    ]);
    assert!(
        error.contains("STOCKYARD__DATABASE__URL is given twice"),
        "{error}"
    );
    let large = Held::new(&MARK.repeat(10_000));
    let error = fails(&[("STOCKYARD__REDIS__PASSWORD_FILE", &large.path())]);
    assert!(
        error.contains("too large") && !error.contains(MARK),
        "{error}"
    );
    // What is of the wrong kind is not repeated.
    let error = fails(&[("STOCKYARD__INGEST__LANES_FILE", &address)]);
    assert!(
        error.contains("ingest.lanes") && !error.contains(MARK),
        "{error}"
    );
}

#[test]
fn options_with_dots_are_written_in_any_way() {
    let file = Held::new(
        "[kafka.options]\n\"sasl.username\" = \"a\"\nssl.ca.location = \"/a\"\nsession.timeout.ms = 6000\n",
    );
    let environment = HashMap::from([(
        "STOCKYARD__KAFKA__OPTIONS__SASL__USERNAME".to_owned(),
        "b".to_owned(),
    )]);
    let options = Config::from_layers(Some(&file.0), environment)
        .unwrap()
        .kafka
        .options;
    let options: Vec<_> = options
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let wanted = [
        ("sasl.username", "b"),
        ("session.timeout.ms", "6000"),
        ("ssl.ca.location", "/a"),
    ];
    assert_eq!(options, wanted);
}

#[test]
fn what_is_shown_has_no_secret() {
    let config = config(&marked());
    let store = Store::new(&StoreSettings {
        url: config.database.url.clone(),
        password: config.database.password.clone(),
        role: String::new(),
        read_connections_max: 1,
        scan_connections_max: 1,
        acquire_timeout: std::time::Duration::from_secs(1),
        read_timeout: std::time::Duration::from_secs(1),
        write_timeout: std::time::Duration::from_secs(1),
    });
    let store = store.unwrap();
    let debug = format!("{config:?} {store:?} {:?}", store.writer());
    let shown = config.shown().unwrap();
    for text in [&debug, &shown] {
        assert!(!text.contains(MARK), "{text}");
    }
    for told in [
        "stockyard:***@127.0.0.1:1",
        "password = \"***\"",
        "sasl.password",
    ] {
        assert!(shown.contains(told), "{shown}");
    }
}

#[test]
fn no_error_has_a_secret() {
    let broken = Held::new(&format!(
        "[database]\nurl = \"postgres://u:{MARK}@h/d\nrole = \"\"\n"
    ));
    let unknown = Held::new(&format!("[database]\npasword = \"{MARK}\"\n"));
    let wrong_place = Held::new(&format!("database = \"postgres://u:{MARK}@h/d\"\n"));
    for (file, told) in [
        (&broken, "line 2"),
        (&unknown, "pasword"),
        (&wrong_place, "database"),
    ] {
        let output = stockyard(&["config", "--config", &file.path()], &[]);
        let said = said(&output);
        assert!(!output.status.success() && !said.contains(MARK), "{said}");
        assert!(said.contains(told), "{said}");
    }
    let url = |rest: &str| format!("postgres://u:{MARK}{rest}");
    let (spelt, port) = (
        url("@127.0.0.1:1/d?pasword=hunter2"),
        url("@127.0.0.1:port/d"),
    );
    let (slash, mode) = (
        url("/2@127.0.0.1:1/d"),
        url("@127.0.0.1:1/d?sslmode=always"),
    );
    let no_file = url("@127.0.0.1:1/d?sslmode=verify-full&sslrootcert=/no/such/ca");
    for (name, value, command, told) in [
        ("DATABASE_URL", spelt.as_str(), "verify", "pasword"),
        ("DATABASE_URL", &port, "verify", "port"),
        ("DATABASE_URL", &slash, "verify", ""),
        ("DATABASE_URL", &mode, "verify", "always"),
        ("DATABASE_URL", &no_file, "verify", ""),
        (
            "REDIS_URL",
            "redis://:hunter2@host:port",
            "serve",
            "Redis URL",
        ),
        ("REDIS_URL", "hunter2", "serve", "Redis URL"),
        (
            "STOCKYARD__KAFKA__OPTIONS__SASL__PASWORD",
            MARK,
            "migrate",
            "sasl.pasword",
        ),
        (
            "STOCKYARD__KAFKA__OPTIONS__SECURITY__PROTOCOL",
            MARK,
            "migrate",
            "security.protocol",
        ),
        (
            "STOCKYARD__KAFKA__OPTIONS__SSL__KEY__PEM",
            MARK,
            "migrate",
            "ssl.key.pem",
        ),
    ] {
        let database = server("STOCKYARD_TEST_DATABASE_URL");
        let mut environment = vec![
            ("STOCKYARD__HTTP__LISTEN", "127.0.0.1:0"),
            ("STOCKYARD__LOG__FILTER", "debug"),
            (name, value),
        ];
        if name != "DATABASE_URL" {
            environment.push(("DATABASE_URL", &database));
        }
        if command == "migrate" && name.ends_with("PEM") {
            environment.push(("STOCKYARD__KAFKA__OPTIONS__SECURITY__PROTOCOL", "SSL"));
        }
        let output = stockyard(&[command], &environment);
        let said = said(&output);
        assert!(
            !output.status.success() && !said.contains(MARK),
            "{name}: {said}"
        );
        assert!(said.contains(told), "{name}: {said}");
    }
}

#[tokio::test]
async fn the_log_of_a_process_that_cannot_connect_has_no_secret() {
    let folder = std::env::temp_dir().join(unique("log"));
    std::fs::create_dir(&folder).unwrap();
    let log = folder.join("serve.log");
    let host_of = |url: String| {
        let host = url
            .rsplit_once('@')
            .map_or(url.clone(), |(_, host)| host.to_owned());
        host.rsplit("//").next().unwrap().to_owned()
    };
    let database = host_of(server("STOCKYARD_TEST_DATABASE_URL"));
    let redis = host_of(server("STOCKYARD_TEST_REDIS_URL"));
    let mut environment: HashMap<_, _> = marked().into_iter().collect();
    let listen = format!("127.0.0.1:{}", free_port());
    let service = Service::at(&format!("http://{listen}"));
    // They are there, and know no such password; Kafka speaks no TLS.
    environment.insert(
        "STOCKYARD__DATABASE__URL",
        format!("postgres://stockyard:{MARK}@{database}"),
    );
    environment.insert("STOCKYARD__REDIS__URL", format!("redis://:{MARK}@{redis}"));
    environment.insert("KAFKA_BOOTSTRAP_SERVERS", server("STOCKYARD_TEST_KAFKA"));
    environment.remove("STOCKYARD__KAFKA__OPTIONS__SSL__KEY__PEM");
    environment.remove("STOCKYARD__KAFKA__OPTIONS__SASL__OAUTHBEARER__CONFIG");
    for (name, value) in [
        ("STOCKYARD__KAFKA__OPTIONS__SECURITY__PROTOCOL", "SASL_SSL"),
        (
            "STOCKYARD__KAFKA__OPTIONS__SASL__MECHANISM",
            "SCRAM-SHA-512",
        ),
        ("STOCKYARD__KAFKA__OPTIONS__SASL__USERNAME", "stockyard"),
        ("STOCKYARD__KAFKA__OPTIONS__DEBUG", "all"),
        ("STOCKYARD__HTTP__LISTEN", &listen),
        ("STOCKYARD__LOG__FILTER", "trace"),
    ] {
        environment.insert(name, value.to_owned());
    }
    let environment: Vec<_> = environment
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let mut run = command(&["serve"], &environment);
    let mut process = Process::saying(&mut run, File::create(&log).unwrap());
    for complaint in [
        "password authentication failed",
        "redis is left aside",
        "SSL handshake failed",
    ] {
        eventually(complaint, async || {
            assert!(process.runs(), "it goes on trying");
            // Redis is needed when somebody asks.
            service.try_get("/health").await;
            let log = std::fs::read_to_string(&log).unwrap();
            log.contains(complaint).then_some(())
        })
        .await;
    }
    process.end("TERM").await;
    let log = std::fs::read_to_string(&log).unwrap();
    let told = log.lines().find(|line| line.contains(MARK));
    assert_eq!(told, None);
    std::fs::remove_dir_all(folder).unwrap();
}
