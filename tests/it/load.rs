//! Load tests prove what they say: a service that keeps its promises is green, and each way of breaking one turns the report red.

use std::{fs, path::PathBuf, time::Duration};

use stockyard::{
    config::Config,
    load::{self, Invariant, Options, Profile, Reported, Scenario, Target, Verdict},
};

use serde_json::{Value, json};

use crate::support::{
    Service, World,
    browser::Browser,
    eventually,
    liar::{FREEZES_FOR, Lie, LyingService},
    process::free_port,
    unique,
};

/// Requests a second, and for how long.
const RATE: f64 = 100.0;
const LASTS: Duration = Duration::from_secs(6);

/// A shop with so few products that some are sold out, and are low, within seconds.
fn shop() -> Profile {
    let mut profile = Profile::of(Scenario::Quick);
    profile.assortment.products = 2;
    profile.assortment.stock = 24;
    profile.assortment.min_stock = Some(20);
    profile.stages[0].sockets = 4;
    // Of which some are no messages, and some contradict.
    profile.messages = 400.0;
    profile.spawn_rate = 1_000.0;
    profile.rate = Some(RATE);
    // What a build without optimisation takes on a busy machine is not what is tested.
    profile.limits.clear();
    profile
}

fn options() -> Options {
    Options {
        run_time: Some(LASTS),
        seed: 7,
        is_quiet: true,
        folder: std::env::temp_dir().join(unique("load")),
        patience: Some(Duration::from_secs(3)),
        ..Options::default()
    }
}

/// Runs a load test against a service that lies so.
async fn run_behind(world: &World, lie: Lie, profile: Profile, options: &Options) -> Reported {
    let service: Service = world.start().await;
    let lying = LyingService::before(world, &service, lie).await;
    let config = Config {
        kafka: lying.kafka.clone(),
        ..world.config.clone()
    };
    let target = Target {
        hosts: vec![lying.host.clone()].into(),
        config: &config,
        store: Some(world.database.store("")),
        stack: None,
    };
    let reported = load::run(&target, profile, options).await.unwrap();
    drop(lying);
    service.stop().await;
    reported
}

/// That a lie breaks this promise, and that the report says so.
async fn is_caught(lie: Lie, promise: Invariant) {
    let world = World::new().await;
    let options = options();
    let reported = run_behind(&world, lie, shop(), &options).await;
    let outcome = &reported.outcome;
    let broken: Vec<Invariant> = outcome.broken().collect();
    assert!(broken.contains(&promise), "{lie:?}: {broken:?}");
    assert!(outcome.is_red());
    let page = fs::read_to_string(&reported.html).unwrap();
    assert!(page.contains(promise.words()) && page.contains("--seed 7"));
    fs::remove_dir_all(&options.folder).unwrap();
    world.database.remove().await;
}

/// The files of a run.
fn files(folder: &PathBuf) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_keeps_its_promises_is_green() {
    let world = World::new().await;
    let options = options();
    let reported = run_behind(&world, Lie::Nothing, shop(), &options).await;
    let outcome = &reported.outcome;
    assert!(!outcome.is_red(), "{:#?}", load::summary(outcome));
    for (invariant, finding) in &outcome.findings {
        assert!(
            finding.checked > 0,
            "never looked at: {}",
            invariant.words()
        );
    }
    assert!(outcome.alone.is_some_and(|alone| alone.per_second > 0.0));

    let names = files(&options.folder);
    let extensions: Vec<_> = names.iter().map(|name| &name[name.len() - 4..]).collect();
    assert_eq!(extensions, [".csv", "html", ".log"]);
    assert!(names[0].starts_with("quick_test_20"), "{names:?}");
    let csv = fs::read_to_string(options.folder.join(&names[0])).unwrap();
    let locust = "Type,Name,Request Count,Failure Count,Median Response Time,Average Response Time,Min Response Time,Max Response Time,\
        Average Content Size,Requests/s,Failures/s,50%,66%,75%,80%,90%,95%,98%,99%,99.9%,99.99%,100%";
    assert_eq!(csv.lines().next(), Some(locust));
    assert!(csv.lines().last().unwrap().starts_with(",Aggregated,"));
    let page = fs::read_to_string(&reported.html).unwrap();
    for elsewhere in ["src=", "href=\"http", "url(", "@import", "<script", "<link"] {
        assert!(
            !page.contains(elsewhere),
            "it needs nothing else: {elsewhere}"
        );
    }
    assert!(page.contains("<svg") && page.contains("data:text/csv"));

    // The next one is compared with it.
    let again = run_behind(&world, Lie::Nothing, shop(), &options).await;
    assert!(
        !again.outcome.is_red(),
        "{:#?}",
        load::summary(&again.outcome)
    );
    let page = fs::read_to_string(&again.html).unwrap();
    assert!(page.contains(&format!(
        "Compared with {}",
        names[0].trim_end_matches(".csv")
    )));
    fs::remove_dir_all(&options.folder).unwrap();
    world.database.remove().await;
}

macro_rules! lies {
    ($($test:ident: $lie:ident breaks $promise:ident,)+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                is_caught(Lie::$lie, Invariant::$promise).await;
            }
        )+
    };
}

lies! {
    a_lost_side_is_seen: LostSide breaks EventsOnce,
    a_doubled_side_is_seen: DoubledSide breaks EventsOnce,
    another_quantity_is_seen: OtherQuantity breaks EventsOnce,
    a_swallowed_dead_letter_is_seen: SwallowedDeadLetter breaks DeadLettersKept,
    a_stale_answer_is_seen: StaleAnswer breaks NothingStale,
    a_forgotten_write_is_seen: ForgottenWrite breaks OwnWritesSeen,
    a_level_below_zero_is_seen: BelowZero breaks NeverBelowZero,
    an_oversell_is_seen: Oversell breaks NothingOversold,
    an_unreleased_reservation_is_seen: Unreleased breaks NothingLeftReserved,
    a_forgotten_key_is_seen: ForgottenKey breaks CommandsOnce,
    a_denial_is_seen: Denied breaks NothingDenied,
    another_answer_elsewhere_is_seen: OtherView breaks ViewsAgree,
    a_gap_on_a_socket_is_seen: Gap breaks NoGap,
    a_gap_that_changes_no_quantity_is_seen: QuietGap breaks NoGap,
    a_frame_that_comes_twice_is_seen: Twice breaks NoGap,
    another_picture_is_seen: OtherPicture breaks SocketIsDatabase,
    a_lost_alert_is_seen: LostAlert breaks AlertsInTurn,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_level_that_is_not_its_ledger_is_seen() {
    let world = World::new().await;
    let options = options();
    let first = run_behind(&world, Lie::Nothing, shop(), &options).await;
    assert!(
        !first.outcome.is_red(),
        "{:#?}",
        load::summary(&first.outcome)
    );
    let spoilt = "update stock_levels set on_hand = on_hand + 1 where inventory_id = (select max(inventory_id) from stock_levels)";
    world.database.run(spoilt).await;
    let second = run_behind(&world, Lie::Nothing, shop(), &options).await;
    let broken: Vec<Invariant> = second.outcome.broken().collect();
    assert_eq!(broken, [Invariant::LedgerIsLevels]);
    fs::remove_dir_all(&options.folder).unwrap();
    world.database.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_and_a_leak_breach_their_thresholds() {
    for (lie, words) in [
        (Lie::Failures, "failed, %"),
        (Lie::Leak, "memory of the service"),
    ] {
        let world = World::new().await;
        let (options, mut profile) = (options(), shop());
        profile.limits = Profile::of(Scenario::Quick).limits;
        let reported = run_behind(&world, lie, profile, &options).await;
        let thresholds = &reported.outcome.thresholds;
        let breached = thresholds
            .iter()
            .filter(|threshold| threshold.verdict == Verdict::Breached);
        let words_of: Vec<_> = breached.map(|threshold| threshold.words).collect();
        assert!(
            words_of.iter().any(|breached| breached.starts_with(words)),
            "{lie:?}: {words_of:?}"
        );
        assert!(reported.outcome.is_red());
        fs::remove_dir_all(&options.folder).unwrap();
        world.database.remove().await;
    }
}

/// The open model times requests from when they were due: those that came due while nothing was answered show it. The closed
/// model has one slow request for each user, and nobody asks meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_freeze_is_seen_in_the_open_model_and_hidden_in_the_closed_one() {
    let lasts = Duration::from_secs(12);
    let mut slowest = Vec::new();
    for rate in [Some(RATE), None] {
        let world = World::new().await;
        let (mut options, mut profile) = (options(), shop());
        options.run_time = Some(lasts);
        profile.rate = rate;
        profile.stages[0].users = 8;
        profile.think = (Duration::from_millis(40), Duration::from_millis(80));
        let reported = run_behind(&world, Lie::Freeze, profile, &options).await;
        let all = reported.outcome.all();
        slowest.push([95.0, 99.0].map(|percentile| all.times.percentile(percentile)));
        fs::remove_dir_all(&options.folder).unwrap();
        world.database.remove().await;
    }
    let [open, closed] = [slowest[0], slowest[1]];
    assert!(
        open[1] > FREEZES_FOR * 3 / 4,
        "p99 of the open model: {open:?}"
    );
    assert!(open[0] > FREEZES_FOR / 2, "p95 of the open model: {open:?}");
    assert!(
        closed[0] < FREEZES_FOR / 2,
        "p95 of the closed model: {closed:?}"
    );
}

/// A page shows a run while it goes, and changes it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_shows_a_run_and_steers_it() {
    let world = World::new().await;
    let service = world.start().await;
    let (port, options) = (free_port(), options());
    let options = Options {
        run_time: None,
        is_quiet: false,
        page_port: Some(port),
        ..options
    };
    let target = Target {
        hosts: vec![service.address().to_owned()].into(),
        config: &world.config,
        store: None,
        stack: None,
    };
    let mut profile = Profile::of(Scenario::Interactive);
    profile.assortment.products = 2;
    profile.stages[0].users = 1;
    let base = format!("http://127.0.0.1:{port}");
    let client = reqwest::Client::new();
    let state = async || {
        let answer = client.get(format!("{base}/state?since=0")).send().await;
        let state: Option<Value> = answer.ok()?.json().await.ok();
        state
    };
    let tell = async |path: &str, body: Value| {
        let sent = client.post(format!("{base}{path}")).json(&body).send();
        sent.await.unwrap().status().as_u16()
    };
    let steering = async {
        eventually("one user works", async || {
            (state().await?["seconds"].as_array()?.last()?["users"] == 1).then_some(())
        })
        .await;
        for (body, status) in [
            (json!({"users": 1_000_000}), 422),
            (json!({"rate": -1}), 422),
            (json!({"unknown": 1}), 422),
            (json!({"users": 3, "spawn_rate": 100, "rate": 20}), 204),
        ] {
            assert_eq!(tell("/change", body.clone()).await, status, "{body}");
        }
        eventually("three users work", async || {
            let state = state().await?;
            let last = state["seconds"].as_array()?.last()?;
            (last["users"] == 3 && state["rate"] == 20.0).then_some(())
        })
        .await;
        let elsewhere = client
            .get(format!("{base}/state"))
            .header("host", "elsewhere:80");
        assert_eq!(elsewhere.send().await.unwrap().status(), 421);
        let as_text = client.post(format!("{base}/stop")).body("{}");
        assert_eq!(
            as_text.send().await.unwrap().status(),
            415,
            "what a foreign page could send"
        );
        let mut browser = Browser::start(1200, 900).await;
        browser.open(&base).await;
        browser
            .sees("document.querySelector('#state').textContent.includes('3 of 3 users')")
            .await;
        browser
            .sees("document.querySelectorAll('#operations tr').length > 3")
            .await;
        browser
            .sees("document.querySelector('#times polyline')")
            .await;
        browser.fill("input[name=users]", "2").await;
        browser
            .ask("document.querySelector('#change button').click()")
            .await;
        browser
            .sees("document.querySelector('#state').textContent.includes('of 2 users')")
            .await;
        assert_eq!(browser.complaints, [""; 0]);
        browser.ask("document.querySelector('#stop').click()").await;
    };
    let (reported, ()) = tokio::join!(load::run(&target, profile, &options), steering);
    let reported = reported.unwrap();
    let broken: Vec<Invariant> = reported.outcome.broken().collect();
    assert_eq!(broken, []);
    let page = fs::read_to_string(&reported.html).unwrap();
    assert!(
        page.contains("3 users wanted, 20 requests a second"),
        "what was changed is told"
    );
    fs::remove_dir_all(&options.folder).unwrap();
    service.stop().await;
    world.database.remove().await;
}
