//! The proof that an accepted message is never lost, never doubled on the phone, and that its fate is told truthfully.
//!
//! A simulated WhatsApp runs in this process, the service in one of its own. While callers hand messages in, the
//! service is killed again and again, and WhatsApp and the webhook's receiver misbehave. At the end the phones, the
//! fates, the log of events and the webhook must agree.
//!
//! ```sh
//! cargo build -p sandbox && cargo run -p sandbox --bin crash-test -- --kills 30 --messages 10000 --seed 1
//! ```

mod chaos;
mod events;
mod fates;
mod inbox;
mod kills;
mod ledger;
mod load;
mod plan;
mod receiver;
mod run;
mod truth;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError, atomic::Ordering::Relaxed};
use std::time::{Duration, Instant};

use clap::Parser;
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};
use whatsapp_simulator::{Config, Simulator};

use crate::fates::Behind;
use crate::plan::Plan;
use crate::receiver::Receiver;
use crate::run::Run;
use sandbox::api::Api;
use sandbox::report::Report;
use sandbox::service::{Program, Service, lasting_port, sandbox_program};
use sandbox::setup;

/// Seconds that the service waits for an acknowledgement before it answers 202.
const SEND_TIMEOUT: u64 = 5;

/// How often the progress is printed.
const PROGRESS: Duration = Duration::from_secs(5);

/// Kills the service again and again while it sends, and checks that no message is lost, doubled or lied about.
///
/// Exits with 0 only if that holds. The numbers are one JSON object on standard output. The seed decides who writes
/// what to whom, the faults and their order, and at which progress the service is killed. It does not decide the
/// timing: which message is where at a kill differs from run to run.
#[derive(Parser)]
struct Options {
    /// How often the service is killed.
    #[arg(long, default_value_t = 30)]
    kills: usize,

    /// How many messages are handed in.
    #[arg(long, default_value_t = 10_000)]
    messages: usize,

    /// What the run is drawn from. Without it, a random one; it is printed.
    #[arg(long)]
    seed: Option<u64>,

    /// How many tenants send. There are twice as many recipients.
    #[arg(long, default_value_t = 20)]
    tenants: usize,

    /// The `sandbox` program. Without it, the one beside this program.
    #[arg(long)]
    service_binary: Option<PathBuf>,

    /// After this time the run is given up, and has failed.
    #[arg(long, default_value_t = 1_800)]
    deadline_seconds: u64,

    /// Half of the recipients' phones now and then can't read a message at first, and ask for it again. What a kill or
    /// a fault makes of the second copy is then part of the test, and no order is expected on these phones.
    #[arg(long)]
    unreadable: bool,

    /// Leave the service's data and log where they are.
    #[arg(long)]
    keep_data: bool,
}

/// What is known only at the end.
#[derive(Default)]
struct Results {
    /// From the first message to the last that is settled.
    sending: Option<Duration>,
    received: usize,
    behind: Behind,
    pairs: usize,
    late: usize,
    not_on_own_phone: usize,
}

#[tokio::main]
async fn main() -> ExitCode {
    match crash_test(Options::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("crash-test: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether everything holds. An error is one from before the run.
async fn crash_test(options: Options) -> anyhow::Result<bool> {
    let seed = options.seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
    eprintln!("seed {seed} (the timing does not follow from it)");
    let binary = sandbox_program(options.service_binary)?;
    let mut plan = Plan::draw(seed, options.kills, options.messages, options.tenants)?;
    if options.unreadable {
        plan.poor_readers = plan.recipients.len() / 2;
    }
    let mut folder = TempDir::with_prefix("crash-test-")?;
    folder.disable_cleanup(options.keep_data);
    let simulator = Simulator::bind("127.0.0.1:0".parse()?, Config::default()).await?;
    let whatsapp = simulator.ws_url();
    let port = lasting_port()?;
    let run = Run::new(plan, Api::new(port)?, simulator);
    setup::add_accounts(&run.simulator, &run.plan.recipients, &run.plan.tenants)?;
    let receiver = Receiver::start(Arc::clone(&run)).await?;
    let env = vec![
        ("WHATSAPP_URL", whatsapp),
        ("SEND_TIMEOUT", SEND_TIMEOUT.to_string()),
        ("ALLOW_PRIVATE_TARGETS", "true".into()),
        ("WEBHOOK_URL", receiver.url().into()),
        ("WEBHOOK_SECRET", receiver.secret()),
    ];
    let service = Service::start(Program { binary, port, folder: folder.path().into(), env })?;

    let (begun, results) = (Instant::now(), Mutex::default());
    let (mut terminated, mut interrupted) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        done = course(&run, &results) => if let Err(error) = done {
            run.violations.add("broken_off", format!("while {}: {error:#}", run.phase()));
        },
        Err(error) = kills::supervise(service, &run) => run.violations.add("service", format!("{error:#}")),
        () = tokio::time::sleep(Duration::from_secs(options.deadline_seconds)) => {
            run.violations.add("deadline", format!("{} s are over, while {}", options.deadline_seconds, run.phase()));
        }
        () = say_how_far(&run, begun) => {}
        _ = terminated.recv() => run.violations.add("broken_off", "a SIGTERM came"),
        _ = interrupted.recv() => run.violations.add("broken_off", "a SIGINT came"),
    }
    let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    report(&run, begun, &results).print(&run.violations, true);
    let holds = run.violations.count() == 0;
    if options.keep_data {
        eprintln!("the service's data and log are in {}", folder.path().display());
    } else if !holds {
        eprintln!("--keep-data would have kept the service's data and log");
    }
    Ok(holds)
}

/// A whole run, from the pairing to the last check.
async fn course(run: &Arc<Run>, results: &Mutex<Results>) -> anyhow::Result<()> {
    let results = || results.lock().unwrap_or_else(PoisonError::into_inner);
    run.enter("linking the tenants");
    setup::pair_all(&run.api, run.world(), &run.plan.tenants).await?;

    run.enter("sending");
    let begun = Instant::now();
    run.loading.store(true, Relaxed);
    let load = async {
        load::load(run).await;
        run.loaded.store(true, Relaxed);
    };
    let work = async { tokio::join!(chaos::write(run), chaos::read(run), load).0 };
    let written = tokio::select! {
        written = work => written?,
        () = chaos::faults(run) => anyhow::bail!("the faults ended"),
        () = fates::ask_along(run) => anyhow::bail!("the questions ended"),
    };
    run.world().clear_faults(None);

    run.enter("waiting for the last messages");
    fates::until_settled(run).await?;
    results().sending = Some(begun.elapsed());
    fates::until_delivered(run).await?;

    run.enter("checking");
    fates::check_keys(run).await?;
    let truth = truth::check(run, &written);
    {
        let mut results = results();
        (results.pairs, results.late) = (truth.pairs, truth.late);
        results.not_on_own_phone = truth.ticks.iter().filter(|ticks| ticks.is_none()).count();
    }
    fates::check_lists(run).await?;
    results().behind = fates::check(run, &truth).await?;
    results().received = events::check(run, &written).await?;
    let (kills, planned) = (run.kills.load(Relaxed), run.plan.kills.len());
    if kills != planned {
        run.violations.add("kills", format!("{kills} instead of {planned}"));
    }
    if run.reused_counters() > 0 {
        run.violations.add("counters", format!("{} used twice", run.reused_counters()));
    }
    run.enter("done");
    Ok(())
}

/// Says how far a run is, without end.
async fn say_how_far(run: &Run, begun: Instant) {
    loop {
        tokio::time::sleep(PROGRESS).await;
        eprintln!(
            "{:>4} s  {}: {} of {} accepted, {} on phones, {} settled, {} kills, {} repeats",
            begun.elapsed().as_secs(),
            run.phase(),
            run.accepted.load(Relaxed),
            run.plan.messages.len(),
            run.on_phones(),
            run.inbox.counts().settled,
            run.kills.load(Relaxed),
            run.repeats(),
        );
    }
}

fn report(run: &Run, begun: Instant, results: &Results) -> Report {
    let (mut report, webhook) = (Report::default(), run.inbox.counts());
    let accepted = run.accepted.load(Relaxed);
    let seconds = |time: Duration| (time.as_secs_f64() * 10.0).round() / 10.0;
    report.add("seed", run.plan.seed);
    report.add("kills", run.kills.load(Relaxed));
    report.add("messages", run.plan.messages.len());
    report.add("accepted", accepted);
    report.add("refused", run.refused.load(Relaxed));
    report.add("toldFailed", run.told_failed.load(Relaxed));
    report.add("durationSeconds", seconds(begun.elapsed()));
    report.add("sendingSeconds", results.sending.map(seconds));
    report.add("sendsPerSecond", results.sending.map(|time| (accepted as f64 / time.as_secs_f64()).round()));
    report.add("repeatedIds", run.repeats());
    report.add("askedAgain", run.asked_again());
    report.add("retriedCalls", run.retried.load(Relaxed));
    report.add("webhookDeliveries", webhook.deliveries);
    report.add("webhookRedeliveries", webhook.redeliveries);
    report.add("webhookFurthestBack", webhook.furthest_back);
    report.add("written", run.plan.written.len());
    report.add("received", results.received);
    report.add("orderedPairs", results.pairs);
    report.add("lateAfterAskingAgain", results.late);
    report.add("behind", results.behind.known);
    report.add("receiptsSwallowed", results.behind.unknown);
    report.add("notOnOwnPhone", results.not_on_own_phone);
    report
}
