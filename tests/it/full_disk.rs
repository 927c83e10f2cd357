//! `PostgreSQL`'s disk is full in mid-stream, and has room again. For what must hold see `servers_away`.

use std::{fs::File, io::Write};

use crate::{
    readers::Reads,
    servers_away::{Fault, lives_through},
    support::{
        TestDatabase, World, eventually,
        own::{Disk, OwnServer},
    },
};

/// What fills the disk.
const BALLAST: &str = "disk/ballast";
/// Room for a cluster's data (60 MB) and its log of changes.
const ALL_MEGABYTES: u32 = 192;
/// Room for one database.
const BESIDE_MEGABYTES: u32 = 64;

struct Full<'s> {
    server: &'s mut OwnServer,
    /// Whether the server is to fall over its own log.
    falls: bool,
}

impl Full<'_> {
    fn fill(&self) {
        let mut ballast = File::create(self.server.reach(BALLAST)).expect("ballast");
        // The last write fails, and what fits of it is written.
        for bytes in [1 << 20, 1 << 12] {
            while ballast.write_all(&vec![0; bytes]).is_ok() {}
        }
    }
}

impl Fault for Full<'_> {
    async fn begin(&mut self) {
        self.fill();
        if !self.falls {
            return;
        }
        // The next part of its log does not fit any more: it ends all connections, and itself or only its processes.
        let server = self.server.url();
        eventually("PostgreSQL falls over its full disk", async || {
            let switched = crate::support::run_on(&server, "select pg_switch_wal()").await;
            switched.is_err().then_some(())
        })
        .await;
    }

    async fn end(&mut self) {
        std::fs::remove_file(self.server.reach(BALLAST)).expect("room");
        if !self.falls {
            return;
        }
        // It begins anew by itself, or is started by who looks after it.
        eventually("PostgreSQL decides", async || {
            let answers = crate::support::run_on(&self.server.url(), "select 1").await;
            (answers.is_ok() || !self.server.runs()).then_some(())
        })
        .await;
        if !self.server.runs() {
            self.server.start_again().await;
        }
    }
}

/// A server on that disk; `None`, and a word, where there can be none.
async fn server_on(disk: Disk) -> Option<OwnServer> {
    match OwnServer::postgres_on(disk).await {
        Ok(server) => Some(server),
        Err(why) => {
            eprintln!("SKIPPED: a full disk cannot be tried here: {why}");
            None
        }
    }
}

/// Its tables cannot grow (53100), and everything else goes on: reads are answered, facts wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_room_for_the_tables() {
    let disk = Disk::Beside {
        megabytes: BESIDE_MEGABYTES,
    };
    let Some(mut server) = server_on(disk).await else {
        return;
    };
    let place = server.own_place("disk/tables");
    let statement = format!("create tablespace small location '{place}'");
    crate::support::run_on(&server.url(), &statement)
        .await
        .expect("a tablespace");
    let database = TestDatabase::create_on(server.url(), "tablespace small").await;
    let world = World::around(database, |_| {}).await;
    let full = Full {
        server: &mut server,
        falls: false,
    };
    let lived = lives_through("a full disk", Reads::Work, &world, |_| {}, full).await;
    assert!(lived.said("No space left on device"), "the disk was full");
}

/// Its log of changes cannot grow, and it falls.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_room_for_the_log() {
    let disk = Disk::OfAll {
        megabytes: ALL_MEGABYTES,
    };
    let Some(mut server) = server_on(disk).await else {
        return;
    };
    let database = TestDatabase::create_on(server.url(), "").await;
    let world = World::around(database, |_| {}).await;
    let full = Full {
        server: &mut server,
        falls: true,
    };
    lives_through("a full log", Reads::MayFail, &world, |_| {}, full).await;
}
