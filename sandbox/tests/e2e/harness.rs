//! What every end-to-end test stands on: a simulator in this process, and the real service as a process of its own.

use std::{
    future::Future,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::Instant;
use whatsapp_simulator::{Config, Phone, Simulator};

pub const SECRET: &str = "e2e-internal-secret";
pub const ANA: &str = "5511999999999";
pub const BRUNO: &str = "5511888888888";

/// The file with the simulator's root certificate, beside the service's data.
pub const ROOT: &str = "root.pem";

/// How long anything may take before a test gives up on it. Generous: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(120);

/// An offline WhatsApp with Ana and Bruno, and a service that speaks to it.
pub struct World {
    pub simulator: Simulator,
    pub service: Service,
}

impl World {
    pub async fn start() -> Self {
        Self::with(Config::default(), &[]).await
    }

    /// With these settings of the simulator and this environment of the service.
    pub async fn with(config: Config, env: &[(&str, &str)]) -> Self {
        let simulator = simulator(config).await;
        let service = Service::start(&simulator.ws_url(), env).await;
        Self { simulator, service }
    }

    /// With a service that reaches the simulator by TLS, and trusts its root if `trusting`.
    pub async fn with_tls(trusting: bool) -> Self {
        Self::with_tls_and(trusting, &[]).await
    }

    /// The same with this environment of the service.
    pub async fn with_tls_and(trusting: bool, env: &[(&str, &str)]) -> Self {
        let tls = Some("127.0.0.1:0".parse().unwrap());
        let simulator = simulator(Config { tls, ..Config::default() }).await;
        let data = Arc::new(TempDir::new().unwrap());
        let root = data.path().join(ROOT);
        std::fs::write(&root, simulator.tls_root_pem().expect("a root")).unwrap();
        let mut program = Program::sandbox(&simulator.wss_url().expect("an address"), env);
        if trusting {
            program.arguments.extend(["--trust-ca".to_owned(), root.to_str().unwrap().to_owned()]);
        }
        let service = Service::run(program, data, Log::default()).await;
        Self { simulator, service }
    }

    /// Where the simulator listens by TLS.
    pub fn tls_address(&self) -> SocketAddr {
        let url = self.simulator.wss_url().expect("an address");
        url.trim_start_matches("wss://").split('/').next().unwrap().parse().unwrap()
    }

    /// Links Ana's phone to a tenant, or another's.
    pub async fn pair(&self, tenant: &str, phone: &str) {
        let session = self.service.tenant(tenant).open().await;
        let qr = session["qrCode"].as_str().unwrap_or_else(|| panic!("no QR code in {session}"));
        let linked = self.admin(Method::POST, &format!("/admin/mock-phone/scan-qr?phone={phone}"), qr.to_owned()).await;
        assert_eq!(linked["phone"], phone, "{linked}");
        self.service.tenant(tenant).until_state("ready").await;
    }

    /// What a phone shows.
    pub async fn shown_on(&self, phone: &str) -> Vec<Value> {
        let messages = self.admin(Method::GET, &format!("/admin/accounts/{phone}/messages"), "").await;
        messages.as_array().expect("an array of messages").clone()
    }

    /// Waits until a phone shows this text, and returns all messages on it that have this text.
    pub async fn until_shown(&self, phone: &str, text: &str) -> Vec<Value> {
        eventually(&format!("{text:?} on {phone}"), || async {
            let messages = self.shown_on(phone).await;
            let with_text: Vec<_> = messages.into_iter().filter(|message| message["text"] == text).collect();
            (!with_text.is_empty()).then_some(with_text)
        })
        .await
    }

    /// Has a phone write a message, and returns its id.
    pub async fn write(&self, from: &str, to: &str, text: &str) -> Value {
        let message = json!({"to": to, "text": text}).to_string();
        self.admin(Method::POST, &format!("/admin/accounts/{from}/messages"), message).await["id"].clone()
    }

    pub async fn fault(&self, fault: Value) {
        self.admin(Method::POST, "/admin/faults", fault.to_string()).await;
    }

    pub async fn clear_faults(&self) {
        self.admin(Method::DELETE, "/admin/faults", "").await;
    }

    pub async fn stats(&self) -> Value {
        self.admin(Method::GET, "/admin/stats", "").await
    }

    /// One of the simulator's counters of an account.
    pub async fn count(&self, phone: &str, counter: &str) -> u64 {
        self.stats().await["phones"][phone][counter].as_u64().expect("a counter")
    }

    /// Ends a tenant's connection and refuses every other one to this account, until the faults are cleared.
    pub async fn cut_off(&self, tenant: &str, phone: &str) {
        self.fault(json!({"refuseConnections": true, "phone": phone})).await;
        self.fault(json!({"closeAfterMs": 1, "phone": phone})).await;
        self.service.tenant(tenant).until_state("reconnecting").await;
    }

    /// The texts on a phone, oldest first.
    pub async fn texts_on(&self, phone: &str) -> Vec<String> {
        self.shown_on(phone).await.iter().map(|message| message["text"].as_str().unwrap().to_owned()).collect()
    }

    /// The LID of an account: digits.
    pub async fn lid(&self, phone: &str) -> String {
        let account = self.admin(Method::GET, &format!("/admin/accounts/{phone}"), "").await;
        account["lid"].as_str().expect("a LID").to_owned()
    }

    /// Makes an account, or changes whether others get to know its LID only.
    pub async fn account(&self, phone: &str, name: &str, hidden: bool) {
        let account = json!({"phone": phone, "name": name, "numberHidden": hidden}).to_string();
        self.admin(Method::POST, "/admin/accounts", account).await;
    }

    /// The companions of an account.
    pub async fn devices(&self, phone: &str) -> Vec<Value> {
        let account = self.admin(Method::GET, &format!("/admin/accounts/{phone}"), "").await;
        account["devices"].as_array().expect("devices").clone()
    }

    /// A call of the simulator's control API, which must succeed.
    pub async fn admin(&self, method: Method, path: &str, body: impl Into<String>) -> Value {
        let request = http().request(method, self.simulator.http_url() + path).body(body.into());
        let response = request.header("Content-Type", "application/json").send().await.expect("the simulator answers");
        let (status, text) = (response.status(), response.text().await.expect("a body"));
        assert!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }
}

pub async fn simulator(config: Config) -> Simulator {
    simulator_at("127.0.0.1:0".parse().unwrap(), config).await
}

pub async fn simulator_at(address: SocketAddr, config: Config) -> Simulator {
    let simulator = Simulator::bind(address, config).await.expect("the simulator starts");
    for (phone, name) in [(ANA, "Ana"), (BRUNO, "Bruno")] {
        simulator.add_account(&Phone::parse(phone).unwrap(), name).expect("an account");
    }
    simulator
}

/// A running service. Ends with the test, by its process id.
pub struct Service {
    child: Child,
    pub url: String,
    pub log: Log,
    pub data: Arc<TempDir>,
    program: Program,
    http: reqwest::Client,
}

/// How a service is started, so that it can be started again in the same way.
#[derive(Clone)]
pub struct Program {
    pub binary: PathBuf,
    pub arguments: Vec<String>,
    pub env: Vec<(String, String)>,
}

/// Everything that a service has written so far.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<String>>);

impl Log {
    pub fn text(&self) -> String {
        self.0.lock().unwrap().clone()
    }
}

impl Program {
    /// The sandbox's service, which trusts the simulator.
    pub fn sandbox(whatsapp_url: &str, env: &[(&str, &str)]) -> Self {
        let mut own = vec![("WHATSAPP_URL", whatsapp_url)];
        own.extend(env);
        Self::new(Path::new(env!("CARGO_BIN_EXE_sandbox")), &["service"], &own)
    }

    pub fn new(binary: &Path, arguments: &[&str], env: &[(&str, &str)]) -> Self {
        Self {
            binary: binary.into(),
            arguments: arguments.iter().map(|&argument| argument.into()).collect(),
            env: env.iter().map(|&(key, value)| (key.into(), value.into())).collect(),
        }
    }

    pub fn command(&self, data: &Path) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(&self.arguments).env("INTERNAL_SECRET", SECRET).env("HOST", "127.0.0.1").env("PORT", "0");
        command.env("LOG_FORMAT", "json").env("LOG_LEVEL", "debug").env("DATA_DIR", data);
        command.envs(self.env.iter().map(|(key, value)| (key, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

impl Service {
    pub async fn start(whatsapp_url: &str, env: &[(&str, &str)]) -> Self {
        Self::run(Program::sandbox(whatsapp_url, env), Arc::new(TempDir::new().unwrap()), Log::default()).await
    }

    /// Starts `program` on `data`, and waits until it listens.
    pub async fn run(program: Program, data: Arc<TempDir>, log: Log) -> Self {
        let mut child = program.command(data.path()).spawn().expect("the service starts");
        let already = log.text().len();
        for stream in [child.stderr.take().map(boxed), child.stdout.take().map(boxed)].into_iter().flatten() {
            let log = log.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    log.0.lock().unwrap().push_str(&(line + "\n"));
                }
            });
        }
        let child = Mutex::new(child);
        let url = eventually("the service listens", || async {
            if let Ok(Some(status)) = child.lock().unwrap().try_wait() {
                panic!("the service ended with {status}:\n{}", log.text());
            }
            let text = log.text();
            let line = text[already..].lines().find(|line| line.contains("\"listening\""))?;
            let line: Value = serde_json::from_str(line).expect("a JSON log line");
            Some(format!("http://{}", line["address"].as_str()?))
        })
        .await;
        Self { child: child.into_inner().unwrap(), url, log, data, program, http: http() }
    }

    pub fn tenant<'a>(&'a self, id: &'a str) -> Tenant<'a> {
        Tenant { service: self, id }
    }

    /// A request with the right secret.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url)).header("X-Internal-Secret", SECRET)
    }

    /// Its database, to look into it, or to damage it.
    pub fn database(&self) -> rusqlite::Connection {
        let connection = rusqlite::Connection::open(self.data.path().join("service.db")).unwrap();
        connection.busy_timeout(Duration::from_secs(5)).unwrap();
        connection
    }

    /// A number from its database.
    pub fn count(&self, sql: &str) -> i64 {
        self.database().query_row(sql, (), |row| row.get(0)).unwrap()
    }

    /// How it was started.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// The id of its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How many connections of callers it has open, of those that both sides have not closed.
    pub fn connections(&self) -> usize {
        let local = format!(":{:04X}", self.url.rsplit(':').next().unwrap().parse::<u16>().unwrap());
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let established = table.lines().filter(|line| {
            let fields: Vec<_> = line.split_ascii_whitespace().take(4).collect();
            matches!(fields[..], [_, from, _, "01"] if from.ends_with(&local))
        });
        established.count()
    }

    pub fn signal(&self, signal: &str) {
        let sent = Command::new("kill").arg(signal).arg(self.child.id().to_string()).status();
        assert!(sent.expect("kill runs").success(), "kill {signal}");
    }

    /// SIGTERM, and its end.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.signal("-TERM");
        self.ended().await
    }

    pub async fn ended(&mut self) -> ExitStatus {
        let child = Mutex::new(&mut self.child);
        eventually("the service ends", || async { child.lock().unwrap().try_wait().unwrap() }).await
    }

    /// kill -9, and a start on the same data.
    pub async fn kill_and_restart(&mut self) {
        self.signal("-KILL");
        self.ended().await;
        self.restart().await;
    }

    /// Sets a variable of its environment from the next start on.
    pub fn set_env(&mut self, key: &str, value: &str) {
        self.program.env.retain(|(known, _)| known != key);
        self.program.env.push((key.into(), value.into()));
    }

    /// A start on the same data, after its end.
    pub async fn restart(&mut self) {
        *self = Self::run(self.program.clone(), self.data.clone(), self.log.clone()).await;
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the service's log\n{}", self.log.text());
        }
    }
}

/// The service, called as one tenant.
#[derive(Clone, Copy)]
pub struct Tenant<'a> {
    service: &'a Service,
    id: &'a str,
}

impl Tenant<'_> {
    pub async fn call(&self, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let mut request = self.service.request(method, path).header("X-Tenant-Id", self.id);
        if let Some(body) = body {
            request = request.json(&body);
        }
        answer(request).await
    }

    /// `POST /session`, which must succeed.
    pub async fn open(&self) -> Value {
        let (status, body) = self.call(Method::POST, "/session", None).await;
        assert_eq!(status, 200, "{body}");
        body
    }

    pub async fn status(&self) -> Value {
        let (status, body) = self.call(Method::GET, "/status", None).await;
        assert_eq!(status, 200, "{body}");
        body
    }

    pub async fn until_state(&self, state: &str) -> Value {
        self.until(&format!("state {state}"), |status| status["state"] == state).await
    }

    /// Waits until the status is as wanted, and returns it.
    pub async fn until(&self, what: &str, wanted: impl FnMut(&Value) -> bool) -> Value {
        let (last, wanted) = (Mutex::new(Value::Null), Mutex::new(wanted));
        let what = format!("{what} for tenant {}", self.id);
        eventually_or(
            &what,
            || last.lock().unwrap().to_string(),
            || async {
                let status = self.status().await;
                *last.lock().unwrap() = status.clone();
                let enough = (wanted.lock().unwrap())(&status);
                enough.then_some(status)
            },
        )
        .await
    }

    pub async fn send(&self, to: &str, message: &str) -> (StatusCode, Value) {
        self.call(Method::POST, "/send", Some(json!({"to": to, "message": message}))).await
    }

    /// Waits until a message has come so far, and returns its fate.
    pub async fn until_fate(&self, id: &Value, status: &str) -> Value {
        let path = format!("/messages/{}", id.as_str().expect("an id"));
        let last = Mutex::new(Value::Null);
        eventually_or(
            &format!("a message that is {status}"),
            || last.lock().unwrap().to_string(),
            || async {
                let (_, fate) = self.call(Method::GET, &path, None).await;
                *last.lock().unwrap() = fate.clone();
                (fate["status"] == status).then_some(fate)
            },
        )
        .await
    }

    /// Its events, in order.
    pub async fn events(&self) -> Vec<Value> {
        let (mut events, mut after) = (Vec::new(), json!(0));
        while !after.is_null() {
            let (status, mut page) = self.call(Method::GET, &format!("/events?limit=1000&after={after}"), None).await;
            assert_eq!(status, 200, "{page}");
            after = page["nextAfter"].take();
            events.extend(page["events"].as_array().expect("events").iter().cloned());
        }
        events
    }

    /// What its events of one type tell, in order.
    pub async fn told(&self, kind: &str) -> Vec<Value> {
        let events = self.events().await.into_iter();
        events.filter(|event| event["type"] == kind).map(|mut event| event["data"].take()).collect()
    }

    /// Waits until its events of one type tell what is wanted.
    pub async fn until_told(&self, kind: &str, wanted: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let last = Mutex::new(Vec::new());
        eventually_or(
            &format!("events of the type {kind} for tenant {}", self.id),
            || json!(*last.lock().unwrap()).to_string(),
            || async {
                let told = self.told(kind).await;
                *last.lock().unwrap() = told.clone();
                wanted(&told).then_some(told)
            },
        )
        .await
    }

    /// What a path holds, which must be there.
    pub async fn get(&self, path: &str) -> Value {
        let (status, body) = self.call(Method::GET, path, None).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    /// Has a message accepted without waiting for it, and returns the answer.
    pub async fn queue(&self, to: &str, message: &str) -> Value {
        let (status, body) = self.call(Method::POST, "/send?wait=0", Some(json!({"to": to, "message": message}))).await;
        assert_eq!(status, 202, "{body}");
        body
    }

    /// Sends, and waits until the other phone has it. Whether it is told before that that the server has it, too, is
    /// open: the acknowledgement and the receipt come by different ways.
    pub async fn deliver(&self, to: &str, message: &str) -> Value {
        let sent = self.send_ok(to, message).await;
        self.until_fate(&sent["id"], "delivered").await
    }

    /// Sends, which must succeed, and returns the answer.
    pub async fn send_ok(&self, to: &str, message: &str) -> Value {
        let (status, body) = self.send(to, message).await;
        assert_eq!(status, 200, "{body}");
        body
    }
}

/// A client for HTTP. The service's way out brings TLS into this build, which then wants to be told whose arithmetic and
/// whose certificates to use; nothing here is reached by TLS.
pub fn http() -> reqwest::Client {
    let tls = rustls::ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("ring has them")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    // The service ends connections that were idle for long: they must not be used just then.
    let idle = Duration::from_secs(5);
    reqwest::Client::builder().tls_backend_preconfigured(tls).pool_idle_timeout(idle).build().expect("an HTTP client")
}

pub async fn answer(request: reqwest::RequestBuilder) -> (StatusCode, Value) {
    let response = request.send().await.expect("the service answers");
    let (status, kind) = (response.status(), response.headers().get("content-type").cloned());
    assert_eq!(kind.expect("a content type"), "application/json");
    (status, response.json().await.expect("JSON"))
}

/// Tries until there is a result; waits for a condition, never for a time.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, attempt: impl FnMut() -> F) -> T {
    eventually_or(what, || String::from("nothing"), attempt).await
}

async fn eventually_or<T, F: Future<Output = Option<T>>>(
    what: &str,
    seen: impl Fn() -> String,
    mut attempt: impl FnMut() -> F,
) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(result) = attempt().await {
            return result;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}; last seen: {}", seen());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn boxed(stream: impl std::io::Read + Send + 'static) -> Box<dyn std::io::Read + Send> {
    Box::new(stream)
}
