//! Clocks that are wrong, and that are set while the service runs.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::Path,
    process::Command,
    sync::Arc,
    time::Duration,
};

use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{ANA, BRUNO, Log, Program, Service, Tenant, World, eventually, simulator};

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;
const YEAR: i64 = 365 * DAY;

/// What stands between the service and the system's clock: it adds the seconds in a file to the time.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static volatile const int64_t *added;

__attribute__((constructor)) static void start(void) {
    const char *name = getenv("ADDED_SECONDS");
    int file = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
    void *there = file < 0 ? MAP_FAILED : mmap(0, sizeof *added, PROT_READ, MAP_SHARED, file, 0);
    if (there != MAP_FAILED) added = there;
    if (file >= 0) close(file);
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    int failed = syscall(SYS_clock_gettime, clock, time);
    if (!failed && clock == CLOCK_REALTIME && added) time->tv_sec += *added;
    return failed;
}
"#;

/// A clock that a test sets.
struct Wall {
    folder: TempDir,
    added: File,
}

impl Wall {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let (source, added) = (folder.path().join("clock.c"), folder.path().join("added"));
        fs::write(&source, SHIM).unwrap();
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-o"]).arg(folder.path().join("clock.so")).arg(source);
        let built = compiler.output().expect("a C compiler");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        fs::write(&added, [0; 8]).unwrap();
        Self { added: File::options().write(true).open(added).unwrap(), folder }
    }

    /// So many seconds away from the right time.
    fn set(&self, seconds: i64) {
        self.added.write_all_at(&seconds.to_ne_bytes(), 0).unwrap();
    }

    /// A service that goes by it, and takes it for steady so long after a jump.
    async fn world(&self, steady_after: &str, env: &[(&str, &str)]) -> World {
        let simulator = simulator(Default::default()).await;
        let path = |name: &str| self.folder.path().join(name).to_str().unwrap().to_owned();
        let (shim, added) = (path("clock.so"), path("added"));
        let own = [("LD_PRELOAD", shim.as_str()), ("ADDED_SECONDS", &added), ("CLOCK_STEADY_AFTER", steady_after)];
        let program = Program::sandbox(&simulator.ws_url(), &[&own, env].concat());
        let service = Service::run(program, Arc::new(TempDir::new().unwrap()), Log::default()).await;
        World { simulator, service }
    }
}

async fn until_logged(service: &Service, what: &str) {
    eventually(&format!("{what:?} in the log"), || async { service.log.text().contains(what).then_some(()) }).await;
}

/// Sends with a key, and returns the message's id.
async fn send_with_key(tenant: Tenant<'_>, message: &str) -> Value {
    let body = json!({"to": BRUNO, "message": message, "idempotencyKey": message.replace(' ', "-")});
    let (status, body) = tenant.call(Method::POST, "/send?wait=0", Some(body)).await;
    assert!(status.is_success(), "{body}");
    body["id"].clone()
}

/// Gives what happens every second the time to happen several times.
async fn some_rounds() {
    tokio::time::sleep(Duration::from_secs(4)).await;
}

#[tokio::test]
async fn a_day_forward_and_back_expires_nothing_and_sends_nothing_twice() {
    let wall = Wall::new();
    let world = wall.world("600", &[]).await;
    world.pair("acme", ANA).await;
    let acme = world.service.tenant("acme");
    acme.send_ok(BRUNO, "to know the way").await;
    world.cut_off("acme", ANA).await;
    let waiting = send_with_key(acme, "waits").await;
    wall.set(25 * HOUR);
    until_logged(&world.service, "the clock has jumped").await;
    some_rounds().await;
    assert_eq!(send_with_key(acme, "waits").await, waiting, "the same call is the same message");
    let meanwhile = send_with_key(acme, "accepted meanwhile").await;
    wall.set(0);
    some_rounds().await;
    world.clear_faults().await;
    for id in [&waiting, &meanwhile] {
        let fate = acme.until_fate(id, "delivered").await;
        assert_eq!(fate["acceptedAt"].as_str().unwrap()[..10], acme.status().await["since"].as_str().unwrap()[..10]);
    }
    assert_eq!(send_with_key(acme, "waits").await, waiting);
    assert_eq!(world.until_shown(BRUNO, "waits").await.len(), 1);
    assert_eq!(world.service.log.text().matches("nothing expires and nothing is forgotten").count(), 2);
}

#[tokio::test]
async fn forty_years_wipe_nothing_until_they_are_believed() {
    let wall = Wall::new();
    let mut world = wall.world("600", &[]).await;
    world.pair("acme", ANA).await;
    let acme = world.service.tenant("acme");
    let sent = acme.deliver(BRUNO, "before").await;
    let before = acme.events().await;
    wall.set(40 * YEAR);
    until_logged(&world.service, "the clock has jumped").await;
    some_rounds().await;
    wall.set(0);
    // A process that starts forgets what is old at once.
    wall.set(40 * YEAR);
    world.service.kill_and_restart().await;
    until_logged(&world.service, "what was written down last is old").await;
    some_rounds().await;
    let acme = world.service.tenant("acme");
    assert_eq!(acme.events().await[..before.len()], before);
    assert_eq!(acme.get(&format!("/messages/{}", sent["id"].as_str().unwrap())).await["status"], "delivered");
    wall.set(0);
    world.service.kill_and_restart().await;
    let acme = world.service.tenant("acme");
    acme.until_state("ready").await;
    assert_eq!(acme.events().await[..before.len()], before);
}

#[tokio::test]
async fn a_clock_that_stays_where_it_jumped_to_counts_in_the_end() {
    let wall = Wall::new();
    let world = wall.world("3", &[]).await;
    world.pair("acme", ANA).await;
    let acme = world.service.tenant("acme");
    acme.send_ok(BRUNO, "to know the way").await;
    world.cut_off("acme", ANA).await;
    let waiting = send_with_key(acme, "waits").await;
    wall.set(25 * HOUR);
    let fate = acme.until_fate(&waiting, "failed").await;
    assert_eq!(fate["code"], "expired");
    let log = world.service.log.text();
    assert!(log.contains("it counts now"), "{log}");
}

#[tokio::test]
async fn what_comes_after_a_clock_was_put_back_hides_nothing() {
    let wall = Wall::new();
    let world = wall.world("0", &[]).await;
    world.pair("acme", ANA).await;
    let acme = world.service.tenant("acme");
    let first = acme.send_ok(BRUNO, "before").await;
    let since = acme.get(&format!("/messages/{}", first["id"].as_str().unwrap())).await["acceptedAt"].clone();
    wall.set(-25 * HOUR);
    until_logged(&world.service, "the clock has jumped").await;
    let back = acme.send_ok(BRUNO, "put back").await;
    wall.set(0);
    let last = acme.send_ok(BRUNO, "after").await;
    let listed = async |query: &str| -> Vec<Value> {
        let page = acme.get(&format!("/messages?{query}")).await;
        page["messages"].as_array().unwrap().iter().map(|message| message["id"].clone()).collect()
    };
    assert_eq!(
        listed(&format!("since={}", since.as_str().unwrap())).await,
        [&last["id"], &first["id"]].map(Clone::clone)
    );
    assert_eq!(listed("limit=9").await, [&last["id"], &back["id"], &first["id"]].map(Clone::clone));
}

#[tokio::test]
async fn before_1970_everything_goes_on() {
    let wall = Wall::new();
    let mut world = wall.world("1", &[]).await;
    world.pair("acme", ANA).await;
    world.service.tenant("acme").send_ok(BRUNO, "to know the way").await;
    wall.set(-80 * YEAR);
    until_logged(&world.service, "it counts now").await;
    let acme = world.service.tenant("acme");
    let (sent, again) = (acme.send_ok(BRUNO, "in the past").await, acme.send_ok(BRUNO, "and once more").await);
    for id in [&sent["id"], &again["id"]] {
        assert!(acme.until_fate(id, "delivered").await["acceptedAt"].as_str().unwrap() < "1970");
    }
    world.write(BRUNO, ANA, "an answer").await;
    acme.until_told("message.received", |told| !told.is_empty()).await;
    // What is done from time to time is done then, and after it.
    for seconds in [-80 * YEAR, 0] {
        wall.set(seconds);
        world.cut_off("acme", ANA).await;
        let body = json!({"to": BRUNO, "message": "too late", "expiresIn": 1});
        let (_, queued) = acme.call(Method::POST, "/send?wait=0", Some(body)).await;
        acme.until_fate(&queued["id"], "failed").await;
        world.clear_faults().await;
        acme.until_state("ready").await;
    }
    let log = world.service.log.text();
    for word in ["a panic", "failed badly"] {
        assert!(!log.contains(word), "{word}: {log}");
    }
    // Neither HTTP nor TLS begins with such a clock.
    wall.set(-80 * YEAR);
    world.service.signal("-KILL");
    world.service.ended().await;
    let said = world.service.program().command(world.service.data.path()).output().unwrap();
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("before 1970"), "{said}");
    wall.set(0);
    world.service.restart().await;
    world.service.tenant("acme").until_state("ready").await;
}

#[tokio::test]
async fn a_start_with_a_clock_that_is_behind_is_noticed() {
    let wall = Wall::new();
    let mut world = wall.world("600", &[]).await;
    world.pair("acme", ANA).await;
    world.service.tenant("acme").deliver(BRUNO, "before").await;
    wall.set(-DAY);
    world.service.kill_and_restart().await;
    until_logged(&world.service, "the clock is behind what was written down before the start").await;
    let acme = world.service.tenant("acme");
    acme.until_state("ready").await;
    let sent = acme.deliver(BRUNO, "after").await;
    let messages = acme.get("/messages").await;
    assert_eq!(messages["messages"][0]["id"], sent["id"]);
    let accepted = |at: usize| messages["messages"][at]["acceptedAt"].as_str().unwrap().to_owned();
    assert!(accepted(0) >= accepted(1), "what is written now is not older than what was before");
    assert!(Path::new(world.service.data.path()).join("service.mark").exists());
}
