//! Processes that a test starts, freezes and ends: only its own, by their id.

use std::{
    net::SocketAddr,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use stockyard::config::Config;
pub use stockyard::load::chaos::free_port;
use tokio::net::TcpStream;

use super::{eventually, server, tls::Identity};

/// A process that ends with its owner.
pub struct Process(Child);

impl Process {
    pub fn start(command: &mut Command) -> Self {
        Self::saying(command, Stdio::null())
    }

    /// One whose log goes there.
    pub fn saying(command: &mut Command, log: impl Into<Stdio>) -> Self {
        let child = command.stdout(Stdio::null()).stderr(log);
        Self(child.spawn().expect("a process"))
    }

    /// Prometheus with the configuration in that folder, where it keeps its data as well.
    pub fn prometheus(program: &str, port: u16, folder: &Path) -> Self {
        let configuration = folder.join("prometheus.yml");
        let data = folder.join("data");
        let mut command = Command::new(program);
        command
            .arg(format!("--config.file={}", configuration.display()))
            .arg(format!("--storage.tsdb.path={}", data.display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"));
        Self::start(&mut command)
    }

    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }

    pub fn freeze(&self) {
        signal(self.id(), "STOP");
    }

    pub fn thaw(&self) {
        signal(self.id(), "CONT");
    }

    /// What it ended with, once it has.
    pub async fn code(&mut self) -> Option<i32> {
        let ended = eventually("the process has ended", async || {
            self.0.try_wait().expect("a process")
        });
        ended.await.code()
    }

    /// Waits until it has ended, however.
    pub async fn ended(&mut self) {
        eventually("the process has ended", async || {
            (!self.runs()).then_some(())
        })
        .await;
    }

    /// Tells it to end, and waits until it has.
    pub async fn end(&mut self, how: &str) {
        signal(self.id(), how);
        self.ended().await;
    }

    /// Whether it has ended, by `abort`.
    pub fn was_aborted(&mut self) -> bool {
        const SIGABRT: i32 = 6;
        let status = self.0.try_wait().expect("a process");
        status.is_some_and(|status| status.signal() == Some(SIGABRT))
    }

    pub fn kill(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Memory that a process holds now, in bytes; 0 if it is gone.
pub fn resident_bytes(process: u32) -> u64 {
    let output = Command::new("ps")
        .args(["-o", "rss=", "-p", &process.to_string()])
        .output()
        .expect("ps");
    let kib = String::from_utf8_lossy(&output.stdout).trim().parse();
    kib.unwrap_or(0_u64) * 1024
}

pub fn signal(process: u32, name: &str) {
    let status = Command::new("kill")
        .args([format!("-{name}"), process.to_string()])
        .status();
    assert!(status.expect("kill").success(), "signal {name}");
}

/// Waits until the process is stopped by a signal.
pub async fn is_frozen(process: u32) {
    eventually("the process is frozen", async || {
        let output = Command::new("ps")
            .args(["-o", "state=", "-p", &process.to_string()])
            .output();
        output.expect("ps").stdout.starts_with(b"T").then_some(())
    })
    .await;
}

/// Most that an ingest process may hold at any time, in bytes, as README promises. A build without optimisation holds no
/// more.
pub const RESIDENT_BYTES_MAX: u64 = 150 << 20;

/// A service to start: with these settings, written to that file, and an address of its own.
pub fn serve(config: &Config, settings: &Path) -> (Command, SocketAddr) {
    let mut config = config.clone();
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    config.http.listen = vec![address];
    let text = toml::to_string(&config).expect("settings");
    std::fs::write(settings, text).expect("a file");
    (serve_as_written(settings), address)
}

/// One with the settings in that file.
pub fn serve_as_written(settings: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stockyard"));
    command
        .args(["serve", "--config"])
        .arg(settings)
        .env_clear();
    command
}

/// Runs a command of the service to its end.
pub fn stockyard(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    command(arguments, environment).output().expect("it runs")
}

pub fn command(arguments: &[&str], environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stockyard"));
    command.args(arguments).envs(environment.iter().copied());
    command
}

/// What it wrote, wherever.
pub fn said(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    format!("{out}{err}")
}

/// A Redis of the test's own, to be lost.
pub struct OwnRedis {
    pub port: u16,
    directory: PathBuf,
    process: Option<Process>,
}

impl OwnRedis {
    pub async fn start() -> Self {
        let directory = std::env::temp_dir().join(super::unique("redis"));
        std::fs::create_dir(&directory).expect("a directory");
        let mut redis = Self {
            port: free_port(),
            directory,
            process: None,
        };
        redis.run().await;
        redis
    }

    /// One that is reached by TLS alone, as `localhost`, by `user` with its password.
    pub async fn start_by_tls(identity: &Identity, user: &str, password: &str) -> Self {
        let mut redis = Self {
            port: free_port(),
            directory: std::env::temp_dir().join(super::unique("redis")),
            process: None,
        };
        std::fs::create_dir(&redis.directory).expect("a directory");
        let mut command = Command::new(server("STOCKYARD_TEST_REDIS_SERVER"));
        command
            .args(["--bind", "127.0.0.1", "--save", "", "--port", "0"])
            .args(["--tls-port", &redis.port.to_string()])
            .arg("--tls-cert-file")
            .arg(&identity.certificate)
            .arg("--tls-key-file")
            .arg(&identity.key)
            .arg("--tls-ca-cert-file")
            .arg(&identity.certificate)
            .args(["--tls-auth-clients", "no"])
            .args(["--user", user, "on", &format!(">{password}")])
            .args(["~*", "&*", "+@all", "--user", "default", "off"])
            .arg("--dir")
            .arg(&redis.directory);
        redis.process = Some(Process::start(&mut command));
        eventually("redis listens", async || {
            TcpStream::connect(("127.0.0.1", redis.port)).await.ok()
        })
        .await;
        redis
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Starts it on the data it was left with.
    pub async fn run(&mut self) {
        let mut command = Command::new(server("STOCKYARD_TEST_REDIS_SERVER"));
        command
            .args([
                "--port",
                &self.port.to_string(),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
            ])
            .arg("--dir")
            .arg(&self.directory);
        self.process = Some(Process::start(&mut command));
        let client = redis::Client::open(self.url()).expect("a client");
        eventually("redis answers", async || {
            client.get_multiplexed_async_connection().await.ok()
        })
        .await;
    }

    pub async fn save(&self) {
        let client = redis::Client::open(self.url()).expect("a client");
        let mut connection = client
            .get_multiplexed_async_connection()
            .await
            .expect("redis");
        let saved: String = redis::cmd("SAVE")
            .query_async(&mut connection)
            .await
            .expect("saved");
        assert_eq!(saved, "OK");
    }

    pub fn process(&self) -> &Process {
        self.process.as_ref().expect("redis runs")
    }

    /// Ends it without a last save.
    pub fn kill(&mut self) {
        self.process = None;
    }
}

impl Drop for OwnRedis {
    fn drop(&mut self) {
        self.process = None;
        drop(std::fs::remove_dir_all(&self.directory));
    }
}
