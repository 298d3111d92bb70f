//! `muhurdar-loadtest compare` on reports that are made up: what it says, and its exit code.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::process::{Command, Output};

use muhurdar_loadtest::report::Report;

struct Reports(tempfile::TempDir);

impl Reports {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Writes a real report, without the faults of its day, changed in what a test is about.
    fn write(&self, name: &str, change: impl FnOnce(&mut Report)) {
        let mut report: Report = serde_json::from_str(include_str!("data/report.json")).unwrap();
        name.clone_into(&mut report.started_at);
        report.errors.clear();
        report.failures.clear();
        change(&mut report);
        let text = serde_json::to_string(&report).unwrap();
        std::fs::write(self.0.path().join(name), text).unwrap();
    }

    fn compare(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_muhurdar-loadtest"))
            .arg("compare")
            .args(arguments)
            .current_dir(self.0.path())
            .output()
            .unwrap();
        let said = [stdout, stderr].concat();
        (status.code(), String::from_utf8(said).unwrap())
    }
}

#[test]
fn a_run_of_which_a_part_failed_is_worse_than_one_of_which_none_did() {
    let reports = Reports::new();
    reports.write("good", |report| report.sealed = 800);
    reports.write("bad", |report| {
        report.sealed = 780;
        report.errors.insert("UNAVAILABLE".into(), 20);
    });
    let (code, said) = reports.compare(&["good", "bad"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("B failed in 20 of 800 (2.50 %) requests, A in none of 800: worse, beyond what chance explains")
            && said.contains("B is worse: failures"),
        "{said}"
    );
    let (code, said) = reports.compare(&["bad", "good"]);
    assert!(code == Some(0) && said.contains("better, beyond"), "{said}");
}

#[test]
fn one_run_each_is_not_called_the_same_and_three_may_be() {
    let reports = Reports::new();
    for name in ["a1", "a2", "a3", "b1", "b2", "b3"] {
        reports.write(name, |_| {});
    }
    let (code, said) = reports.compare(&["a1", "b1"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains("same") && said.contains("not known: 3 a side"), "{said}");
    let more = ["--more-a", "a2", "--more-a", "a3", "--more-b", "b2", "--more-b", "b3"];
    let (code, said) = reports.compare(&[&["a1", "b1"][..], &more].concat());
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("same, within noise") && !said.contains("not known"),
        "{said}"
    );

    let (code, said) = reports.compare(&["a1", "b1", "--more-a", "a1"]);
    assert!(
        code == Some(64) && said.contains("has already"),
        "one run is not two: {said}"
    );
}

#[test]
fn runs_that_are_unlike_get_no_verdict_unless_it_is_meant() {
    let reports = Reports::new();
    reports.write("a", |_| {});
    reports.write("b", |report| {
        report.workload.size = "260k".into();
        report.series.sealed.iter_mut().for_each(|sealed| *sealed /= 4);
    });
    let (code, said) = reports.compare(&["a", "b"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("unlike: size: season and 260k") && said.contains("--differ size") && !said.contains("WORSE"),
        "{said}"
    );
    let (code, said) = reports.compare(&["a", "b", "--differ", "machine,size"]);
    assert!(
        code == Some(1) && said.contains("WORSE") && said.contains("as was meant"),
        "{said}"
    );

    reports.write("c", |report| report.workload.size = "10k".into());
    let (code, said) = reports.compare(&["a", "b", "--differ", "size", "--more-b", "c"]);
    assert!(code == Some(1) && said.contains("the runs of B are unlike"), "{said}");
}

#[test]
fn a_run_that_is_not_valid_says_nothing() {
    let reports = Reports::new();
    reports.write("a", |_| {});
    reports.write("b", |report| {
        report.valid = false;
        report
            .problems
            .push("the generator waited 57 % of the time for a CPU".into());
    });
    let (code, said) = reports.compare(&["a", "b"]);
    assert!(
        code == Some(1) && said.contains("B is not valid, and says nothing: the generator waited 57 %"),
        "{said}"
    );
}
