//! `muhurdar-loadtest compare A.json B.json`.

use std::path::{Path, PathBuf};

use super::Exit;
use crate::{
    compare::{self, Difference, Noise, Verdict, What},
    report::{Report, SCHEMA},
};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "One run a side shows differences beyond the noise within a run; that B is the same as A it cannot show, since how far runs differ by \
                  chance is not known. Three runs a side or more tell that: --more-a FILE --more-a FILE --more-b FILE --more-b FILE, made in turns. \
                  Runs that are unlike (other sizes, load, machine, token …) are not judged, exit code 1; --differ names what is meant to differ."
)]
pub(super) struct Args {
    /// report.json of the run to compare with
    a: PathBuf,
    /// report.json of the run to judge
    b: PathBuf,
    /// Another run like A. Again for each
    #[arg(long, value_name = "FILE")]
    more_a: Vec<PathBuf>,
    /// Another run like B. Again for each
    #[arg(long, value_name = "FILE")]
    more_b: Vec<PathBuf>,
    /// Differences below this many percent are none
    #[arg(long, value_name = "PERCENT", default_value_t = 2.0)]
    matters: f64,
    /// What is meant to be different between A and B, and no reason not to judge: token,machine
    #[arg(long, value_name = "WHAT,…", value_delimiter = ',')]
    differ: Vec<What>,
}

pub(super) fn run(args: &Args) -> Result<(), Exit> {
    let (a, b) = (side("A", &args.a, &args.more_a)?, side("B", &args.b, &args.more_b)?);
    for note in compare::notes(&a[0], &b[0]) {
        println!("    note: {note}");
    }
    let (meant, unlike): (Vec<Difference>, Vec<Difference>) = compare::unlike(&a[0], &b[0])
        .into_iter()
        .partition(|difference| args.differ.contains(&difference.what));
    for difference in &meant {
        println!("    differs, as was meant: {difference}");
    }
    for difference in &unlike {
        println!("    unlike: {difference}");
    }
    println!("    {:<28}{:>12}{:>12}{:>10}{:>10}", "", "A", "B", "change", "noise");
    let matters = args.matters / 100.0;
    let lines = compare::compare(&a, &b, matters);
    for line in &lines {
        let verdict = match line.verdict {
            _ if !unlike.is_empty() => "unlike: no verdict",
            Verdict::Better => "better",
            Verdict::Worse => "WORSE",
            Verdict::Same => "same, within noise",
            Verdict::NotKnown => "not known",
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
    let failures = compare::failures(&a, &b, matters);
    if unlike.is_empty() {
        println!("    failures: {}", failures.say());
        if matches!(failures.verdict, Verdict::Better | Verdict::Worse) {
            println!("    note: latencies are those of the seals; what failed has none");
        }
        if Noise::of(&a, &b) == Noise::WithinRuns {
            println!(
                "    note: the noise is that within a run. How far runs differ by chance is not known: {} a side or more tell (--more-a, --more-b)",
                compare::FEWEST
            );
        }
    }
    verdict(&unlike, &lines, failures.verdict)
}

/// Exit 1 where nothing can be said, or B is worse.
fn verdict(unlike: &[Difference], lines: &[compare::Line], failures: Verdict) -> Result<(), Exit> {
    if !unlike.is_empty() {
        let mut what: Vec<String> = unlike.iter().map(|difference| difference.what.to_string()).collect();
        what.dedup();
        let what = what.join(",");
        return Err(Exit::failed(format!(
            "A and B are unlike, and neither is better or worse: compare like with like, or say that it is meant: --differ {what}"
        )));
    }
    let worse: Vec<&str> = (failures == Verdict::Worse)
        .then_some("failures")
        .into_iter()
        .chain(lines.iter().filter(|l| l.verdict == Verdict::Worse).map(|l| l.name))
        .collect();
    if worse.is_empty() {
        Ok(())
    } else {
        Err(Exit::failed(format!("B is worse: {}", worse.join(", "))))
    }
}

/// The runs of a side, all valid and all alike.
fn side(name: &str, first: &Path, more: &[PathBuf]) -> Result<Vec<Report>, Exit> {
    let mut reports: Vec<Report> = Vec::new();
    for path in std::iter::once(first).chain(more.iter().map(PathBuf::as_path)) {
        let report = read(path)?;
        if !report.valid {
            return Err(Exit::failed(format!(
                "{name} is not valid, and says nothing: {} ({})",
                report.problems.join("; "),
                path.display()
            )));
        }
        if let Some(difference) = reports.first().and_then(|first| compare::unlike(first, &report).pop()) {
            return Err(Exit::failed(format!(
                "the runs of {name} are unlike: {difference} ({})",
                path.display()
            )));
        }
        // One run twice would be noise that nobody measured.
        if reports
            .iter()
            .any(|other| other.started_at == report.started_at && other.sealed == report.sealed)
        {
            return Err(Exit::usage(format!(
                "{} is a run that {name} has already",
                path.display()
            )));
        }
        reports.push(report);
    }
    Ok(reports)
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
