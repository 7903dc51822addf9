//! A deletion is done whole, or not at all; what was begun goes on by itself.

use std::path::Path;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::{
    harness::{ANA, BRUNO, World, answer, eventually},
    outbox_faults::{fill, world_on_a_small_disk},
};

/// `DELETE /session`, on a task of its own.
fn delete(world: &World) -> JoinHandle<(StatusCode, Value)> {
    let request = world.service.request(Method::DELETE, "/session").header("X-Tenant-Id", "acme");
    tokio::spawn(answer(request))
}

/// Waits until it is written down in this folder that the session is being deleted.
async fn begun(folder: &Path) {
    let noted = br#""deleting":true"#;
    eventually("the deletion on the disk", || async {
        let written = std::fs::read(folder.join("service.db-wal")).unwrap();
        written.windows(noted.len()).any(|bytes| bytes == noted).then_some(())
    })
    .await;
}

/// Waits until there is no session, and no device on the phone.
async fn until_gone(world: &World) {
    let acme = world.service.tenant("acme");
    eventually("the end of the session", || async { (acme.status().await["status"] == "not_found").then_some(()) })
        .await;
    assert!(world.devices(ANA).await.is_empty(), "the phone lists it no more");
    let told = acme.told("session.state").await;
    assert_eq!(told.iter().filter(|told| told["state"] == "deleted").count(), 1, "{told:?}");
}

#[tokio::test]
async fn what_can_not_be_written_down_is_not_begun() {
    let Some((world, disk)) = world_on_a_small_disk().await else { return };
    world.pair("acme", ANA).await;
    let acme = world.service.tenant("acme");
    fill(Path::new(&disk));
    // The last bit of room, with something as small as a deletion's beginning.
    let hook = |n: usize| Some(json!({"url": format!("https://93.184.216.34/{n}")}));
    for n in 0.. {
        if acme.call(Method::PUT, "/webhook", hook(n)).await.0 == 503 {
            break;
        }
    }
    let (status, refused) = acme.call(Method::DELETE, "/session", None).await;
    assert_eq!((status.as_u16(), &refused["code"]), (503, &json!("storage_failed")), "{refused}");
    assert_eq!(world.devices(ANA).await.len(), 1, "it is still linked");
    assert_eq!(acme.status().await["state"], "ready");
    std::fs::remove_file(Path::new(&disk).join("filler")).unwrap();
    eventually("room", || async { (acme.call(Method::GET, "/health", None).await.0 == 200).then_some(()) }).await;
    acme.send_ok(BRUNO, "as before").await;
    let (status, deleted) = acme.call(Method::DELETE, "/session", None).await;
    assert_eq!((status.as_u16(), &deleted["unlinked"]), (200, &json!(true)), "{deleted}");
    until_gone(&world).await;
}

#[tokio::test]
async fn a_deletion_that_the_disk_breaks_off_goes_on_by_itself() {
    let Some((world, disk)) = world_on_a_small_disk().await else { return };
    world.pair("acme", ANA).await;
    let acme = world.service.tenant("acme");
    world.fault(json!({"latencyMs": 2000, "phone": ANA})).await;
    let deleting = delete(&world);
    begun(Path::new(&disk)).await;
    fill(Path::new(&disk));
    let (status, refused) = deleting.await.unwrap();
    assert_eq!((status.as_u16(), &refused["code"]), (503, &json!("storage_failed")), "{refused}");
    assert!(refused["message"].as_str().unwrap().contains("by itself"), "{refused}");
    let half_done = acme.status().await;
    assert_eq!((&half_done["state"], &half_done["reason"]), (&json!("failed"), &json!("storage_failed")));
    for (method, path, body) in
        [(Method::POST, "/session", None), (Method::POST, "/send", Some(json!({"to": BRUNO, "message": "no"})))]
    {
        let (status, refused) = acme.call(method, path, body).await;
        assert_eq!((status.as_u16(), &refused["retryable"]), (503, &json!(true)), "{path}: {refused}");
    }
    assert_eq!(acme.call(Method::DELETE, "/session", None).await.0, 503);
    std::fs::remove_file(Path::new(&disk).join("filler")).unwrap();
    until_gone(&world).await;
    world.clear_faults().await;
    world.pair("acme", ANA).await;
}

#[tokio::test]
async fn a_second_call_tells_what_the_first_has_achieved() {
    let Some((world, disk)) = world_on_a_small_disk().await else { return };
    world.pair("acme", ANA).await;
    let acme = world.service.tenant("acme");
    world.fault(json!({"latencyMs": 2000, "phone": ANA})).await;
    let deleting = delete(&world);
    begun(Path::new(&disk)).await;
    fill(Path::new(&disk));
    assert_eq!(deleting.await.unwrap().0, 503);
    std::fs::remove_file(Path::new(&disk).join("filler")).unwrap();
    // Whoever comes first: this call, or what goes on by itself.
    let (status, deleted) = acme.call(Method::DELETE, "/session", None).await;
    assert!(status == 404 || (status == 200 && deleted["unlinked"] == true), "{status} {deleted}");
    until_gone(&world).await;
}

#[tokio::test]
async fn a_deletion_that_a_kill_breaks_off_is_done_by_the_next_process() {
    let mut world = World::start().await;
    world.pair("acme", ANA).await;
    let acme = world.service.tenant("acme");
    acme.send_ok(BRUNO, "to know the way").await;
    world.fault(json!({"latencyMs": 3000, "phone": ANA})).await;
    let deleting = delete(&world);
    begun(world.service.data.path()).await;
    world.service.signal("-KILL");
    world.service.ended().await;
    assert!(deleting.await.is_err(), "there was no answer");
    world.clear_faults().await;
    world.service.restart().await;
    until_gone(&world).await;
    for table in ["stores", "state"] {
        assert_eq!(world.service.count(&format!("SELECT count(*) FROM {table}")), 0, "{table}");
    }
    world.pair("acme", ANA).await;
    world.service.kill_and_restart().await;
    world.service.tenant("acme").until_state("ready").await;
}

#[tokio::test]
async fn what_whatsapp_said_before_is_not_taken_for_an_unlinking() {
    let world = World::start().await;
    world.pair("acme", ANA).await;
    let acme = world.service.tenant("acme");
    // The server says by mistake that the device was removed, and the login that would tell is not answered.
    world.fault(json!({"loginDelayMs": 60_000})).await;
    world.fault(json!({"streamConflict": "device_removed", "times": 1})).await;
    acme.until("a suspicion", |status| status["reason"] == "logged_out_unconfirmed").await;
    let (status, deleted) = acme.call(Method::DELETE, "/session", None).await;
    assert_eq!((status.as_u16(), &deleted["unlinked"]), (200, &json!(false)), "{deleted}");
    assert_eq!(world.devices(ANA).await.len(), 1, "the phone still lists it");
}
