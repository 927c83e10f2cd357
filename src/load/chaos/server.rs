//! Servers and services that this process started, to be killed, frozen and started again: only these, by their ids.
//!
//! `scripts/own-server.sh` holds a server and ends it when its own input ends: nothing is left, whatever becomes of this process.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::{sleep, timeout},
};

use crate::load::LoadError;

/// Longest a server may take to answer: it may have to be fetched first.
const START_MAX: Duration = Duration::from_mins(10);
/// Longest the script may take to end its server.
const END_MAX: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(20);

fn failed(what: &str, why: impl std::fmt::Display) -> LoadError {
    LoadError::Prepare(format!("{what}: {why}"))
}

/// A Kafka, a `PostgreSQL` or a Redis.
pub(super) struct Server {
    kind: &'static str,
    holder: Child,
    told: Option<ChildStdin>,
    tells: Lines<BufReader<ChildStdout>>,
    main: Pid,
    frozen: Vec<Pid>,
}

impl Server {
    /// Starts one in a folder of its own; it answers then.
    pub(super) async fn start(
        script: &Path,
        kind: &'static str,
        folder: &Path,
        ports: &[u16],
    ) -> Result<Self, LoadError> {
        let folder = folder.join(kind);
        std::fs::create_dir_all(&folder)?;
        let said = std::fs::File::create(folder.join("said"))?;
        let mut holder = Command::new(script)
            .arg(kind)
            .arg(&folder)
            .args(ports.iter().map(ToString::to_string))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(said)
            // What interrupts the test at a terminal is not for them.
            .process_group(0)
            .spawn()
            .map_err(|error| failed(&script.display().to_string(), error))?;
        let told = holder.stdin.take();
        let tells = holder.stdout.take();
        let tells = tells.ok_or_else(|| failed(kind, "it says nothing"))?;
        let mut server = Self {
            kind,
            holder,
            told,
            tells: BufReader::new(tells).lines(),
            main: Pid::from_raw(0),
            frozen: Vec::new(),
        };
        server.answers().await?;
        Ok(server)
    }

    async fn answers(&mut self) -> Result<(), LoadError> {
        let line = timeout(START_MAX, self.tells.next_line()).await;
        let line = line.map_err(|_| failed(self.kind, "it does not start"))??;
        let pid = line.and_then(|line| line.strip_prefix("pid ")?.parse().ok());
        let pid = pid.ok_or_else(|| failed(self.kind, "it did not start"))?;
        self.main = Pid::from_raw(pid);
        Ok(())
    }

    /// The first process and its children: those of `PostgreSQL` are no process group.
    async fn processes(&self) -> Result<Vec<Pid>, LoadError> {
        let listed = Command::new("ps")
            .args(["-A", "-o", "pid=", "-o", "ppid="])
            .output()
            .await?;
        let text = String::from_utf8_lossy(&listed.stdout);
        let children = text.lines().filter_map(|line| {
            let mut numbers = line.split_whitespace().map(str::parse);
            let (pid, parent) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
            (Pid::from_raw(parent) == self.main).then(|| Pid::from_raw(pid))
        });
        Ok(std::iter::once(self.main).chain(children).collect())
    }

    /// Kills all of its processes at once.
    pub(super) async fn kill(&mut self) -> Result<(), LoadError> {
        for process in self.processes().await? {
            tell(process, Signal::SIGKILL);
        }
        let ended = async {
            while kill(self.main, None).is_ok() {
                sleep(LOOK_EVERY).await;
            }
        };
        let ended = timeout(END_MAX, ended).await;
        ended.map_err(|_| failed(self.kind, "it cannot be killed"))
    }

    /// Starts it on the data it was left with.
    pub(super) async fn start_again(&mut self) -> Result<(), LoadError> {
        if let Some(told) = &mut self.told {
            told.write_all(b"\n").await?;
        }
        self.answers().await
    }

    /// Freezes all of its processes, the first one first: it starts the others.
    pub(super) async fn freeze(&mut self) -> Result<(), LoadError> {
        tell(self.main, Signal::SIGSTOP);
        self.frozen = self.processes().await?;
        for process in &self.frozen {
            tell(*process, Signal::SIGSTOP);
        }
        Ok(())
    }

    pub(super) fn thaw(&mut self) {
        for process in std::mem::take(&mut self.frozen) {
            tell(process, Signal::SIGCONT);
        }
    }

    /// Ends it.
    pub(super) async fn end(mut self) {
        self.thaw();
        // The end of its input is its sign.
        self.told = None;
        drop(timeout(END_MAX, self.holder.wait()).await);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // One that is stopped would not hear that its holder wants it to end.
        self.thaw();
    }
}

/// Whoever has ended by itself meanwhile cannot be told anything, and need not be.
fn tell(process: Pid, signal: Signal) {
    let _ = kill(process, signal);
}

/// A process of the service.
pub(super) struct Serving {
    settings: PathBuf,
    log: PathBuf,
    port: u16,
    process: Child,
}

impl Serving {
    /// Starts this program as a service, with the settings in that file.
    pub(super) fn start(settings: PathBuf, log: PathBuf, port: u16) -> Result<Self, LoadError> {
        let process = run(&settings, &log, &["serve"])?;
        Ok(Self {
            settings,
            log,
            port,
            process,
        })
    }

    pub(super) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.process.id().and_then(|pid| i32::try_from(pid).ok()) {
            tell(Pid::from_raw(pid), signal);
        }
    }

    pub(super) fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    pub(super) fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Kills it, without a word.
    pub(super) async fn kill(&mut self) -> Result<(), LoadError> {
        Ok(self.process.kill().await?)
    }

    pub(super) fn start_again(&mut self) -> Result<(), LoadError> {
        self.process = run(&self.settings, &self.log, &["serve"])?;
        Ok(())
    }
}

/// Runs this program with the settings in that file; it ends with its owner.
pub(super) fn run(settings: &Path, log: &Path, arguments: &[&str]) -> Result<Child, LoadError> {
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)?;
    let child = Command::new(std::env::current_exe()?)
        .args(arguments)
        .arg("--config")
        .arg(settings)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    Ok(child)
}
