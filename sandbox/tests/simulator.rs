//! The simulator, driven by real `whatsapp-rust` clients.

mod client;
mod phones;
mod simulator_media;

use std::time::{Duration, Instant};

use client::{Options, Seen, TestClient, until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use whatsapp_rust::prelude::*;
use whatsapp_rust::{SendOptions, waproto::whatsapp as wa};
use whatsapp_simulator::{
    Addressing, ChatMessage, CodeError, Config, Fault, FaultKind, LoginFailure, PairError, Phone, ReachoutTimelock,
    Simulator, Status,
};

fn ana() -> Phone {
    Phone::parse("5511999999999").unwrap()
}

fn bruno() -> Phone {
    Phone::parse("5511888888888").unwrap()
}

async fn simulator_with(config: Config) -> Simulator {
    let simulator = Simulator::bind("127.0.0.1:0".parse().unwrap(), config).await.unwrap();
    simulator.add_account(&ana(), "Ana").unwrap();
    simulator.add_account(&bruno(), "Bruno").unwrap();
    simulator
}

async fn simulator() -> Simulator {
    simulator_with(Config::default()).await
}

fn everyone(kind: FaultKind) -> Fault {
    Fault { kind, phone: None, times: None }
}

/// Waits until a phone shows a text.
async fn shown(simulator: &Simulator, phone: &Phone, text: &str) -> ChatMessage {
    until(&format!("shown: {text}"), || {
        let messages = simulator.world().messages(phone).unwrap();
        messages.iter().find(|m| m.text == text).cloned().ok_or_else(|| format!("{messages:#?}"))
    })
    .await
}

async fn status(simulator: &Simulator, phone: &Phone, id: &str, status: Status) {
    until("that status", || {
        let messages = simulator.world().messages(phone).unwrap();
        let there = messages.iter().any(|m| m.id == id && m.status == Some(status));
        there.then_some(()).ok_or_else(|| format!("{messages:#?}"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_pairs_by_qr_and_texts_both_ways() {
    let simulator = simulator().await;
    let (client, linked) = TestClient::paired(&simulator, &ana()).await;
    assert_eq!((linked.phone.clone(), linked.device), (ana(), 1));
    client.wait("push name", |seen| (*seen == Seen::PushName("Ana".to_owned())).then_some(())).await;

    let id = client.send(&bruno(), "hello from the client").await;
    assert_eq!(client.acked(&id).await, None);
    let message = shown(&simulator, &bruno(), "hello from the client").await;
    assert_eq!((message.from.as_str(), message.from_me), (ana().as_str(), false));
    client.receipt(&id, "Delivered").await;
    let own = shown(&simulator, &ana(), "hello from the client").await;
    assert!(own.from_me, "the sender's own phone shows it too");

    let written = simulator.world().write(&bruno(), &ana(), "hello from the phone").unwrap();
    client.text("hello from the phone").await;
    status(&simulator, &bruno(), &written, Status::Delivered).await;
    assert_eq!(simulator.world().read_chats(&bruno()), Some(1));
    client.receipt(&id, "Read").await;
    assert_eq!(client.count(|seen| matches!(seen, Seen::Unreadable(_))), 0);
    client.stop().await;
    simulator.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_pairs_by_code_at_the_second_try() {
    let simulator = simulator_with(Config { phone_addressing: Addressing::Pn, ..Config::default() }).await;
    let options = Options { pair_code_for: Some(ana().to_string()), ..Options::default() };
    let client = TestClient::start_with(&simulator.ws_url(), options).await;
    let pair_code = |seen: &Seen| if let Seen::PairCode(code) = seen { Some(code.clone()) } else { None };
    let code = client.wait("a pairing code", pair_code).await;
    let wrong = if code.starts_with('A') { code.replacen('A', "B", 1) } else { format!("A{}", &code[1..]) };
    let world = simulator.world();
    assert!(matches!(world.enter_code(&bruno(), &code).await, Err(PairError::NoCode)));
    assert!(matches!(world.enter_code(&ana(), &wrong).await, Err(PairError::Code(CodeError::Wrong))));
    let linked = world.enter_code(&ana(), &code.to_lowercase()).await.unwrap();
    assert_eq!(linked.device, 1);
    client.wait("connected", |seen| (*seen == Seen::Connected).then_some(())).await;
    client.send(&bruno(), "paired by code").await;
    shown(&simulator, &bruno(), "paired by code").await;
    world.write(&bruno(), &ana(), "from a number, not a LID").unwrap();
    client.text("from a number, not a LID").await;
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_devices_of_both_sides_get_a_message() {
    let simulator = simulator().await;
    let (ana, bruno) = (ana(), bruno());
    let ((first, _), (other, _)) =
        tokio::join!(TestClient::paired(&simulator, &ana), TestClient::paired(&simulator, &bruno));
    other.send(&ana, "before the second companion").await;
    first.text("before the second companion").await;

    let (second, linked) = TestClient::paired(&simulator, &ana).await;
    assert_eq!(linked.device, 2);
    other.send(&ana, "to both of Ana's").await;
    first.text("to both of Ana's").await;
    second.text("to both of Ana's").await;

    let id = first.send(&bruno, "from Ana's first").await;
    other.text("from Ana's first").await;
    let copy = second.text("from Ana's first").await;
    assert!(matches!(copy, Seen::Text { from_me: true, id: copied, .. } if copied == id));
    assert!(shown(&simulator, &ana, "from Ana's first").await.from_me);

    simulator.world().write(&ana, &bruno, "from Ana's phone").unwrap();
    for client in [&first, &second] {
        assert!(matches!(client.text("from Ana's phone").await, Seen::Text { from_me: true, .. }));
    }
    assert!(matches!(other.text("from Ana's phone").await, Seen::Text { from_me: false, .. }));
    for client in [first, second, other] {
        assert_eq!(client.count(|seen| matches!(seen, Seen::Unreadable(_))), 0, "{:#?}", client.history());
        client.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_comes_back_by_ik_and_gets_what_it_missed() {
    let simulator = simulator().await;
    let (client, _) = TestClient::paired(&simulator, &ana()).await;
    let store = client.stop().await;
    let missed: Vec<String> = (0..12).map(|n| format!("missed {n}")).collect();
    for text in &missed {
        simulator.world().write(&bruno(), &ana(), text).unwrap();
    }
    let client = TestClient::resume(&simulator, store).await;
    for text in &missed {
        client.text(text).await;
    }
    assert!(simulator.world().totals().ik_handshakes > 0, "{:?}", simulator.world().totals());
    client.send(&bruno(), "back again").await;
    shown(&simulator, &bruno(), "back again").await;
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unlinked_client_is_told_now_and_refused_later() {
    let simulator = simulator().await;
    let (client, linked) = TestClient::paired(&simulator, &ana()).await;
    assert!(simulator.world().unlink(&ana(), linked.device));
    assert!(!simulator.world().unlink(&ana(), linked.device));
    client.wait("logged out", |seen| (*seen == Seen::LoggedOut { on_connect: false }).then_some(())).await;
    let again = TestClient::resume(&simulator, client.stop().await).await;
    again.wait("refused", |seen| (*seen == Seen::LoggedOut { on_connect: true }).then_some(())).await;
    again.stop().await;

    let (client, _) = TestClient::paired(&simulator, &ana()).await;
    client.client.logout().await;
    assert!(simulator.world().account(&ana()).unwrap().devices.is_empty());
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_login_replaces_the_first() {
    let simulator = simulator().await;
    let (first, _) = TestClient::paired(&simulator, &ana()).await;
    let second = TestClient::resume(&simulator, first.store.clone()).await;
    first.wait("replaced", |seen| (*seen == Seen::Replaced).then_some(())).await;
    second.wait("connected", |seen| (*seen == Seen::Connected).then_some(())).await;
    assert_eq!(simulator.world().totals_by_phone()[0].1.connections, 1);
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_are_found_in_every_spelling_and_unknown_ones_not() {
    let simulator = simulator().await;
    let (client, _) = TestClient::paired(&simulator, &ana()).await;
    let old = Phone::parse("551177776666").unwrap();
    simulator.add_account(&old, "Registered without the nine").unwrap();
    let registered = Phone::parse("5215512345678").unwrap();
    simulator.world().add_alias(&Phone::parse("4915112345678").unwrap(), &registered, "Moved").unwrap();

    let asked = ["551199999999", "5511999999999", "5511977776666", "525512345678", "4915112345678", "5511912345678"];
    for (number, expected) in asked.into_iter().zip([
        Some("5511999999999"),
        Some("5511999999999"),
        Some("551177776666"),
        Some("5215512345678"),
        Some("5215512345678"),
        None,
    ]) {
        let found = client.client.contacts().is_on_whatsapp(&[Jid::pn(number)]).await.unwrap();
        let jid = found.iter().find(|r| r.is_registered).map(|r| r.jid.user.to_string());
        assert_eq!(jid.as_deref(), expected, "{number}: {found:?}");
    }
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_hides_the_number_is_known_by_lid_to_others_and_by_both_to_oneself() {
    let simulator = simulator().await;
    let hidden = simulator.world().hide_number(&bruno(), true).unwrap();
    let (client, _) = TestClient::paired(&simulator, &ana()).await;
    let lid = Jid::lid(hidden.lid.as_str());
    let known = async |jid: &Jid| client.client.get_lid_pn_entry(jid).await.unwrap();
    let by_lid = async || {
        let found = client.client.contacts().is_on_whatsapp(std::slice::from_ref(&lid)).await.unwrap();
        (found[0].is_registered, found[0].pn_jid.as_ref().map(|jid| jid.user.to_string()))
    };
    simulator.world().write(&bruno(), &ana(), "from somebody").unwrap();
    let Seen::Text { from, .. } = client.text("from somebody").await else { panic!("a text") };
    assert_eq!(from, hidden.lid);
    // A device that is linked later, its messages and its receipts tell no more.
    let (device, _) = TestClient::paired(&simulator, &bruno()).await;
    let id = client.client.send_text(lid.clone(), "to somebody").await.unwrap().message_id;
    device.text("to somebody").await;
    client.receipt(&id, "Delivered").await;
    device.send(&ana(), "from a device").await;
    let Seen::Text { from, .. } = client.text("from a device").await else { panic!("a text") };
    assert_eq!(from, hidden.lid);
    assert_eq!(by_lid().await, (true, None));
    assert!(known(&lid).await.is_none(), "nobody has told the number");
    // Whoever has the number finds the person.
    let found = client.client.contacts().is_on_whatsapp(&[Jid::pn(bruno().as_str())]).await.unwrap();
    assert_eq!(found[0].lid.as_ref(), Some(&lid));
    assert!(known(&lid).await.is_some());
    // And whoever shows the number again is known by it.
    simulator.world().hide_number(&bruno(), false).unwrap();
    assert_eq!(by_lid().await, (true, Some(bruno().to_string())));
    client.stop().await;
    device.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledgements_go_wrong_on_demand() {
    let simulator = simulator().await;
    let (client, _) = TestClient::paired(&simulator, &ana()).await;
    let world = simulator.world();

    world.add_fault(Fault { kind: FaultKind::Nack(463), phone: Some(ana()), times: Some(1) });
    let refused = client.send(&bruno(), "refused").await;
    assert_eq!(client.acked(&refused).await.as_deref(), Some("463"));

    world.add_fault(everyone(FaultKind::DuplicateAcks));
    let twice = client.send(&bruno(), "twice").await;
    client
        .wait_for_count("second ack", 2, |seen| matches!(seen, Seen::Ack { id, .. } if *id == twice).then_some(()))
        .await;
    world.clear_faults(None);

    world.add_fault(everyone(FaultKind::DropAcks));
    let lost = client.send(&bruno(), "ack lost").await;
    shown(&simulator, &bruno(), "ack lost").await;
    client.receipt(&lost, "Delivered").await;
    assert_eq!(client.count(|seen| matches!(seen, Seen::Ack { id, .. } if *id == lost)), 0);
    world.clear_faults(None);

    let message = wa::Message { conversation: Some("ack lost".to_owned()), ..Default::default() };
    let options = SendOptions::default().with_message_id(lost.clone());
    client.client.send_message_with_options(Jid::pn(bruno().as_str()), message, options).await.unwrap();
    assert_eq!(client.acked(&lost).await, None);
    until("noticed as a repetition", || match world.totals().repeated_ids {
        0 => Err("0".to_owned()),
        n => Ok(n),
    })
    .await;
    let messages = world.messages(&bruno()).unwrap();
    assert_eq!(messages.iter().filter(|m| m.text == "ack lost").count(), 1);
    assert!(messages.iter().all(|m| m.text != "refused"));
    assert_eq!(world.totals().nacks, 1);
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_phone_that_is_off_reads_later() {
    let simulator = simulator().await;
    let (client, _) = TestClient::paired(&simulator, &ana()).await;
    let world = simulator.world();
    world.add_fault(Fault { kind: FaultKind::OfflinePhone, phone: Some(bruno()), times: None });
    let id = client.send(&bruno(), "are you there?").await;
    assert_eq!(client.acked(&id).await, None);
    assert!(world.messages(&bruno()).unwrap().is_empty());
    assert!(world.write(&bruno(), &ana(), "no").is_err());
    world.clear_faults(Some(&bruno()));
    shown(&simulator, &bruno(), "are you there?").await;
    client.receipt(&id, "Delivered").await;
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_go_wrong_on_demand() {
    let simulator = simulator().await;
    let (client, _) = TestClient::paired(&simulator, &ana()).await;
    let world = simulator.world();
    let connected = |seen: &Seen| (*seen == Seen::Connected).then_some(());

    world.add_fault(Fault { kind: FaultKind::StreamError("515".to_owned()), phone: None, times: Some(2) });
    client.wait_for_count("connected after two restarts", 2, connected).await;
    until("three logins", || {
        let logins = world.totals().logins;
        (logins >= 3).then_some(()).ok_or_else(|| logins.to_string())
    })
    .await;
    let store = client.stop().await;

    world.add_fault(everyone(FaultKind::LoginFailure(LoginFailure {
        reason: 402,
        expire: Some(60),
        code: None,
        appeal_token: None,
    })));
    let banned = TestClient::resume(&simulator, store).await;
    banned.wait("a ban", |seen| (*seen == Seen::Banned { seconds: 60 }).then_some(())).await;
    world.clear_faults(None);
    let store = banned.stop().await;

    world.add_fault(Fault { kind: FaultKind::RefuseConnections, phone: None, times: Some(1) });
    let late = TestClient::resume(&simulator, store).await;
    late.wait("connected in the end", connected).await;
    assert_eq!(world.totals().refused, 1);

    world.add_fault(everyone(FaultKind::StreamConflict("replaced".to_owned())));
    late.wait("replaced", |seen| (*seen == Seen::Replaced).then_some(())).await;
    late.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_is_slow_deaf_or_cut_on_demand() {
    let simulator = simulator().await;
    let (client, _) = TestClient::paired(&simulator, &ana()).await;
    let world = simulator.world();
    let connected = |seen: &Seen| (*seen == Seen::Connected).then_some(());
    client.send(&bruno(), "so that everything is set up").await;
    let late = Duration::from_millis(300);

    world.add_fault(everyone(FaultKind::Latency(late)));
    let asked = Instant::now();
    client.client.contacts().is_on_whatsapp(&[Jid::pn(bruno().as_str())]).await.unwrap();
    assert!(asked.elapsed() >= late);
    world.clear_faults(None);

    world.add_fault(everyone(FaultKind::AckDelay(late)));
    let sent = Instant::now();
    let id = client.send(&bruno(), "acknowledged late").await;
    client.receipt(&id, "Delivered").await;
    assert_eq!(client.count(|seen| matches!(seen, Seen::Ack { id: acked, .. } if *acked == id)), 0);
    client.acked(&id).await;
    assert!(sent.elapsed() >= late);
    world.clear_faults(None);

    world.add_fault(Fault { kind: FaultKind::DropReceipts, phone: Some(ana()), times: Some(1) });
    let dropped = client.send(&bruno(), "its receipt is lost").await;
    shown(&simulator, &bruno(), "its receipt is lost").await;
    let id = client.send(&bruno(), "its receipt is not").await;
    client.receipt(&id, "Delivered").await;
    let has_receipt =
        |seen: &Seen| matches!(seen, Seen::Receipt { ids, kind } if kind == "Delivered" && ids.contains(&dropped));
    assert_eq!(client.count(has_receipt), 0);

    world.add_fault(everyone(FaultKind::StallReads));
    let unread = client.send(&bruno(), "not read by the server").await;
    assert!(tokio::time::timeout(late, client.acked(&unread)).await.is_err());
    world.clear_faults(None);
    assert_eq!(client.acked(&unread).await, None);

    world.add_fault(Fault { kind: FaultKind::CutAfterFrames(1), phone: None, times: Some(1) });
    world.add_fault(Fault { kind: FaultKind::CloseAfter(Duration::ZERO), phone: Some(ana()), times: Some(1) });
    client.wait_for_count("connected again", 2, connected).await;
    let totals = world.totals();
    assert_eq!((totals.connections, totals.logins), (1, 2), "{totals:?}");

    world.add_fault(everyone(FaultKind::SilentSuccess));
    world.add_fault(Fault { kind: FaultKind::CloseAfter(Duration::ZERO), phone: Some(ana()), times: Some(1) });
    until("logged in to a silent server", || {
        let logins = world.totals().logins;
        (logins == 3).then_some(()).ok_or_else(|| logins.to_string())
    })
    .await;
    let bruno = [Jid::pn(bruno().as_str())];
    let answer = tokio::time::timeout(late, client.client.contacts().is_on_whatsapp(&bruno)).await;
    assert!(!matches!(answer, Ok(Ok(_))), "{answer:?}");
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_sends_again_what_a_phone_acts_as_if_it_could_not_read() {
    let simulator = simulator().await;
    let (client, _) = TestClient::paired(&simulator, &ana()).await;
    let world = simulator.world();
    world.add_fault(Fault { kind: FaultKind::Unreadable, phone: Some(bruno()), times: Some(1) });
    let id = client.send(&bruno(), "read at the second try").await;
    let message = shown(&simulator, &bruno(), "read at the second try").await;
    assert_eq!(message.id, id);
    client.receipt(&id, "Delivered").await;
    let (text, messages) = ("read at once", world.totals().messages);
    client.send(&bruno(), text).await;
    shown(&simulator, &bruno(), text).await;
    let totals = world.totals();
    assert_eq!((totals.retry_receipts, totals.repeated_ids, totals.messages), (1, 0, messages + 1), "{totals:?}");
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_gets_lost_on_its_way_on_demand() {
    let simulator = simulator().await;
    let (client, _) = TestClient::paired(&simulator, &ana()).await;
    let world = simulator.world();
    world.add_fault(Fault { kind: FaultKind::DropMessages, phone: Some(ana()), times: Some(1) });
    let lost = client.send(&bruno(), "lost").await;
    let id = client.send(&bruno(), "not lost").await;
    assert_eq!(client.acked(&id).await, None);
    shown(&simulator, &bruno(), "not lost").await;
    assert_eq!(client.count(|seen| matches!(seen, Seen::Ack { id, .. } if *id == lost)), 0);
    assert_eq!(world.messages(&bruno()).unwrap().len(), 1);
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_is_told_when_it_may_not_write_to_strangers() {
    let simulator = simulator().await;
    let (client, _) = TestClient::paired(&simulator, &ana()).await;
    let state = client.client.mex().fetch_reachout_timelock().await.unwrap();
    assert_eq!(state.is_active, Some(false));
    let timelock = ReachoutTimelock { until: 1_770_000_000, kind: Some("RATE_LIMIT".to_owned()) };
    let fault = Fault { kind: FaultKind::ReachoutTimelock(timelock), phone: Some(ana()), times: None };
    simulator.world().add_fault(fault);
    let state = client.client.mex().fetch_reachout_timelock().await.unwrap();
    assert_eq!(
        (state.is_active, state.time_enforcement_ends.as_deref(), state.enforcement_type.as_deref()),
        (Some(true), Some("1770000000"), Some("RATE_LIMIT"))
    );
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn receipts_wait_for_a_client_and_come_again_until_it_acknowledges_them() {
    let simulator = simulator().await;
    let (client, _) = TestClient::paired(&simulator, &ana()).await;
    let world = simulator.world();
    let connected = |seen: &Seen| (*seen == Seen::Connected).then_some(());
    world.add_fault(Fault { kind: FaultKind::OfflinePhone, phone: Some(bruno()), times: None });
    let first = client.send(&bruno(), "read while the client is away").await;
    assert_eq!(client.acked(&first).await, None);
    let store = client.stop().await;
    world.clear_faults(None);
    shown(&simulator, &bruno(), "read while the client is away").await;
    assert_eq!(world.read_chats(&bruno()), Some(1));
    let client = TestClient::resume(&simulator, store).await;
    client.receipt(&first, "Delivered").await;
    client.receipt(&first, "Read").await;

    // The server does not get to hear that the client has the second one.
    let second = client.send(&bruno(), "read in between").await;
    client.receipt(&second, "Delivered").await;
    client.send(&bruno(), "so that all that was said before is acknowledged").await;
    world.add_fault(everyone(FaultKind::StallReads));
    world.read_chats(&bruno());
    client.receipt(&second, "Read").await;
    world.add_fault(Fault { kind: FaultKind::CloseAfter(Duration::ZERO), phone: None, times: Some(1) });
    until("cut", || match world.totals_by_phone()[0].1.connections {
        0 => Ok(()),
        n => Err(n.to_string()),
    })
    .await;
    world.clear_faults(None);
    let read = |seen: &Seen| match seen {
        Seen::Receipt { ids, kind } if kind == "Read" && ids.contains(&second) => Some(()),
        _ => None,
    };
    client.wait_for_count("the same receipt again", 2, read).await;

    // Now it does; what comes after it shows that there was time for it.
    let third = client.send(&bruno(), "acknowledged").await;
    client.receipt(&third, "Delivered").await;
    let store = client.stop().await;
    let client = TestClient::resume(&simulator, store).await;
    client.wait("connected", connected).await;
    let fourth = client.send(&bruno(), "the end").await;
    client.receipt(&fourth, "Delivered").await;
    let old = [first, second];
    let again = |seen: &Seen| matches!(seen, Seen::Receipt { ids, .. } if ids.iter().any(|id| old.contains(id)));
    assert_eq!(client.count(again), 0, "{:#?}", client.history());
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stale_code_and_a_foreign_one_are_refused() {
    let simulator = simulator().await;
    let world = simulator.world();
    let client = TestClient::start(&simulator).await;
    let qr = client.qr().await;
    world.hold_up_qr(&qr).unwrap();
    let mut fields: Vec<&str> = qr.split(',').collect();
    fields.swap(1, 2);
    assert!(matches!(world.scan_qr(&fields.join(","), Some(&ana())).await, Err(PairError::Foreign)));
    client.stop().await;
    until("forgotten", || match world.hold_up_qr(&qr) {
        Err(PairError::Stale) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    assert!(matches!(world.scan_qr(&qr, Some(&ana())).await, Err(PairError::Stale)));
}

/// Opens a WebSocket by hand, sends raw bytes and waits for the server to end the connection.
async fn dropped_after(simulator: &Simulator, bytes: &[u8]) {
    let mut socket = TcpStream::connect(simulator.addr()).await.unwrap();
    let request = "GET /ws/chat HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut head = [0; 12];
    socket.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 101");
    socket.write_all(bytes).await.unwrap();
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(10), socket.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "the server kept the connection");
}

/// A masked WebSocket message; the mask is zero.
fn binary(payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() < 126);
    [&[0x82, 0x80 | u8::try_from(payload.len()).unwrap(), 0, 0, 0, 0], payload].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_does_not_speak_the_protocol_is_dropped() {
    let simulator = simulator_with(Config { handshake_timeout: Duration::from_millis(200), ..Config::default() }).await;
    dropped_after(&simulator, b"").await;
    dropped_after(&simulator, &binary(b"GET / HTTP/1.1")).await;
    dropped_after(&simulator, &binary(b"WA\x06\x03\xff\xff\xff")).await;
    dropped_after(&simulator, &binary(b"WA\x06\x03\x00\x00\x03abc")).await;
    dropped_after(&simulator, &[0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]).await;
    until("no connection left", || match simulator.world().totals().connections {
        0 => Ok(()),
        n => Err(n.to_string()),
    })
    .await;
    let (client, _) = TestClient::paired(&simulator, &ana()).await;
    client.stop().await;
}
