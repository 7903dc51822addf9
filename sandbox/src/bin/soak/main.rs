//! The proof that the service can go on and on: no message lost or doubled, no session stuck, no memory that only grows.
//!
//! A simulated WhatsApp runs in this process, the service in one of its own. Messages trickle both ways, and WhatsApp
//! misbehaves. At the end the phones, the fates and the logs of events must agree, and the service must use what it
//! used at the beginning.
//!
//! ```sh
//! cargo build --release -p sandbox
//! cargo run --release -p sandbox --bin soak -- --sessions 500 --minutes 60 --seed 1 --json
//! ```

mod ledger;
mod load;
mod run;
mod verdict;
mod watch;
mod weather;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, atomic::Ordering::Relaxed};
use std::time::{Duration, Instant};

use clap::Parser;
use rand::RngExt as _;
use sandbox::api::Api;
use sandbox::report::Report;
use sandbox::service::{Program, Service, lasting_port, sandbox_program};
use sandbox::setup;
use sandbox::usage::Usage;
use serde_json::json;
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};
use whatsapp_simulator::{Config, Simulator};

use crate::run::{Plan, Run, lock};
use crate::verdict::Outgoing;
use crate::watch::{Growth, Seen};

/// Seconds that the service waits for an acknowledgement before it answers 202.
const SEND_TIMEOUT: u64 = 5;

/// In a shorter run the memory is still finding its level: it is told, and not judged.
const JUDGED_FROM: Duration = Duration::from_secs(20 * 60);

/// Keeps sessions of many tenants for a long time, with messages both ways and faults, and checks that no message is
/// lost, no session stays stuck, and memory, descriptors and threads do not grow.
///
/// Exits with 0 only if that holds. A table goes to standard error. The seed decides who writes to whom and which
/// faults follow on each other; it does not decide the timing.
#[derive(Parser)]
struct Options {
    /// How many tenants, each with a session.
    #[arg(long, default_value_t = 500)]
    sessions: usize,

    /// How long messages and faults go on; fractions are allowed.
    #[arg(long, default_value_t = 60.0)]
    minutes: f64,

    /// What the run is drawn from. Without it, a random one; it is printed.
    #[arg(long)]
    seed: Option<u64>,

    /// Messages a second that are handed in, over all tenants.
    #[arg(long, default_value_t = 10.0)]
    out_per_second: f64,

    /// Messages a second that phones write to the tenants.
    #[arg(long, default_value_t = 5.0)]
    in_per_second: f64,

    /// How often the service is killed with -9 meanwhile. With kills the memory is not judged.
    #[arg(long, default_value_t = 0)]
    kills: usize,

    /// Let WhatsApp behave.
    #[arg(long)]
    no_faults: bool,

    /// How many percent the memory may grow.
    #[arg(long, default_value_t = 5.0)]
    growth: f64,

    /// Seconds after the last fault by which every session is ready, and then by which every message is settled. A
    /// session that failed again and again waits up to a minute between two dials.
    #[arg(long, default_value_t = 180)]
    settle: u64,

    /// Write what the service's process uses to this file, a line of JSON every 10 seconds.
    #[arg(long)]
    series: Option<PathBuf>,

    /// The `sandbox` program. Without it, the one beside this program.
    #[arg(long)]
    service_binary: Option<PathBuf>,

    /// Print all figures as one JSON object on standard output.
    #[arg(long)]
    json: bool,

    /// Leave the service's data and log where they are.
    #[arg(long)]
    keep_data: bool,
}

/// What is known only at the end.
#[derive(Default)]
struct Results {
    before: Option<Usage>,
    after: Option<Usage>,
    growth: Option<Growth>,
    seconds_to_ready: Option<u64>,
    outgoing: Outgoing,
    received: usize,
}

#[tokio::main]
async fn main() -> ExitCode {
    match soak(Options::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("soak: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether everything holds. An error is one from before the run.
async fn soak(options: Options) -> anyhow::Result<bool> {
    anyhow::ensure!(options.sessions > 0, "there must be a session");
    let rates = (options.out_per_second, options.in_per_second);
    anyhow::ensure!([rates.0, rates.1].iter().all(|rate| (0.1..=1_000.0).contains(rate)), "rates are 0.1 to 1000");
    let lasting = Duration::try_from_secs_f64(options.minutes * 60.0)?;
    let seed = options.seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
    eprintln!("seed {seed} (the timing does not follow from it)");
    let binary = sandbox_program(options.service_binary.clone())?;
    let mut folder = TempDir::with_prefix("soak-")?;
    folder.disable_cleanup(options.keep_data);
    let simulator = Simulator::bind("127.0.0.1:0".parse()?, Config::default()).await?;
    let whatsapp = simulator.ws_url();
    let port = lasting_port()?;
    let run = Run::new(Plan::new(seed, options.sessions, lasting, rates)?, Api::new(port)?, simulator);
    setup::add_accounts(&run.simulator, &run.plan.recipients, &run.plan.tenants)?;
    let env = vec![("WHATSAPP_URL", whatsapp), ("SEND_TIMEOUT", SEND_TIMEOUT.to_string())];
    let mut service = Service::start(Program { binary, port, folder: folder.path().into(), env })?;
    run.process.store(service.id(), Relaxed);

    let (begun, results, seen) = (Instant::now(), Mutex::default(), Mutex::default());
    let (mut terminated, mut interrupted) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        done = course(&run, &options, &mut service, &results, &seen) => if let Err(error) = done {
            run.violations.add("broken_off", format!("while {}: {error:#}", run.phase()));
        },
        Err(error) = watch::look(&run, &seen, options.series.as_deref()) => {
            run.violations.add("broken_off", format!("{error:#}"));
        }
        _ = terminated.recv() => run.violations.add("broken_off", "a SIGTERM came"),
        _ = interrupted.recv() => run.violations.add("broken_off", "a SIGINT came"),
    }
    report(&run, &options, begun, &lock(&results), &lock(&seen)).print(&run.violations, options.json);
    if options.keep_data {
        eprintln!("the service's data and log are in {}", folder.path().display());
    }
    Ok(run.violations.count() == 0)
}

/// A whole run, from the pairing to the last check, while the service stays alive.
async fn course(
    run: &Arc<Run>,
    options: &Options,
    service: &mut Service,
    results: &Mutex<Results>,
    seen: &Mutex<Seen>,
) -> anyhow::Result<()> {
    run.enter("linking the tenants");
    tokio::select! {
        paired = setup::pair_all(&run.api, run.world(), &run.plan.tenants) => paired?,
        ended = service.until_ended() => match ended? {},
    }
    let before = watch::at_rest(run).await?;
    lock(results).before = Some(before);
    let mut rng = run.plan.rng(5);
    let mut kills: Vec<_> =
        (0..options.kills).map(|_| run.plan.lasting.mul_f64(rng.random_range(0.05..0.95))).collect();
    kills.sort_unstable();
    tokio::select! {
        done = flow_and_judge(run, options, before, results, seen) => done,
        ended = watch::supervise(run, service, &kills) => match ended? {},
    }
}

async fn flow_and_judge(
    run: &Arc<Run>,
    options: &Options,
    before: Usage,
    results: &Mutex<Results>,
    seen: &Mutex<Seen>,
) -> anyhow::Result<()> {
    run.enter("sending and receiving");
    lock(seen).begun = Some(Instant::now());
    let end = tokio::time::Instant::now() + run.plan.lasting;
    let weather = async {
        if !options.no_faults {
            weather::change(run, end).await;
        }
    };
    let (mut open, written, (), ()) =
        tokio::join!(load::send(run, end), load::write(run, end), load::read(run, end), weather);
    written?;
    let growth = watch::growth(&lock(seen).samples, run.plan.lasting.as_secs_f64());

    run.enter("waiting until all is quiet");
    let limit = Duration::from_secs(options.settle);
    let seconds_to_ready = verdict::until_ready(run, limit).await?;
    lock(results).seconds_to_ready = Some(seconds_to_ready);
    let _ = tokio::time::timeout(limit, async { while open.join_next().await.is_some() {} }).await;
    verdict::until_settled(run, limit).await?;

    run.enter("checking");
    verdict::accepted_enough(run);
    let outgoing = verdict::outgoing(run).await?;
    lock(results).outgoing = outgoing;
    let received = verdict::incoming(run).await?;
    lock(results).received = received;
    let after = verdict::until_back(run, before).await?;
    lock(results).after = Some(after);
    if judges_memory(options) {
        match &growth {
            None => run.violations.add("memory", "there are too few samples"),
            Some(growth) if growth.percent > options.growth => run.violations.add("memory", format!("{growth:?}")),
            Some(_) => {}
        }
    }
    lock(results).growth = growth;
    let kills = run.counts.kills.load(Relaxed);
    if kills != options.kills {
        run.violations.add("kills", format!("{kills} instead of {}", options.kills));
    }
    let reused = run.world().totals().reused_counters;
    if reused > 0 {
        run.violations.add("counters", format!("{reused} used twice"));
    }
    run.enter("done");
    Ok(())
}

/// A killed service begins anew, and a short run does not show a level.
fn judges_memory(options: &Options) -> bool {
    options.kills == 0 && options.minutes * 60.0 >= JUDGED_FROM.as_secs_f64()
}

fn report(run: &Run, options: &Options, begun: Instant, results: &Results, seen: &Seen) -> Report {
    let (mut report, counts, outgoing) = (Report::default(), &run.counts, &results.outgoing);
    let usage = |usage: Option<Usage>| usage.map(Usage::to_json);
    report.add("seed", run.plan.seed);
    report.add("sessions", options.sessions);
    report.add("minutes", options.minutes);
    report.add("durationSeconds", begun.elapsed().as_secs());
    report.add("faults", counts.faults.load(Relaxed));
    report.add("kills", counts.kills.load(Relaxed));
    report.add("messages", run.ledger.len());
    report.add("accepted", counts.accepted.load(Relaxed));
    report.add("refused", counts.refused.load(Relaxed));
    report.add("retriedCalls", counts.retried.load(Relaxed));
    report.add("fates", json!(outgoing.fates));
    report.add("unknown", json!(outgoing.unknown));
    report.add("repeatedIds", run.of_recipients().map(|totals| totals.repeated_ids).sum::<u64>());
    report.add("askedAgain", run.of_recipients().map(|totals| totals.retry_receipts).sum::<u64>());
    report.add("orderedPairs", outgoing.pairs);
    report.add("lateAfterAskingAgain", outgoing.late);
    report.add("written", lock(&run.written).len());
    report.add("received", results.received);
    report.add("dials", run.world().totals().dials);
    report.add("secondsToReady", results.seconds_to_ready);
    report.add("longestNotReadySeconds", seen.longest.0);
    report.add("longestNotReadyTenant", seen.longest.1.clone());
    report.add("usageBefore", usage(results.before));
    report.add("usageAfter", usage(results.after));
    report.add("rssKibSettled", results.growth.as_ref().map(|growth| growth.settled_kib));
    report.add("rssKibAtEnd", results.growth.as_ref().map(|growth| growth.end_kib));
    report.add("rssGrowthPercent", results.growth.as_ref().map(|growth| growth.percent));
    report.add("memoryJudged", judges_memory(options));
    report
}
