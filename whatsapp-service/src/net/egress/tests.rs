use std::net::{Ipv4Addr, Ipv6Addr};
use std::{
    net::TcpListener as StdListener,
    sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Router,
    body::Bytes,
    http::{HeaderMap as Headers, Uri},
    routing::post,
    serve::ListenerExt,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use parking_lot::Mutex;
use proptest::{prelude::*, sample::select};
use rustls::{ServerConfig, ServerConnection, Stream, pki_types::CertificateDer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::timeout,
};

use super::*;

const PUBLIC: Policy = Policy::new(false);
const PRIVATE: Policy = Policy::new(true);
/// Longer than anything here takes, unless something is broken.
const FOREVER: Duration = Duration::from_secs(60);

fn roots() -> RootCertStore {
    webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect()
}

/// Takes every name for this machine.
fn loopback(_: String) -> Looking {
    Box::pin(async { Ok(vec![SocketAddr::from(([127, 0, 0, 1], 0))]) })
}

fn private(timeout: Duration) -> Egress {
    Egress::build(PRIVATE, roots(), timeout, loopback)
}

async fn send(egress: &Egress, url: &str) -> Result<u16, PostError> {
    let target = Egress::new(true).target(url).unwrap();
    timeout(FOREVER / 2, egress.post(&target, HeaderMap::new(), "{}")).await.expect("post ends")
}

/// A server for one connection. It reads the head of the request, then does what it is told to.
async fn server<F>(answer: impl FnOnce(TcpStream) -> F + Send + 'static) -> (String, JoinHandle<F::Output>)
where
    F: Future<Output: Send> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let task = tokio::spawn(async move {
        let mut stream = listener.accept().await.unwrap().0;
        let mut head = Vec::new();
        while !head.windows(4).any(|end| end == b"\r\n\r\n") {
            assert_ne!(stream.read_buf(&mut head).await.unwrap(), 0);
        }
        answer(stream).await
    });
    (url, task)
}

async fn write_forever(mut stream: TcpStream, start: &[u8], more: &[u8]) {
    stream.write_all(start).await.unwrap();
    while stream.write_all(more).await.is_ok() {}
}

/// A listener that can tell whether anybody ever connected.
fn nobody() -> (StdListener, String) {
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let host = format!("127.0.0.1:{}", listener.local_addr().unwrap().port());
    (listener, host)
}

#[track_caller]
fn assert_nobody_came(listener: &StdListener) {
    assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
}

// URLs

#[test]
fn hostile_urls_are_refused() {
    use RefusedTarget::*;
    let egress = Egress::new(false);
    for (url, reason) in [
        ("http://127.0.0.1", Address),
        ("http://127.0.0.1.", Address),
        ("http://127.1", Address),
        ("http://2130706433", Address),
        ("http://0x7f.1", Address),
        ("http://0x7f000001", Address),
        ("http://0177.0.0.1", Address),
        ("http://017700000001", Address),
        ("http://0", Address),
        ("http://0.0.0.0:80", Address),
        ("http://%31%32%37.1", Address),
        ("http://①②⑦.⓪.⓪.①", Address),
        ("http://127。0。0。1", Address),
        ("http://1\n27.0.0.1", Address),
        ("  http://127.0.0.1  ", Address),
        ("http:127.0.0.1", Address),
        ("http:\\\\127.0.0.1\\x", Address),
        ("HTTP://127.0.0.1", Address),
        ("https://10.1.2.3:8443/hook", Address),
        ("http://172.31.255.255", Address),
        ("http://192.168.0.1", Address),
        ("http://100.64.0.1", Address),
        ("http://100.100.100.200", Address),
        ("http://169.254.169.254/latest", Address),
        ("http://168.63.129.16", Address),
        ("http://192.0.0.192", Address),
        ("http://198.19.0.1", Address),
        ("http://224.0.0.1", Address),
        ("http://255.255.255.255", Address),
        ("http://[::]", Address),
        ("http://[::1]", Address),
        ("http://[0:0:0:0:0:0:0:1]", Address),
        ("http://[::127.0.0.1]", Address),
        ("http://[::ffff:127.0.0.1]", Address),
        ("http://[::ffff:7f00:1]", Address),
        ("http://[::ffff:0:7f00:1]", Address),
        ("http://[64:ff9b::7f00:1]", Address),
        ("http://[64:ff9b:1::808:808]", Address),
        ("http://[2002:7f00:1::]", Address),
        ("http://[2002:a9fe:a9fe::1]", Address),
        ("http://[2001:0:808:808::80ff:fffe]", Address),
        ("http://[2001:0:7f00:1::f7f7:f7f7]", Address),
        ("http://[fc00::1]", Address),
        ("http://[fd00:ec2::254]", Address),
        ("http://[fe80::1]", Address),
        ("http://[fec0::1]", Address),
        ("http://[ff02::1]", Address),
        ("http://[100::1]", Address),
        ("http://[2001:db8::1]", Address),
        ("http://user:pw@example.com", Credentials),
        ("http://user@example.com", Credentials),
        ("http://:pw@example.com", Credentials),
        ("http://example.com@127.0.0.1", Credentials),
        ("https://example.com/#part", Fragment),
        ("https://example.com/#", Fragment),
        ("file:///etc/passwd", Scheme),
        ("gopher://example.com", Scheme),
        ("ftp://example.com", Scheme),
        ("ws://example.com", Scheme),
        ("data:text/plain,x", Scheme),
        ("unix:/run/docker.sock", Scheme),
        ("javascript:alert(1)", Scheme),
        ("example.com:443", Scheme),
        ("", Invalid),
        ("/hook", Invalid),
        ("//example.com", Invalid),
        ("example.com", Invalid),
        ("http://", Invalid),
        ("http:///", Invalid),
        ("http://[::1", Invalid),
        ("http://[fe80::1%25eth0]", Invalid),
        ("http://1.2.3.4.5", Invalid),
        ("http://256.1.1.1", Invalid),
        ("http://example.com:99999", Invalid),
        ("http://exa mple.com", Invalid),
        ("http://exa'mple.com", Invalid),
        ("http://exa\"mple.com", Invalid),
        ("http://a,b", Invalid),
    ] {
        assert_eq!(egress.target(url), Err(reason), "{url:?}");
    }
}

#[test]
fn ordinary_urls_are_taken() {
    let egress = Egress::new(false);
    for (url, normal) in [
        ("https://example.com", "https://example.com/"),
        ("https://Example.com:443/a?b=c&d", "https://example.com/a?b=c&d"),
        ("http://sub.example-shop.com:8080/x", "http://sub.example-shop.com:8080/x"),
        ("https://bücher.example/ä", "https://xn--bcher-kva.example/%C3%A4"),
        ("https://my_host.example", "https://my_host.example/"),
        ("http://localhost:1234", "http://localhost:1234/"),
        ("http://1.1.1.1", "http://1.1.1.1/"),
        ("http://[2606:4700:4700::1111]", "http://[2606:4700:4700::1111]/"),
        ("http://[64:ff9b::808:808]", "http://[64:ff9b::808:808]/"),
    ] {
        assert_eq!(egress.target(url).as_ref().map(Target::as_str), Ok(normal));
    }
}

#[test]
fn the_length_is_limited() {
    let url = format!("https://example.com/{}", "ä".repeat(URL_MAX - 20));
    assert!(Egress::new(false).target(&url).is_ok());
    assert_eq!(Egress::new(false).target(&(url + "x")), Err(RefusedTarget::TooLong));
}

#[test]
fn private_addresses_can_be_allowed() {
    let egress = Egress::new(true);
    for url in ["http://127.0.0.1", "http://[::1]:8080", "http://10.0.0.1", "http://[fd00::1]", "http://[fe80::1]"] {
        assert!(egress.target(url).is_ok(), "{url}");
    }
    for url in [
        "http://0",
        "http://[::]",
        "http://224.0.0.1",
        "http://[ff02::1]",
        "http://255.255.255.255",
        "http://[::ffff:0.0.0.0]",
        "http://[64:ff9b::e000:1]",
    ] {
        assert_eq!(egress.target(url), Err(RefusedTarget::Address), "{url}");
    }
}

#[test]
fn debug_hides_the_path_of_a_target() {
    let target = Egress::new(false).target("https://example.com/s3cret?token=s3cret").unwrap();
    assert_eq!(format!("{target:?}"), r#"Target("example.com")"#);
}

// Addresses

/// What must never be reached, written down in another way than the code does.
fn refused_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, d] = ip.octets();
    a == 0
        || ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_documentation()
        || a >= 224
        || (a == 100 && (64..=127).contains(&b))
        || (a == 198 && (18..=19).contains(&b))
        || [a, b, c] == [192, 0, 0]
        || [a, b, c] == [192, 88, 99]
        || [a, b, c, d] == [168, 63, 129, 16]
}

fn refused_v6(ip: Ipv6Addr) -> bool {
    let bytes = ip.octets();
    let tail = |at: usize| Ipv4Addr::new(bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]);
    let begins = |prefix: &[u8]| bytes.starts_with(prefix);
    ip.is_unspecified()
        || ip.is_loopback()
        || ip.is_multicast()
        || ip.is_unique_local()
        || ip.is_unicast_link_local()
        || (bytes[0] == 0xfe && bytes[1] >= 0xc0)
        || begins(&[0x20, 0x01, 0x0d, 0xb8])
        || begins(&[0x20, 0x01, 0x01])
        || (begins(&[0x20, 0x01, 0x00]) && bytes[3] != 0)
        || (begins(&[0x3f, 0xff]) && bytes[2] < 0x10)
        || begins(&[0x01, 0, 0, 0, 0, 0, 0, 0])
        || begins(&[0, 0x64, 0xff, 0x9b, 0, 1])
        || ip.to_ipv4().is_some_and(refused_v4)
        || (begins(&[0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0]) && refused_v4(tail(12)))
        || (begins(&[0x20, 0x02]) && refused_v4(tail(2)))
        || (begins(&[0x20, 0x01, 0, 0])
            && (refused_v4(tail(4)) || refused_v4(Ipv4Addr::from_bits(!tail(12).to_bits()))))
}

/// The first and last addresses of what is not public.
const EDGES: [(&str, &str); 16] = [
    ("0.0.0.0", "0.255.255.255"),
    ("10.0.0.0", "10.255.255.255"),
    ("100.64.0.0", "100.127.255.255"),
    ("127.0.0.0", "127.255.255.255"),
    ("168.63.129.16", "168.63.129.16"),
    ("169.254.0.0", "169.254.255.255"),
    ("172.16.0.0", "172.31.255.255"),
    ("192.0.0.0", "192.0.0.255"),
    ("192.0.2.0", "192.0.2.255"),
    ("192.88.99.0", "192.88.99.255"),
    ("192.168.0.0", "192.168.255.255"),
    ("198.18.0.0", "198.19.255.255"),
    ("198.51.100.0", "198.51.100.255"),
    ("203.0.113.0", "203.0.113.255"),
    ("224.0.0.0", "239.255.255.255"),
    ("240.0.0.0", "255.255.255.255"),
];

/// IPv4 addresses, most of them in or right beside a network that is not public.
fn v4() -> impl Strategy<Value = Ipv4Addr> {
    let bits = |text: &str| text.parse::<Ipv4Addr>().unwrap().to_bits();
    let near = select(&EDGES[..]).prop_flat_map(move |(first, last)| {
        let (first, last) = (bits(first), bits(last));
        prop_oneof![Just(first), Just(last), first..=last, Just(first.wrapping_sub(1)), Just(last.wrapping_add(1))]
    });
    prop_oneof![2 => near, 1 => any::<u32>()].prop_map(Ipv4Addr::from_bits)
}

/// The ways to write an IPv4 address into an IPv6 one.
fn embeddings(ip: Ipv4Addr) -> [Ipv6Addr; 7] {
    let [a, b, c, d] = ip.octets().map(u16::from);
    let (high, low) = (a << 8 | b, c << 8 | d);
    [
        Ipv6Addr::new(0, 0, 0, 0, 0, 0, high, low),
        Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, high, low),
        Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, high, low),
        Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
        Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
        Ipv6Addr::new(0x2001, 0, high, low, 0, 0, !0x0808, !0x0808),
        Ipv6Addr::new(0x2001, 0, 0x0808, 0x0808, 0, 0, !high, !low),
    ]
}

fn v6() -> impl Strategy<Value = Ipv6Addr> {
    let near = (select(vec![0xfc00, 0xfd00, 0xfe80, 0xfec0, 0xff00, 0x100, 0x64, 0x2001, 0x2002, 0x3fff, 0]))
        .prop_flat_map(|first: u16| {
            let part = || prop_oneof![select(vec![0u16, 1, 0x1ff, 0xdb8, 0xfff, 0xff9b, 0xffff]), any::<u16>()];
            let parts = (part(), part(), part(), part(), part(), part(), part());
            parts.prop_map(move |(b, c, d, e, f, g, h)| Ipv6Addr::new(first, b, c, d, e, f, g, h))
        });
    let embedded = (v4(), 0..7usize).prop_map(|(ip, form)| embeddings(ip)[form]);
    prop_oneof![near, embedded, any::<u128>().prop_map(Ipv6Addr::from_bits)]
}

static STRICT: LazyLock<Egress> = LazyLock::new(|| Egress::new(false));

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn exactly_the_public_ipv4_addresses_are_allowed(ip in v4()) {
        prop_assert_eq!(PUBLIC.allows(ip.into()), !refused_v4(ip));
    }

    #[test]
    fn no_refused_ipv6_address_is_allowed(ip in v6()) {
        prop_assert!(!(PUBLIC.allows(ip.into()) && refused_v6(ip)), "{ip}");
    }

    #[test]
    fn an_embedded_address_counts_as_itself(ip in v4()) {
        for form in embeddings(ip) {
            prop_assert_eq!(PUBLIC.allows(form.into()), PUBLIC.allows(ip.into()), "{}", form);
        }
    }

    #[test]
    fn every_spelling_of_an_address_is_seen_through(ip in v4()) {
        let ([a, b, c, d], bits) = (ip.octets(), ip.to_bits());
        let (bcd, cd) = (bits & 0xff_ffff, bits & 0xffff);
        for host in [
            format!("{ip}"), format!("{ip}."), format!("{bits}"), format!("{bits:#x}"), format!("0{bits:o}"),
            format!("{a}.{bcd}"), format!("{a}.{b}.{cd}"), format!("{a:#x}.{b:#X}.0{c:o}.{d}"),
            format!("0{a:o}.{bcd:#x}"), format!("[::ffff:{ip}]"), format!("[64:ff9b::{ip}]"),
        ] {
            let taken = STRICT.target(&format!("http://{host}/")).is_ok();
            prop_assert_eq!(taken, !refused_v4(ip), "{}", host);
        }
    }

    #[test]
    fn what_is_taken_can_be_sent_to(text in "https?://[a-z.]{0,9}\\PC{0,40}") {
        if let Ok(target) = STRICT.target(&text) {
            prop_assert!(target.as_str().parse::<Uri>().is_ok(), "{}", target.as_str());
        }
    }
}

// Names

async fn resolve(policy: Policy, lookup: Lookup) -> Result<usize, String> {
    let resolver = Resolver { policy, lookup, free: Arc::new(Semaphore::new(1)) };
    let found = resolver.resolve("name.test".parse().unwrap()).await;
    found.map(Iterator::count).map_err(|error| error.to_string())
}

fn two_public(_: String) -> Looking {
    Box::pin(async { Ok(vec!["1.1.1.1:0".parse().unwrap(), "[2606:4700:4700::1111]:0".parse().unwrap()]) })
}

fn one_private_of_three(_: String) -> Looking {
    let found = ["1.1.1.1:0", "[2606:4700:4700::1111]:0", "[::ffff:10.0.0.1]:0"];
    Box::pin(async move { Ok(found.map(|address| address.parse().unwrap()).to_vec()) })
}

#[tokio::test]
async fn one_private_address_condemns_a_name() {
    assert_eq!(resolve(PUBLIC, two_public).await, Ok(2));
    assert_eq!(resolve(PUBLIC, one_private_of_three).await, Err("the address is not allowed".into()));
    assert_eq!(resolve(PRIVATE, one_private_of_three).await, Ok(3));
    assert_eq!(resolve(PUBLIC, loopback).await, Err("the address is not allowed".into()));
}

#[tokio::test]
async fn a_private_server_gets_no_connection() {
    let (listener, host) = nobody();
    let port = listener.local_addr().unwrap().port();
    let strict = Egress::new(false);
    // A target that a client with another policy made, and names that resolve to this machine.
    for url in [
        format!("http://{host}"),
        format!("https://{host}"),
        format!("http://[::ffff:127.0.0.1]:{port}"),
        format!("http://localhost:{port}"),
        format!("https://localhost:{port}"),
    ] {
        assert_eq!(send(&strict, &url).await, Err(PostError::NotAllowed), "{url}");
    }
    let rebound = Egress::build(PUBLIC, roots(), TIMEOUT, loopback);
    assert_eq!(send(&rebound, &format!("http://name.test:{port}")).await, Err(PostError::NotAllowed));
    assert_nobody_came(&listener);
    // With the other policy the same request arrives.
    let (listener, lenient) = (TcpListener::from_std(listener).unwrap(), private(FOREVER));
    let url = format!("http://name.test:{port}");
    tokio::select! {
        answer = send(&lenient, &url) => panic!("{answer:?}"),
        connection = listener.accept() => drop(connection.unwrap()),
    }
}

#[test]
fn a_redirect_is_checked_like_any_other_target() {
    let egress = Egress::new(false);
    let target = egress.target("https://example.com/a/b?c").unwrap();
    let redirected = |location| egress.redirected(&target, location).map(|target| target.as_str().to_owned());
    for (location, leads_to) in [
        ("/x", "https://example.com/x"),
        ("d#part", "https://example.com/a/d"),
        ("//other.example/", "https://other.example/"),
        ("http://1.1.1.1", "http://1.1.1.1/"),
    ] {
        assert_eq!(redirected(location).as_deref(), Ok(leads_to));
    }
    for (location, refused) in [
        ("//127.0.0.1/", RefusedTarget::Address),
        ("http://2130706433/", RefusedTarget::Address),
        ("http://[::ffff:169.254.169.254]/", RefusedTarget::Address),
        ("file:///etc/passwd", RefusedTarget::Scheme),
        ("https://user:pw@example.com/", RefusedTarget::Credentials),
        ("https://", RefusedTarget::Invalid),
    ] {
        assert_eq!(redirected(location), Err(refused), "{location}");
    }
}

#[tokio::test]
async fn an_answer_is_fetched_from_an_address_that_was_checked_for_it() {
    static LOOKED_UP: AtomicUsize = AtomicUsize::new(0);
    /// At first the server that the test runs, and from then on one that must not be reached.
    fn changing(name: String) -> Looking {
        match LOOKED_UP.fetch_add(1, Ordering::SeqCst) {
            0 => loopback(name),
            _ => Box::pin(async { Ok(vec![SocketAddr::from(([0, 0, 0, 0], 0))]) }),
        }
    }
    let (url, _server) = server(async |mut stream: TcpStream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
    })
    .await;
    let egress = Egress::build(PRIVATE, roots(), FOREVER, changing);
    let target = egress.target(&url.replace("127.0.0.1", "name.test")).unwrap();
    assert_eq!(egress.get(&target).await.unwrap().bytes().await.unwrap(), "ok");
    assert_eq!(egress.get(&target).await.unwrap_err(), PostError::NotAllowed);
    let (listener, host) = nobody();
    let strict = Egress::build(PUBLIC, roots(), FOREVER, loopback);
    for url in [format!("http://{host}/"), format!("http://name.test:{}/", listener.local_addr().unwrap().port())] {
        let target = Egress::new(true).target(&url).unwrap();
        assert_eq!(strict.get(&target).await.unwrap_err(), PostError::NotAllowed, "{url}");
    }
    assert_nobody_came(&listener);
}

#[tokio::test]
async fn a_name_is_resolved_once_for_a_connection() {
    static LOOKED_UP: AtomicUsize = AtomicUsize::new(0);
    fn counted(name: String) -> Looking {
        assert_eq!(name, "name.test");
        LOOKED_UP.fetch_add(1, Ordering::SeqCst);
        loopback(name)
    }
    let (url, _server) = server(async |mut stream: TcpStream| {
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
    })
    .await;
    let egress = Egress::build(PRIVATE, roots(), FOREVER, counted);
    assert_eq!(send(&egress, &url.replace("127.0.0.1", "name.test")).await, Ok(204));
    assert_eq!(LOOKED_UP.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_look_up_that_hangs_keeps_its_place_until_it_ends() {
    fn hangs(_: String) -> Looking {
        Box::pin(std::future::pending())
    }
    let free = Arc::new(Semaphore::new(1));
    let resolver = Resolver { policy: PUBLIC, lookup: hangs, free: free.clone() };
    let waiting = resolver.resolve("name.test".parse().unwrap());
    assert!(timeout(Duration::from_millis(10), waiting).await.is_err());
    assert_eq!(free.available_permits(), 0);
}

#[tokio::test]
async fn a_name_without_an_address_is_not_connected() {
    fn unknown(_: String) -> Looking {
        Box::pin(async { Err(io::Error::other("no such name as secret.internal")) })
    }
    fn nothing(_: String) -> Looking {
        Box::pin(async { Ok(Vec::new()) })
    }
    for lookup in [unknown, nothing] {
        let egress = Egress::build(PUBLIC, roots(), TIMEOUT, lookup);
        assert_eq!(send(&egress, "http://secret.internal").await, Err(PostError::NotConnected));
    }
}

// Requests

#[tokio::test]
async fn posts_what_it_is_given_and_gives_the_status() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook?a=b", listener.local_addr().unwrap());
    let got = Arc::new(Mutex::new(Vec::new()));
    let seen = got.clone();
    let hook = async move |uri: Uri, headers: Headers, body: Bytes| {
        seen.lock().push((uri, headers, body));
        (axum::http::StatusCode::IM_A_TEAPOT, "thanks")
    };
    tokio::spawn(async { axum::serve(listener, Router::new().route("/hook", post(hook))).await });

    let egress = Egress::new(true);
    let headers = HeaderMap::from_iter([("webhook-id".parse().unwrap(), "evt_1".parse().unwrap())]);
    let status = egress.post(&egress.target(&url).unwrap(), headers, b"{\"a\":1}".to_vec()).await;

    assert_eq!(status, Ok(418));
    let got = got.lock();
    let [(uri, headers, body)] = got.as_slice() else { panic!("one request") };
    assert_eq!(uri, "/hook?a=b");
    assert_eq!(&body[..], b"{\"a\":1}");
    assert_eq!(headers["webhook-id"], "evt_1");
    assert_eq!(headers["content-length"], "7");
    assert_eq!(headers["user-agent"], concat!("whatsapp-service/", env!("CARGO_PKG_VERSION")));
    assert!(!headers.contains_key("accept-encoding"));
}

#[tokio::test]
async fn connections_are_used_again() {
    const POSTS: usize = 20;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = connections.clone();
    let listener = listener.tap_io(move |_| _ = counter.fetch_add(1, Ordering::SeqCst));
    let app = Router::new().route("/", post(async || "x".repeat(10_000)));
    tokio::spawn(async { axum::serve(listener, app).await });
    let egress = Egress::new(true);
    for _ in 0..POSTS {
        assert_eq!(send(&egress.clone(), &url).await, Ok(200));
    }
    // A connection comes back a moment after its answer, so now and then there is another one.
    assert!(connections.load(Ordering::SeqCst) < POSTS / 2);
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let (elsewhere, host) = nobody();
    for status in [301, 302, 303, 307, 308] {
        let answer = format!("HTTP/1.1 {status} Moved\r\nlocation: http://{host}/\r\ncontent-length: 0\r\n\r\n");
        let (url, _server) = server(async move |mut stream: TcpStream| {
            stream.write_all(answer.as_bytes()).await.unwrap();
        })
        .await;
        assert_eq!(send(&private(FOREVER), &url).await, Ok(status));
    }
    assert_nobody_came(&elsewhere);
}

#[tokio::test]
async fn a_server_that_never_answers_times_out() {
    let egress = private(Duration::from_millis(200));
    let (listener, host) = nobody();
    assert_eq!(send(&egress, &format!("http://{host}")).await, Err(PostError::TimedOut));
    assert_eq!(send(&egress, &format!("https://{host}")).await, Err(PostError::TimedOut));
    drop(listener);
    let (url, _server) = server(async |mut stream: TcpStream| {
        loop {
            stream.write_all(b"HTTP/1.1 102 Processing\r\n\r\n").await.unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(send(&egress, &url).await, Err(PostError::TimedOut));
}

#[tokio::test(start_paused = true)]
async fn a_look_up_that_never_ends_times_out() {
    fn hangs(_: String) -> Looking {
        Box::pin(std::future::pending())
    }
    let start = Instant::now();
    assert_eq!(
        send(&Egress::build(PUBLIC, roots(), TIMEOUT, hangs), "http://name.test").await,
        Err(PostError::TimedOut)
    );
    assert_eq!(start.elapsed().as_secs(), CONNECT_TIMEOUT.as_secs());
}

#[tokio::test]
async fn an_endless_body_is_not_read_to_its_end() {
    let (url, server) = server(async |stream| {
        write_forever(stream, b"HTTP/1.1 200 OK\r\n\r\n", &[b'x'; 10_000]).await;
    })
    .await;
    assert_eq!(send(&private(FOREVER), &url).await, Ok(200));
    timeout(FOREVER, server).await.expect("the connection is closed").unwrap();
}

#[tokio::test]
async fn a_body_that_stalls_does_not_undo_the_status() {
    let (url, _server) = server(async |mut stream: TcpStream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nx").await.unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    assert_eq!(send(&private(Duration::from_secs(1)), &url).await, Ok(200));
}

#[tokio::test]
async fn an_endless_header_breaks_the_connection() {
    for (start, more) in [("HTTP/1.1 200 OK\r\nx: ", "x"), ("HTTP/1.1 200 OK\r\n", "a: b\r\n"), ("HTTP/1.1 200 ", "x")]
    {
        let (url, server) = server(async move |stream| {
            write_forever(stream, start.as_bytes(), more.repeat(1_000).as_bytes()).await;
        })
        .await;
        assert_eq!(send(&private(FOREVER), &url).await, Err(PostError::Broken));
        timeout(FOREVER, server).await.expect("the connection is closed").unwrap();
    }
}

#[tokio::test]
async fn a_connection_that_ends_early_is_broken() {
    for answer in ["", "HTTP/1.1 200", "SSH-2.0-OpenSSH_9.2\r\n\r\n"] {
        let (url, _server) = server(async move |mut stream: TcpStream| {
            stream.write_all(answer.as_bytes()).await.unwrap();
        })
        .await;
        assert_eq!(send(&private(FOREVER), &url).await, Err(PostError::Broken), "{answer:?}");
    }
}

#[tokio::test]
async fn nobody_there_is_not_connected() {
    let (listener, host) = nobody();
    drop(listener);
    assert_eq!(send(&private(FOREVER), &format!("http://{host}")).await, Err(PostError::NotConnected));
}

/// Runs itself in a process whose environment names a proxy that isn't there.
#[test]
fn the_proxy_of_the_environment_is_not_used() {
    const VARIABLES: [&str; 4] = ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];
    const PROXY: &str = "http://127.0.0.1:1";
    if VARIABLES.iter().all(|name| std::env::var(name).is_ok_and(|value| value == PROXY)) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        return runtime.block_on(async {
            let (url, _server) = server(async |mut stream: TcpStream| {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            })
            .await;
            assert_eq!(send(&Egress::new(true), &url).await, Ok(200));
        });
    }
    let (_, module) = module_path!().split_once("::").unwrap();
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("{module}::the_proxy_of_the_environment_is_not_used")])
        .envs(VARIABLES.map(|name| (name, PROXY)))
        .env_remove("NO_PROXY")
        .env_remove("no_proxy")
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && output.contains("1 passed"), "{output}");
}

// TLS

/// A certificate for receiver.test that it signed itself, valid until 2120, and its key. Both are only for tests.
const CERTIFICATE: &str = "\
    MIIBajCCARCgAwIBAgIBATAKBggqhkjOPQQDAjAYMRYwFAYDVQQDDA1yZWNlaXZlci50ZXN0MCAXDTIwMDEwMTAwMDAwMFoYDzIx\
    MjAwMTAxMDAwMDAwWjAYMRYwFAYDVQQDDA1yZWNlaXZlci50ZXN0MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE3XMlgpwDszOT\
    pe6IVuh7arajhNW5F7+qdfP1FOXZ2b4PDHaT/Anb8veIUSpN8xg/SCgyYM2fRjJdjovy4tlB6qNJMEcwGAYDVR0RBBEwD4INcmVj\
    ZWl2ZXIudGVzdDAMBgNVHRMBAf8EAjAAMB0GA1UdDgQWBBTjxJbwUWR8ZSH9uIK/ZNuZoMuFPjAKBggqhkjOPQQDAgNIADBFAiA4\
    ln0dj9Z7E7P3rLb1Q4aUCR+NJ3esSqKX/P9ZGwfm4gIhAPQ0CXkjSFAg2ZwwHxMAXTrsYNXKVrTf5BFNqfc69W+S";
const KEY: &str = "\
    MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg40uyy3DK0rMFhmmaG1PJpvmyNqaJ/7/I6rxdPX8npQuhRANCAATd\
    cyWCnAOzM5Ol7ohW6HtqtqOE1bkXv6p18/UU5dnZvg8MdpP8Cdvy94hRKk3zGD9IKDJgzZ9GMl2Oi/Li2UHq";

fn certificate() -> CertificateDer<'static> {
    STANDARD.decode(CERTIFICATE).unwrap().into()
}

fn trusting_the_certificate() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(certificate()).unwrap();
    roots
}

/// A server for one connection over TLS. Gives its port.
fn tls_server() -> u16 {
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate()], STANDARD.decode(KEY).unwrap().try_into().unwrap())
        .unwrap();
    std::thread::spawn(move || {
        use std::io::{Read, Write};
        let mut tcp = listener.accept().unwrap().0;
        let mut connection = ServerConnection::new(config.into()).unwrap();
        let mut stream = Stream::new(&mut connection, &mut tcp);
        // Fails where the client refuses the certificate.
        if stream.read(&mut [0; 4_096]).is_ok() {
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
        }
    });
    port
}

#[tokio::test]
async fn a_valid_certificate_is_accepted() {
    let egress = Egress::build(PRIVATE, trusting_the_certificate(), FOREVER, loopback);
    assert_eq!(send(&egress, &format!("https://receiver.test:{}", tls_server())).await, Ok(204));
}

#[tokio::test]
async fn a_certificate_of_an_unknown_issuer_or_for_another_name_is_refused() {
    let url = format!("https://receiver.test:{}", tls_server());
    assert_eq!(send(&private(FOREVER), &url).await, Err(PostError::Tls));
    let trusting = Egress::build(PRIVATE, trusting_the_certificate(), FOREVER, loopback);
    for host in ["other.test", "127.0.0.1"] {
        assert_eq!(send(&trusting, &format!("https://{host}:{}", tls_server())).await, Err(PostError::Tls));
    }
}

#[tokio::test]
async fn a_server_without_tls_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut stream = listener.accept().await.unwrap().0;
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    assert_eq!(send(&private(FOREVER), &url).await, Err(PostError::Tls));
}
