//! What clients that mean harm do to the others, and to the memory of the process.
//!
//! The others ask at set rates, each from an address of its own: some over connections that they keep, some over a new one for each
//! request, some for changes, and some listen. They are measured alone and beside the hostile ones, in turn.

use std::{fs, time::Duration};

use stockyard::{clock::Clock, produce::plan::PlanOptions};
use tokio::join;

use super::{
    attack::{Attack, Hostile, Told},
    backlog::lag_is_zero,
    crowd::Crowd,
    fanout::{self, arrivals},
    load::{Answered, Manner, get, send},
    machine::{peak_mib, processor_seconds, resident_kib},
    reads::{Keys, path, restock},
    stream::Stream,
    table::{Figures, Row, as_f64, length, print, progress, remark, row},
    world::{Backlog, Database, Outcome, Service},
};

/// How often it is compared.
const PAIRS: usize = 5;
/// Long enough for a p99 of the commands to be that of more than a handful.
const MEASURED: Duration = Duration::from_secs(10);
const WARM_UP: Duration = Duration::from_secs(1);
/// How long what is left of them may take to go.
const AFTER: Duration = Duration::from_secs(1);
/// Requests a second of those who read over connections that they keep, of those who come anew for each, and of those who change
/// something; and over how many connections.
const READS: (f64, usize) = (1_500.0, 50);
const NEWCOMERS: (f64, usize) = (200.0, 20);
const COMMANDS: (f64, usize) = (100.0, 10);
/// Those who listen, and what each of them gets.
const LISTENERS: usize = 50;
const FRAMES: u64 = 100;
/// Requests and new connections a second of one address where somebody floods with something: twice what each of the others has.
const REQUEST_RATE: &str = "100";
const CONNECTION_RATE: &str = "20";
/// Products in the catalogue, for answers that are long.
const PRODUCTS: usize = 1_000;
/// What is there before.
const BEHIND: u64 = 100_000;
/// What they may make of a p99: the larger of a share more, and so many milliseconds.
const SHARE_MORE: f64 = 1.2;
const MORE_MS: f64 = 2.0;
/// What the process may grow by on its own meanwhile, in MiB: its caches and its ring are being filled.
const OWN_MIB: f64 = 24.0;
/// And where sockets come anew, which get snapshots: as many as are kept (`live.snapshot_bytes_max`), and two that are being read, about
/// 40 each here, rows and text.
const SNAPSHOTS_MIB: f64 = 64.0 + 2.0 * 40.0;

impl Attack {
    /// What each of its connections may take of memory at most, in KiB.
    fn kib_each(self) -> f64 {
        match self {
            // A body of at most 256 KiB, or an answer: a page of 1,000 products.
            Self::SlowBodies | Self::LongBodies | Self::EndlessBodies | Self::SlowReads => 296.0,
            Self::IdleSockets => 10.0,
            // A head of at most 16 KiB, which is read into twice as much, and the task; or a turn of 16 KiB and a message of at most 4.
            _ => 40.0,
        }
    }

    fn most_mib(self) -> f64 {
        let snapshots = if self.is_of_sockets() {
            SNAPSHOTS_MIB
        } else {
            0.0
        };
        OWN_MIB + snapshots + length(self.connections()) * self.kib_each() / 1024.0
    }

    fn is_of_sockets(self) -> bool {
        matches!(
            self,
            Self::SlowSockets
                | Self::Resumes
                | Self::Messages
                | Self::Frames
                | Self::Fragments
                | Self::IdleSockets
        )
    }
}

/// What the others have in one measurement: p99 in milliseconds.
#[derive(Clone, Copy, Debug)]
struct Others {
    reads: f64,
    newcomers: f64,
    commands: f64,
    frames: f64,
}

/// The same over all pairs.
#[derive(Default)]
struct Measured {
    reads: Figures,
    newcomers: Figures,
    commands: Figures,
    frames: Figures,
}

impl Measured {
    fn push(&mut self, others: Others) {
        self.reads.push(others.reads);
        self.newcomers.push(others.newcomers);
        self.commands.push(others.commands);
        self.frames.push(others.frames);
    }
}

/// What it costs the process, and what the hostile ones did.
#[derive(Default)]
struct Cost {
    /// How much more memory than before all pairs it had at most, and had afterwards, in MiB. The allocator keeps what was used, so
    /// that it is not back shows nothing; that it does not rise from pair to pair does.
    peak: Figures,
    after: Figures,
    /// Processors used by the service and by the hostile ones.
    service: Figures,
    hostile: Figures,
    opened: Figures,
    sent: Figures,
}

pub async fn measure(plan: &PlanOptions, attacks: &[Attack], pairs: Option<usize>) -> Outcome<()> {
    let (mut others, mut costs) = (Vec::new(), Vec::new());
    for &attack in attacks {
        let (alone, beside, cost) = under(plan, attack, pairs.unwrap_or(PAIRS)).await?;
        others.push(times_row(attack, &alone, &beside));
        costs.push(cost_row(attack, &cost));
    }
    print(
        "Hostile clients: p99 of the others alone and beside them, ms",
        &[
            "reads",
            "over a new connection each",
            "commands",
            "from the commit to the frame",
        ],
        &others,
    );
    print(
        "What they cost the process, and what they did",
        &[
            "memory more at most, MiB",
            "and after, MiB",
            "processors of the service",
            "and of theirs",
            "connections/s",
            "sent/s",
        ],
        &costs,
    );
    remark(&format!(
        "Others: {} reads/s over {} connections, {} over new ones, {} commands/s, {LISTENERS} listeners of {FRAMES} frames/s. Reach: at most \
        {SHARE_MORE} times or {MORE_MS} ms more, whichever is larger. Floods under http.requests_per_second = {REQUEST_RATE} and http.connections_per_second = {CONNECTION_RATE}.",
        READS.0, READS.1, NEWCOMERS.0, COMMANDS.0
    ));
    Ok(())
}

fn times_row(attack: Attack, alone: &Measured, beside: &Measured) -> Row {
    let cell = |alone: &Figures, beside: &Figures| {
        let most = (alone.median() * SHARE_MORE).max(alone.median() + MORE_MS);
        let word = if beside.median() <= most {
            "reached"
        } else {
            "short"
        };
        format!(
            "{} → {} (at most {most:.1}: {word})",
            alone.show(1),
            beside.show(1)
        )
    };
    row(
        &attack.name(),
        [
            cell(&alone.reads, &beside.reads),
            cell(&alone.newcomers, &beside.newcomers),
            cell(&alone.commands, &beside.commands),
            cell(&alone.frames, &beside.frames),
        ],
    )
}

fn cost_row(attack: Attack, cost: &Cost) -> Row {
    let (most, peak) = (attack.most_mib(), cost.peak.max());
    let word = if peak <= most { "reached" } else { "short" };
    row(
        &attack.name(),
        [
            format!("{peak:.0} (at most {most:.0}: {word})"),
            cost.after.show(0),
            cost.service.show(2),
            cost.hostile.show(2),
            cost.opened.show(0),
            cost.sent.show(0),
        ],
    )
}

/// One kind of them, against a service of its own.
async fn under(
    plan: &PlanOptions,
    attack: Attack,
    pairs: usize,
) -> Outcome<(Measured, Measured, Cost)> {
    let (mut alone, mut beside, mut cost) = <(Measured, Measured, Cost)>::default();
    let victims = Victims::start(plan, attack).await?;
    // What is needed once is there before it is measured.
    victims.measure().await?;
    // Of all pairs: what one of them leaves behind counts for the next.
    let base_mib = resident_kib(victims.service.id()) / 1024.0;
    for _ in 0..pairs {
        let before = victims.measure().await?;
        let with = victims.beside(attack, base_mib, &mut cost).await?;
        let (name, more) = (attack.name(), cost.peak.max());
        progress(&format!(
            "{name}: {before:.1?}, beside {with:.1?}, at most {more:.0} MiB more"
        ));
        alone.push(before);
        beside.push(with);
    }
    victims.end().await?;
    Ok((alone, beside, cost))
}

/// Who else there is.
struct Victims {
    database: Database,
    service: Service,
    reads: Vec<Vec<u8>>,
    commands: Vec<Vec<u8>>,
    crowd: Crowd,
}

impl Victims {
    async fn start(plan: &PlanOptions, attack: Attack) -> Outcome<Self> {
        let database = Database::create().await?;
        let backlog = Backlog::publish(&PlanOptions {
            count: BEHIND,
            ..plan.clone()
        })
        .await?;
        let service = Service::start_with(
            &backlog.topic,
            &database,
            "all",
            if attack.holds() {
                &[]
            } else {
                &[
                    ("STOCKYARD__HTTP__REQUESTS_PER_SECOND", REQUEST_RATE),
                    ("STOCKYARD__HTTP__CONNECTIONS_PER_SECOND", CONNECTION_RATE),
                ]
            },
        )?;
        service.ready().await?;
        lag_is_zero(&backlog.topic, BEHIND, &database).await?;
        let keys = Keys::of(plan).0;
        Ok(Self {
            reads: keys.iter().map(|key| get(&path(key))).collect(),
            commands: keys.iter().take(PRODUCTS).map(restock).collect(),
            crowd: Crowd::connect(service.port, &fanout::path(), LISTENERS).await?,
            database,
            service,
        })
    }

    async fn ask(
        &self,
        requests: &[Vec<u8>],
        (per_second, connections): (f64, usize),
        is_anew: bool,
    ) -> Outcome<Answered> {
        let manner = Manner {
            is_anew,
            is_from_many: cfg!(target_os = "linux"),
            ..Manner::open(connections, MEASURED, per_second)
        };
        send(self.service.port, requests.to_vec(), manner).await
    }

    async fn measure(&self) -> Outcome<Others> {
        let messages = arrivals(FRAMES * (WARM_UP + MEASURED).as_secs());
        let sending = Stream::of(&self.service.config.kafka, messages, FRAMES).start();
        tokio::time::sleep(WARM_UP).await;
        let (reads, newcomers, commands, taken) = join!(
            self.ask(&self.reads, READS, false),
            self.ask(&self.reads, NEWCOMERS, true),
            self.ask(&self.commands, COMMANDS, false),
            self.crowd.take(MEASURED),
        );
        sending.await??;
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        Ok(Others {
            reads: ms(reads?.p99),
            newcomers: ms(newcomers?.p99),
            commands: ms(commands?.p99),
            frames: ms(taken.p99()),
        })
    }

    async fn beside(&self, attack: Attack, base_mib: f64, cost: &mut Cost) -> Outcome<Others> {
        let process = self.service.id();
        // The peak is counted from here on (proc(5)).
        fs::write(format!("/proc/{process}/clear_refs"), "5")?;
        let hostile = Hostile::start(attack, self.service.port)?;
        if let Some(why) = hostile.why_free() {
            progress(&format!("hostile clients: {why}"));
        }
        let used = (processor_seconds(process), processor_seconds(hostile.id()));
        let clock = Clock::system();
        let others = self.measure().await?;
        let took = clock.elapsed().as_secs_f64();
        cost.service
            .push((processor_seconds(process) - used.0) / took);
        cost.hostile
            .push((processor_seconds(hostile.id()) - used.1) / took);
        let Told { opened, sent } = hostile.end()?;
        cost.opened.push(as_f64(opened) / took);
        cost.sent.push(as_f64(sent) / took);
        cost.peak.push(peak_mib(process) - base_mib);
        tokio::time::sleep(AFTER).await;
        let after = resident_kib(process) / 1024.0 - base_mib;
        cost.after.push(after);
        Ok(others)
    }

    async fn end(self) -> Outcome<()> {
        drop(self.crowd);
        self.service.end();
        self.database.remove().await
    }
}
