//! Numbers as tables show them.

use crate::experiment::{Unit, format_bytes};

/// A value with its unit.
#[must_use]
pub fn show(unit: Unit, value: f64) -> String {
    match unit {
        Unit::Bytes => format_bytes(value),
        Unit::BytesPerSecond => format!("{}/s", format_bytes(value)),
        Unit::Share => format!("{:.1} %", value * 100.0),
        Unit::Count => trimmed(value, 2),
        Unit::Cores | Unit::Ratio => format!("{value:.3}"),
        Unit::Seconds => format!("{value:.2} s"),
        Unit::Milliseconds => format!("{} ms", significant(value)),
        Unit::PerSecond => format!("{}/s", significant(value)),
    }
}

/// About four digits that say something.
pub(super) fn significant(value: f64) -> String {
    let digits = match value.abs() {
        ..0.1 => 4,
        ..1.0 => 3,
        ..100.0 => 2,
        ..1000.0 => 1,
        _ => 0,
    };
    format!("{value:.digits$}")
}

fn trimmed(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_with_their_units() {
        for (unit, value, shown) in [
            (Unit::Bytes, 67_108_864.0, "64 MiB"),
            (Unit::BytesPerSecond, 1_048_576.0, "1 MiB/s"),
            (Unit::Share, 0.5, "50.0 %"),
            (Unit::Count, 3.0, "3"),
            (Unit::Cores, 0.25, "0.250"),
            (Unit::Milliseconds, 12.345, "12.35 ms"),
            (Unit::PerSecond, 1234.5, "1234/s"),
        ] {
            assert_eq!(show(unit, value), shown);
        }
    }
}
