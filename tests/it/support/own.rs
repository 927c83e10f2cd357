//! A `PostgreSQL` or a Kafka of a test's own, to be stopped, killed, frozen and started again; gone when the test ends.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout},
};

use super::{
    eventually,
    process::{free_port, is_frozen, signal},
    tls::Identity,
};

/// What `scripts/own-server.sh` ends with where nobody may make a disk.
const NO_DISK: i32 = 77;
/// How long the script may take to end its server.
const END_MAX: Duration = Duration::from_secs(20);

/// A server, held by `scripts/own-server.sh`: that ends it when this is dropped, or when the test's process is gone.
pub struct OwnServer {
    pub port: u16,
    folder: PathBuf,
    holder: Child,
    told: Option<ChildStdin>,
    tells: Lines<BufReader<ChildStdout>>,
    /// The server's first process.
    main: u32,
    frozen: Vec<u32>,
}

/// A disk of the server's own.
#[derive(Clone, Copy, Debug)]
pub enum Disk {
    /// With all of the server's data, its log of changes included.
    OfAll { megabytes: u32 },
    /// Beside the data, for what is put there.
    Beside { megabytes: u32 },
}

impl OwnServer {
    /// A `PostgreSQL`, whose superuser is that of the others.
    pub async fn postgres() -> Self {
        let server = Self::start("postgres", free_port(), &[], None).await;
        server.expect("a PostgreSQL")
    }

    /// A `PostgreSQL` with a disk of its own; where nobody may make one, why not.
    pub async fn postgres_on(disk: Disk) -> Result<Self, &'static str> {
        Self::start("postgres", free_port(), &[], Some(disk)).await
    }

    /// A Kafka. Clients that come by the second port are told to come by the third.
    pub async fn kafka(by_proxy: u16, proxy: u16) -> Self {
        let ports = [by_proxy.to_string(), proxy.to_string()];
        let server = Self::start("kafka", free_port(), &ports, None).await;
        server.expect("a Kafka")
    }

    /// A `PostgreSQL` that is reached by TLS alone, as `localhost`, and wants passwords by SCRAM (`SCRAM` in its log-in, never in clear).
    pub async fn postgres_by_tls(identity: &Identity) -> Self {
        let rules = identity.beside(
            "pg_hba.conf",
            "hostssl all all 127.0.0.1/32 scram-sha-256\n",
        );
        let more = [
            "ssl=on".to_owned(),
            format!("ssl_cert_file={}", identity.certificate.display()),
            format!("ssl_key_file={}", identity.key.display()),
            format!("hba_file={}", rules.display()),
        ];
        let server = Self::start("postgres", free_port(), &more, None).await;
        server.expect("a PostgreSQL")
    }

    /// A Kafka that is reached by TLS, as `localhost`, by who proves with SCRAM to be `user`.
    pub async fn kafka_by_tls(identity: &Identity, user: &str, password: &str) -> Self {
        let more = [
            identity.both.display().to_string(),
            format!("[name={user},password={password}]"),
        ];
        let server = Self::start("kafka", free_port(), &more, None).await;
        server.expect("a Kafka")
    }

    async fn start(
        kind: &str,
        port: u16,
        more: &[String],
        disk: Option<Disk>,
    ) -> Result<Self, &'static str> {
        let folder = std::env::temp_dir().join(super::unique("own"));
        std::fs::create_dir(&folder).expect("a folder");
        let said = std::fs::File::create(folder.join("said")).expect("a file");
        let mut command = Command::new("scripts/own-server.sh");
        command
            .arg(kind)
            .arg(&folder)
            .arg(port.to_string())
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(said);
        if let Some(Disk::OfAll { megabytes } | Disk::Beside { megabytes }) = disk {
            command.env("STOCKYARD_OWN_DISK", megabytes.to_string());
        }
        if let Some(Disk::OfAll { .. }) = disk {
            command.env("STOCKYARD_OWN_DISK_HOLDS", "data");
        }
        let mut holder = tokio::process::Command::from(command)
            .spawn()
            .expect("scripts/own-server.sh");
        let told = holder.stdin.take();
        let tells = BufReader::new(holder.stdout.take().expect("its words")).lines();
        let mut server = Self {
            port,
            folder,
            holder,
            told,
            tells,
            main: 0,
            frozen: Vec::new(),
        };
        if server.hear().await {
            return Ok(server);
        }
        let status = server.holder.wait().await.expect("its end");
        if status.code() == Some(NO_DISK) {
            return Err("this user may neither mount a file system nor make a namespace to do so");
        }
        let said = std::fs::read_to_string(server.folder.join("said"));
        panic!(
            "own-server.sh {kind}: {status}: {}",
            said.unwrap_or_default()
        )
    }

    /// Waits until the server answers; whether it does.
    async fn hear(&mut self) -> bool {
        let line = tokio::time::timeout(super::deadline() * 2, self.tells.next_line()).await;
        let line = line.expect("a server in time").expect("a line");
        let pid = line.and_then(|line| line.strip_prefix("pid ")?.parse().ok());
        self.main = pid.unwrap_or(0);
        pid.is_some()
    }

    pub fn url(&self) -> String {
        format!(
            "postgres://stockyard:stockyard@127.0.0.1:{}/postgres",
            self.port
        )
    }

    /// A new folder in the server's, owned by who owns its data; its path as the server sees it. (What it sees of its
    /// disk, others do not.)
    pub fn own_place(&self, path: &str) -> String {
        let reached = self.reach(path);
        std::fs::create_dir(&reached).expect("a folder");
        let data = std::fs::read_dir(self.reach("data")).expect("data");
        let cluster = data
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .find(|path| path.is_dir())
            .expect("a cluster");
        let status = Command::new("chown")
            .arg("--reference")
            .arg(cluster)
            .arg(reached)
            .status();
        assert!(status.expect("chown").success(), "chown");
        self.folder.join(path).display().to_string()
    }

    /// A path in the server's folder, with its disk as the server sees it.
    pub fn reach(&self, path: &str) -> PathBuf {
        let holder = self.holder.id().expect("it runs");
        let from_root = self.folder.join(path);
        let from_root = from_root.strip_prefix("/").expect("an absolute path");
        PathBuf::from(format!("/proc/{holder}/root")).join(from_root)
    }

    /// Asks the server to end, in the signal's way, and waits until it has.
    pub async fn stop(&mut self, how: &str) {
        signal(self.main, how);
        self.has_ended().await;
    }

    /// Kills all of its processes at once.
    pub async fn kill(&mut self) {
        let all = self.processes();
        for process in &all {
            // One of PostgreSQL's may have ended by itself meanwhile.
            drop(kill(*process, "KILL"));
        }
        self.has_ended().await;
    }

    pub async fn has_ended(&self) {
        let main = self.main;
        eventually("the server has ended", async || {
            (!is_there(main)).then_some(())
        })
        .await;
    }

    pub fn runs(&self) -> bool {
        is_there(self.main)
    }

    /// Freezes all of its processes, the first one first: it starts the others.
    pub async fn freeze(&mut self) {
        signal(self.main, "STOP");
        is_frozen(self.main).await;
        self.frozen = self.processes();
        for process in &self.frozen {
            drop(kill(*process, "STOP"));
        }
    }

    pub fn thaw(&mut self) {
        for process in std::mem::take(&mut self.frozen) {
            drop(kill(process, "CONT"));
        }
    }

    /// Starts it on the data it was left with.
    pub async fn start_again(&mut self) {
        let told = self.told.as_mut().expect("a holder");
        told.write_all(b"\n").await.expect("told");
        assert!(self.hear().await, "the server starts again");
    }

    /// The first process and its children.
    fn processes(&self) -> Vec<u32> {
        let output = Command::new("ps")
            .args(["-A", "-o", "pid=", "-o", "ppid="])
            .output()
            .expect("ps");
        let text = String::from_utf8_lossy(&output.stdout);
        let children = text.lines().filter_map(|line| {
            let mut numbers = line.split_whitespace().map(str::parse);
            let (Some(Ok(process)), Some(Ok(parent))) = (numbers.next(), numbers.next()) else {
                return None;
            };
            (parent == self.main).then_some(process)
        });
        std::iter::once(self.main).chain(children).collect()
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        self.thaw();
        // The end of its input is its sign.
        self.told = None;
        let began = stockyard::clock::Clock::system();
        while began.elapsed() < END_MAX && matches!(self.holder.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(10));
        }
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

fn is_there(process: u32) -> bool {
    kill(process, "0").is_ok_and(|status| status.success())
}

fn kill(process: u32, name: &str) -> std::io::Result<std::process::ExitStatus> {
    Command::new("kill")
        .args([format!("-{name}"), process.to_string()])
        .stderr(Stdio::null())
        .status()
}
