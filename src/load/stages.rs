//! One run from its beginning to its end: prepare, look how the service is, load it stage by stage, wait, compare, look again.

use std::{path::Path, sync::Arc, time::Duration};

use rdkafka::error::KafkaError;
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    LoadError, Options, Target, baseline,
    catalogue::Catalogue,
    figures::Frames,
    hosts::Hosts,
    invariants::Invariant,
    monitor::Monitor,
    movements::{self, Published, Stream},
    operations::Operation,
    oracle::Key,
    outcome::{Alone, Baseline, Measured, Outcome},
    pace::Schedule,
    page, race,
    readers::{Reader, Watcher},
    report::machine,
    run::Run,
    scenario::{Doing, Profile, Scenario, Stage},
    service,
    settle::{self, Truth},
    shop::Shopper,
    sockets::{Sockets, Watched},
    thresholds,
    users::{Crowd, Model, User},
    writers::{WRITERS, Writer},
};
use crate::{
    domain::Timestamp,
    produce::plan::{self, PlanOptions},
};

/// How long a browser may take to leave the page.
const PAGE_LEAVES_MAX: Duration = Duration::from_secs(2);
/// How long a service may take to be ready: one that is there may be about to get its partitions.
const READY_MAX: Duration = Duration::from_secs(10);
/// Warehouses and products of the movements.
const WAREHOUSES: u32 = 10;
const PRODUCTS: u32 = 50;
/// Messages of a backlog.
const BACKLOG: u64 = 200_000;

/// What a run is made with.
struct Ready<'r> {
    run: Arc<Run>,
    target: &'r Target<'r>,
    profile: &'r Profile,
    catalogue: Arc<Catalogue>,
    /// What names of products begin with, and whose movements they are.
    prefix: String,
    namespace: u64,
    monitor: Arc<Monitor>,
    crowd: Arc<Crowd>,
    model: Model,
    alone: Alone,
    before: Option<Baseline>,
    /// Longest nothing may come nearer at the end before what differs is called wrong.
    patience: Duration,
}

/// Runs it; the log is written as it goes.
pub(super) async fn run(
    target: &Target<'_>,
    profile: &Profile,
    options: &Options,
    began_at: Timestamp,
    log: &Path,
) -> Result<Outcome, LoadError> {
    let ready = Ready::make(target, profile, options, began_at, log).await?;
    let run = &ready.run;
    let interrupting = tokio::spawn(ends_when_interrupted(
        Arc::clone(run),
        options.interrupt.clone(),
    ));
    let has_begun = conflations(run).await;
    let watching = CancellationToken::new();
    let watch = tokio::spawn(Arc::clone(&ready.monitor).watch(watching.clone()));
    let leaving = CancellationToken::new();
    let page = ready.show(options, leaving.clone()).await?;
    let loaded = ready.load().await;
    run.stop.cancel();
    watching.cancel();
    drop(watch.await);
    let loaded = loaded?;

    let outcome = ready.conclude(loaded, options, began_at, has_begun).await;
    interrupting.abort();
    leaving.cancel();
    if let Some(page) = page {
        // A browser may hold its connection for longer than anybody wants to wait.
        drop(timeout(PAGE_LEAVES_MAX, page).await);
    }
    Ok(outcome)
}

/// Ends the load when somebody interrupts it; what was done is compared then.
async fn ends_when_interrupted(run: Arc<Run>, interrupt: CancellationToken) {
    interrupt.cancelled().await;
    run.stop.cancel();
}

/// How often live clients were told several commits as one, as the service says.
async fn conflations(run: &Arc<Run>) -> Option<f64> {
    let aside = Arc::new(Run::new(run.hosts.clone(), 0, false));
    let reading = service::read_all(&aside).await?;
    Some(reading.conflations)
}

impl<'r> Ready<'r> {
    /// Makes what the run is made with, and looks how the service is before it.
    async fn make(
        target: &'r Target<'r>,
        profile: &'r Profile,
        options: &Options,
        began_at: Timestamp,
        log: &Path,
    ) -> Result<Self, LoadError> {
        let is_disturbed = profile.scenario == Scenario::Chaos;
        let run = Arc::new(Run::new(target.hosts.clone(), options.seed, is_disturbed));
        service::is_ready(&target.hosts, READY_MAX).await?;
        // Nobody else has these, also when the same seed runs again.
        let namespace = began_at.micros().unsigned_abs();
        let prefix = format!("LT-{namespace:x}");
        let catalogue = Catalogue::make(&run, &prefix, profile.assortment).await?;
        let users = profile.stages.iter().map(|stage| stage.users).max();
        let buyers = race::ROUNDS.map(|(_, buyers, _)| buyers).into_iter().max();
        let connections = match profile.scenario {
            Scenario::Race => buyers,
            _ => users,
        };
        let alone = baseline::alone(connections.unwrap_or(0).max(WRITERS)).await?;
        let probed = &catalogue.products[0].key;
        // The first one warms up what the second one measures.
        baseline::probe(&target.hosts, probed).await;
        let before = baseline::probe(&target.hosts, probed).await;

        run.figures.begin();
        let name = profile.scenario.name();
        let lasts = (profile.scenario != Scenario::Race).then(|| profile.lasts());
        let monitor = Monitor::new(&run, name, lasts, log, options.is_quiet)?;
        let model = match profile.rate {
            Some(rate) => Model::open(rate, run.clock.elapsed(), profile.think),
            None => Model::closed(profile.think),
        };
        Ok(Self {
            run,
            target,
            profile,
            catalogue: Arc::new(catalogue),
            prefix,
            namespace,
            monitor: Arc::new(monitor),
            crowd: Arc::new(Crowd::new(0, profile.spawn_rate)),
            model,
            alone,
            before,
            patience: options.patience.unwrap_or(settle::PATIENCE),
        })
    }

    /// Serves the page, unless nobody is to look. Only where it is the point does an occupied port end the run.
    async fn show(
        &self,
        options: &Options,
        leaving: CancellationToken,
    ) -> Result<Option<JoinHandle<std::io::Result<()>>>, LoadError> {
        if options.is_quiet {
            return Ok(None);
        }
        let port = options.page_port.unwrap_or(page::PORT);
        let listener = match page::bind(port).await {
            Ok(listener) => listener,
            Err(error) if self.profile.scenario == Scenario::Interactive => {
                let why = format!("port {port} for the page: {error}");
                return Err(LoadError::Prepare(why));
            }
            Err(error) => {
                let what = format!("no page: port {port}: {error}");
                self.monitor.say(&what);
                return Ok(None);
            }
        };
        self.monitor
            .say(&format!("the run as it goes: http://127.0.0.1:{port}/"));
        let shown = page::Shown {
            run: Arc::clone(&self.run),
            monitor: Arc::clone(&self.monitor),
            crowd: Arc::clone(&self.crowd),
            schedule: Arc::clone(&self.model.schedule),
        };
        Ok(Some(tokio::spawn(page::serve(listener, shown, leaving))))
    }

    /// Waits until everything is in, compares, and looks how the service is then.
    async fn conclude(
        &self,
        loaded: Loaded,
        options: &Options,
        began_at: Timestamp,
        conflations_before: Option<f64>,
    ) -> Outcome {
        let run = &self.run;
        let mut measured = Measured {
            tallies: run.figures.tallies(),
            frames: Frames::default(),
            took: loaded.took,
            before: self.before,
            after: None,
            unsent: loaded.unsent,
            late: run.figures.late(),
        };
        let failures = run.figures.failures();
        self.monitor
            .say("the load is over; waiting until everything is in, and comparing");
        let truth = Truth {
            config: self.target.config,
            store: self.target.store.as_ref(),
            patience: self.patience,
            products: &self.catalogue.products,
            // Where the service does not say, it may have.
            has_conflated: conflations_before.is_none()
                || conflations(run).await != conflations_before,
            since: began_at,
        };
        settle::settle(run, &truth, &loaded.published, &loaded.sockets).await;
        // What was still on its way when the load ended has come by now, or will not.
        run.markers.give_up(run);
        measured.frames = run.figures.frames();
        measured.take(
            Operation::Freshness,
            run.figures.tally(Operation::Freshness),
        );
        for sockets in loaded.sockets {
            sockets.close().await;
        }
        measured.after = baseline::back(
            &self.target.hosts,
            self.probed(),
            self.before,
            options.patience,
        )
        .await;
        let profile = self.profile;
        let outcome = Outcome {
            scenario: profile.scenario.name(),
            began_at,
            seed: options.seed,
            settings: settings(profile, &self.target.hosts),
            thresholds: thresholds::judge(&profile.limits, &measured),
            measured,
            seconds: self.monitor.seconds(),
            failures,
            findings: run.oracle.findings.all(),
            alone: Some(self.alone),
            figures: loaded.figures,
            machine: machine::describe(self.target).await,
            events: self.monitor.events(),
        };
        for line in super::report::summary(&outcome) {
            self.monitor.log(&line);
        }
        outcome
    }

    /// The level that is read of the idle service.
    fn probed(&self) -> &Key {
        &self.catalogue.products[0].key
    }
}

fn settings(profile: &Profile, hosts: &Hosts) -> Vec<(&'static str, String)> {
    if profile.scenario == Scenario::Race {
        let rounds = race::ROUNDS.map(|(items, buyers, times)| {
            format!("{times} times {buyers} buyers for {items} items")
        });
        return vec![
            ("Service", hosts.names().join(", ")),
            ("Rounds", rounds.join(", then ")),
        ];
    }
    let stages = profile.stages.iter().map(|stage| {
        let Stage {
            users,
            sockets,
            lasts,
        } = stage;
        format!(
            "{users} users and {sockets} sockets for {} s",
            lasts.as_secs()
        )
    });
    let model = match profile.rate {
        Some(rate) => {
            format!("open: {rate} requests a second at set times, timed from when they were due")
        }
        None => format!(
            "closed: users think {} to {} ms after an answer",
            profile.think.0.as_millis(),
            profile.think.1.as_millis()
        ),
    };
    vec![
        ("Service", hosts.names().join(", ")),
        ("Stages", stages.collect::<Vec<_>>().join(", then ")),
        ("Model", model),
        (
            "Users that come in a second",
            profile.spawn_rate.to_string(),
        ),
        ("Movement messages a second", profile.messages.to_string()),
        ("Other writes a second", profile.writes.to_string()),
    ]
}

/// What is left of a load.
struct Loaded {
    took: Duration,
    unsent: Option<f64>,
    published: Published,
    sockets: Vec<Sockets>,
    figures: Vec<(String, String)>,
}

type Publishing = JoinHandle<Result<Published, KafkaError>>;

impl Ready<'_> {
    async fn load(&self) -> Result<Loaded, LoadError> {
        let began = self.run.clock.elapsed();
        let mut loaded = Loaded {
            took: Duration::ZERO,
            unsent: None,
            published: Published::default(),
            sockets: Vec::new(),
            figures: Vec::new(),
        };
        match self.profile.scenario {
            Scenario::Race => {
                let mut sockets = Sockets::new(&self.run);
                let rounds = race::rounds(&self.run, &self.catalogue, &self.prefix, &mut sockets);
                loaded.figures = rounds.await?;
                loaded.sockets.push(sockets);
                loaded.took = self.run.clock.elapsed().saturating_sub(began);
                return Ok(loaded);
            }
            Scenario::Ingest => {
                let (published, figure) = self.backlog().await?;
                loaded.published = published;
                loaded.figures.push(figure);
            }
            _ => {}
        }
        let mut sockets = Sockets::new(&self.run);
        self.connect(&mut sockets, self.profile.stages.first())
            .await;
        let (marked, publishing, messages) = self.publish().await;
        self.model.schedule.begin(self.run.clock.elapsed());
        let users = self.users();
        let (writing, writes) = self.write();
        let lasts = self.profile.lasts();
        let disturbing = async {
            match self.target.stack {
                Some(stack) => stack.disturb(&self.run, &self.monitor, lasts).await,
                None => Ok(()),
            }
        };
        let ((), disturbed) = tokio::join!(self.stages(&mut sockets), disturbing);
        self.run.stop.cancel();
        let ended = self.run.clock.elapsed();
        loaded.took = ended.saturating_sub(began);
        let schedules = [&self.model.schedule, &messages, &writes];
        let untaken = schedules
            .iter()
            .filter_map(|schedule| schedule.untaken(ended));
        loaded.unsent = untaken.reduce(f64::max);
        disturbed?;
        drop(users.await);
        drop(writing.await);
        if let Some(publishing) = publishing {
            let published = publishing.await;
            let published = published.map_err(|error| LoadError::Settle(error.to_string()))??;
            loaded.figures.push(tell(&published));
            loaded.published.absorb(published);
        }
        loaded.sockets = vec![marked, sockets];
        Ok(loaded)
    }

    /// One stage after the other, or until somebody ends it.
    async fn stages(&self, sockets: &mut Sockets) {
        for (number, stage) in self.profile.stages.iter().enumerate() {
            self.connect(sockets, Some(stage)).await;
            if number > 0 || self.profile.stages.len() > 1 {
                let Stage { users, sockets, .. } = stage;
                self.monitor
                    .event(format!("{users} users, {sockets} sockets"));
            }
            self.crowd.want(stage.users);
            if !self
                .run
                .sleep_until(self.run.clock.elapsed() + stage.lasts)
                .await
            {
                return;
            }
        }
    }

    /// As many live clients as the stage wants.
    async fn connect(&self, sockets: &mut Sockets, stage: Option<&Stage>) {
        let wanted = stage.map_or(0, |stage| stage.sockets);
        let products = self.catalogue.products.iter();
        let watched: Vec<Watched> = products
            .map(|product| Watched::product(&product.sku))
            .collect();
        let more = wanted.saturating_sub(sockets.count());
        if more > 0 {
            sockets.connect(more, &watched).await;
        }
    }

    fn users(&self) -> JoinHandle<()> {
        let run = Arc::clone(&self.run);
        match self.profile.doing {
            Doing::Shop => {
                let (catalogue, prefix) = (Arc::clone(&self.catalogue), self.prefix.clone());
                self.work(move |number| Shopper::new(&run, &catalogue, &prefix, number))
            }
            Doing::WatchOne => {
                let product = self.catalogue.products[0].clone();
                self.work(move |number| Watcher::new(&run, &product, number))
            }
            Doing::Read => {
                let keys = Arc::new(self.moved_keys());
                self.work(move |number| Reader::new(&run, &keys, number))
            }
        }
    }

    fn work<U: User>(&self, make: impl FnMut(usize) -> U + Send + 'static) -> JoinHandle<()> {
        let (run, counted) = (Arc::clone(&self.run), Arc::clone(&self.run));
        let count = move |users| counted.figures.set_users(users);
        let (crowd, model) = (Arc::clone(&self.crowd), self.model.clone());
        tokio::spawn(crowd.work(run, model, make, count))
    }

    /// Keys that movements go from and to.
    fn moved_keys(&self) -> Vec<Key> {
        let all = (0..WAREHOUSES).flat_map(|w| (0..PRODUCTS).map(move |p| (w, p)));
        let key = |(warehouse, product)| {
            let warehouse = plan::warehouse_of(self.namespace, warehouse)?;
            let product = plan::product_of(self.namespace, product)?;
            Some(Key {
                warehouse: warehouse.uuid(),
                product: product.to_string().into(),
            })
        };
        all.filter_map(key).collect()
    }

    /// Changes what is watched, by that schedule.
    fn write(&self) -> (JoinHandle<()>, Arc<Schedule>) {
        let think = self.profile.think;
        let model = Model::open(self.profile.writes, self.run.clock.elapsed(), think);
        let schedule = Arc::clone(&model.schedule);
        if self.profile.writes <= 0.0 {
            return (tokio::spawn(async {}), schedule);
        }
        #[expect(clippy::cast_precision_loss, reason = "eight")]
        let crowd = Arc::new(Crowd::new(WRITERS, WRITERS as f64 * 1_000.0));
        let (run, catalogue) = (Arc::clone(&self.run), Arc::clone(&self.catalogue));
        let make = {
            let run = Arc::clone(&run);
            move |number| Writer::new(&run, &catalogue, number)
        };
        // They are no users: those are counted.
        let writing = tokio::spawn(crowd.work(run, model, make, |_| {}));
        (writing, schedule)
    }

    fn plan(&self, seed: u64) -> PlanOptions {
        PlanOptions {
            count: u64::MAX,
            warehouses: WAREHOUSES,
            products: PRODUCTS,
            skew: 0.8,
            duplicates: 10.0,
            out_of_order: 5.0,
            losses: 1.0,
            poison: 0.5,
            seed,
            namespace: self.namespace,
        }
    }

    /// Publishes beside the users, with somebody who looks how fresh answers are.
    async fn publish(&self) -> (Sockets, Option<Publishing>, Arc<Schedule>) {
        let mut marked = Sockets::new(&self.run);
        let schedule = Arc::new(Schedule::new(self.profile.messages, Duration::ZERO));
        if self.profile.messages <= 0.0 {
            return (marked, None, schedule);
        }
        if let Some(product) = movements::marked_product(self.namespace) {
            let watched = Watched::marked(&product.to_string().into());
            marked.connect(1, &[watched]).await;
        }
        schedule.begin(self.run.clock.elapsed());
        let stream = Stream {
            kafka: self.target.config.kafka.clone(),
            options: self.plan(self.run.seed),
            schedule: Some(Arc::clone(&schedule)),
            is_marked: true,
        };
        let publishing = stream.publish(Arc::clone(&self.run));
        (marked, Some(publishing), schedule)
    }

    /// As many messages as fast as Kafka takes them, until all of them are in.
    async fn backlog(&self) -> Result<(Published, (String, String)), LoadError> {
        self.monitor
            .event(format!("a backlog of {BACKLOG} messages"));
        let began = self.run.clock.elapsed();
        let stream = Stream {
            kafka: self.target.config.kafka.clone(),
            options: PlanOptions {
                count: BACKLOG,
                ..self.plan(!self.run.seed)
            },
            schedule: None,
            is_marked: false,
        };
        let publishing = stream.publish(Arc::clone(&self.run)).await;
        let published = publishing.map_err(|error| LoadError::Settle(error.to_string()))??;
        let is_in = settle::all_in(&self.run, self.patience).await;
        let took = self.run.clock.elapsed().saturating_sub(began);
        let why = || "a backlog did not come in".to_owned();
        self.run
            .oracle
            .findings
            .look(Invariant::EventsOnce, is_in, why);
        #[expect(clippy::cast_precision_loss, reason = "a rate is no count")]
        let rate = published.messages as f64 / took.as_secs_f64();
        self.monitor.event("a steady stream");
        let figure = (
            format!("A backlog of {BACKLOG} messages, published and taken in at once"),
            format!(
                "{rate:.0} messages/s (published within {:.1} s, all in after {:.1} s)",
                published.took.as_secs_f64(),
                took.as_secs_f64()
            ),
        );
        Ok((published, figure))
    }
}

fn tell(published: &Published) -> (String, String) {
    let Published {
        messages,
        facts,
        duplicates,
        dead,
        took,
        ..
    } = published;
    (
        "Movement messages".to_owned(),
        format!(
            "{messages} in {} s: {facts} facts, {duplicates} duplicates, {} that cannot count",
            took.as_secs(),
            dead.len()
        ),
    )
}
