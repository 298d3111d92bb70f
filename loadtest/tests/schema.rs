//! The documented form of a report is the form of a real one.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::path::Path;

use muhurdar_loadtest::{driver::Mode, report};
use serde_json::Value;

use self::common::Bench;

/// The keys that a pipeline builds on.
const PROMISED: &[&str] = &[
    "/offered_per_s",
    "/achieved_per_s",
    "/sealed",
    "/errors",
    "/missed_sends",
    "/latency_us/p50",
    "/latency_us/p90",
    "/latency_us/p99",
    "/latency_us/p999",
    "/latency_us/max",
    "/service_us/p50",
    "/service_us/p90",
    "/service_us/p99",
    "/service_us/p999",
    "/service_us/max",
    "/verified",
    "/verify_failures",
    "/ceiling/sign_per_s",
    "/ratio_to_ceiling",
    "/server/cpu_us_per_seal",
    "/server/token_cpu_us_per_seal",
    "/server/rss_bytes",
    "/valid",
];

/// The schema, and every object in it closed: a field that nobody documented is found.
fn closed(mut schema: Value) -> Value {
    fn close(value: &mut Value) {
        match value {
            Value::Object(object) => {
                if object.contains_key("properties") {
                    object.insert("additionalProperties".into(), false.into());
                }
                object.values_mut().for_each(close);
            }
            Value::Array(array) => array.iter_mut().for_each(close),
            _ => {}
        }
    }
    close(&mut schema);
    schema
}

fn faults(report: &Value) -> Vec<String> {
    let schema = closed(serde_json::from_str(&report::schema()).unwrap());
    let validator = jsonschema::validator_for(&schema).unwrap();
    validator
        .iter_errors(report)
        .map(|fault| format!("{}: {fault}", fault.instance_path()))
        .collect()
}

#[test]
fn the_schema_in_the_documentation_is_the_programs_own() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/report.schema.json");
    let documented = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        documented == report::schema(),
        "docs/report.schema.json is not what the program writes: muhurdar-loadtest schema > docs/report.schema.json"
    );
}

#[test]
fn a_real_report_has_the_documented_form_and_every_promised_key() {
    let report: Value = serde_json::from_str(include_str!("data/report.json")).unwrap();
    assert_eq!(faults(&report), Vec::<String>::new());
    for key in PROMISED {
        assert!(report.pointer(key).is_some_and(|value| !value.is_null()), "{key}");
    }
}

#[test]
fn reports_of_this_build_have_the_documented_form() {
    for plan in ["constant:200", "closed:4", "steps:100..200/100"] {
        let bench = Bench::new();
        let mut order = bench.order(Mode::Unary, plan, 0.3);
        order.actions = vec!["100ms=true".parse().unwrap()];
        bench.server().behaviour.refuse_every(7);
        let report = serde_json::to_value(common::run(order)).unwrap();
        assert_eq!(faults(&report), Vec::<String>::new(), "{plan}");
        assert!(!report["failures"].as_array().unwrap().is_empty());
    }
}

#[test]
fn what_is_not_a_report_is_told_from_one() {
    let good: Value = serde_json::from_str(include_str!("data/report.json")).unwrap();
    for (key, value) in [
        ("sealed", Value::from("many")),
        ("valid", Value::Null),
        ("colour", Value::from(1)),
    ] {
        let mut bad = good.clone();
        bad[key] = value;
        assert!(!faults(&bad).is_empty(), "{key}");
    }
}
