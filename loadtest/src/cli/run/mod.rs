//! `muhurdar-loadtest run`: from the command line to the report. `args` is what may be asked, `order` what is to be done,
//! `hands` what faults are done with, `folder` what a folder of `muhurdar dev` knows of its service.

mod args;
mod folder;
mod hands;
mod order;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

pub(super) use self::args::Args;
use super::Exit;
use crate::{
    criteria::Criteria,
    driver::DriveError,
    report::{self, Report},
    run::{self, RunError},
    screen::Screen,
    slo, verify,
};

pub(super) fn run(args: &Args) -> Result<(), Exit> {
    let screen = Screen::new(args.quiet);
    let (json, out) = (args.json, args.out.clone());
    let mut order = order::order(args)?;
    // From here on: the service that was started for the run ends with it.
    order.hands = hands::hands(args, &order)?;
    let order = order;
    let found = match &args.slo {
        Some(criteria) => slo::search(&order, criteria, args.duration, args.warmup, args.concurrency, &screen),
        None => run::run(&order, &screen),
    };
    let (report, latency) = found.map_err(|error| match error {
        RunError::Drive(DriveError::Connect(error)) => Exit::unavailable(error),
        RunError::Drive(DriveError::Interrupted) => Exit::interrupted(),
        RunError::Drive(DriveError::Target(error)) => Exit::usage(error),
        RunError::Drive(error @ DriveError::Certificate(..)) => Exit::usage(error),
        RunError::NoVerifier => Exit::unavailable(verify::missing()),
        other => Exit::unavailable(other),
    })?;
    let written = match &out {
        Some(folder) => Some(
            report::write(&report, &latency, folder)
                .map_err(|error| Exit::failed(format!("cannot write the report into {}: {error}", folder.display())))?,
        ),
        None => None,
    };
    if json {
        println!("{}", serde_json::to_string_pretty(&report).map_err(Exit::failed)?);
    } else {
        print!("{}", report::table(&report, written.as_ref()));
    }
    verdict(&report, args.fail_unless.as_ref())
}

/// Exit 1 where the figures are not valid, a criterion is broken, or no rate holds the objective.
fn verdict(report: &Report, criteria: Option<&Criteria>) -> Result<(), Exit> {
    if !report.valid {
        return Err(Exit::failed(format!(
            "the run is not valid: {}",
            report.problems.join("; ")
        )));
    }
    if let Some(slo) = report.slo.as_ref().filter(|slo| slo.holds_per_s.is_none()) {
        let doubts = slo.doubts.iter().map(|doubt| format!("; {doubt}")).collect::<String>();
        return Err(Exit::failed(format!(
            "no rate that was tried holds {}{doubts}",
            slo.asked
        )));
    }
    let broken = criteria.map(|criteria| criteria.broken(report)).unwrap_or_default();
    if broken.is_empty() {
        Ok(())
    } else {
        Err(Exit::failed(broken.join("; ")))
    }
}

/// True once SIGINT or SIGTERM came.
fn interrupted() -> Arc<AtomicBool> {
    let flag = Arc::new(AtomicBool::new(false));
    let set = flag.clone();
    // A thread of its own, so that a signal is heard whatever the run is busy with. A second one ends the process at once.
    let _ = std::thread::Builder::new().name("signals".into()).spawn(move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
            return;
        };
        runtime.block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            let (Ok(mut int), Ok(mut term)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) else {
                return;
            };
            for first in [true, false] {
                tokio::select! { _ = int.recv() => {}, _ = term.recv() => {} }
                if first {
                    set.store(true, Ordering::Relaxed);
                } else {
                    muhurdar_pool::exit::now(130);
                }
            }
        });
    });
    flag
}
