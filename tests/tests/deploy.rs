//! What `deploy/` promises about other files of the tree: what a build or a cluster would only find out by failing.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use muhurdar_tests::{Branch, Builder, Output, RSA, binary, invoice, muhurdar, revoke, skipped};
use saphyr::{LoadableYamlNode as _, YamlOwned};
use serde_json::Value;

use crate::queries::{Exported, Query};

#[path = "deploy/queries.rs"]
mod queries;

fn read(path: &str) -> String {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// What stands between two texts, where both are on one line.
fn between<'a>(text: &'a str, before: &str, after: char) -> &'a str {
    let at = text.find(before).unwrap_or_else(|| panic!("no {before:?}")) + before.len();
    text[at..].split(after).next().unwrap()
}

#[test]
fn the_image_is_built_by_the_oldest_compiler_that_the_workspace_promises() {
    let promised = read("Cargo.toml");
    let promised = between(&promised, "\nrust-version = \"", '"');
    let image = read("deploy/Containerfile");
    assert_eq!(
        between(&image, "\nARG RUST_IMAGE=docker.io/library/rust:", '-'),
        promised
    );
}

#[test]
fn the_image_does_not_run_as_root_and_drains_when_it_is_stopped() {
    let text = read("deploy/Containerfile");
    let service = &text[text.find(" AS service").unwrap()..];
    let user = between(service, "\nUSER ", ':');
    assert!(
        user.parse::<u32>().is_ok_and(|id| id > 0),
        "{user}: Kubernetes takes only a number for not root"
    );
    assert_eq!(between(service, "\nSTOPSIGNAL ", '\n'), "SIGTERM");
}

#[tokio::test]
async fn every_query_of_the_dashboard_and_of_the_alerts_asks_for_what_is_exported() {
    // Bounds of a quota are exported where there are any, and the end of a revocation list where there is one.
    let ca = "client_ca = \"ca.crt\"";
    let prepared = Builder::default()
        .client("metered", "taxpayers = [\"*\"]\nquota = { in_flight = 10 }")
        .edit(ca, &format!("{ca}\ncrl = \"revoked.crl\""))
        .prepare();
    revoke(prepared.dir(), &[], &prepared.dir().join("revoked.crl"));
    let appliance = prepared.start();
    let mut client = Branch::of(&appliance, "branch-1").connect().await;
    client.seal(Branch::request(RSA, invoice(RSA, ""))).await.unwrap();
    client.seal(Branch::request(RSA, "<a")).await.unwrap_err();
    let exported = Exported::read(&appliance.get("/metrics").1);

    let (dashboard, rules) = (of_the_dashboard(), of_the_rules());
    assert!(dashboard.len() >= 40 && rules.len() >= 19, "queries were overlooked");
    let complaints: Vec<_> = dashboard
        .iter()
        .chain(&rules)
        .flat_map(|q| q.check(&exported))
        .collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

/// A counter that begins with its first event hides that event from `rate`.
#[test]
fn every_outcome_of_the_contract_is_counted_from_the_start() {
    let prepared = Builder::default().taxpayers(0).start();
    let metrics = prepared.get("/metrics").1;
    for outcome in reasons().iter().map(String::as_str).chain(["sealed"]) {
        for document in ["invoice", "unknown"] {
            let series = format!("muhurdar_seals_total{{document=\"{document}\",outcome=\"{outcome}\"}} 0\n");
            assert!(metrics.contains(&series), "no {series}");
        }
    }
    let untyped = metrics
        .lines()
        .filter(|line| line.starts_with("# TYPE") && line.contains("_total "));
    let wrong: Vec<_> = untyped.filter(|line| !line.ends_with(" counter")).collect();
    assert!(wrong.is_empty(), "what is called a total is a counter: {wrong:?}");
}

/// Prometheus' own parser knows types of arguments too, and is what will read them.
#[test]
fn prometheus_takes_every_query_of_the_dashboard() {
    let beside = binary("muhurdar").with_file_name("../prometheus/usr/bin/promtool");
    let promtool = if beside.exists() {
        beside
    } else {
        PathBuf::from("promtool")
    };
    if Command::new(&promtool).arg("--version").output().is_err() {
        skipped("there is no promtool here (apt-get install prometheus)");
        return;
    }
    let rules: Vec<_> = of_the_dashboard()
        .iter()
        .enumerate()
        .map(|(number, query)| serde_json::json!({"record": format!("dashboard:{number}"), "expr": query.text}))
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queries.yaml");
    // JSON is YAML.
    let file = serde_json::json!({"groups": [{"name": "dashboard", "rules": rules}]});
    fs::write(&path, file.to_string()).unwrap();
    let output = Output::of(Command::new(promtool).args(["check", "rules"]).arg(&path));
    assert!(output.status.success(), "{}", output.text);
}

#[test]
fn the_dashboard_can_be_provisioned_beside_others() {
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/muhurdar.json")).unwrap();
    assert_eq!(
        (&dashboard["uid"], &dashboard["id"]),
        (&"muhurdar".into(), &Value::Null)
    );
    assert_eq!(
        dashboard["__inputs"],
        Value::Null,
        "an input is asked for at an import, and never at provisioning"
    );
    let mut sources = Vec::new();
    everywhere(&dashboard, "datasource", &mut sources);
    assert!(sources.len() > 40);
    for source in sources {
        assert_eq!(
            source["uid"], "${datasource}",
            "a data source of somebody else's Grafana"
        );
    }
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<_> = panels.iter().map(|p| p["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "two panels with one id");
}

/// A key that the service does not know would be found by the operator who copied it.
#[test]
fn every_token_in_the_notes_on_hsms_is_one_that_the_service_understands() {
    let notes = read("docs/hsm.md");
    let blocks: Vec<_> = notes
        .split("\n```toml\n")
        .skip(1)
        .filter_map(|b| b.split("\n```").next())
        .collect();
    assert!(blocks.len() >= 7, "{blocks:?}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("muhurdar.toml");
    let tls = "[server.tls]\ncertificate = \"none\"\nkey = \"none\"\nclient_ca = \"none\"\n";
    for block in blocks {
        fs::write(&path, format!("{tls}{block}\n")).unwrap();
        let output = muhurdar(&["check", "--config", path.to_str().unwrap()]);
        // Nothing of it is there, so it is not fit; but it was understood.
        assert_eq!(output.status.code(), Some(1), "{block}\n{}", output.text);
    }
}

/// Every value under this key.
fn everywhere<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a Value>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get(key));
            fields.values().for_each(|v| everywhere(v, key, found));
        }
        Value::Array(items) => items.iter().for_each(|v| everywhere(v, key, found)),
        _ => {}
    }
}

fn of_the_dashboard() -> Vec<Query> {
    fn walk(value: &Value, place: &str, found: &mut Vec<Query>) {
        let text = |key: &str| value[key].as_str();
        let place = text("title").or(text("name")).unwrap_or(place);
        if let Some(expr) = text("expr") {
            let shows = text("legendFormat").or(text("titleFormat")).unwrap_or_default();
            found.push(Query::new(place, expr, shows));
        }
        if let Some((metric, label)) =
            text("query").and_then(|q| q.strip_prefix("label_values(")?.strip_suffix(')')?.split_once(','))
        {
            found.push(Query::new(place, metric, &format!("{{{{{}}}}}", label.trim())));
        }
        match value {
            Value::Object(fields) => fields.values().for_each(|v| walk(v, place, found)),
            Value::Array(items) => items.iter().for_each(|v| walk(v, place, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    walk(
        &serde_json::from_str(&read("deploy/grafana/muhurdar.json")).unwrap(),
        "",
        &mut found,
    );
    found
}

fn of_the_rules() -> Vec<Query> {
    let file = YamlOwned::load_from_str(&read("deploy/prometheus/muhurdar.rules.yaml")).unwrap();
    let groups = file[0]["groups"].as_vec().unwrap();
    let rules = groups.iter().flat_map(|group| group["rules"].as_vec().unwrap());
    rules
        .map(|rule| {
            let annotation = |key: &str| rule["annotations"][key].as_str().unwrap();
            let shows = format!("{} {}", annotation("summary"), annotation("action"));
            Query::new(rule["alert"].as_str().unwrap(), rule["expr"].as_str().unwrap(), &shows)
        })
        .collect()
}

/// The reasons of the proto, but for those of what no service here can do yet.
fn reasons() -> Vec<String> {
    const TO_COME: [&str; 3] = ["LEDGER_UNAVAILABLE", "TIMESTAMP_UNAVAILABLE", "PREFLIGHT"];
    let proto = read("proto/muhurdar/seal/v1/reason.proto");
    let values = proto.lines().filter_map(|line| line.trim().strip_prefix("REASON_"));
    let names = values.filter_map(|value| value.split_once(" = ")).map(|(name, _)| name);
    let found: Vec<_> = names
        .filter(|name| *name != "UNSPECIFIED" && !TO_COME.contains(name))
        .collect();
    assert!(found.len() >= 20, "{found:?}");
    found.into_iter().map(str::to_owned).collect()
}
