//! `muhurdar check`: is the configuration valid, and is every token reachable and fit?

mod qualification;

use std::path::PathBuf;

use clap::Args;
use jiff::{SignedDuration, Timestamp};
use muhurdar_pool::{Latches, Measure, OpenError, Pool, SlotState, Status, TokenConfig, Weight};
use muhurdar_xades::certificate::printable;
use serde::Serialize;

use self::qualification::Qualification;
use super::{Failure, exit};
use crate::{
    config::Config,
    credentials,
    seals::Seals,
    server::{self, check_tls},
    telemetry, tokens,
};

/// Certificates that end sooner than this are pointed out: Kamu SM reminds at three months, a new seal takes weeks.
const EXPIRY_WARNING_DAYS: i64 = 90;

/// `muhurdar check --config FILE [--json] [--measure DURATION]`
#[derive(Debug, Args)]
#[command(
    after_help = "It logs in to every token, looks at its mechanisms and keys, and signs for real. It exits with 0 where everything is fit, with 1 \
                        where something falls short."
)]
pub(super) struct Check {
    /// The configuration
    #[arg(long, value_name = "FILE", env = "MUHURDAR_CONFIG")]
    config: PathBuf,
    /// A JSON object on standard output
    #[arg(long)]
    json: bool,
    /// How long to measure the signing rate at 1, 2, 4 … sessions, for each; it takes that much from whoever else uses the token. 0s: not at all
    #[arg(long, value_name = "DURATION", default_value = "500ms")]
    measure: SignedDuration,
    /// Most sessions to measure with; without it as many as are configured
    #[arg(long, value_name = "N")]
    sessions: Option<usize>,
}

/// What was found.
#[derive(Debug, Serialize)]
struct Report {
    ok: bool,
    config: PathBuf,
    tokens: Vec<TokenReport>,
    seals: Vec<SealReport>,
    problems: Vec<String>,
    warnings: Vec<String>,
}

#[derive(Debug, Serialize)]
struct TokenReport {
    name: String,
    module: PathBuf,
    ready: bool,
    state: String,
    label: Option<String>,
    serial: Option<String>,
    model: Option<String>,
    sessions: usize,
    sessions_set_by: String,
    keys: usize,
    qualification: Option<Qualification>,
}

#[derive(Debug, Serialize)]
struct SealReport {
    taxpayer: String,
    title: String,
    key_type: &'static str,
    certificate_serial_number: String,
    not_after: Timestamp,
    days_left: i64,
    usable: bool,
}

impl Check {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let config = Config::load(&self.config).map_err(Failure::usage)?;
        telemetry::start_log(&config.log, "error").map_err(Failure::usage)?;
        tokens::set_environment(&config).map_err(Failure::unavailable)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| Failure::io("runtime", &e))?;
        let report = runtime.block_on(self.examine(&config));
        self.print(&report)?;
        if report.ok {
            Ok(())
        } else {
            Err(Failure::silent(exit::FAILED))
        }
    }

    async fn examine(&self, config: &Config) -> Report {
        let mut report = Report {
            ok: false,
            config: self.config.clone(),
            tokens: Vec::new(),
            seals: Vec::new(),
            problems: Vec::new(),
            warnings: Vec::new(),
        };
        if let Err(error) = check_tls(&config.server.tls) {
            report.problems.push(error.to_string());
        }
        report.problems.extend(telemetry::audit_problem(&config.log));
        report.warnings.extend(server::warnings(config));
        report.warnings.extend(config.open_secrets());
        if config.clients.is_empty() {
            report.warnings.push("no [[client]]: nobody may call".to_owned());
        }
        match tokens::pool_config(config) {
            Err(error) => report.problems.push(error.to_string()),
            Ok(tokens) => match Pool::open(tokens.clone()).await {
                Err(error) => report.problems.push(error.to_string()),
                Ok(pool) => {
                    let latches = tokens::latches(config);
                    report.tokens(&pool.status(), &pool, &latches);
                    report.seals(config, &pool);
                    pool.close().await;
                    // Only what the pool could log in to: no PIN is tried twice.
                    for token in &tokens.tokens {
                        self.qualify(token, &latches, &mut report);
                    }
                }
            },
        }
        report.ok = report.problems.is_empty();
        report
    }

    fn qualify(&self, token: &TokenConfig, latches: &Latches, report: &mut Report) {
        let Some(entry) = report.tokens.iter_mut().find(|t| t.ready && t.name == token.name) else {
            return;
        };
        let measure = Measure {
            sessions: self.sessions.unwrap_or(entry.sessions),
            each: self.measure.unsigned_abs(),
        };
        match muhurdar_pool::qualify(token, latches, measure) {
            Err(error) => report.problems.push(error.to_string()),
            Ok(found) => {
                for finding in &found.findings {
                    let text = format!("token {}: {}", token.name, finding.text);
                    match finding.weight {
                        Weight::Fails => report.problems.push(text),
                        Weight::Warns => report.warnings.push(text),
                    }
                }
                entry.qualification = Some(Qualification::new(&found));
            }
        }
    }

    fn print(&self, report: &Report) -> Result<(), Failure> {
        if self.json {
            let text = serde_json::to_string_pretty(report).map_err(|e| Failure::new(exit::SOFTWARE, e))?;
            println!("{text}");
            return Ok(());
        }
        for token in &report.tokens {
            println!(
                "token {:<12} {:<8} {} keys, {} sessions ({}), {}",
                token.name,
                token.state,
                token.keys,
                token.sessions,
                token.sessions_set_by,
                token.model.as_deref().unwrap_or("model unknown"),
            );
            if let Some(qualification) = &token.qualification {
                print!("{qualification}");
            }
        }
        for seal in &report.seals {
            println!(
                "seal  {:<12} {:<8} {} days left, serial {}, {}",
                seal.taxpayer, seal.key_type, seal.days_left, seal.certificate_serial_number, seal.title
            );
        }
        for warning in &report.warnings {
            println!("warning: {warning}");
        }
        for problem in &report.problems {
            println!("problem: {problem}");
        }
        println!("{}: {}", self.config.display(), if report.ok { "ok" } else { "NOT ok" });
        Ok(())
    }
}

impl Report {
    fn tokens(&mut self, status: &Status, pool: &Pool, latches: &Latches) {
        let keys = pool.keys();
        for token in &status.tokens {
            let state = match &token.state {
                SlotState::Ready => "ready".to_owned(),
                SlotState::Recovering { .. } => "recovering".to_owned(),
                SlotState::Open { .. } => "down".to_owned(),
                SlotState::Latched { reason } => {
                    let latched = OpenError::Latched {
                        token: token.name.to_string(),
                        reason: reason.clone(),
                        way_back: latches.way_back(&token.name),
                    };
                    self.problems.push(latched.to_string());
                    "latched".to_owned()
                }
            };
            if !token.is_ready() {
                let why = token
                    .last_error
                    .as_ref()
                    .map_or_else(|| "no reason known".to_owned(), |(e, _)| e.to_string());
                self.problems
                    .push(format!("token {} cannot sign: {state}, {why}", token.name));
            }
            let held = keys.iter().filter(|k| k.tokens.contains(&token.name)).count();
            if held == 0 {
                self.warnings
                    .push(format!("token {} holds no key that can sign", token.name));
            }
            let facts = token.facts.as_ref();
            self.tokens.push(TokenReport {
                name: token.name.to_string(),
                module: token.module.clone(),
                ready: token.is_ready(),
                state,
                label: facts.map(|f| printable(&f.label)),
                serial: facts.map(|f| printable(&f.serial)),
                model: facts.map(|f| printable(format!("{} {}", f.manufacturer, f.model).trim())),
                sessions: token.cap.sessions,
                sessions_set_by: token.cap.reason.clone(),
                keys: held,
                qualification: None,
            });
        }
    }

    fn seals(&mut self, config: &Config, pool: &Pool) {
        let extra = match config.sealing.certificates.as_deref().map(credentials::folder) {
            None => Vec::new(),
            Some(Ok(found)) => {
                self.warnings.extend(found.passed_over);
                found.certificates
            }
            Some(Err(error)) => {
                self.problems.push(error.to_string());
                Vec::new()
            }
        };
        let now = Timestamp::now();
        let days_until = |end: Option<Timestamp>| end.map_or(0, |end| end.duration_since(now).as_hours() / 24);
        let seals = Seals::new(&pool.keys(), &extra);
        for seal in seals.all_at(now) {
            let certificate = &seal.certificate;
            let days_left = days_until(Some(certificate.not_after()));
            let usable = seal.usable(now);
            match &usable {
                Err(refusal) => self.warnings.push(refusal.to_string()),
                Ok(()) if days_until(seals.until(&seal.taxpayer, now)) < EXPIRY_WARNING_DAYS => {
                    self.warnings.push(format!(
                        "the certificate of taxpayer {} ends in {days_left} days; order its successor now",
                        seal.taxpayer
                    ));
                }
                Ok(()) => {}
            }
            self.seals.push(SealReport {
                taxpayer: seal.taxpayer.to_string(),
                title: certificate.title().to_owned(),
                key_type: certificate.key_type().name(),
                certificate_serial_number: certificate.serial_decimal().to_owned(),
                not_after: certificate.not_after(),
                days_left,
                usable: usable.is_ok(),
            });
        }
        if self.seals.is_empty() {
            self.warnings
                .push("no token holds a seal: a key with a certificate whose subject has a VKN or TCKN".to_owned());
        }
    }
}
