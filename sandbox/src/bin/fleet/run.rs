//! The course of a measurement.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use sandbox::service::lasting_port;
use sandbox::usage::Usage;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::api::{Api, Phones, client};
use crate::figures::Figures;
use crate::load::{Load, Outcome, RECIPIENTS_OF_A_TENANT};
use crate::service::{Program, Service};
use crate::simulator::Simulator;
use crate::{Options, Phase, machine, pairing};

/// What was measured.
pub struct Measured {
    pub figures: Figures,
    /// Whether every session was ready, each time.
    pub all_ready: bool,
}

/// Measures, from the first start to the last end.
///
/// # Errors
/// Something that is needed for the figures does not work at all.
pub async fn run(options: &Options) -> anyhow::Result<Measured> {
    let folder = match &options.data_in {
        Some(parent) => TempDir::with_prefix_in("fleet-", parent)?,
        None => TempDir::with_prefix("fleet-")?,
    };
    let mut figures = Figures::default();
    figures.add("sessions", options.sessions);
    if let Some(binary) = &options.service_binary {
        figures.add("service_binary", binary.display().to_string());
    }
    figures.add("processes_on_this_machine", json!(["service", "simulator", "fleet"]));
    machine::describe(&mut figures, folder.path())?;
    say("starting");
    let (http, port) = (client()?, lasting_port()?);
    let root = options.tls.then(|| folder.path().join("root.pem"));
    let simulator = Simulator::start(root.as_deref()).await?;
    figures.add("tls", simulator.whatsapp.starts_with("wss:"));
    let phones = Phones::new(http.clone(), simulator.control.clone());
    let recipients: Vec<_> = (0..options.recipients).map(|n| format!("49162{n:08}")).collect();
    for phone in &recipients {
        phones.add_account(phone, "Recipient").await?;
    }
    let program = Program {
        binary: options.service_binary.clone().map_or_else(std::env::current_exe, Ok)?,
        port,
        folder: PathBuf::from(folder.path()),
        whatsapp: simulator.whatsapp.clone(),
        trust_ca: root,
    };
    let api = Api::new(http, port);
    let (service, started) = Service::start(program, api.clone()).await?;
    figures.add_number("seconds_from_start_to_health_empty", started.as_secs_f64());
    let mut run = Run { options, api, phones, recipients, simulator, service, figures, all_ready: true };
    run.measure().await?;
    Ok(Measured { figures: run.figures, all_ready: run.all_ready })
}

/// What is going on, for whoever waits.
fn say(what: &str) {
    eprintln!("fleet: {what}");
}

/// Everything that runs.
struct Run<'a> {
    options: &'a Options,
    api: Api,
    phones: Phones,
    recipients: Vec<String>,
    simulator: Simulator,
    service: Service,
    figures: Figures,
    all_ready: bool,
}

/// The processor time of all three, in seconds: service, simulator, fleet.
struct Cpu {
    at: Instant,
    seconds: [f64; 3],
}

impl Run<'_> {
    async fn measure(&mut self) -> anyhow::Result<()> {
        let empty = self.settled("kib_rss_empty").await?;
        self.pair(&empty).await?;
        if self.options.measures(Phase::Idle) {
            self.idle().await?;
        }
        if self.options.measures(Phase::Sends) {
            self.send_fast().await?;
            self.send_at_rate().await?;
        }
        self.figures.add("kib_peak", self.service.process.usage()?.peak_kib);
        if self.options.measures(Phase::Restart) {
            self.restart(&empty).await?;
        }
        self.terminate().await
    }

    /// What the service uses once its memory no longer changes. Adds its resident memory.
    async fn settled(&mut self, rss: &'static str) -> anyhow::Result<Usage> {
        let (usage, settled) = self.service.settled(Duration::from_secs(self.options.settle_seconds)).await?;
        if !settled {
            say("the service's memory still changes");
        }
        self.figures.add(rss, usage.rss_kib);
        Ok(usage)
    }

    /// A quarter of the sessions, then all: what one more costs is the slope between the two.
    async fn pair(&mut self, empty: &Usage) -> anyhow::Result<()> {
        let (all, quarter) = (self.options.sessions, self.options.sessions / 4);
        say(&format!("linking {all} sessions"));
        let mut took = Duration::ZERO;
        self.figures.add("sessions_at_a_quarter", quarter);
        took += self.pair_up_to(0, quarter).await?;
        let fewer = self.settled("kib_rss_at_a_quarter").await?;
        took += self.pair_up_to(quarter, all).await?;
        let more = self.settled("kib_rss_paired").await?;
        let slope = |of: fn(&Usage) -> u64| (of(&more) as f64 - of(&fewer) as f64) / f64::from(all - quarter);
        let descriptors = slope(|usage| usage.descriptors);
        let figures = &mut self.figures;
        figures.add_number("kib_per_session", slope(|usage| usage.rss_kib));
        figures.add_number("kib_pss_per_session", slope(|usage| usage.pss_kib));
        figures.add("kib_pss_paired", more.pss_kib);
        figures.add("kib_peak_paired", more.peak_kib);
        figures.add_number("descriptors_per_session", descriptors);
        figures.add_number("descriptors_constant", more.descriptors as f64 - descriptors * f64::from(all));
        figures.add("threads_empty", empty.threads);
        figures.add("threads_at_a_quarter", fewer.threads);
        figures.add("threads_paired", more.threads);
        figures.add_number("pairings_per_second", f64::from(all) / took.as_secs_f64());
        self.until_ready("sessions_ready").await.map(drop)
    }

    async fn pair_up_to(&self, start: u32, end: u32) -> anyhow::Result<Duration> {
        let since = Instant::now();
        pairing::pair(&self.api, &self.phones, start..end, self.options.pairing_width).await?;
        Ok(since.elapsed())
    }

    /// Waits until all sessions are ready, and adds how many are. Whether all are.
    async fn until_ready(&mut self, name: &'static str) -> anyhow::Result<bool> {
        let limit = Duration::from_secs(self.options.ready_seconds);
        let ready = self.service.until_ready(self.options.sessions, limit).await?;
        self.figures.add(name, ready);
        let all = ready == u64::from(self.options.sessions);
        self.all_ready &= all;
        Ok(all)
    }

    /// Nobody calls; what is left are keepalives.
    async fn idle(&mut self) -> anyhow::Result<()> {
        say(&format!("idle for {} s", self.options.idle_seconds));
        let before = self.cpu()?;
        tokio::time::sleep(Duration::from_secs(self.options.idle_seconds)).await;
        self.add_cpu(
            &before,
            ["percent_of_a_core_idle_service", "percent_of_a_core_idle_simulator", "percent_of_a_core_idle_fleet"],
        )?;
        Ok(())
    }

    async fn send_fast(&mut self) -> anyhow::Result<()> {
        let (callers, tenants) = (self.options.callers, self.options.tenants_sending.min(self.options.sessions));
        say(&format!("{callers} callers send as {tenants} tenants, as fast as they are answered"));
        let load = Load::new(&self.api, &self.recipients, tenants);
        let failed_before = load.warm_up(callers).await?;
        let (written, commits) = (self.service.process.written()?, self.api.commits().await?);
        let before = self.cpu()?;
        let outcome = load.as_fast_as_answered(callers, Duration::from_secs(self.options.seconds)).await?;
        let cpu = self.add_cpu(
            &before,
            ["percent_of_a_core_sends_service", "percent_of_a_core_sends_simulator", "percent_of_a_core_sends_fleet"],
        )?;
        let written = (self.service.process.written()? - written) as f64 / 1024.0;
        let commits = self.api.commits().await? - commits;
        let figures = &mut self.figures;
        figures.add("sends_callers", callers);
        figures.add("sends_tenants", tenants);
        figures.add("sends_recipients_of_a_tenant", RECIPIENTS_OF_A_TENANT.min(self.recipients.len()));
        figures.add_number("sends_per_second", outcome.sent() as f64 / outcome.lasted.as_secs_f64());
        figures.add("sends_failed_first_messages", failed_before);
        figures.add("sends_failed", outcome.failed());
        figures.add("sends_answers", answers(&outcome));
        figures.add_number("sends_milliseconds_p50", milliseconds(outcome.percentile(50.0)));
        figures.add_number("sends_milliseconds_p99", milliseconds(outcome.percentile(99.0)));
        let sent = outcome.sent().max(1) as f64;
        figures.add_number("sends_service_cpu_milliseconds_per_send", 1000.0 * cpu / sent);
        figures.add_number("sends_kib_written_per_send", written / sent);
        figures.add_number("sends_commits_per_send", commits / sent);
        Ok(())
    }

    async fn send_at_rate(&mut self) -> anyhow::Result<()> {
        let (rate, tenants) = (self.options.rate, self.options.tenants_offering.min(self.options.sessions));
        say(&format!("{rate} messages a second are offered, as {tenants} tenants"));
        let load = Load::new(&self.api, &self.recipients, tenants);
        let failed_before = load.warm_up(self.options.callers).await?;
        let before = self.cpu()?;
        let outcome = load.at_rate(rate, Duration::from_secs(self.options.seconds)).await?;
        let cpu = self.add_cpu(
            &before,
            [
                "percent_of_a_core_offered_service",
                "percent_of_a_core_offered_simulator",
                "percent_of_a_core_offered_fleet",
            ],
        )?;
        let figures = &mut self.figures;
        figures.add("offered_per_second", rate);
        figures.add("offered_tenants", tenants);
        figures.add_number("offered_acknowledged_per_second", outcome.sent() as f64 / outcome.lasted.as_secs_f64());
        figures.add("offered_failed_first_messages", failed_before);
        figures.add("offered_failed", outcome.failed());
        figures.add("offered_answers", answers(&outcome));
        figures.add_number("offered_milliseconds_p50", milliseconds(outcome.percentile(50.0)));
        figures.add_number("offered_milliseconds_p99", milliseconds(outcome.percentile(99.0)));
        figures.add_number("offered_milliseconds_max", milliseconds(outcome.percentile(100.0)));
        figures.add_number("offered_service_cpu_milliseconds_per_send", 1000.0 * cpu / outcome.sent().max(1) as f64);
        Ok(())
    }

    async fn restart(&mut self, empty: &Usage) -> anyhow::Result<()> {
        say("kill -9");
        let killed = Instant::now();
        self.service.process.kill().await?;
        let started = self.service.start_again().await?;
        self.figures.add_number("seconds_from_start_to_health_with_sessions", started.as_secs_f64());
        let all = self.until_ready("sessions_ready_after_kill").await?;
        let took = (killed.elapsed().as_secs_f64() * 1000.0).round() / 1000.0;
        self.figures.add("seconds_from_kill_to_all_ready", all.then_some(took));
        let usage = self.settled("kib_rss_after_kill").await?;
        self.figures.add("kib_peak_after_kill", usage.peak_kib);
        let grown = usage.rss_kib as f64 - empty.rss_kib as f64;
        self.figures.add_number("kib_per_session_after_kill", grown / f64::from(self.options.sessions));
        Ok(())
    }

    async fn terminate(&mut self) -> anyhow::Result<()> {
        say("SIGTERM");
        let since = Instant::now();
        let status = self.service.process.terminate().await?;
        self.figures.add_number("seconds_to_terminate", since.elapsed().as_secs_f64());
        anyhow::ensure!(status.success(), "the service ended with {status} after a SIGTERM");
        Ok(())
    }

    fn cpu(&self) -> anyhow::Result<Cpu> {
        let (service, simulator) = (self.service.process.usage()?, self.simulator.process.usage()?);
        let fleet = Usage::of(std::process::id())?;
        Ok(Cpu { at: Instant::now(), seconds: [service, simulator, fleet].map(|usage| usage.cpu_seconds) })
    }

    /// Adds how much of one core each process has used, and returns the service's processor time, in seconds.
    fn add_cpu(&mut self, before: &Cpu, names: [&'static str; 3]) -> anyhow::Result<f64> {
        let after = self.cpu()?;
        let passed = (after.at - before.at).as_secs_f64();
        let used = [0, 1, 2].map(|process| after.seconds[process] - before.seconds[process]);
        for (name, used) in names.into_iter().zip(used) {
            self.figures.add_number(name, 100.0 * used / passed);
        }
        Ok(used[0])
    }
}

/// How many answers had which status, as an object.
fn answers(outcome: &Outcome) -> Value {
    outcome.answers.iter().map(|(status, count)| (status.to_string(), Value::from(*count))).collect()
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
