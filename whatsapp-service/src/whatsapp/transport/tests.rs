use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_util::either::Either;

use super::*;

#[tokio::test]
async fn a_peer_that_reads_nothing_holds_neither_who_writes_nor_who_leaves() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (ours, theirs) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    let (socket, _peer) = (WebSocket::from_raw_socket(Either::Left(ours.unwrap()), Role::Client, None).await, theirs);
    let sink = tokio::sync::Mutex::new(Some(socket.split().0));
    let reports = Arc::new(Mutex::new(Vec::new()));
    let report = {
        let reports = reports.clone();
        move |dial| reports.lock().push(dial)
    };
    let transport = Arc::new(Watched { sink, wire: Arc::default(), hello: AtomicUsize::new(0), report });
    // Until the kernels' buffers are full.
    let mut writing = loop {
        let transport = transport.clone();
        let mut writing = tokio::spawn(async move { transport.send(Bytes::from(vec![0; 1024 * 1024])).await });
        if tokio::time::timeout(Duration::from_millis(500), &mut writing).await.is_err() {
            break writing;
        }
    };
    assert!(!writing.is_finished());
    let left = tokio::time::timeout(CLOSE_LIMIT * 2, transport.disconnect()).await;
    left.expect("who leaves is not held");
    let written = tokio::time::timeout(Duration::from_secs(1), &mut writing).await;
    assert!(written.expect("who writes is not held").unwrap().is_err());
    assert!(transport.send(Bytes::from_static(b"later")).await.is_err());
    assert!(reports.lock().is_empty(), "the first frame was no short hello");
}

#[tokio::test(start_paused = true)]
async fn a_server_is_asked_in_time_for_a_minute() {
    let (wire, heard) = (Wire::default(), Instant::now());
    assert_eq!(wire.doubtful_at(heard), heard + QUIET_LIMIT);
    assert!(QUIET_LIMIT + ANSWER_LIMIT < Duration::from_secs(60));
    tokio::time::advance(Duration::from_secs(1)).await;
    wire.sends();
    let first = Instant::now();
    tokio::time::advance(Duration::from_secs(1)).await;
    wire.sends();
    assert_eq!(wire.doubtful_at(heard), first + UNANSWERED_LIMIT, "more frames don't put it off");
    assert!(UNANSWERED_LIMIT + ANSWER_LIMIT < Duration::from_secs(30));
    wire.heard();
    assert_eq!(wire.doubtful_at(heard), heard + QUIET_LIMIT);
}
