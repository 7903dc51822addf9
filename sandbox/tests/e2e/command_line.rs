//! The commands of the binary, as a person types them, against a running service.

use std::{
    path::Path,
    process::{Command, Output, Stdio},
    sync::Arc,
};

use reqwest::Method;
use tempfile::TempDir;
use whatsapp_simulator::Config;

use crate::{
    harness::{ANA, BRUNO, Log, Program, SECRET, Service, World, simulator},
    trust::SERVICE,
};

fn command(world: &World, arguments: &[&str]) -> Command {
    let mut command = Command::new(&*SERVICE);
    command.args(arguments).env("INTERNAL_SECRET", SECRET).env("WHATSAPP_SERVICE_URL", &world.service.url);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

async fn run(world: &World, arguments: &[&str]) -> (bool, String, String) {
    let mut command = command(world, arguments);
    let Output { status, stdout, stderr } =
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (status.success(), text(stdout), text(stderr))
}

#[tokio::test]
async fn pair_draws_the_code_and_ends_when_the_phone_is_linked() {
    let world = World::start().await;
    let mut command = command(&world, &["pair", "acme"]);
    let pairing = tokio::task::spawn_blocking(move || command.output().unwrap());
    let waiting = world.service.tenant("acme").until("a code", |status| status["qrCode"].is_string()).await;
    let scan = format!("/admin/mock-phone/scan-qr?phone={ANA}");
    world.admin(Method::POST, &scan, waiting["qrCode"].as_str().unwrap()).await;
    let output = pairing.await.unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(shown.contains('█') && shown.contains("Linked devices"), "{shown}");
    assert!(shown.trim_end().ends_with(&format!("Linked with {ANA}.")), "{shown}");
}

#[tokio::test]
async fn pair_by_code() {
    let world = World::start().await;
    let mut command = command(&world, &["pair", "acme", "--phone", ANA]);
    let pairing = tokio::task::spawn_blocking(move || command.output().unwrap());
    let waiting = world.service.tenant("acme").until("a code", |status| status["pairingCode"].is_string()).await;
    let code = waiting["pairingCode"].as_str().unwrap();
    let typed = serde_json::json!({"phone": ANA, "code": code}).to_string();
    world.admin(Method::POST, "/admin/mock-phone/enter-code", typed).await;
    let output = pairing.await.unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && shown.contains(&format!("{}-{}", &code[..4], &code[4..])), "{shown}");
}

#[tokio::test]
async fn send_status_and_health() {
    let world = World::start().await;
    let (ok, _, complaint) = run(&world, &["send", "acme", BRUNO, "hi"]).await;
    assert!(!ok && complaint.contains("409 Session not found"), "{complaint}");
    world.pair("acme", ANA).await;
    world.service.tenant("waiting").open().await;

    let (ok, sent, complaint) = run(&world, &["send", "acme", "+55 11 88888-8888", "from a terminal"]).await;
    assert!(ok, "{complaint}");
    let sent: serde_json::Value = serde_json::from_str(&sent).unwrap();
    assert_eq!(world.until_shown(BRUNO, "from a terminal").await[0]["id"], sent["id"]);

    let (ok, all, _) = run(&world, &["status"]).await;
    let lines: Vec<_> = all.lines().map(|line| line.split('\t').take(2).collect::<Vec<_>>()).collect();
    assert!(ok);
    assert_eq!(lines, [["acme", "ready"], ["waiting", "pairing_qr"]]);
    let (ok, one, _) = run(&world, &["status", "acme"]).await;
    assert!(ok && one.contains("\"canSend\": true"), "{one}");

    assert!(run(&world, &["health"]).await.0);
    let mut stranger = command(&world, &["health"]);
    stranger.env("INTERNAL_SECRET", "wrong");
    assert!(!stranger.output().unwrap().status.success());
    let mut nobody = command(&world, &["health"]);
    nobody.env("WHATSAPP_SERVICE_URL", "http://127.0.0.1:1");
    let output = nobody.output().unwrap();
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("no answer"));
}

#[tokio::test]
async fn pair_says_why_it_did_not_work() {
    let world = World::start().await;
    let (ok, _, complaint) = run(&world, &["pair", "not a tenant"]).await;
    assert!(!ok && complaint.contains("invalid_tenant_id"), "{complaint}");
    world.pair("acme", ANA).await;
    let (ok, shown, _) = run(&world, &["pair", "acme"]).await;
    assert!(ok && shown.contains("Linked with"), "a tenant that is linked already: {shown}");
}

#[tokio::test]
async fn an_address_that_is_taken_is_said_once() {
    let world = World::start().await;
    let data = TempDir::new().unwrap();
    let port = world.service.url.rsplit(':').next().unwrap().to_owned();
    let mut command = Command::new(&*SERVICE);
    command.env("INTERNAL_SECRET", SECRET).env("HOST", "127.0.0.1").env("PORT", port).env("DATA_DIR", data.path());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert_eq!(said.matches("Address already in use").count(), 1, "{said}");
}

#[tokio::test]
async fn help_is_worth_reading() {
    let world = World::start().await;
    let (ok, help, _) = run(&world, &["--help"]).await;
    assert!(ok);
    for word in ["INTERNAL_SECRET", "DATA_DIR", "pair", "send", "status", "SEND_TIMEOUT", "Examples:"] {
        assert!(help.contains(word), "{word}: {help}");
    }
    assert!(!help.contains(SECRET), "the environment's secret is not shown");
}

#[tokio::test]
async fn it_may_open_as_many_files_as_the_system_allows() {
    let simulator = simulator(Config::default()).await;
    let few = ["-c", "ulimit -Sn 200 && exec \"$0\" service", env!("CARGO_BIN_EXE_sandbox")];
    let program = Program::new(Path::new("/bin/sh"), &few, &[("WHATSAPP_URL", &simulator.ws_url())]);
    let service = Service::run(program, Arc::new(TempDir::new().unwrap()), Log::default()).await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", service.pid())).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).expect("a limit of open files");
    let [soft, hard] = [3, 4].map(|field| files.split_whitespace().nth(field).unwrap());
    assert!(soft == hard && soft != "200", "{files}");
}
