//! Looks at a run once a second: what was answered, how the service is; tells it to the terminal, the log and the page.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{figures::Second, invariants::Invariant, run::Run, service, thresholds::ms};
use crate::domain::Timestamp;

/// Seconds that are kept: a day.
const SECONDS_MAX: usize = 86_400;

/// What was seen so far.
#[derive(Debug)]
pub(super) struct Monitor {
    run: Arc<Run>,
    name: &'static str,
    /// How long the load is to last, where that is known.
    lasts: Option<Duration>,
    began: Duration,
    seen: Mutex<Seen>,
    bar: ProgressBar,
    log: Mutex<BufWriter<File>>,
}

#[derive(Debug, Default)]
struct Seen {
    seconds: Vec<Second>,
    events: Vec<(f64, String)>,
}

impl Monitor {
    /// Begins with the load.
    pub(super) fn new(
        run: &Arc<Run>,
        name: &'static str,
        lasts: Option<Duration>,
        log: &Path,
        is_quiet: bool,
    ) -> std::io::Result<Self> {
        let bar = if is_quiet {
            ProgressBar::hidden()
        } else {
            ProgressBar::new_spinner()
        };
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
            bar.set_style(style);
        }
        Ok(Self {
            run: Arc::clone(run),
            name,
            lasts,
            began: run.clock.elapsed(),
            seen: Mutex::default(),
            bar,
            log: Mutex::new(BufWriter::new(File::create(log)?)),
        })
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn seconds(&self) -> Vec<Second> {
        self.seen().seconds.clone()
    }

    /// Those after the first so many.
    pub(super) fn seconds_after(&self, known: usize) -> Vec<Second> {
        let seen = self.seen();
        seen.seconds
            .get(known..)
            .map_or_else(Vec::new, <[Second]>::to_vec)
    }

    pub(super) fn events(&self) -> Vec<(f64, String)> {
        self.seen().events.clone()
    }

    /// Since the load began.
    pub(super) fn elapsed(&self) -> Duration {
        self.run.clock.elapsed().saturating_sub(self.began)
    }

    /// Something happened that explains what is seen.
    pub(super) fn event(&self, what: impl Into<String>) {
        let what = what.into();
        self.say(&what);
        let at = self.elapsed().as_secs_f64();
        self.seen().events.push((at, what));
    }

    /// A line of the log, and of the terminal.
    pub(super) fn say(&self, line: &str) {
        self.bar.println(line);
        self.log(line);
    }

    /// A line of the log.
    pub(super) fn log(&self, line: &str) {
        let at = Timestamp::from_micros(self.run.clock.unix_micros());
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        // A log that cannot be written is no reason to end a test.
        drop(writeln!(log, "{at} {line}").and_then(|()| log.flush()));
    }

    /// Looks every second, until told to stop.
    pub(super) async fn watch(self: Arc<Self>, stop: CancellationToken) {
        // Requests for metrics are none of the test.
        let aside = Arc::new(Run::new(self.run.hosts.clone(), 0, false));
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = sleep(self.until_next_second()) => {}
            }
            let mut second = self.run.figures.end_second(self.elapsed().as_secs_f64());
            tokio::select! {
                () = stop.cancelled() => {}
                reading = service::read_all(&aside) => second.service = reading,
            }
            self.tell(&second);
            let mut seen = self.seen();
            if seen.seconds.len() < SECONDS_MAX {
                seen.seconds.push(second);
            }
        }
        self.bar.finish_and_clear();
    }

    fn until_next_second(&self) -> Duration {
        let nanos = self.elapsed().subsec_nanos();
        Duration::from_secs(1).saturating_sub(Duration::from_nanos(u64::from(nanos)))
    }

    fn broken(&self) -> u64 {
        let all = self.run.oracle.findings.all();
        all.iter()
            .map(|(_, finding): &(Invariant, _)| finding.broken)
            .sum()
    }

    fn tell(&self, second: &Second) {
        let lasts = self
            .lasts
            .map_or(String::new(), |lasts| format!("/{}", clock(lasts)));
        let lag = second.service.map_or(String::new(), |service| {
            format!(
                " · {:.0} MiB · lag {:.1} s",
                service.resident_bytes / f64::from(1 << 20),
                service.lag_seconds
            )
        });
        let line = format!(
            "{} {}{lasts} · {} users · {} requests/s · p50 {:.1} ms, p99 {:.1} ms · {} failed · {} frames/s{lag} · {} broken",
            self.name,
            clock(self.elapsed()),
            second.users,
            second.requests,
            ms(second.p50),
            ms(second.p99),
            second.failures,
            second.frames,
            self.broken()
        );
        self.log(&line);
        self.bar.set_message(line);
        self.bar.tick();
    }
}

/// Minutes and seconds.
fn clock(time: Duration) -> String {
    format!("{}:{:02}", time.as_secs() / 60, time.as_secs() % 60)
}
