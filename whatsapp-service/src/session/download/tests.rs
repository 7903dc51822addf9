use futures_util::FutureExt;

use super::*;

fn tenant(name: &str) -> TenantId {
    name.parse().unwrap()
}

fn key(name: &str, id: &str) -> Key {
    (tenant(name), id.into(), String::new())
}

fn downloads() -> Downloads {
    Downloads::new("nowhere".into())
}

/// A file that was fetched, and is here.
fn fetched(downloads: &Downloads, key: Key, bytes: u64) -> Arc<Recent> {
    let room = downloads.room(&key.0, bytes).unwrap();
    let recent = downloads.recent(key);
    recent.file.set(Arc::new(MediaFile::holding(b"bytes").in_room(room))).ok().unwrap();
    recent
}

fn is_known(downloads: &Downloads, key: &Key) -> bool {
    downloads.recent.lock().contains_key(key)
}

#[test]
fn a_path_may_have_a_query_of_its_own() {
    let source = |path: &str| MediaSource {
        kind: crate::model::media::MediaKind::Audio,
        path: path.into(),
        key: Vec::new(),
        sha256: vec![1; 32],
        encrypted_sha256: vec![0xfb; 32],
        size: None,
        mimetype: None,
        filename: None,
    };
    let hash = "hash=-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_s=&mms-type=audio&__wa-mms=";
    assert_eq!(address(&source("/v/1")), format!("/v/1?{hash}"));
    assert_eq!(address(&source("/v/1?ccb=9&oh=x")), format!("/v/1?ccb=9&oh=x&{hash}"));
}

#[tokio::test(start_paused = true)]
async fn no_tenant_has_all_the_turns_and_nobody_waits_for_long() {
    let (downloads, acme, other) = (downloads(), tenant("acme"), tenant("other"));
    let _slow = [downloads.turn(&acme).await.unwrap(), downloads.turn(&acme).await.unwrap()];
    let started = Instant::now();
    assert!(matches!(downloads.turn(&acme).await, Err(NotFetched::Busy)));
    assert_eq!(started.elapsed(), TURN_LIMIT);
    let _others = [downloads.turn(&other).now_or_never(), downloads.turn(&other).now_or_never()]
        .map(|turn| turn.expect("at once").unwrap());
    assert!(matches!(downloads.turn(&tenant("third")).await, Err(NotFetched::Busy)));
}

#[tokio::test(start_paused = true)]
async fn what_is_on_its_way_and_what_was_asked_for_in_vain_is_not_forgotten() {
    let downloads = downloads();
    let (coming, vain, failed) = (key("acme", "coming"), key("acme", "vain"), key("acme", "failed"));
    let under_way = downloads.recent(coming.clone());
    *downloads.recent(vain.clone()).in_vain_until.lock() = Some(Instant::now() + PHONE_PAUSE);
    downloads.recent(failed.clone());
    for n in 0..=STAYING {
        tokio::time::advance(Duration::from_millis(1)).await;
        fetched(&downloads, key("acme", &n.to_string()), 1);
    }
    downloads.tidy();
    assert!(Arc::ptr_eq(&downloads.recent(coming.clone()), &under_way), "it would be fetched twice");
    assert!(downloads.recent(vain.clone()).is_in_vain(), "the phone would be asked too soon");
    assert!(!is_known(&downloads, &failed), "there is nothing to remember");
    assert!(!is_known(&downloads, &key("acme", "0")), "the one that was used longest ago made way");
    assert!(is_known(&downloads, &key("acme", "1")));
    // A large file takes longer than files stay.
    tokio::time::advance(IDLE).await;
    downloads.forget_idle();
    assert!(Arc::ptr_eq(&downloads.recent(coming), &under_way));
    assert_eq!(downloads.recent.lock().len(), 1, "all others were idle");
    drop(under_way);
    tokio::time::advance(IDLE).await;
    downloads.forget_idle();
    assert!(downloads.recent.lock().is_empty());
}

#[tokio::test]
async fn files_that_are_read_take_room_until_their_last_reader_goes() {
    let downloads = downloads();
    let half = BYTES_EACH / 2;
    // Both were let go, and somebody still reads one of them.
    let read = fetched(&downloads, key("acme", "read"), half).file.get().cloned().unwrap();
    fetched(&downloads, key("acme", "unread"), half);
    fetched(&downloads, key("other", "unread"), half);
    let _first = downloads.room(&tenant("acme"), half).expect("what nobody reads makes way");
    assert!(!is_known(&downloads, &key("acme", "unread")));
    assert!(is_known(&downloads, &key("other", "unread")), "this would not have helped");
    assert!(matches!(downloads.room(&tenant("acme"), half), Err(NotFetched::Busy)));
    downloads.recent.lock().clear();
    assert!(matches!(downloads.room(&tenant("acme"), half), Err(NotFetched::Busy)), "it has no name any more");
    let _others = downloads.room(&tenant("other"), BYTES_EACH).expect("the others have theirs");
    drop(read);
    assert!(downloads.room(&tenant("acme"), half).is_ok());
}
