//! Files that are missing, taken away, not to be written to, and a disk that is full at the start.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
};

use reqwest::Method;
use serde_json::json;
use tempfile::TempDir;

use crate::{
    harness::{ANA, BRUNO, Log, Program, SECRET, Service, World, answer, eventually, http, simulator},
    outbox_faults::fill,
};

/// What a start on this data complains about.
fn complaint(world: &World, data: &Path) -> String {
    let output = Program::sandbox(&world.simulator.ws_url(), &[]).command(data).output().unwrap();
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn a_database_that_is_gone_or_lost_something_is_not_taken_for_a_new_one() {
    let mut world = World::start().await;
    world.pair("acme", ANA).await;
    world.service.signal("-KILL");
    world.service.ended().await;
    let data = world.service.data.clone();
    let [database, log, aside] = ["service.db", "service.db-wal", "aside"].map(|name| data.path().join(name));

    fs::rename(&log, &aside).unwrap();
    let said = complaint(&world, data.path());
    assert!(said.contains("service.db-wal is missing") && said.contains("service.mark"), "{said}");
    fs::rename(&aside, &log).unwrap();

    fs::rename(&database, &aside).unwrap();
    let said = complaint(&world, data.path());
    assert!(said.contains("service.db is missing or empty"), "{said}");
    fs::write(&database, "").unwrap();
    let said = complaint(&world, data.path());
    assert!(said.contains("service.db is missing or empty"), "{said}");
    assert_eq!(fs::metadata(&database).unwrap().len(), 0, "nothing was made anew");
    fs::rename(&aside, &database).unwrap();

    world.service.restart().await;
    world.service.tenant("acme").until_state("ready").await;
    // A copy of an earlier time.
    assert!(world.service.terminate().await.success());
    fs::copy(&database, &aside).unwrap();
    world.service.restart().await;
    world.service.tenant("acme").until_state("ready").await;
    world.service.tenant("acme").deliver(BRUNO, "since then").await;
    assert!(world.service.terminate().await.success());
    fs::rename(&aside, &database).unwrap();
    let said = complaint(&world, data.path());
    assert!(said.contains("is older than") && said.contains("it is a copy"), "{said}");
    // Whoever wants that all the same says so.
    fs::remove_file(data.path().join("service.mark")).unwrap();
    world.service.restart().await;
}

#[tokio::test]
async fn a_log_that_is_deleted_while_it_runs_is_noticed_and_nothing_is_lost() {
    let mut world = World::start().await;
    world.pair("acme", ANA).await;
    world.service.tenant("acme").send_ok(BRUNO, "before").await;
    fs::remove_file(world.service.data.path().join("service.db-wal")).unwrap();
    let sent = world.service.tenant("acme").send_ok(BRUNO, "in a file that nobody sees").await;
    let status = world.service.ended().await;
    assert!(!status.success(), "another process is to go on");
    let log = world.service.log.text();
    assert!(log.contains("service.db-wal was deleted or replaced while the service runs"), "{log}");
    world.service.restart().await;
    let acme = world.service.tenant("acme");
    acme.until_state("ready").await;
    let path = format!("/messages/{}", sent["id"].as_str().unwrap());
    assert!(["sent", "delivered"].contains(&acme.get(&path).await["status"].as_str().unwrap()));
    acme.deliver(BRUNO, "as before").await;
    assert_eq!(world.count(BRUNO, "reusedCounters").await, 0);
}

#[tokio::test]
async fn a_database_that_is_deleted_while_it_runs_is_noticed() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    fs::remove_file(world.service.data.path().join("service.db")).unwrap();
    let ready = async || http().get(format!("{}/readyz", world.service.url)).send().await.unwrap().status();
    eventually("a service that is not ready", || async { (ready().await == 503).then_some(()) }).await;
    let (status, body) = world.service.tenant("acme").send(BRUNO, "not accepted").await;
    assert_eq!((status.as_u16(), &body["code"]), (503, &json!("storage_failed")));
    assert!(world.service.log.text().contains("service.db was deleted or replaced while the service runs"));
}

#[tokio::test]
async fn a_start_that_was_refused_leaves_nothing_that_blocks_the_next() {
    let simulator = simulator(Default::default()).await;
    let data = Arc::new(TempDir::new().unwrap());
    let mut program = Program::sandbox(&simulator.ws_url(), &[]);
    // Nothing is forbidden to root.
    if fs::metadata("/proc/self").unwrap().uid() == 0 {
        chown(data.path(), Some(65534), Some(65534)).unwrap();
        let binary = program.binary.to_str().unwrap().to_owned();
        let user = ["--reuid=65534", "--regid=65534", "--clear-groups"].map(String::from);
        program.arguments = user.into_iter().chain([binary]).chain(program.arguments).collect();
        program.binary = "setpriv".into();
    }
    let mut service = Service::run(program.clone(), data.clone(), Log::default()).await;
    assert!(service.terminate().await.success());
    let database = data.path().join("service.db");
    let set_mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    set_mode(&database, 0o400);
    let refused = program.command(data.path()).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("write to") && said.contains("service.db"), "{said}");
    assert!(!data.path().join("service.db-shm").exists(), "it was not even opened");
    set_mode(&database, 0o600);
    service.restart().await;
    assert!(service.terminate().await.success());
    // What an earlier version has left.
    for left in ["service.db-shm", "service.db-wal"].map(|name| data.path().join(name)) {
        fs::write(&left, "").unwrap();
        let owner = fs::metadata(&database).unwrap();
        chown(&left, Some(owner.uid()), Some(owner.gid())).unwrap();
        set_mode(&left, 0o400);
    }
    service.restart().await;
}

/// A small disk that stays when the service ends.
struct SmallDisk {
    holder: Child,
    data: Arc<TempDir>,
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

impl SmallDisk {
    /// `None` where the machine does not let a test mount one.
    async fn new() -> Option<Self> {
        let data = Arc::new(TempDir::new().unwrap());
        let script = r#"mount -t tmpfs -o size=24m,mode=700 none "$DATA_DIR" && echo mounted && exec sleep 600"#;
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--mount", "sh", "-c", script]).env("DATA_DIR", data.path());
        let holder = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("unshare runs");
        let mut disk = Self { holder, data };
        let mut said = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(disk.holder.stdout.take().unwrap()), &mut said)
            .unwrap();
        if said.is_empty() {
            println!("not tested: this machine does not let a test mount a disk");
            return None;
        }
        Some(disk)
    }

    /// How a service starts on it.
    fn program(&self, whatsapp_url: &str) -> Program {
        let mut program = Program::sandbox(whatsapp_url, &[]);
        let binary = program.binary.to_str().unwrap().to_owned();
        let holder = format!("--target={}", self.holder.id());
        let own = [holder, "--user".into(), "--mount".into(), "--preserve-credentials".into(), binary];
        program.arguments = own.into_iter().chain(program.arguments).collect();
        program.binary = "nsenter".into();
        program
    }

    /// Where it is for the test.
    fn path(&self) -> PathBuf {
        format!("/proc/{}/root{}", self.holder.id(), self.data.path().display()).into()
    }
}

#[tokio::test]
async fn a_start_on_a_full_disk_comes_up_says_so_and_goes_on_when_there_is_room() {
    let Some(disk) = SmallDisk::new().await else { return };
    let simulator = simulator(Default::default()).await;
    let program = disk.program(&simulator.ws_url());
    let service = Service::run(program, disk.data.clone(), Log::default()).await;
    let mut world = World { simulator, service };
    world.pair("acme", ANA).await;
    for orderly in [false, true] {
        // One that may have left when the process ended: the next one has that to write down first.
        world.service.tenant("acme").send_ok(BRUNO, "to know the way").await;
        world.fault(json!({"dropAcks": true})).await;
        world.fault(json!({"dropReceipts": true, "phone": ANA})).await;
        let text = format!("on its way {orderly}");
        let queued = world.service.tenant("acme").queue(BRUNO, &text).await;
        world.until_shown(BRUNO, &text).await;
        if orderly {
            world.service.terminate().await;
        } else {
            world.service.signal("-KILL");
            world.service.ended().await;
        }
        fill(&disk.path());
        world.service.restart().await;
        let get = async |path: &str| {
            let request = http().get(format!("{}{path}", world.service.url)).header("X-Internal-Secret", SECRET);
            request.header("X-Tenant-Id", "acme").send().await.unwrap()
        };
        assert_eq!(get("/livez").await.status(), 200);
        assert_eq!(get("/readyz").await.status(), 503);
        for (method, path) in [(Method::GET, "/health"), (Method::GET, "/status"), (Method::POST, "/send")] {
            let request = http().request(method, format!("{}{path}", world.service.url));
            let (status, body) =
                answer(request.header("X-Internal-Secret", SECRET).header("X-Tenant-Id", "acme")).await;
            assert_eq!((status.as_u16(), &body["code"]), (503, &json!("storage_failed")), "{path}: {body}");
        }
        let stranger = answer(http().get(format!("{}/health", world.service.url))).await;
        assert_eq!((stranger.0.as_u16(), &stranger.1["error"]), (401, &json!("Unauthorized")));
        assert_eq!(get("/livez").await.status(), 200);
        fs::remove_file(disk.path().join("filler")).unwrap();
        eventually("a service that is ready", || async { (get("/readyz").await.status() == 200).then_some(()) }).await;
        world.clear_faults().await;
        let acme = world.service.tenant("acme");
        acme.until_state("ready").await;
        acme.until_fate(&queued["id"], "delivered").await;
        assert_eq!(world.until_shown(BRUNO, &text).await.len(), 1);
    }
}
