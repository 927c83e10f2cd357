//! Two roles, each a process of its own over the same servers: what the load of one does to the other.
//!
//! One is loaded with 70 % of what it reaches alone, the other with 10 or 20 %, and only that one is measured. Machine, servers and generator
//! are shared, so the shares together have to leave something over: at more than the whole, whoever is behind stays behind, whatever
//! the service does. Where each role is held to a quota of processors, what one reaches alone leaves some to the other.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Zipf};
use stockyard::{
    clock::Clock,
    produce::plan::{PlanOptions, rank_to_place},
};

use super::{
    backlog::{self, lag_is_zero},
    freshness::{Prober, committed},
    load::{Answered, Manner, get, send},
    quota::Quota,
    reads::{Keys, path, restock},
    stream::Stream,
    table::{Figures, Row, as_f64, percentile, print, progress, remark, row},
    world::{Backlog, Database, Outcome, Service, until},
};

/// How long each load is measured, after it has run for a while.
const MEASURED: Duration = Duration::from_secs(10);
const WARM_UP: Duration = Duration::from_secs(2);
/// How long the maximum of requests is measured, and over how many messages that of ingest.
const MAXIMUM: Duration = Duration::from_secs(5);
const MESSAGES: u64 = 300_000;
/// As many requests are under way at most, and as many messages: for each of two lanes two full batches, and as many that come meanwhile.
const CONNECTIONS: usize = 100;
const UNDER_WAY: u64 = 32_000;
/// Requests, before the same come again; how unevenly keys are asked for (the exponent of Zipf's law), and that one of so many is a command.
const REQUESTS: usize = 50_000;
const SKEW: f64 = 0.8;
const COMMAND_EVERY: u32 = 20;
/// What is there before.
const BEHIND: u64 = 200_000;
/// The load of who disturbs, and those of who is measured, in percent of what each reaches alone.
const DISTURBS: u64 = 70;
const SHARES: [u64; 2] = [10, 20];
/// What the other's load may make of a p99: so many times as much, and so many milliseconds.
const TIMES: f64 = 2.0;
const PLUS_MS: f64 = 50.0;

/// Processors that each role is held to: not at all, and to what `deploy/` requests for it (where no limit is set).
pub const WAYS: [Option<f64>; 2] = [None, Some(0.5)];

/// Both processes, and what they are asked.
struct Roles {
    database: Database,
    ingest: Service,
    api: Service,
    quotas: Vec<Quota>,
    requests: Vec<Vec<u8>>,
    plan: PlanOptions,
    /// Messages of the topic so far.
    published: u64,
    /// Of the next stream: each brings movements that nobody has seen.
    seed: u64,
}

/// What the repetitions found.
struct Found {
    /// What each reaches alone, a second.
    messages: Figures,
    requests: Figures,
    measured: [Measured; SHARES.len()],
}

/// Who is measured at one share of what they reach.
struct Measured {
    share: u64,
    fresh: Pair,
    answered: Pair,
}

/// A p99 alone and beside the other's load, in milliseconds.
#[derive(Default)]
struct Pair {
    alone: Figures,
    beside: Figures,
}

pub async fn measure(
    plan: &PlanOptions,
    repetitions: usize,
    processors: Option<f64>,
) -> Outcome<()> {
    progress("roles: filling");
    let mut roles = Roles::start(plan).await?;
    if let Some(Err(error)) = processors.map(|most| roles.hold(most)) {
        remark(&format!(
            "Roles with quotas of processors are not measured: {error}."
        ));
        return roles.end().await;
    }
    // What the servers do for the first time they do slowly, and Kafka compiles what it does often.
    progress("roles: warming up");
    Found::new().repeat(&mut roles).await?;
    let mut found = Found::new();
    for _ in 0..repetitions {
        found.repeat(&mut roles).await?;
    }
    found.print(processors);
    roles.end().await
}

impl Found {
    fn new() -> Self {
        Self {
            messages: Figures::default(),
            requests: Figures::default(),
            measured: SHARES.map(|share| Measured {
                share,
                fresh: Pair::default(),
                answered: Pair::default(),
            }),
        }
    }

    async fn repeat(&mut self, roles: &mut Roles) -> Outcome<()> {
        let rate = roles.most_messages().await?;
        let most = roles.most_requests().await?;
        progress(&format!(
            "roles: at most {rate} messages/s, {most:.0} requests/s"
        ));
        self.messages.push(as_f64(rate));
        self.requests.push(most);
        let of_most = |percent| most * as_f64(percent) / 100.0;
        let (much, many) = (rate * DISTURBS / 100, of_most(DISTURBS));
        for Measured {
            share,
            fresh,
            answered,
        } in &mut self.measured
        {
            let (messages, requests) = (rate * *share / 100, of_most(*share));
            fresh.alone.push(roles.freshness(messages, None).await?);
            let beside = roles.freshness(messages, Some(many)).await?;
            fresh.beside.push(beside);
            answered.alone.push(roles.answers(requests, None).await?);
            let beside = roles.answers(requests, Some(much)).await?;
            answered.beside.push(beside);
            for (name, pair) in [("fresh", &*fresh), ("answered", &*answered)] {
                let (alone, beside) = (pair.alone.show(1), pair.beside.show(1));
                progress(&format!(
                    "roles: {share} % {name}: {alone}, beside {beside}"
                ));
            }
        }
        Ok(())
    }

    fn print(&self, processors: Option<f64>) {
        let mut rows = Vec::new();
        for Measured {
            share,
            fresh,
            answered,
        } in &self.measured
        {
            rows.push(fresh.row(&format!(
                "ingest at {share} %, requests at {DISTURBS} %: committed"
            )));
            rows.push(answered.row(&format!(
                "requests at {share} %, ingest at {DISTURBS} %: answered"
            )));
        }
        let held = processors.map_or("sharing all processors".to_owned(), |most| {
            format!("each held to {most} processors")
        });
        print(
            &format!(
                "Roles in processes of their own, {held}: p99 alone and beside the other's load, ms"
            ),
            &["alone", "beside", "ratio", "reach"],
            &rows,
        );
        remark(&format!(
            "Of {} messages/s, {UNDER_WAY} under way, and {} requests/s over {CONNECTIONS} connections, one of {COMMAND_EVERY} a command.",
            self.messages.show(0),
            self.requests.show(0)
        ));
    }
}

impl Pair {
    fn row(&self, name: &str) -> Row {
        let most = self.alone.median() * TIMES + PLUS_MS;
        let word = if self.beside.median() <= most {
            "reached"
        } else {
            "short"
        };
        row(
            name,
            [
                self.alone.show(1),
                self.beside.show(1),
                self.beside.over(&self.alone).show(1),
                format!("at most {most:.0}: {word}"),
            ],
        )
    }
}

impl Roles {
    async fn start(plan: &PlanOptions) -> Outcome<Self> {
        let database = Database::create().await?;
        let backlog = Backlog::publish(&PlanOptions {
            count: BEHIND,
            ..plan.clone()
        })
        .await?;
        let ingest = Service::start(&backlog.topic, &database, "ingest")?;
        let api = ingest.beside("api")?;
        ingest.ready().await?;
        api.ready().await?;
        lag_is_zero(&backlog.topic, BEHIND, &database).await?;
        Ok(Self {
            requests: requests(&Keys::of(plan))?,
            database,
            ingest,
            api,
            quotas: Vec::new(),
            plan: plan.clone(),
            published: BEHIND,
            seed: 1_000,
        })
    }

    /// Holds each role to so many processors.
    fn hold(&mut self, processors: f64) -> Outcome<()> {
        for role in [&self.ingest, &self.api] {
            self.quotas.push(Quota::of(role.id(), processors)?);
        }
        Ok(())
    }

    async fn send(&self, manner: Manner) -> Outcome<Answered> {
        send(self.api.port, self.requests.clone(), manner).await
    }

    /// Requests a second as fast as they are answered, once caches are filled.
    async fn most_requests(&self) -> Outcome<f64> {
        let manner = Manner::closed(CONNECTIONS, MAXIMUM);
        self.send(manner).await?;
        Ok(self.send(manner).await?.per_second)
    }

    /// Messages a second as fast as they are taken: sent meanwhile, as requests are.
    async fn most_messages(&mut self) -> Outcome<u64> {
        let before = self.published;
        let taken = Arc::new(AtomicU64::new(0));
        let stream = self.stream(MESSAGES, Duration::from_secs(1));
        let clock = Clock::system();
        let sending = stream.keeping(UNDER_WAY, Arc::clone(&taken)).start();
        let mut connection = self.database.connect().await?;
        let topic = &self.ingest.config.kafka.topic;
        until("everything is taken", async || {
            let so_far = backlog::taken(topic, &mut connection).await? - before;
            taken.store(so_far, Ordering::Relaxed);
            Ok((so_far >= MESSAGES).then_some(()))
        })
        .await?;
        let took = clock.elapsed();
        sending.await??;
        Ok(MESSAGES * 1_000 / u64::try_from(took.as_millis())?)
    }

    /// So many messages a second, from now on.
    fn stream(&mut self, per_second: u64, lasts: Duration) -> Stream {
        self.seed += 1;
        let options = PlanOptions {
            seed: self.seed,
            ..self.plan.clone()
        };
        self.published += per_second * lasts.as_secs();
        Stream::prepare(&self.ingest.config.kafka, &options, per_second, lasts)
    }

    /// The p99 from Kafka's acknowledgement to the commit at that rate of messages, beside so many requests a second.
    async fn freshness(&mut self, per_second: u64, requests: Option<f64>) -> Outcome<f64> {
        let stream = self.stream(per_second, WARM_UP + MEASURED).start();
        let sender = Prober::new(&self.ingest.config.kafka)?;
        let measured = async {
            tokio::time::sleep(WARM_UP).await;
            let mut probes = Vec::new();
            while !stream.is_finished() {
                let sent = sender.send().await?;
                probes.push(sent);
                sender.rest(&sent).await;
            }
            Outcome::Ok(probes)
        };
        let disturbed = async {
            if let Some(requests) = requests {
                let lasts = WARM_UP + MEASURED;
                self.send(Manner::open(CONNECTIONS, lasts, requests))
                    .await?;
            }
            Outcome::Ok(())
        };
        let (probes, disturbed) = tokio::join!(measured, disturbed);
        let probes = probes?;
        disturbed?;
        stream.await??;
        self.published += probes.len() as u64;
        self.is_idle().await?;
        let mut times = committed(&self.database, &probes).await?;
        times.sort_unstable();
        Ok(percentile(&times, 99).map_or(f64::NAN, f64::from) / 1e3)
    }

    /// The p99 of answers at that rate of requests, beside so many messages a second.
    async fn answers(&mut self, per_second: f64, messages: Option<u64>) -> Outcome<f64> {
        let stream = messages.map(|messages| {
            let lasts = WARM_UP + MEASURED;
            self.stream(messages, lasts).start()
        });
        tokio::time::sleep(WARM_UP).await;
        let manner = Manner::open(CONNECTIONS, MEASURED, per_second);
        let answered = self.send(manner).await?;
        if let Some(stream) = stream {
            stream.await??;
        }
        self.is_idle().await?;
        Ok(answered.p99.as_secs_f64() * 1e3)
    }

    /// Waits until everything is taken: nothing of one measurement is left for the next.
    async fn is_idle(&self) -> Outcome<()> {
        lag_is_zero(
            &self.ingest.config.kafka.topic,
            self.published,
            &self.database,
        )
        .await
    }

    async fn end(self) -> Outcome<()> {
        self.api.end();
        self.ingest.end();
        self.database.remove().await
    }
}

/// What is asked, of some keys more often than of others. Which of them are commands is drawn as well: each connection goes through these
/// from a place of its own, and with one at each so many of them, all connections would send their commands at once.
fn requests(keys: &Keys) -> Outcome<Vec<Vec<u8>>> {
    let ranks = Zipf::new(as_f64(keys.0.len() as u64), SKEW)?;
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let request = |_| {
        let key = &keys.0[rank_to_place(ranks.sample(&mut random), keys.0.len())];
        if random.random_ratio(1, COMMAND_EVERY) {
            restock(key)
        } else {
            get(&path(key))
        }
    };
    Ok((0..REQUESTS).map(request).collect())
}
