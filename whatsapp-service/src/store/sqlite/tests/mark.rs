//! A database that is gone, or that has lost something, is not taken for a new or a good one.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    model::message::Filter,
    store::sqlite::{rekey::rekey, tests::*},
};

fn file(folder: &Path, suffix: &str) -> PathBuf {
    folder.join(format!("service.{suffix}"))
}

fn reopen(folder: &Path) -> Result<SqliteStore, StoreError> {
    SqliteStore::open(&file(folder, "db"), RULES, Seal::NONE, Clock::of_test())
}

/// What a kill would leave: the files as they are now. `suffixes` are those that are not lost.
fn killed(folder: &TempDir, suffixes: &[&str]) -> TempDir {
    let left = TempDir::new().unwrap();
    for suffix in suffixes {
        fs::copy(file(folder.path(), suffix), file(left.path(), suffix)).unwrap();
    }
    left
}

#[tokio::test]
async fn a_database_that_is_gone_is_not_made_anew() {
    let folder = TempDir::new().unwrap();
    let (store, acme) = (open(&folder), tenant("acme"));
    accept(&store, &acme, "A").await;
    let whole = killed(&folder, &["db", "db-wal", "mark"]);
    assert_eq!(fate(&reopen(whole.path()).unwrap(), &acme, "A").await.id, "A", "a kill alone is no harm");
    store.close().await;
    for left in [&["mark"][..], &["db-wal", "mark"]] {
        if left.len() == 2 {
            fs::write(file(folder.path(), "db-wal"), "a log").unwrap();
        }
        let left = killed(&folder, left);
        assert!(matches!(reopen(left.path()), Err(StoreError::Missing { .. })));
        fs::write(file(left.path(), "db"), "").unwrap();
        assert!(matches!(reopen(left.path()), Err(StoreError::Missing { .. })), "one of 0 bytes is none");
        assert_eq!(fs::metadata(file(left.path(), "db")).unwrap().len(), 0, "it is left alone");
    }
    // Without a mark a log alone says that there was one, and an empty file does not.
    let left = killed(&folder, &["db-wal"]);
    assert!(matches!(reopen(left.path()), Err(StoreError::Missing { .. })));
    let left = TempDir::new().unwrap();
    fs::write(file(left.path(), "db"), "").unwrap();
    reopen(left.path()).unwrap();
}

#[tokio::test]
async fn a_database_without_its_log_or_of_an_earlier_day_is_refused() {
    let folder = TempDir::new().unwrap();
    let (store, acme) = (open(&folder), tenant("acme"));
    accept(&store, &acme, "A").await;
    let without_log = killed(&folder, &["db", "mark"]);
    assert!(matches!(reopen(without_log.path()), Err(StoreError::Older { .. })));
    store.close().await;

    let store = open(&folder);
    accept(&store, &acme, "B").await;
    store.close().await;
    let early = killed(&folder, &["db", "mark"]);
    let store = open(&folder);
    accept(&store, &acme, "C").await;
    store.close().await;
    fs::copy(file(folder.path(), "mark"), file(early.path(), "mark")).unwrap();
    let error = reopen(early.path()).err().expect("it is older");
    assert!(matches!(error, StoreError::Older { .. }));
    assert!(error.to_string().contains("service.mark"), "{error}");
    // Whoever looks into a database after a kill brings its log into it: nothing is lost by that.
    let store = open(&folder);
    accept(&store, &acme, "D").await;
    let looked_at = killed(&folder, &["db", "db-wal", "mark"]);
    let connection = rusqlite::Connection::open(file(looked_at.path(), "db")).unwrap();
    connection.query_row("SELECT count(*) FROM messages", (), |row| row.get::<_, i64>(0)).unwrap();
    connection.close().unwrap();
    assert!(!file(looked_at.path(), "db-wal").exists());
    assert_eq!(fate(&reopen(looked_at.path()).unwrap(), &acme, "D").await.id, "D");

    let other = TempDir::new().unwrap();
    open(&other).close().await;
    fs::copy(file(folder.path(), "mark"), file(other.path(), "mark")).unwrap();
    assert!(matches!(reopen(other.path()), Err(StoreError::Another { .. })));
    fs::write(file(other.path(), "mark"), "nonsense").unwrap();
    assert!(matches!(reopen(other.path()), Err(StoreError::Damaged(_))));
    // The disk was full when it was made.
    fs::write(file(other.path(), "mark"), "").unwrap();
    reopen(other.path()).unwrap();
    assert!(fs::metadata(file(other.path(), "mark")).unwrap().len() > 0);
}

#[tokio::test]
async fn another_key_does_not_make_it_another_database() {
    let folder = TempDir::new().unwrap();
    let (store, acme) = (open(&folder), tenant("acme"));
    accept(&store, &acme, "A").await;
    store.close().await;
    let key = Seal::with_key("MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=").unwrap();
    rekey(&file(folder.path(), "db"), &Seal::NONE, &key).unwrap();
    let store = SqliteStore::open(&file(folder.path(), "db"), RULES, key.clone(), Clock::of_test()).unwrap();
    accept(&store, &acme, "B").await;
    let without_log = killed(&folder, &["db", "mark"]);
    assert!(matches!(rekey(&file(without_log.path(), "db"), &key, &Seal::NONE), Err(StoreError::Older { .. })));
}

#[tokio::test]
async fn a_log_that_is_deleted_meanwhile_is_noticed_and_what_was_in_it_is_kept() {
    for suffix in ["db-wal", "db-shm"] {
        let folder = TempDir::new().unwrap();
        let (store, acme) = (open(&folder), tenant("acme"));
        accept(&store, &acme, "A").await;
        store.inspect().await.unwrap();
        assert!(store.is_healthy().await);
        fs::remove_file(file(folder.path(), suffix)).unwrap();
        accept(&store, &acme, "B").await;
        store.inspect().await.unwrap();
        assert!(!store.is_healthy().await);
        let refused = store.accept(&acme, vec![draft("C", None)], 9).await;
        assert!(matches!(refused, Err(StoreError::FileGone(_))));
        assert!(matches!(store.spent().await, StoreError::FileGone(path) if path == file(folder.path(), suffix)));
        store.inspect().await.unwrap();
        store.close().await;
        let store = open(&folder);
        assert_eq!(store.listed(&acme, Filter::default()).await, ["B", "A"], "{suffix}");
    }
}

#[tokio::test]
async fn a_database_that_is_deleted_or_replaced_meanwhile_is_noticed() {
    for replaced in [false, true] {
        let folder = TempDir::new().unwrap();
        let (store, acme) = (open(&folder), tenant("acme"));
        accept(&store, &acme, "A").await;
        let path = file(folder.path(), "db");
        if replaced {
            let other = file(folder.path(), "other");
            fs::copy(&path, &other).unwrap();
            fs::rename(other, &path).unwrap();
        } else {
            fs::remove_file(&path).unwrap();
        }
        store.inspect().await.unwrap();
        assert!(!store.is_healthy().await);
        assert!(matches!(store.accept(&acme, vec![draft("B", None)], 9).await, Err(StoreError::FileGone(_))));
        let spent = tokio::time::timeout(std::time::Duration::from_millis(10), store.spent()).await;
        assert!(spent.is_err(), "only this process still has it");
    }
}

#[tokio::test]
async fn a_database_from_before_it_counted_is_older_than_its_mark() {
    let folder = TempDir::new().unwrap();
    let (store, acme) = (open(&folder), tenant("acme"));
    accept(&store, &acme, "A").await;
    store.close().await;
    let path = file(folder.path(), "db");
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.execute_batch("ALTER TABLE instance DROP COLUMN epoch; PRAGMA user_version = 6;").unwrap();
    connection.close().unwrap();
    assert!(matches!(SqliteStore::open(&path, RULES, Seal::NONE, Clock::of_test()), Err(StoreError::Older { .. })));
}
