//! What a search for an objective found, as the report has it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What `--slo` asked and found.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Slo {
    /// As it was written.
    pub asked: String,
    /// Highest rate that held it, by agreement of its tries; none where none did.
    pub holds_per_s: Option<f64>,
    /// No try failed up to this rate; none where even the lowest did.
    #[serde(default)]
    pub from_per_s: Option<f64>,
    /// No try held from this rate on; none where even the highest did.
    #[serde(default)]
    pub to_per_s: Option<f64>,
    /// How sure that is, in words: the tries at the two edges, and how far they agree.
    #[serde(default)]
    pub sure: String,
    /// What speaks against the answer.
    #[serde(default)]
    pub doubts: Vec<String>,
    /// What a closed loop reached before the search.
    #[serde(default)]
    pub closed_loop_per_s: Option<f64>,
    /// What the tries of each rate said, ascending.
    #[serde(default)]
    pub rates: Vec<SloRate>,
    /// Each try, in order.
    pub tried: Vec<SloTrial>,
}

/// The tries of one rate.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SloRate {
    /// Offered rate.
    pub rate_per_s: f64,
    /// Tries that held.
    pub held: usize,
    /// Tries that did not.
    pub failed: usize,
    /// Tries that say nothing of the service: their runs were not valid.
    pub untold: usize,
}

/// One try of the search.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SloTrial {
    /// Offered rate.
    pub rate_per_s: f64,
    /// Achieved rate.
    pub achieved_per_s: f64,
    /// 99 % of the latencies.
    pub p99_us: u64,
    /// Share of failures and missed sends.
    pub errors: f64,
    /// Whether it held.
    pub held: bool,
    /// False where the run was not valid, and says nothing of the service.
    #[serde(default = "told")]
    pub told: bool,
    /// What did not hold, or why it says nothing.
    pub why: String,
}

/// Before there was a word for it, every try counted.
fn told() -> bool {
    true
}
