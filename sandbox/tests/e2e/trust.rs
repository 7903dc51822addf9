//! The simulator's trust must not leak into the service: the four guards.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, LazyLock},
};

use clap::Parser;
use serde_json::json;
use tempfile::TempDir;
use whatsapp_service::{Server, StartError, Trust, cli::Cli, selfcheck};

use crate::harness::{Log, Program, Service, World, simulator};

const FEATURE: &str = "danger-skip-cert-chain-verify";

/// The service, built as a release builds it: on its own.
pub static SERVICE: LazyLock<PathBuf> = LazyLock::new(|| {
    let built = cargo(&["build", "-p", "whatsapp-service", "--message-format", "json"]);
    let artifacts = built.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut executables = artifacts.filter_map(|artifact| Some(PathBuf::from(artifact["executable"].as_str()?)));
    let built = executables.next_back().expect("cargo names the executable");
    // A copy, because another build may put another binary in its place.
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("service-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let copy = folder.join("whatsapp-service");
    std::fs::copy(built, &copy).unwrap();
    copy
});

#[test]
fn guard_1_the_feature_stands_in_one_manifest_and_not_in_the_services_tree() {
    let manifests = [
        "Cargo.toml",
        "whatsapp-service/Cargo.toml",
        "whatsapp-simulator/Cargo.toml",
        "sandbox/Cargo.toml",
        "examples/receiver-rust/Cargo.toml",
    ];
    let with_feature: Vec<_> = manifests.into_iter().filter(|manifest| read(manifest).contains("danger-")).collect();
    assert_eq!(with_feature, ["sandbox/Cargo.toml"]);
    let members = read("Cargo.toml").lines().find(|line| line.starts_with("members")).unwrap().matches('"').count() / 2;
    assert_eq!(members, manifests.len() - 1, "this test reads every member's manifest");
    let tree = cargo(&["tree", "-p", "whatsapp-service", "-e", "normal,features"]);
    assert!(tree.contains("whatsapp-rust feature"), "the tree shows features");
    assert!(!tree.contains("danger"), "{tree}");
    // What the check looks for is there to be found.
    assert!(cargo(&["tree", "-p", "sandbox", "-e", "normal,features"]).contains(FEATURE));
}

#[test]
fn guard_2_releases_build_the_service_on_its_own() {
    assert!(read("Cargo.toml").contains("default-members = [\"whatsapp-service\"]"));
    for file in ["Dockerfile", "README.md", "docs/operations.md", "docs/testing.md"] {
        let text = read(file);
        let releases: Vec<_> = text.lines().filter(|line| line.contains("cargo build --release")).collect();
        assert!(!releases.is_empty(), "{file} says how to build");
        for line in releases {
            // The sandbox's programs are no service that speaks to WhatsApp, built alone or not.
            let alone = line.contains("-p whatsapp-service") != line.contains("-p sandbox");
            assert!(alone && !line.contains("--workspace"), "{file}: {line}");
        }
    }
}

#[tokio::test]
async fn guard_3_a_build_that_accepts_forged_certificates_refuses_to_run() {
    // This test is built with the sandbox's feature, so it is such a build.
    assert!(!selfcheck::refuses_forged_certificates());
    let data = TempDir::new().unwrap();
    let arguments = ["x", "--internal-secret", "s", "--host", "127.0.0.1", "--port", "0", "--data-dir"];
    let arguments = arguments.into_iter().chain([data.path().to_str().unwrap()]);
    let config = Cli::try_parse_from(arguments).unwrap().config;
    match Server::bind(&config, Trust::WhatsAppOnly).await {
        Err(error @ StartError::ForgedCertificatesAccepted) => {
            assert!(error.to_string().contains("forged server certificates"))
        }
        other => panic!("it started: {}", other.is_ok()),
    }
    assert_eq!(std::fs::read_dir(data.path()).unwrap().count(), 0, "it stopped before it touched anything");
    assert!(
        Server::bind(&config, Trust::AnyServer { tls_roots: Vec::new() }).await.is_ok(),
        "only the sandbox may say so"
    );
}

#[tokio::test]
async fn guard_4_the_service_on_its_own_refuses_the_simulator_and_says_so() {
    // An unsigned chain is refused by the production binary.
    let simulator = simulator(Default::default()).await;
    let url = simulator.ws_url();
    let env = [("WHATSAPP_URL", url.as_str()), ("WHATSAPP_VERSION", "2.3000.1")];
    let program = Program::new(&SERVICE, &[], &env);
    let service = Service::run(program, Arc::new(TempDir::new().unwrap()), Log::default()).await;
    let world = World { simulator, service };
    let acme = world.service.tenant("acme");
    acme.open().await;
    let refused = acme.until("a refusal", |status| status["state"] == "failed").await;
    assert_eq!((&refused["status"], &refused["reason"]), (&json!("failed"), &json!("server_certificate_refused")));
    assert!(refused["message"].as_str().unwrap().contains("certificate"), "{refused}");
    assert!(refused.get("qrCode").is_none());
    assert_eq!(world.stats().await["logins"], 0);
}

#[tokio::test]
async fn the_service_on_its_own_does_not_touch_what_the_sandbox_has_linked() {
    // A linked device remembers its server's key and logs in without looking at the certificate again.
    let mut world = World::start().await;
    world.pair("acme", crate::harness::ANA).await;
    world.service.terminate().await;
    let dials = world.stats().await["dials"].clone();
    let program = Program::new(&SERVICE, &[], &[("WHATSAPP_URL", &world.simulator.ws_url())]);
    let output = program.command(world.service.data.path()).output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && complaint.contains("the sandbox has used the data directory"), "{complaint}");
    assert_eq!(world.stats().await["dials"], dials);
}

#[test]
fn the_sandbox_does_not_speak_to_the_real_whatsapp() {
    let data = TempDir::new().unwrap();
    for url in ["wss://web.whatsapp.com/ws/chat", "wss://g.WhatsApp.NET:443/"] {
        let output = Program::sandbox(url, &[]).command(data.path()).output().unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && complaint.contains("must not speak to the real one"), "{complaint}");
    }
    let mut command = Program::sandbox("", &[]).command(data.path());
    let output = command.env_remove("WHATSAPP_URL").output().unwrap();
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("--whatsapp-url"));
}

#[test]
fn a_service_that_trusts_any_server_listens_on_this_machine_only() {
    use std::io::{BufRead, BufReader};
    let data = TempDir::new().unwrap();
    let mut command = Program::sandbox("ws://127.0.0.1:1/ws/chat", &[]).command(data.path());
    let mut service = command.env_remove("HOST").spawn().unwrap();
    let lines = BufReader::new(service.stderr.take().unwrap()).lines().map_while(Result::ok);
    let listening = lines.into_iter().find(|line| line.contains("\"listening\""));
    service.kill().unwrap();
    service.wait().unwrap();
    let listening = listening.expect("it listens");
    assert!(listening.contains("\"127.0.0.1:"), "{listening}");
}

fn cargo(arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(root()).args(arguments);
    // A build inside a test must not inherit what the outer build was told about itself.
    for (key, _) in
        std::env::vars().filter(|(key, _)| key.starts_with("CARGO_PKG_") || key.starts_with("CARGO_MANIFEST_"))
    {
        command.env_remove(key);
    }
    let output = command.output().expect("cargo runs");
    assert!(output.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().into()
}
