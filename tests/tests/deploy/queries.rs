//! Queries in PromQL against what a service exports: are its metrics, labels and values there, and what of the labels is
//! left where it is shown? Comes in: the text of queries, and of `/metrics`. Goes out: complaints.

use std::collections::{BTreeMap, BTreeSet};

use rusty_promql_parser::{
    Aggregation, BinaryExpr, BinaryOp, Call, Expr, GroupSide, GroupingAction, VectorMatchingOp, VectorSelector,
};

/// A query, and the labels that what it finds is shown with.
#[derive(Debug)]
pub(crate) struct Query {
    place: String,
    /// As Prometheus reads it.
    pub(crate) text: String,
    shows: Vec<String>,
}

impl Query {
    /// `shows` is a legend of Grafana's (`{{token}}`) or a template of Prometheus' (`{{ $labels.token }}`).
    pub(crate) fn new(place: &str, text: &str, shows: &str) -> Self {
        let labels = shows.split("{{").skip(1).filter_map(|rest| {
            let inside = rest.split_once("}}")?.0.trim();
            let label = inside.strip_prefix("$labels.").unwrap_or(inside);
            (!label.starts_with('$')).then(|| label.split([' ', '|']).next().unwrap_or_default().to_owned())
        });
        Self {
            place: place.to_owned(),
            // What Grafana puts in: any time, and any appliance.
            text: text.replace("$__rate_interval", "5m").replace("$instance", ".*"),
            shows: labels.collect(),
        }
    }

    pub(crate) fn check(&self, exported: &Exported) -> Vec<String> {
        let mut check = Check {
            exported,
            complaints: Vec::new(),
        };
        match rusty_promql_parser::expr(&self.text) {
            Ok((rest, expr)) if rest.trim().is_empty() => {
                let labels = check.labels(&expr).unwrap_or_default();
                for label in self.shows.iter().filter(|l| !labels.contains(*l)) {
                    check
                        .complaints
                        .push(format!("shows {label}, which it has aggregated away or never had"));
                }
            }
            other => check.complaints.push(format!("not PromQL: {other:?}")),
        }
        let at = |complaint: String| format!("{}: {complaint}\n    {}", self.place, self.text);
        check.complaints.into_iter().map(at).collect()
    }
}

type Labels = BTreeSet<String>;

/// What Prometheus adds to every series of a target.
const OF_THE_TARGET: [&str; 2] = ["job", "instance"];

/// The series that the service exports: metric, label, values.
#[derive(Debug)]
pub(crate) struct Exported(BTreeMap<String, BTreeMap<String, BTreeSet<String>>>);

impl Exported {
    pub(crate) fn read(metrics: &str) -> Self {
        let mut found: BTreeMap<_, BTreeMap<_, BTreeSet<_>>> = BTreeMap::new();
        for line in metrics.lines().filter(|l| !l.starts_with('#')) {
            // A series is written as the selector that finds it.
            let series = line.rsplit_once(' ').unwrap().0;
            let Ok(("", Expr::VectorSelector(series))) = rusty_promql_parser::expr(series) else {
                panic!("no series: {line}");
            };
            let labels = found.entry(series.name.unwrap()).or_default();
            for label in series.matchers {
                labels.entry(label.name).or_default().insert(label.value);
            }
        }
        // Prometheus' own, for each target.
        found.insert("up".to_owned(), BTreeMap::new());
        Self(found)
    }
}

/// Follows the labels through a query.
#[derive(Debug)]
struct Check<'a> {
    exported: &'a Exported,
    complaints: Vec<String>,
}

impl Check<'_> {
    /// The labels of what an expression finds; none of a number.
    fn labels(&mut self, expr: &Expr) -> Option<Labels> {
        match expr {
            Expr::Number(_) | Expr::String(_) => None,
            Expr::VectorSelector(selector) => Some(self.selector(selector)),
            Expr::MatrixSelector(range) => Some(self.selector(&range.selector)),
            Expr::Call(call) => self.call(call),
            Expr::Aggregation(aggregation) => self.aggregation(aggregation),
            Expr::Binary(binary) => self.binary(binary),
            Expr::Unary(unary) => self.labels(&unary.expr),
            Expr::Paren(inner) => self.labels(inner),
            Expr::Subquery(inner) => self.labels(&inner.expr),
        }
    }

    fn selector(&mut self, selector: &VectorSelector) -> Labels {
        let name = selector.name.as_deref().unwrap_or_default();
        let Some(own) = self.exported.0.get(name) else {
            self.complaints.push(format!("{name}: no such metric"));
            return OF_THE_TARGET.map(str::to_owned).into();
        };
        for asked in selector.matchers.iter().filter(|m| !OF_THE_TARGET.contains(&&*m.name)) {
            let Some(values) = own.get(&asked.name) else {
                self.complaints.push(format!("{name} has no label {}", asked.name));
                continue;
            };
            // Of the regular expressions only alternatives are known here.
            for value in asked.value.split('|').filter(|value| !values.contains(*value)) {
                self.complaints
                    .push(format!("{name}: {} is never {value:?}", asked.name));
            }
        }
        own.keys().cloned().chain(OF_THE_TARGET.map(str::to_owned)).collect()
    }

    fn call(&mut self, call: &Call) -> Option<Labels> {
        let labels = call
            .args
            .iter()
            .filter_map(|argument| self.labels(argument))
            .reduce(|a, b| &a | &b);
        match (&*call.name, labels) {
            ("histogram_quantile", Some(mut labels)) => {
                if !labels.remove("le") {
                    self.complaints.push("histogram_quantile over no le".to_owned());
                }
                Some(labels)
            }
            ("rate" | "increase" | "changes" | "resets" | "time", labels) => labels,
            // Of what is not there nothing is known but what was asked for.
            ("absent", _) => Some(Labels::new()),
            (other, _) => {
                self.complaints
                    .push(format!("what {other} does to labels this test has to learn"));
                None
            }
        }
    }

    fn aggregation(&mut self, aggregation: &Aggregation) -> Option<Labels> {
        let inner = self.labels(&aggregation.expr).unwrap_or_default();
        let Some(grouping) = &aggregation.grouping else {
            return Some(Labels::new());
        };
        for label in grouping.labels.iter().filter(|l| !inner.contains(*l)) {
            self.complaints.push(format!("by ({label}), which is not there"));
        }
        let named = grouping.labels.iter().cloned().collect();
        Some(match grouping.action {
            GroupingAction::By => named,
            GroupingAction::Without => &inner - &named,
        })
    }

    fn binary(&mut self, binary: &BinaryExpr) -> Option<Labels> {
        let (left, right) = match (self.labels(&binary.lhs), self.labels(&binary.rhs)) {
            (Some(left), Some(right)) => (left, right),
            (left, right) => return left.or(right),
        };
        let matching = binary.modifier.as_ref().and_then(|m| m.matching.as_ref());
        let named: Labels = matching.map(|m| m.labels.iter().cloned().collect()).unwrap_or_default();
        let on = matching.is_some_and(|m| m.op == VectorMatchingOp::On);
        if on {
            for label in named.iter().filter(|l| !left.contains(*l) || !right.contains(*l)) {
                self.complaints
                    .push(format!("on ({label}): {label} is not on both sides"));
            }
        }
        let key = |side: &Labels| if on { named.clone() } else { side - &named };
        if binary.op != BinaryOp::Or && key(&left) != key(&right) {
            self.complaints.push(format!("{left:?} and {right:?} never match"));
        }
        let group = matching.and_then(|m| m.group.as_ref());
        let brought: Labels = group.map(|g| g.labels.iter().cloned().collect()).unwrap_or_default();
        Some(match (binary.op, group.map(|g| g.side)) {
            (BinaryOp::Or, _) => &left | &right,
            (BinaryOp::And | BinaryOp::Unless, _) => left,
            (_, Some(GroupSide::Left)) => &left | &brought,
            (_, Some(GroupSide::Right)) => &right | &brought,
            (_, None) => key(&left),
        })
    }
}

#[test]
fn a_query_for_what_is_not_there_is_noticed() {
    let exported = Exported::read(
        "# HELP muhurdar_lanes Lanes\n\
         muhurdar_lanes{token=\"a\",state=\"lost\"} 0\n\
         muhurdar_lane_cap{token=\"a\",reason=\"b\"} 8\n\
         muhurdar_stage_seconds_bucket{stage=\"sign\",le=\"+Inf\"} 1\n",
    );
    let complaints = |text: &str, shows: &str| Query::new("", text, shows).check(&exported);
    for (text, shows) in [
        ("sum by (token) (muhurdar_lanes{state=\"lost\"})", "{{token}}"),
        (
            "rate(muhurdar_lanes[5m]) > 0 and on (instance) up",
            "{{ $labels.token }} {{ $value }}",
        ),
        (
            "muhurdar_lanes / on (token) group_left (reason) muhurdar_lane_cap",
            "{{state}} {{reason}}",
        ),
        (
            "histogram_quantile(0.9, sum by (le) (muhurdar_stage_seconds_bucket))",
            "",
        ),
        ("absent(up{job=\"muhurdar\"})", ""),
    ] {
        assert_eq!(complaints(text, shows), [""; 0], "{text}");
    }
    for (text, shows, complaint) in [
        ("sum(rate(muhurdar_lane[5m]))", "", "muhurdar_lane: no such metric"),
        ("muhurdar_lanes{stat=\"lost\"}", "", "has no label stat"),
        ("muhurdar_lanes{state=~\"idle|lost\"}", "", "state is never \"idle\""),
        ("sum by (tokens) (muhurdar_lanes)", "", "by (tokens)"),
        ("sum by (state) (muhurdar_lanes)", "{{token}}", "shows token"),
        ("muhurdar_lanes / muhurdar_lane_cap", "", "never match"),
        (
            "muhurdar_lanes > on (state) muhurdar_lane_cap",
            "",
            "state is not on both sides",
        ),
        (
            "histogram_quantile(0.9, sum(muhurdar_stage_seconds_bucket))",
            "",
            "no le",
        ),
        ("absent(muhurdar_lane)", "", "muhurdar_lane: no such metric"),
        ("absent(muhurdar_lanes)", "{{ $labels.token }}", "shows token"),
        ("sum(muhurdar_lanes", "", "not PromQL"),
        ("muhurdar_lanes $instance", "", "not PromQL"),
    ] {
        let found = complaints(text, shows).join("; ");
        assert!(found.contains(complaint), "{text}: {found:?}");
    }
}
