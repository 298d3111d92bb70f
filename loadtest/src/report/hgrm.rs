//! The percentile text that HdrHistogram's plotters read.

use std::fmt::Write as _;

use hdrhistogram::Histogram;

/// Values in milliseconds, as the tools expect.
pub(super) fn text(histogram: &Histogram<u64>) -> String {
    let mut out = format!(
        "{:>12} {:>14} {:>10} {:>14}\n\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    );
    for value in histogram.iter_quantiles(5) {
        let quantile = value.quantile_iterated_to();
        let _ = write!(
            out,
            "{:>12.3} {quantile:>14.12} {:>10}",
            value.value_iterated_to() as f64 / 1000.0,
            histogram.count_between(0, value.value_iterated_to())
        );
        if quantile < 1.0 {
            let _ = write!(out, " {:>14.2}", 1.0 / (1.0 - quantile));
        }
        out.push('\n');
    }
    let _ = write!(
        out,
        "#[Mean    = {:>12.3}, StdDeviation   = {:>12.3}]\n#[Max     = {:>12.3}, Total count    = {:>12}]\n",
        histogram.mean() / 1000.0,
        histogram.stdev() / 1000.0,
        histogram.max() as f64 / 1000.0,
        histogram.len()
    );
    out
}
