//! The server over real connections, with clients that do only what they are told.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wacore_binary::Node;
use wacore_binary::builder::NodeBuilder;

use super::test_client::{Companion, Connection, ack, delivered, optional, tagged, value};
use crate::world::receipts::OutReceipt;
use crate::{Config, Fault, FaultKind, NewChatQuota, Phone, ReachoutTimelock, Simulator, Status, Totals};

fn ana() -> Phone {
    Phone::parse("5511999999999").unwrap()
}

fn bruno() -> Phone {
    Phone::parse("5511988888888").unwrap()
}

async fn simulator() -> Simulator {
    let simulator = Simulator::bind("127.0.0.1:0".parse().unwrap(), Config::default()).await.unwrap();
    simulator.add_account(&ana(), "Ana").unwrap();
    simulator.add_account(&bruno(), "Bruno").unwrap();
    simulator
}

fn fault(kind: FaultKind, phone: Option<Phone>, times: Option<u64>) -> Fault {
    Fault { kind, phone, times }
}

fn of(simulator: &Simulator, phone: &Phone) -> Totals {
    simulator.world().totals_by_phone().into_iter().find(|(of, _)| of == phone).unwrap().1
}

fn texts(simulator: &Simulator, phone: &Phone) -> Vec<String> {
    simulator.world().messages(phone).unwrap().into_iter().map(|message| message.text).collect()
}

/// Waits until something is so.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < Duration::from_secs(20), "not {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A companion's process dies: its connection ends without another word.
async fn dies(simulator: &Simulator, connection: Connection) {
    drop(connection);
    until("gone", || of(simulator, &ana()).connections == 0).await;
}

/// The receipts among some stanzas, as their types.
fn receipts(nodes: &[Node]) -> Vec<String> {
    let kind = |node: &&Node| optional(node, "type").unwrap_or_else(|| "delivery".to_owned());
    tagged(nodes, "receipt").iter().map(kind).collect()
}

#[tokio::test]
async fn a_message_is_delivered_again_until_it_is_acknowledged() {
    let simulator = simulator().await;
    let mut companion = Companion::link(&simulator, &ana());
    let (mut connection, missed) = companion.come_back(&simulator).await;
    assert!(missed.is_empty(), "{missed:?}");
    let id = simulator.world().write(&bruno(), &ana(), "hello").unwrap();
    let first = connection.wait("the message", |node| node.tag == "message").await;
    assert_eq!((value(&first, "id"), optional(&first, "offline")), (id.clone(), None));
    assert_eq!(companion.read(&simulator, &bruno(), &first), "hello");
    dies(&simulator, connection).await;

    // It came in, but nobody ever said so.
    let (mut connection, missed) = companion.come_back(&simulator).await;
    let again = tagged(&missed, "message");
    assert_eq!((again.len(), value(again[0], "id"), value(again[0], "offline")), (1, id.clone(), "0".to_owned()));
    connection.send(&delivered(again[0])).await;
    connection.settled().await;
    dies(&simulator, connection).await;
    let (mut connection, missed) = companion.come_back(&simulator).await;
    assert!(missed.is_empty(), "{missed:?}");
    let sent = simulator.world().messages(&bruno()).unwrap();
    assert_eq!(sent[0].status, Some(Status::Delivered), "the receipt went through");

    // An acknowledgement does as well as a receipt.
    simulator.world().write(&bruno(), &ana(), "again").unwrap();
    let message = connection.wait("the message", |node| node.tag == "message").await;
    connection.send(&ack(&message)).await;
    connection.settled().await;
    dies(&simulator, connection).await;
    assert!(companion.come_back(&simulator).await.1.is_empty());
}

#[tokio::test]
async fn receipts_wait_for_a_companion_and_come_again_until_they_are_acknowledged() {
    let simulator = simulator().await;
    let world = simulator.world();
    let mut companion = Companion::link(&simulator, &ana());
    let (mut connection, _) = companion.come_back(&simulator).await;
    world.add_fault(fault(FaultKind::OfflinePhone, Some(bruno()), None));
    connection.send(&companion.text(&simulator, &bruno(), "A", "hello")).await;
    connection.wait("the ack", |node| node.tag == "ack").await;
    dies(&simulator, connection).await;

    // Delivered and read while the companion was away.
    world.clear_faults(None);
    assert_eq!(texts(&simulator, &bruno()), ["hello"]);
    assert_eq!(world.read_chats(&bruno()), Some(1));
    let (connection, missed) = companion.come_back(&simulator).await;
    assert_eq!(receipts(&missed), ["delivery", "read"]);
    assert!(missed.iter().all(|receipt| value(receipt, "id") == "A" && value(receipt, "offline") == "0"));
    dies(&simulator, connection).await;

    // Of the two, only one was acknowledged: the other one comes again.
    let (mut connection, missed) = companion.come_back(&simulator).await;
    assert_eq!(receipts(&missed), ["delivery", "read"]);
    connection.send(&ack(tagged(&missed, "receipt")[1])).await;
    connection.settled().await;
    dies(&simulator, connection).await;
    let (mut connection, missed) = companion.come_back(&simulator).await;
    assert_eq!(receipts(&missed), ["delivery"]);
    connection.send(&ack(&missed[0])).await;

    // The same for one that was in flight when the connection died.
    connection.send(&companion.text(&simulator, &bruno(), "B", "are you there?")).await;
    let receipt = connection.wait("the receipt", |node| node.tag == "receipt").await;
    assert_eq!(value(&receipt, "id"), "B");
    dies(&simulator, connection).await;
    let (mut connection, missed) = companion.come_back(&simulator).await;
    assert_eq!((missed.len(), value(&missed[0], "id")), (1, "B".to_owned()), "{missed:?}");
    connection.send(&ack(&missed[0])).await;
    connection.settled().await;
    dies(&simulator, connection).await;
    assert!(companion.come_back(&simulator).await.1.is_empty());
    assert_eq!(of(&simulator, &bruno()).receipts, 3);
}

#[tokio::test]
async fn what_a_phone_sends_again_waits_until_it_is_acknowledged_itself() {
    let simulator = simulator().await;
    let mut companion = Companion::link(&simulator, &ana());
    let (mut connection, _) = companion.come_back(&simulator).await;
    simulator.world().write(&bruno(), &ana(), "hello").unwrap();
    let first = connection.wait("the message", |node| node.tag == "message").await;
    connection.send(&companion.retry_receipt(&first)).await;
    let second = connection.wait("the resend", |node| node.tag == "message").await;
    assert_eq!(value(&second, "id"), value(&first, "id"));
    // This is for the first; the second was not looked at when the process died.
    connection.send(&ack(&first)).await;
    connection.settled().await;
    dies(&simulator, connection).await;
    let (mut connection, missed) = companion.come_back(&simulator).await;
    let again = tagged(&missed, "message");
    assert_eq!(again.len(), 1, "{missed:?}");
    assert_eq!(companion.read(&simulator, &bruno(), again[0]), "hello");
    connection.send(&delivered(again[0])).await;
    connection.settled().await;
    dies(&simulator, connection).await;
    assert!(companion.come_back(&simulator).await.1.is_empty());
}

#[tokio::test]
async fn a_phone_that_acts_as_if_it_could_not_read_gets_the_message_again() {
    let simulator = simulator().await;
    let world = simulator.world();
    let mut companion = Companion::link(&simulator, &ana());
    let (mut connection, _) = companion.come_back(&simulator).await;
    world.add_fault(fault(FaultKind::Unreadable, Some(bruno()), Some(2)));
    for id in ["A", "B"] {
        connection.send(&companion.text(&simulator, &bruno(), id, id)).await;
        let receipt = connection.wait("a receipt", |node| node.tag == "receipt").await;
        assert_eq!((value(&receipt, "id").as_str(), value(&receipt, "type").as_str()), (id, "retry"));
        assert!(!texts(&simulator, &bruno()).contains(&id.to_owned()));
        companion.renew_session(&simulator, &bruno(), &receipt);
        connection.send(&companion.text(&simulator, &bruno(), id, id)).await;
        let receipt = connection.wait("a receipt", |node| node.tag == "receipt").await;
        assert_eq!((value(&receipt, "id").as_str(), optional(&receipt, "type")), (id, None));
    }
    connection.send(&companion.text(&simulator, &bruno(), "C", "C")).await;
    let receipt = connection.wait("a receipt", |node| node.tag == "receipt").await;
    assert_eq!((value(&receipt, "id").as_str(), optional(&receipt, "type")), ("C", None), "twice is over");
    assert_eq!(texts(&simulator, &bruno()), ["A", "B", "C"]);
    let totals = of(&simulator, &bruno());
    assert_eq!((totals.retry_receipts, totals.receipts, totals.repeated_ids, totals.shown), (2, 3, 0, 3));
}

#[tokio::test]
async fn a_lost_message_is_another_thing_than_a_lost_ack() {
    let simulator = simulator().await;
    let world = simulator.world();
    let mut companion = Companion::link(&simulator, &ana());
    let (mut connection, _) = companion.come_back(&simulator).await;
    world.add_fault(fault(FaultKind::DropMessages, Some(ana()), Some(1)));
    let message = companion.text(&simulator, &bruno(), "A", "hello");
    connection.send(&message).await;
    assert!(connection.settled().await.is_empty(), "neither an ack nor a receipt");
    assert!(texts(&simulator, &bruno()).is_empty());
    assert_eq!((of(&simulator, &ana()).messages, of(&simulator, &ana()).acks), (1, 0));
    connection.send(&message).await;
    connection.wait("the ack", |node| node.tag == "ack").await;
    connection.settled().await;
    assert_eq!((texts(&simulator, &bruno()).len(), world.totals().repeated_ids), (1, 0));

    world.add_fault(fault(FaultKind::DropAcks, Some(ana()), Some(1)));
    let message = companion.text(&simulator, &bruno(), "B", "hello?");
    connection.send(&message).await;
    assert!(tagged(&connection.settled().await, "ack").is_empty());
    assert_eq!(texts(&simulator, &bruno()).len(), 2);
    connection.send(&message).await;
    connection.wait("the ack", |node| node.tag == "ack").await;
    connection.settled().await;
    assert_eq!((texts(&simulator, &bruno()).len(), world.totals().repeated_ids), (2, 1));

    // A phone has no socket: what it writes itself is not lost, whatever the fault.
    world.add_fault(fault(FaultKind::DropMessages, None, None));
    world.write(&bruno(), &ana(), "from a phone").unwrap();
    assert!(texts(&simulator, &ana()).contains(&"from a phone".to_owned()));
}

#[tokio::test]
async fn the_server_tells_an_account_that_it_may_not_write_to_strangers() {
    let simulator = simulator().await;
    let world = simulator.world();
    let companion = Companion::link(&simulator, &ana());
    let (mut connection, _) = companion.come_back(&simulator).await;
    let query =
        |id: &str| NodeBuilder::new("query").attr("query_id", id).bytes(br#"{"variables":{}}"#.as_slice()).build();
    let timelock = async |connection: &mut Connection| {
        let (answer, _) = connection.ask("w:mex", "get", Some(query("23983697327930364"))).await;
        let answer = answer.as_node_ref();
        let result = super::fields::child_bytes(&answer, "result").unwrap();
        let result: serde_json::Value = serde_json::from_slice(&result).unwrap();
        result["data"]["xwa2_fetch_account_reachout_timelock"].clone()
    };
    assert_eq!(timelock(&mut connection).await, serde_json::json!({ "is_active": false }));
    let locked = |until, kind: Option<&str>| {
        FaultKind::ReachoutTimelock(ReachoutTimelock { until, kind: kind.map(str::to_owned) })
    };
    world.add_fault(fault(locked(1, None), Some(bruno()), None));
    assert_eq!(timelock(&mut connection).await["is_active"], false, "that is for somebody else");
    world.add_fault(fault(locked(1_770_000_000, None), Some(ana()), None));
    let expected = serde_json::json!({
        "is_active": true, "time_enforcement_ends": "1770000000", "enforcement_type": "DEFAULT"
    });
    assert_eq!(timelock(&mut connection).await, expected);
    world.add_fault(fault(locked(1_770_000_000, Some("RATE_LIMIT")), Some(ana()), Some(1)));
    assert_eq!(timelock(&mut connection).await["enforcement_type"], "RATE_LIMIT");
    assert_eq!(timelock(&mut connection).await["is_active"], false, "once is over");

    let quota = async |connection: &mut Connection| {
        let (answer, _) = connection.ask("w:mex", "get", Some(query("24503548349331633"))).await;
        let result = super::fields::child_bytes(&answer.as_node_ref(), "result").unwrap();
        let result: serde_json::Value = serde_json::from_slice(&result).unwrap();
        result["data"]["xwa2_message_capping_info"].clone()
    };
    assert_eq!(quota(&mut connection).await, serde_json::json!({ "capping_status": "NONE" }));
    let used_up = NewChatQuota { total: 5, used: 5, cycle_start: None, cycle_end: Some(1_770_000_000), status: None };
    world.add_fault(fault(FaultKind::NewChatQuota(used_up), Some(ana()), None));
    let capped = quota(&mut connection).await;
    let said = ["total_quota", "used_quota", "cycle_end_timestamp", "capping_status"].map(|name| &capped[name]);
    assert_eq!(serde_json::json!(said), serde_json::json!(["5", 5, 1_770_000_000, "CAPPED"]));

    for other in [Some(query("24503548349331634")), None] {
        let (answer, _) = connection.ask("w:mex", "get", other).await;
        let error = answer.as_node_ref().get_optional_child("error").map(|e| e.to_owned()).unwrap();
        assert_eq!(value(&error, "code"), "501");
    }
}

#[tokio::test]
async fn a_backlog_longer_than_a_connection_may_be_behind_gets_through_unasked() {
    let config = Config { offline_batch_timeout: Duration::from_millis(10), ..Config::default() };
    let simulator = Simulator::bind("127.0.0.1:0".parse().unwrap(), config).await.unwrap();
    simulator.add_account(&ana(), "Ana").unwrap();
    simulator.add_account(&bruno(), "Bruno").unwrap();
    let companion = Companion::link(&simulator, &ana());
    let ((_, to), (from, _)) = (simulator.world().phone_for_test(&ana()), simulator.world().phone_for_test(&bruno()));
    let count = 9_000;
    for n in 0..count {
        let ids = vec![n.to_string()];
        let receipt = OutReceipt {
            ids,
            to: to.clone(),
            recipient: None,
            kind: None,
            extras: Vec::new(),
            retry: None,
            reupload: None,
        };
        simulator.world().accept_receipt(from, receipt);
    }
    let (_connection, missed) = companion.come_back(&simulator).await;
    assert_eq!(receipts(&missed).len(), count);
}

#[tokio::test]
async fn a_server_that_reads_again_reads_everything() {
    let simulator = simulator().await;
    let world = simulator.world();
    let mut companions: Vec<_> = (0..5).map(|_| Companion::link(&simulator, &ana())).collect();
    let mut connections = Vec::new();
    for companion in &companions {
        connections.push(companion.come_back(&simulator).await.0);
    }
    let mut sent = 0;
    for round in 0..20 {
        world.add_fault(fault(FaultKind::StallReads, (round % 2 == 0).then(ana), None));
        for (companion, connection) in companions.iter_mut().zip(&mut connections) {
            let id = format!("{round} {}", companion.at.device);
            connection.send(&companion.text(&simulator, &bruno(), &id, &id)).await;
            sent += 1;
        }
        tokio::task::yield_now().await;
        world.clear_faults(None);
    }
    for connection in &mut connections {
        connection.settled().await;
    }
    assert_eq!(texts(&simulator, &bruno()).len(), sent);

    // Those that went while nobody read are noticed as soon as somebody does.
    world.add_fault(fault(FaultKind::StallReads, None, None));
    drop(connections);
    world.clear_faults(None);
    until("gone", || world.totals().connections == 0).await;
    assert_eq!(of(&simulator, &ana()).connections, 0);
}

#[tokio::test]
async fn an_unlinked_companion_is_no_connection() {
    let simulator = simulator().await;
    let companion = Companion::link(&simulator, &ana());
    let (mut connection, _) = companion.come_back(&simulator).await;
    assert_eq!(of(&simulator, &ana()).connections, 1);
    assert!(simulator.world().unlink(&ana(), companion.at.device));
    while connection.next().await.is_some() {}
    until("gone", || simulator.world().totals().connections == 0).await;
    assert_eq!(of(&simulator, &ana()).connections, 0);
}

/// A number below `n`.
fn any(n: u64) -> u64 {
    rand::random::<u64>() % n
}

fn any_trouble() -> Fault {
    let ms = |n| Duration::from_millis(any(n));
    let kind = match any(8) {
        0 => FaultKind::DropAcks,
        1 => FaultKind::AckDelay(ms(500)),
        2 => FaultKind::DuplicateAcks,
        3 => FaultKind::CloseAfter(ms(300)),
        4 => FaultKind::StallReads,
        5 => FaultKind::DropMessages,
        6 => FaultKind::OfflinePhone,
        _ => FaultKind::Latency(ms(100)),
    };
    let phone = [None, Some(ana()), Some(bruno())][usize::try_from(any(3)).unwrap()].clone();
    fault(kind, phone, (any(2) == 0).then(|| 1 + any(20)))
}

/// What a companion has to send, and what it has got.
struct Life {
    companion: Companion,
    /// Not acknowledged yet.
    unsent: Vec<Node>,
    got: HashSet<String>,
}

impl Life {
    /// One connection: says everything that is not acknowledged, acknowledges everything that comes. Ends with the
    /// connection, by dying, or, if it is `patient`, when all has been acknowledged.
    async fn live(&mut self, simulator: &Simulator, patient: bool) {
        let Some(mut connection) = self.companion.log_in(simulator).await else { return };
        let Some((_, mut news)) = connection.try_ask("passive", "set", Some(NodeBuilder::new("active").build())).await
        else {
            return;
        };
        loop {
            for node in news {
                match node.tag.as_ref() {
                    "ack" => self.unsent.retain(|message| value(message, "id") != value(&node, "id")),
                    "message" => {
                        connection.send(&delivered(&node)).await;
                        self.got.insert(value(&node, "id"));
                    }
                    "receipt" | "notification" => connection.send(&ack(&node)).await,
                    _ => {}
                }
            }
            if if patient { self.unsent.is_empty() } else { any(20) == 0 } {
                // What was said last is to be read before the end.
                let _ = connection.try_ask("w:p", "get", None).await;
                return;
            }
            for message in &self.unsent {
                connection.send(message).await;
            }
            let Some((_, came)) = connection.try_ask("w:p", "get", None).await else { return };
            news = came;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_the_trouble_nothing_is_lost_and_nothing_is_stuck() {
    const TROUBLE: Duration = Duration::from_secs(3);
    let simulator = Arc::new(simulator().await);
    let world = simulator.world();
    let end = Instant::now() + TROUBLE;
    let lives: Vec<_> = (0..4)
        .map(|n| {
            let (simulator, mut made) = (Arc::clone(&simulator), 0);
            let companion = Companion::link(&simulator, &ana());
            let mut life = Life { companion, unsent: Vec::new(), got: HashSet::new() };
            tokio::spawn(async move {
                while Instant::now() < end {
                    for _ in 0..5 {
                        let id = format!("{n} {made}");
                        life.unsent.push(life.companion.text(&simulator, &bruno(), &id, &id));
                        made += 1;
                    }
                    life.live(&simulator, false).await;
                }
                (life, made)
            })
        })
        .collect();
    let mut written = HashSet::new();
    while Instant::now() < end {
        match any(4) {
            0 => world.clear_faults([None, Some(ana()), Some(bruno())][usize::try_from(any(3)).unwrap()].as_ref()),
            1 => written.extend(world.write(&bruno(), &ana(), "hello").ok()),
            _ => world.add_fault(any_trouble()),
        }
        tokio::time::sleep(Duration::from_millis(any(20))).await;
    }
    world.clear_faults(None);

    let mut made = 0;
    for life in lives {
        let (mut life, sent) = life.await.unwrap();
        life.live(&simulator, true).await;
        let (_connection, missed) = life.companion.come_back(&simulator).await;
        life.got.extend(tagged(&missed, "message").iter().map(|message| value(message, "id")));
        assert!(written.is_subset(&life.got), "{} of {} came", life.got.len(), written.len());
        assert!(life.unsent.is_empty());
        made += sent;
    }
    let messages = world.messages(&bruno()).unwrap();
    let ids: HashSet<_> = messages.iter().map(|message| &message.id).collect();
    assert_eq!(ids.len(), messages.len(), "none is shown twice");
    assert_eq!(of(&simulator, &bruno()).shown, made + u64::try_from(written.len()).unwrap(), "each is shown");
    until("alone", || world.totals().connections == 0).await;
    assert_eq!(of(&simulator, &ana()).connections, 0);
}
