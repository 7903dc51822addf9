//! What is reserved is given back.

use crate::{manager::Manager, model::address::Person, session::outbox::accept::Reserved};

#[tokio::test]
async fn what_was_reserved_is_given_back_also_by_a_panic() {
    let data = tempfile::TempDir::new().unwrap();
    let manager = Manager::of_test(data.path());
    let outbox = manager.get_or_create(&"acme".parse().unwrap()).await.unwrap().outbox().clone();
    let to = Person::parse("5511888888888").unwrap();
    for _ in 0..2 {
        let (outbox, to) = (outbox.clone(), to.clone());
        let panicked = tokio::spawn(async move {
            let (mut reserved, room) = Reserved::room(&outbox, 1);
            assert_eq!(room, outbox.limit);
            assert!(reserved.place(&to), "the place of the one before is free again");
            assert_eq!(outbox.pending(), 1);
            panic!("a test asked for it");
        });
        assert!(panicked.await.unwrap_err().is_panic());
        assert_eq!(manager.get_or_create(&"acme".parse().unwrap()).await.unwrap().outbox().pending(), 0);
    }
}
