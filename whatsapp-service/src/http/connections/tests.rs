use super::*;

async fn admitted(connections: &Arc<Connections>) -> (Arc<Connection>, Place) {
    connections.admit().await.expect("a place")
}

#[tokio::test]
async fn whoever_shows_no_secret_goes_first_and_whoever_is_busy_stays() {
    let connections = Connections::new(Some(3));
    let (idle, idle_place) = admitted(&connections).await;
    idle.shows_secret();
    let (busy, _busy_place) = admitted(&connections).await;
    busy.shows_secret();
    let busy_request = Busy::on(&busy);
    let (stranger, stranger_place) = admitted(&connections).await;
    // What a stranger is doing does not count.
    let _request = Busy::on(&stranger);

    let next = tokio::spawn({
        let connections = connections.clone();
        async move { admitted(&connections).await }
    });
    stranger.end.cancelled().await;
    drop(stranger_place);
    let (known, _known_place) = next.await.unwrap();
    known.shows_secret();
    let _known_request = Busy::on(&known);

    let next = tokio::spawn({
        let connections = connections.clone();
        async move { admitted(&connections).await }
    });
    idle.end.cancelled().await;
    drop(idle_place);
    let (last, _last_place) = next.await.unwrap();
    last.shows_secret();
    let _last_request = Busy::on(&last);

    let mut spare = Vec::new();
    for _ in 0..SPARE {
        let (connection, place) = admitted(&connections).await;
        assert!(connection.is_spare());
        spare.push((connection, place));
    }
    // Nor do strangers keep those places from whoever asks how the service is.
    let next = tokio::spawn({
        let connections = connections.clone();
        async move { admitted(&connections).await }
    });
    let ends = tokio::time::timeout(Duration::from_secs(10), spare[0].0.end.cancelled());
    ends.await.expect("the one that came first goes");
    drop(spare.remove(0));
    spare.push(next.await.unwrap());
    let asking: Vec<_> = spare
        .iter()
        .map(|(connection, _)| {
            connection.shows_secret();
            Busy::on(connection)
        })
        .collect();
    assert!(connections.admit().await.is_none(), "all are busy, and all others ask how the service is");
    drop(asking);
    assert!(!busy.end.is_cancelled() && !known.end.is_cancelled() && !last.end.is_cancelled());
    drop(busy_request);
    spare.clear();
    let next = tokio::spawn({
        let connections = connections.clone();
        async move { admitted(&connections).await.0.is_spare() }
    });
    busy.end.cancelled().await;
    drop(_busy_place);
    assert!(!next.await.unwrap());
}

#[tokio::test]
async fn of_several_the_one_that_was_used_longest_ago_goes() {
    let connections = Connections::new(Some(3));
    let open: Vec<_> =
        [admitted(&connections).await, admitted(&connections).await, admitted(&connections).await].into();
    drop(Busy::on(&open[0].0));
    assert!(connections.end_one(false));
    let ended: Vec<_> = open.iter().map(|(connection, _)| connection.end.is_cancelled()).collect();
    assert_eq!(ended, [false, true, false]);
}
