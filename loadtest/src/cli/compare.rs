//! `muhurdar-loadtest compare A.json B.json`.

use std::path::{Path, PathBuf};

use super::Exit;
use crate::{
    compare::{self, Verdict},
    report::{Report, SCHEMA},
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// report.json of the run to compare with
    a: PathBuf,
    /// report.json of the run to judge
    b: PathBuf,
    /// Differences below this many percent are none
    #[arg(long, value_name = "PERCENT", default_value_t = 2.0)]
    matters: f64,
}

pub(super) fn run(args: &Args) -> Result<(), Exit> {
    let (a, b) = (read(&args.a)?, read(&args.b)?);
    for (name, report) in [("A", &a), ("B", &b)] {
        if !report.valid {
            return Err(Exit::failed(format!(
                "{name} is not valid, and says nothing: {}",
                report.problems.join("; ")
            )));
        }
    }
    for (what, a, b) in [
        ("size", &a.workload.size, &b.workload.size),
        ("mode", &a.workload.mode, &b.workload.mode),
        ("latency loop", &a.latency_loop, &b.latency_loop),
        ("machine", &a.machine.cpu, &b.machine.cpu),
    ] {
        if a != b {
            println!("    note: not the same {what}: {a} and {b}");
        }
    }
    println!("    {:<28}{:>12}{:>12}{:>10}{:>10}", "", "A", "B", "change", "noise");
    let lines = compare::compare(&a, &b, args.matters / 100.0);
    for line in &lines {
        let verdict = match line.verdict {
            Verdict::Better => "better",
            Verdict::Worse => "WORSE",
            Verdict::Same => "same, within noise",
        };
        let noise = if line.noise.is_finite() {
            format!("±{:.1} %", line.noise * 100.0)
        } else {
            "unknown".to_owned()
        };
        println!(
            "    {:<28}{:>12.2}{:>12.2}{:>+9.1} %{noise:>10}  {verdict}",
            line.name,
            line.a,
            line.b,
            line.change * 100.0
        );
    }
    let worse: Vec<&str> = lines
        .iter()
        .filter(|l| l.verdict == Verdict::Worse)
        .map(|l| l.name)
        .collect();
    if worse.is_empty() {
        Ok(())
    } else {
        Err(Exit::failed(format!("B is worse: {}", worse.join(", "))))
    }
}

fn read(path: &Path) -> Result<Report, Exit> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Exit::usage(format!("cannot read {}: {error}", path.display())))?;
    let report: Report = serde_json::from_str(&text)
        .map_err(|error| Exit::usage(format!("{} is not a report.json: {error}", path.display())))?;
    if report.schema == SCHEMA {
        Ok(report)
    } else {
        Err(Exit::usage(format!(
            "{} is of schema {}, this program reads {SCHEMA}",
            path.display(),
            report.schema
        )))
    }
}
