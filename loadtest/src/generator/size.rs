//! How large documents are.

use std::{fmt, str::FromStr};

/// Where the bytes of a document beyond its bare text come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Size {
    /// About so many bytes.
    pub bytes: usize,
    /// Lines of the document instead of an embedded attachment, however large: markup everywhere.
    pub dense: bool,
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}k{}",
            self.bytes.div_ceil(1000),
            if self.dense { "-dense" } else { "" }
        )
    }
}

/// Sizes and their weights, as `--size` takes them: `10k`, `100k-dense`, `10k*70,100k*20,260k*10`, `season`.
#[derive(Clone, Debug, PartialEq)]
pub struct SizeMix {
    sizes: Vec<Size>,
    /// Running sum of the weights, scaled to end at 1.
    cumulative: Vec<f64>,
    text: String,
}

/// What a season's day looks like: till slips and bare invoices mostly, and the tail with an embedded XSLT.
const SEASON: &str = "6k*30,10k*40,16k*12,120k*8,200k*6,350k*3,600k*1";
/// Larger than any invoice seen; a ledger goes another way.
const MAX_BYTES: usize = 8_000_000;

impl SizeMix {
    pub(super) fn sizes(&self) -> &[Size] {
        &self.sizes
    }

    pub(super) fn choose(&self, random: &mut fastrand::Rng) -> usize {
        if self.sizes.len() == 1 {
            return 0;
        }
        let at = random.f64();
        self.cumulative
            .partition_point(|&upto| upto <= at)
            .min(self.sizes.len() - 1)
    }
}

impl fmt::Display for SizeMix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A size that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("'{0}' is not a size: write 10k, 100k-dense, a mix such as 10k*70,100k*20,260k*10, or season (at most 8000k)")]
pub struct SizeParseError(String);

impl FromStr for SizeMix {
    type Err = SizeParseError;

    fn from_str(text: &str) -> Result<Self, SizeParseError> {
        let error = || SizeParseError(text.to_owned());
        let spelled = if text == "season" { SEASON } else { text };
        let (mut sizes, mut weights) = (Vec::new(), Vec::new());
        for part in spelled.split(',') {
            let (size, weight) = part.split_once('*').unwrap_or((part, "1"));
            let (size, dense) = size.strip_suffix("-dense").map_or((size, false), |size| (size, true));
            let (digits, unit) = size.strip_suffix('k').map_or((size, 1), |digits| (digits, 1000));
            let bytes = digits
                .parse::<usize>()
                .ok()
                .and_then(|n| n.checked_mul(unit))
                .ok_or_else(error)?;
            let weight = weight.parse::<f64>().map_err(|_| error())?;
            if bytes > MAX_BYTES || !(weight > 0.0 && weight.is_finite()) {
                return Err(error());
            }
            sizes.push(Size { bytes, dense });
            weights.push(weight);
        }
        let total: f64 = weights.iter().sum();
        let mut upto = 0.0;
        let cumulative = weights
            .iter()
            .map(|weight| {
                upto += weight / total;
                upto
            })
            .collect();
        Ok(Self {
            sizes,
            cumulative,
            text: text.to_owned(),
        })
    }
}
