//! A webhook's receiver in this process: it records what comes, and misbehaves on demand.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Instant,
};

use axum::{
    Router,
    body::Bytes,
    http::{HeaderMap, StatusCode, Uri, header::LOCATION},
    response::{IntoResponse, Response},
};
use serde_json::Value;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

use crate::harness::eventually;

/// What the receiver says to a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    Status(u16),
    /// This status, and the way to another place.
    Redirect(u16, String),
    /// Nothing, until [`Receiver::answer`] says otherwise.
    Nothing,
}

/// One request.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub at: Instant,
    /// Path and query.
    pub target: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// What it was answered; `None` while it waits.
    pub status: Option<u16>,
}

impl Delivery {
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).unwrap_or_else(|| panic!("no {name} in {:?}", self.headers));
        value.to_str().expect("a readable header")
    }

    pub fn event(&self) -> Value {
        serde_json::from_slice(&self.body).expect("an event")
    }

    fn was_taken(&self) -> bool {
        self.status.is_some_and(|status| (200..300).contains(&status))
    }
}

/// A running receiver. It ends with the test's runtime, or at [`Receiver::stop`].
pub struct Receiver {
    address: SocketAddr,
    records: Arc<Mutex<Vec<Delivery>>>,
    script: Arc<Mutex<VecDeque<Answer>>>,
    /// What is answered when the script is at its end; `None` ends everything.
    usual: watch::Sender<Option<Answer>>,
    serving: JoinHandle<()>,
}

impl Receiver {
    /// One that takes everything.
    pub async fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap()).await
    }

    pub async fn start_at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let records = Arc::new(Mutex::new(Vec::new()));
        let script = Arc::new(Mutex::new(VecDeque::new()));
        let usual = watch::Sender::new(Some(Answer::Status(204)));
        let (noted, next, says, mut end) = (records.clone(), script.clone(), usual.clone(), usual.subscribe());
        let handler = async move |uri: Uri, headers: HeaderMap, body: Bytes| {
            let index = {
                let mut noted = noted.lock().unwrap();
                noted.push(Delivery { at: Instant::now(), target: uri.to_string(), headers, body, status: None });
                noted.len() - 1
            };
            let scripted = next.lock().unwrap().pop_front();
            let answer = match scripted {
                None | Some(Answer::Nothing) => until_said(&says).await,
                Some(answer) => answer,
            };
            let response = response(answer);
            noted.lock().unwrap()[index].status = Some(response.status().as_u16());
            response
        };
        let ended = async move {
            let _ = end.wait_for(Option::is_none).await;
        };
        let app = Router::new().fallback(handler);
        let serving = tokio::spawn(async move {
            axum::serve(listener, app).with_graceful_shutdown(ended).await.expect("it serves");
        });
        Self { address, records, script, usual, serving }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// What it says from now on, also to those that it has left waiting.
    pub fn answer(&self, answer: Answer) {
        self.usual.send_replace(Some(answer));
    }

    /// What it says next, one after the other, before its usual answer.
    pub fn answer_first(&self, answers: impl IntoIterator<Item = Answer>) {
        self.script.lock().unwrap().extend(answers);
    }

    /// Every request so far.
    pub fn deliveries(&self) -> Vec<Delivery> {
        self.records.lock().unwrap().clone()
    }

    /// What it has taken so far, repeats included.
    pub fn taken(&self) -> Vec<Value> {
        self.deliveries().iter().filter(|delivery| delivery.was_taken()).map(Delivery::event).collect()
    }

    /// Waits until it has got this many requests.
    pub async fn until_asked(&self, times: usize) -> Vec<Delivery> {
        eventually(&format!("{times} requests at the receiver"), || async {
            let deliveries = self.deliveries();
            (deliveries.len() >= times).then_some(deliveries)
        })
        .await
    }

    /// Waits until what it has taken is as wanted.
    pub async fn until_taken(&self, what: &str, wanted: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        eventually(&format!("{what} at the receiver"), || async {
            let taken = self.taken();
            wanted(&taken).then_some(taken)
        })
        .await
    }

    /// Ends it: whoever comes to its address now is refused.
    pub async fn stop(self) -> SocketAddr {
        self.usual.send_replace(None);
        self.serving.await.expect("it ends");
        self.address
    }
}

async fn until_said(usual: &watch::Sender<Option<Answer>>) -> Answer {
    let mut usual = usual.subscribe();
    let said = usual.wait_for(|answer| *answer != Some(Answer::Nothing)).await.expect("the sender is here");
    said.clone().unwrap_or(Answer::Status(503))
}

fn response(answer: Answer) -> Response {
    let status = |code| StatusCode::from_u16(code).expect("a status");
    match answer {
        Answer::Status(code) => status(code).into_response(),
        Answer::Redirect(code, to) => (status(code), [(LOCATION, to)]).into_response(),
        Answer::Nothing => unreachable!("it is waited for"),
    }
}
