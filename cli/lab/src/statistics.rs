//! What repetitions say together.

use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, StudentsT};

/// What a sample of equal measurements says.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// How many.
    pub count: usize,
    /// Mean.
    pub mean: f64,
    /// Standard deviation of the sample (divided by n - 1); `None` of one value.
    pub deviation: Option<f64>,
    /// Half the width of the 95 % confidence interval of the mean, by Student's t; `None` of one value.
    pub confidence: Option<f64>,
    /// Middle value.
    pub median: f64,
    /// Smallest.
    pub min: f64,
    /// Largest.
    pub max: f64,
}

/// Sums a sample up; `None` of nothing.
#[must_use]
pub fn summarize(values: &[f64]) -> Option<Summary> {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    let (min, max) = (*sorted.first()?, *sorted.last()?);
    let count = sorted.len();
    let mean = sorted.iter().sum::<f64>() / count as f64;
    let deviation = (count > 1).then(|| {
        let squares: f64 = sorted.iter().map(|value| (value - mean).powi(2)).sum();
        (squares / (count - 1) as f64).sqrt()
    });
    let confidence = deviation.map(|deviation| t_95(count - 1) * deviation / (count as f64).sqrt());
    Some(Summary { count, mean, deviation, confidence, median: quantile(&sorted, 0.5), min, max })
}

/// The two-sided 95 % quantile of Student's t with this many degrees of freedom.
fn t_95(freedom: usize) -> f64 {
    // The distribution exists for every positive number of degrees.
    StudentsT::new(0.0, 1.0, freedom.max(1) as f64).map_or(f64::NAN, |t| t.inverse_cdf(0.975))
}

/// The value below which `part` of a sorted sample lies, between neighbours by interpolation.
#[must_use]
pub fn quantile(sorted: &[f64], part: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let place = part.clamp(0.0, 1.0) * last as f64;
    let below = place.floor() as usize;
    let above = (below + 1).min(last);
    sorted[below] + (sorted[above] - sorted[below]) * (place - below as f64)
}

/// The ratio of two medians, with its 95 % confidence interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    /// Median over median.
    pub ratio: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// How often the bootstrap draws.
const DRAWS: usize = 4000;

/// The ratio of the medians of two samples. The interval is the percentile bootstrap's: times are skewed, and nothing is
/// assumed about their distribution. `None` if a sample is empty or the divisor is zero.
#[must_use]
pub fn ratio_of_medians(above: &[f64], below: &[f64]) -> Option<Ratio> {
    let ratio = median(above)? / median(below).filter(|median| *median != 0.0)?;
    // A fixed seed: the same recording gives the same report.
    let mut random = StdRng::seed_from_u64(1);
    let mut draw = |values: &[f64]| -> Option<f64> {
        let drawn: Vec<f64> = values.iter().map(|_| values[random.random_range(0..values.len())]).collect();
        median(&drawn)
    };
    let mut ratios: Vec<f64> = (0..DRAWS)
        .filter_map(|_| Some(draw(above)? / draw(below)?))
        .filter(|ratio| ratio.is_finite())
        .collect();
    ratios.sort_by(f64::total_cmp);
    Some(Ratio { ratio, low: quantile(&ratios, 0.025), high: quantile(&ratios, 0.975) })
}

fn median(values: &[f64]) -> Option<f64> {
    summarize(values).map(|summary| summary.median)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: f64, wanted: f64) {
        assert!((found - wanted).abs() < 5e-4, "{found} instead of {wanted}");
    }

    #[test]
    fn a_sample_is_summed_up() {
        // Values and results of the NIST handbook's form: mean 5, s = sqrt(2.5), t(4) = 2.7764.
        let summary = summarize(&[3.0, 4.0, 5.0, 6.0, 7.0]).expect("values");
        close(summary.mean, 5.0);
        close(summary.deviation.expect("several"), 1.5811);
        close(summary.confidence.expect("several"), 2.7764 * 1.5811 / 5_f64.sqrt());
        close(summary.median, 5.0);
        assert_eq!(summarize(&[]), None);
        assert_eq!(summarize(&[1.0]).and_then(|one| one.confidence), None);
    }

    #[test]
    fn students_t() {
        for (freedom, t) in [(1, 12.7062), (2, 4.3027), (9, 2.2622), (29, 2.0452), (200, 1.9719)] {
            close(t_95(freedom), t);
        }
    }

    #[test]
    fn quantiles_interpolate() {
        close(quantile(&[1.0, 2.0, 3.0, 4.0], 0.5), 2.5);
        close(quantile(&[1.0, 2.0], 1.0), 2.0);
    }

    #[test]
    fn a_ratio_has_an_interval_around_it() {
        let slow: Vec<f64> = (0..20).map(|n| 30.0 + f64::from(n % 5)).collect();
        let fast: Vec<f64> = (0..20).map(|n| 10.0 + f64::from(n % 3)).collect();
        let ratio = ratio_of_medians(&slow, &fast).expect("values");
        close(ratio.ratio, 32.0 / 11.0);
        assert!(ratio.low < ratio.ratio && ratio.ratio < ratio.high && ratio.low > 2.0, "{ratio:?}");
        assert_eq!(ratio_of_medians(&slow, &[]), None);
        let exact = ratio_of_medians(&[4.0; 5], &[2.0; 5]).expect("values");
        assert_eq!((exact.low, exact.high), (2.0, 2.0));
    }
}
