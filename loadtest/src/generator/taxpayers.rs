//! Whose seals are asked for, and how often each.

use std::sync::Arc;

/// A taxpayer whose seal the harness asks for.
#[derive(Clone, Debug)]
pub struct Taxpayer {
    /// VKN (10 digits) or TCKN (11 digits).
    pub number: Arc<str>,
    /// Its sealing certificate, DER, where the harness knows it: every verified seal must carry this one.
    pub certificate: Option<Arc<[u8]>>,
}

impl Taxpayer {
    pub(super) fn is_person(&self) -> bool {
        self.number.len() == 11
    }
}

/// Taxpayers, the first the busiest.
#[derive(Clone, Debug)]
pub struct TaxpayerMix {
    taxpayers: Vec<Taxpayer>,
    exponent: f64,
    cumulative: Vec<f64>,
}

impl TaxpayerMix {
    /// The n-th taxpayer is asked for in proportion to 1/n^`exponent` (Zipf); an exponent of 0 treats all alike.
    /// None where there is no taxpayer, or the exponent is not a number from 0 up.
    pub fn new(taxpayers: Vec<Taxpayer>, exponent: f64) -> Option<Self> {
        if taxpayers.is_empty() || !(exponent >= 0.0 && exponent.is_finite()) {
            return None;
        }
        let weights: Vec<f64> = (1..=taxpayers.len())
            .map(|rank| (rank as f64).powf(-exponent))
            .collect();
        let total: f64 = weights.iter().sum();
        let mut upto = 0.0;
        let cumulative = weights
            .iter()
            .map(|weight| {
                upto += weight / total;
                upto
            })
            .collect();
        Some(Self {
            taxpayers,
            exponent,
            cumulative,
        })
    }

    /// Zipf's exponent.
    pub fn exponent(&self) -> f64 {
        self.exponent
    }

    /// All of them, the busiest first.
    pub fn taxpayers(&self) -> &[Taxpayer] {
        &self.taxpayers
    }

    pub(super) fn choose(&self, random: &mut fastrand::Rng) -> &Taxpayer {
        let at = random.f64();
        let index = self.cumulative.partition_point(|&upto| upto <= at);
        &self.taxpayers[index.min(self.taxpayers.len() - 1)]
    }
}
