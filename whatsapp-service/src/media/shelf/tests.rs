use crate::media::{NotTaken, kind::Claim, sweep::ABANDONED};
use axum::body::Bytes;
use std::collections::HashSet;
use std::os::unix::fs::PermissionsExt;

use clap::Parser;
use futures_util::stream;
use tempfile::TempDir;

use super::*;

#[derive(Parser)]
struct Settings {
    #[command(flatten)]
    config: Config,
}

fn shelf(folder: &TempDir, settings: &[&str]) -> Arc<MediaStore> {
    let settings = Settings::parse_from(std::iter::once(&"test").chain(settings));
    MediaStore::open(folder.path().join("media"), &settings.config).unwrap().into()
}

fn files(folder: &TempDir) -> usize {
    fs::read_dir(folder.path().join("media")).unwrap().count()
}

async fn take(shelf: &Arc<MediaStore>, tenant: &str, bytes: &[u8]) -> Result<Taken, NotTaken> {
    let pieces = bytes.chunks(1000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect::<Vec<_>>();
    shelf.take(&tenant.parse().unwrap(), &Claim::default(), stream::iter(pieces)).await
}

async fn clear(shelf: &MediaStore, needed: &[&str]) {
    let idle = shelf.idle(true).await;
    shelf.discard(idle, &needed.iter().map(ToString::to_string).collect()).await;
}

#[tokio::test]
async fn a_file_stays_while_it_is_held_or_needed() {
    let folder = TempDir::new().unwrap();
    let shelf = shelf(&folder, &[]);
    let taken = take(&shelf, "acme", &[7; 200_000]).await.unwrap();
    let (name, again) = (taken.parcel.file.clone(), taken.again());
    clear(&shelf, &[]).await;
    drop(taken);
    clear(&shelf, &[]).await;
    assert_eq!(files(&folder), 1, "it is held");
    drop(again);
    clear(&shelf, &[&name]).await;
    assert_eq!(files(&folder), 1, "it is needed");
    // What was found idle and was of use since is not removed.
    let idle = shelf.idle(true).await;
    drop(take(&shelf, "acme", &[7; 200_000]).await.unwrap());
    shelf.discard(idle, &HashSet::new()).await;
    assert_eq!(files(&folder), 1, "it was of use");
    clear(&shelf, &[]).await;
    assert_eq!((files(&folder), shelf.room.used("acme")), (0, (0, 0)));
}

#[tokio::test]
async fn the_same_bytes_of_the_same_tenant_are_one_file() {
    let folder = TempDir::new().unwrap();
    let shelf = shelf(&folder, &[]);
    let (first, second) =
        (take(&shelf, "acme", &[7; 9_000]).await.unwrap(), take(&shelf, "acme", &[7; 9_000]).await.unwrap());
    assert_eq!(first.parcel, second.parcel);
    let other = take(&shelf, "other", &[7; 9_000]).await.unwrap();
    assert_ne!((&first.parcel.file, &first.parcel.key), (&other.parcel.file, &other.parcel.key));
    assert_eq!(files(&folder), 2);
    // A file that is gone, and was never uploaded, is not given to anybody.
    drop((first, second, other));
    clear(&shelf, &[]).await;
    let anew = take(&shelf, "acme", &[7; 9_000]).await.unwrap();
    assert_eq!(files(&folder), 1);
    let path = shelf.path(&anew.parcel.file).unwrap();
    assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn an_upload_is_used_again_for_a_day() {
    let folder = TempDir::new().unwrap();
    let shelf = shelf(&folder, &[]);
    let taken = take(&shelf, "acme", &[7; 9_000]).await.unwrap();
    for (age, is_used) in [(FRESH - 60, true), (FRESH + 60, false)] {
        let at = clock::wall().timestamp() - age;
        let upload = Upload { url: "https://host/v/1".into(), direct_path: "/v/1".into(), at };
        shelf.touch(&taken.parcel.file, |entry| entry.uploaded = Some(upload.clone()));
        let again = take(&shelf, "acme", &[7; 9_000]).await.unwrap();
        assert_eq!(again.parcel.upload, is_used.then_some(upload), "after {age} seconds");
    }
}

#[tokio::test]
async fn only_so_many_files_are_remembered_and_what_is_held_is_among_them() {
    let folder = TempDir::new().unwrap();
    let shelf = shelf(&folder, &[]);
    let held = take(&shelf, "acme", &[7; 9_000]).await.unwrap();
    for n in 0..REMEMBERED {
        let parcel = StoredMedia { file: format!("{n:032x}"), ..held.parcel.clone() };
        let content = Content("acme".parse().unwrap(), "document", n.to_be_bytes().to_vec());
        shelf.remember(&parcel, content, 0, false);
        let known = shelf.lock();
        assert!(known.files.len() <= REMEMBERED && known.names.len() == known.files.len());
    }
    let known = shelf.lock();
    assert!(known.files.contains_key(&held.parcel.file));
    assert!(!known.files.contains_key(&format!("{:032x}", 0)), "the oldest goes first");
    assert!(known.files.contains_key(&format!("{:032x}", REMEMBERED - 1)));
}

#[tokio::test]
async fn what_is_not_taken_leaves_nothing_behind() {
    let folder = TempDir::new().unwrap();
    let shelf = shelf(&folder, &["--media-max-document", "100000", "--media-room", "150000"]);
    assert!(matches!(take(&shelf, "acme", b"").await, Err(NotTaken::Empty)));
    let too_large = take(&shelf, "acme", &[7; 100_001]).await;
    assert!(matches!(too_large, Err(NotTaken::TooLarge { limit: 100_000, kind: MediaKind::Document })));
    let broken = stream::iter([Ok(Bytes::from(vec![7; 90_000])), Err(NotTaken::BrokenOff)]);
    let broken = shelf.take(&"acme".parse().unwrap(), &Claim::default(), broken).await;
    assert!(matches!(broken, Err(NotTaken::BrokenOff)));
    assert_eq!((files(&folder), shelf.room.used("acme")), (0, (0, 0)));
    let _first = take(&shelf, "acme", &[1; 100_000]).await.unwrap();
    assert!(matches!(take(&shelf, "acme", &[2; 100_000]).await, Err(NotTaken::RoomFull)));
    assert_eq!(files(&folder), 1);
}

#[tokio::test]
async fn only_names_that_were_made_here_lead_to_files() {
    let folder = TempDir::new().unwrap();
    let shelf = shelf(&folder, &[]);
    for name in ["", "../../service.db", "/etc/passwd", &"g".repeat(32), &"a".repeat(31)] {
        assert_eq!(shelf.path(name), None, "{name}");
    }
}

/// No kind may have more than this in these tests.
const MOST: u64 = 10_000;

/// A shelf where each tenant may have four of the largest files, and all together sixteen.
fn small(folder: &TempDir) -> Arc<MediaStore> {
    let kinds = ["image", "video", "audio", "document", "sticker"];
    let limits = kinds.map(|kind| format!("--media-max-{kind}={MOST}"));
    let room = format!("--media-room={}", 16 * (MOST + 100));
    let settings: Vec<_> = limits.iter().chain([&room]).map(String::as_str).collect();
    shelf(folder, &settings)
}

#[tokio::test]
async fn a_tenant_fills_its_share_and_leaves_the_rest_to_the_others() {
    let folder = TempDir::new().unwrap();
    let shelf = small(&folder);
    let bytes = |n: u8| vec![n; MOST as usize];
    let mut held = Vec::new();
    for n in 0..4 {
        held.push(take(&shelf, "acme", &bytes(n)).await.unwrap());
    }
    assert!(matches!(take(&shelf, "acme", &bytes(4)).await, Err(NotTaken::ShareFull)));
    held.push(take(&shelf, "other", &bytes(4)).await.unwrap());
    // The next process learns whose the files are from the messages that need them.
    let used = (shelf.room.used("acme"), shelf.room.used("other"));
    let names: Vec<_> = held.iter().map(|taken| taken.parcel.file.clone()).collect();
    drop((shelf, held));
    let shelf = small(&folder);
    assert_eq!(shelf.room.used("acme"), (used.0.0, 0));
    names[..4].iter().for_each(|name| shelf.belongs(name, &"acme".parse().unwrap()));
    shelf.belongs(&names[4], &"other".parse().unwrap());
    assert_eq!((shelf.room.used("acme"), shelf.room.used("other")), used);
    assert!(matches!(take(&shelf, "acme", &bytes(5)).await, Err(NotTaken::ShareFull)));
    // And has room again when one of them goes.
    clear(&shelf, &names.iter().skip(1).map(String::as_str).collect::<Vec<_>>()).await;
    assert_eq!(files(&folder), 4);
    take(&shelf, "acme", &bytes(5)).await.unwrap();
}

#[tokio::test]
async fn one_file_of_the_largest_kind_fits_into_every_share() {
    let folder = TempDir::new().unwrap();
    let shelf = shelf(&folder, &["--media-room", "80000000"]);
    let largest = stream::iter((0..64).map(|_| Ok(Bytes::from(vec![7; 1 << 20]))));
    shelf.take(&"acme".parse().unwrap(), &Claim::default(), largest).await.unwrap();
}

#[tokio::test]
async fn bytes_whose_file_was_lost_are_stored_again() {
    let folder = TempDir::new().unwrap();
    let acme = "acme".parse().unwrap();
    let parcel = take(&shelf(&folder, &[]), "acme", &[7; 9_000]).await.unwrap().parcel;
    let shelf = shelf(&folder, &[]);
    fs::remove_file(shelf.path(&parcel.file).unwrap()).unwrap();
    assert_eq!(shelf.once(&acme, &parcel, async { Err(NotUploaded::Lost) }).await, Err(NotUploaded::Lost));
    assert_eq!(shelf.room.used("acme"), (0, 0));
    for _ in 0..2 {
        let anew = take(&shelf, "acme", &[7; 9_000]).await.unwrap();
        assert!(shelf.path(&anew.parcel.file).unwrap().exists());
    }
}

#[tokio::test]
async fn what_can_not_be_removed_keeps_nothing_else() {
    let folder = TempDir::new().unwrap();
    let shelf = shelf(&folder, &[]);
    drop(take(&shelf, "acme", &[7; 9_000]).await.unwrap());
    // A folder is no file, and stays.
    let stuck = "a".repeat(32);
    fs::create_dir(shelf.path(&stuck).unwrap()).unwrap();
    let mut idle = shelf.idle(true).await;
    idle.sort_by_key(|file| file.name != stuck);
    assert_eq!((idle.len(), &idle[0].name), (2, &stuck));
    shelf.discard(idle, &HashSet::new()).await;
    assert_eq!((files(&folder), shelf.room.used("acme")), (1, (0, 0)));
    assert!(shelf.stuck.load(Ordering::Relaxed));
    fs::remove_dir(shelf.path(&stuck).unwrap()).unwrap();
    clear(&shelf, &[]).await;
    assert!(!shelf.stuck.load(Ordering::Relaxed));
}

#[tokio::test]
async fn what_was_never_completed_goes_when_it_is_old() {
    let folder = TempDir::new().unwrap();
    let shelf = shelf(&folder, &[]);
    let part = |name: &str| shelf.folder.join(name.repeat(32)).with_extension(PART);
    let old = fs::File::create(part("a")).unwrap();
    old.set_modified(std::time::SystemTime::now() - ABANDONED - Duration::from_secs(1)).unwrap();
    fs::write(part("b"), b"x").unwrap();
    clear(&shelf, &[]).await;
    assert_eq!((part("a").exists(), part("b").exists()), (false, true));
}

#[tokio::test]
async fn who_waits_for_an_upload_shares_its_failure() {
    let folder = TempDir::new().unwrap();
    let shelf = shelf(&folder, &[]);
    let acme = "acme".parse().unwrap();
    let parcel = take(&shelf, "acme", &[7; 9_000]).await.unwrap().parcel;
    let attempts = AtomicU64::new(0);
    let attempt = |outcome| {
        let work = async {
            attempts.fetch_add(1, Ordering::Relaxed);
            // Now the others come to wait for it.
            tokio::task::yield_now().await;
            outcome
        };
        shelf.once(&acme, &parcel, work)
    };
    let failed = Err(NotUploaded::Later);
    let (first, second, third) =
        tokio::join!(attempt(failed.clone()), attempt(failed.clone()), attempt(failed.clone()));
    assert_eq!([&first, &second, &third], [&failed, &failed, &failed]);
    assert_eq!(attempts.load(Ordering::Relaxed), 1, "nobody does it again");
    // Whoever comes later makes an attempt of its own, and who waits for it has its success.
    let upload = Upload { url: "u".into(), direct_path: "d".into(), at: clock::wall().timestamp() };
    let (first, second) = tokio::join!(attempt(Ok(upload.clone())), attempt(failed));
    assert_eq!((first.as_ref(), second.as_ref()), (Ok(&upload), Ok(&upload)));
    assert_eq!(attempts.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn nobody_waits_without_end_for_a_place() {
    let folder = TempDir::new().unwrap();
    let shelf = shelf(&folder, &[]);
    let acme = "acme".parse().unwrap();
    let parcel = take(&shelf, "acme", &[7; 9_000]).await.unwrap().parcel;
    let mut places = Vec::new();
    for _ in 0..UPLOADS_EACH {
        places.push(shelf.uploads.take(&acme).await);
    }
    // The clock jumps to whatever is waited for.
    tokio::time::pause();
    let upload = shelf.once(&acme, &parcel, async { unreachable!("there is no place") });
    let upload = tokio::time::timeout(10 * TURN, upload).await;
    assert_eq!(upload, Ok(Err(NotUploaded::Later)));
}
