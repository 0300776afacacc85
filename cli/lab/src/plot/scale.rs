//! From data to pixels, with ticks where people expect them.

use crate::experiment::Unit;

/// One axis.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    /// Data at the ends.
    low: f64,
    high: f64,
    /// Pixels at the ends.
    from: f64,
    to: f64,
    step: f64,
}

impl Scale {
    /// An axis over `low` to `high`, which grows to whole ticks, of which there are about `ticks`.
    pub(super) fn new(low: f64, high: f64, ticks: f64, (from, to): (f64, f64)) -> Self {
        let (low, high) =
            if high - low > f64::EPSILON * high.abs().max(1e-12) { (low, high) } else { (low, low + 1.0) };
        let step = nice((high - low) / ticks);
        let low = (low / step + 1e-9).floor() * step;
        let high = (high / step - 1e-9).ceil() * step;
        Self { low, high, from, to, step }
    }

    /// The same without growing at its end: time ends when the run ends.
    pub(super) fn exact(low: f64, high: f64, ticks: f64, pixels: (f64, f64)) -> Self {
        let grown = Self::new(low, high, ticks, pixels);
        Self { low, high: high.max(low + grown.step * 1e-3), ..grown }
    }

    pub(super) fn at(&self, value: f64) -> f64 {
        self.from + (value - self.low) / (self.high - self.low) * (self.to - self.from)
    }

    /// The value, or the end of the axis it lies beyond.
    pub(super) fn clamp(&self, value: f64) -> f64 {
        value.clamp(self.low, self.high)
    }

    /// Values of the ticks.
    pub(super) fn ticks(&self) -> Vec<f64> {
        let first = (self.low / self.step - 1e-9).ceil() as i64;
        let last = (self.high / self.step + 1e-9).floor() as i64;
        (first..=last).map(|number| number as f64 * self.step).collect()
    }

    /// A tick as text, with as many digits as tell it from its neighbours.
    pub(super) fn label(&self, value: f64) -> String {
        let digits = (-self.step.log10().floor()).clamp(0.0, 6.0) as usize;
        let digits =
            if (self.step * 10_f64.powi(digits as i32)).fract() > 1e-6 { digits + 1 } else { digits };
        let text = format!("{value:.digits$}");
        if text.trim_start_matches('-').chars().all(|c| matches!(c, '0' | '.')) {
            "0".to_owned()
        } else {
            text
        }
    }
}

/// The next of 1, 2, 2.5, 5 times a power of ten.
fn nice(step: f64) -> f64 {
    let power = 10_f64.powf(step.log10().floor());
    let lead = step / power;
    let lead = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().find(|nice| lead <= nice + 1e-9).unwrap_or(10.0);
    lead * power
}

/// How the numbers of an axis or a table are shown: divided by a factor, with a unit.
#[derive(Debug, Clone, PartialEq)]
pub struct Quantified {
    /// What a value is divided by.
    pub divisor: f64,
    /// Unit behind that; may be empty.
    pub unit: String,
}

impl Quantified {
    /// The unit in which values up to `highest` are read best.
    #[must_use]
    pub fn of(unit: Unit, highest: f64) -> Self {
        let (divisor, unit) = match unit {
            Unit::Share => (0.01, "%"),
            Unit::Bytes => binary(highest),
            Unit::BytesPerSecond => {
                let (divisor, prefix) = binary(highest);
                return Self { divisor, unit: format!("{prefix}/s") };
            }
            other => (1.0, other.symbol()),
        };
        Self { divisor, unit: unit.to_owned() }
    }

    /// A label with the unit: `memory (MiB)`.
    #[must_use]
    pub fn label(&self, title: &str) -> String {
        if self.unit.is_empty() { title.to_owned() } else { format!("{title} ({})", self.unit) }
    }
}

fn binary(highest: f64) -> (f64, &'static str) {
    let units = [(1_073_741_824.0, "GiB"), (1_048_576.0, "MiB"), (1024.0, "KiB")];
    units.into_iter().find(|(size, _)| highest >= *size).unwrap_or((1.0, "bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_reach_over_the_data() {
        let scale = Scale::new(0.0, 1.93, 5.0, (0.0, 100.0));
        let labels: Vec<String> = scale.ticks().iter().map(|tick| scale.label(*tick)).collect();
        assert_eq!(labels, ["0", "0.5", "1.0", "1.5", "2.0"]);
        assert!((scale.at(2.0) - 100.0).abs() < 1e-9 && scale.at(0.0).abs() < 1e-9);
        let small = Scale::new(0.0, 1.0, 4.0, (0.0, 1.0));
        assert_eq!(small.label(small.ticks()[1]), "0.25");
    }

    #[test]
    fn nothing_to_show_is_no_division_by_zero() {
        let flat = Scale::new(0.0, 0.0, 5.0, (0.0, 10.0));
        assert!(flat.at(0.0).is_finite() && flat.ticks().len() > 1);
    }

    #[test]
    fn exact_scales_end_where_the_data_ends() {
        let scale = Scale::exact(0.0, 9.3, 5.0, (0.0, 93.0));
        assert!((scale.at(9.3) - 93.0).abs() < 1e-9);
        assert_eq!(scale.ticks().last().copied(), Some(8.0));
    }

    #[test]
    fn units_fit_the_values() {
        assert_eq!(Quantified::of(Unit::Bytes, 67_108_864.0).label("memory"), "memory (MiB)");
        assert_eq!(Quantified::of(Unit::BytesPerSecond, 2048.0).unit, "KiB/s");
        assert_eq!(Quantified::of(Unit::Share, 0.5).label("throttled"), "throttled (%)");
        assert_eq!(Quantified::of(Unit::Count, 3.0).label("tasks"), "tasks");
    }
}
