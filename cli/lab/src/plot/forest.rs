//! Ratios with their intervals, a row for each case, on a logarithmic scale: how many times as much the others take.

use super::svg::{Anchor, Svg, width_of};
use super::{COLOURS, Size};
use crate::statistics::Ratio;

/// What to draw.
#[derive(Debug, Clone, Default)]
pub struct Forest {
    /// Title.
    pub title: String,
    /// Label of the axis.
    pub label: String,
    /// Names of what is compared.
    pub series: Vec<String>,
    /// Cases with a ratio per series.
    pub rows: Vec<(String, Vec<Option<Ratio>>)>,
}

/// Height of a row.
const ROW: f64 = 30.0;

impl Forest {
    /// The picture for a page that has the style.
    #[must_use]
    pub fn draw(&self) -> String {
        let top = 66.0;
        let size = Size { width: 880.0, height: top + ROW * self.rows.len() as f64 + 48.0 };
        let mut svg = Svg::new(size, &self.title);
        svg.text("title", (8.0, 20.0), Anchor::Start, &self.title);
        let mut at = 8.0;
        for (colour, name) in self.series.iter().enumerate() {
            svg.circle(&format!("f{}", (colour + 1) % COLOURS), (at + 6.0, 40.0), 4.5);
            svg.text("key", (at + 16.0, 44.0), Anchor::Start, name);
            at += width_of(name) + 36.0;
        }
        let ratios = || self.rows.iter().flat_map(|(_, ratios)| ratios.iter().flatten());
        let low = ratios().map(|ratio| ratio.low).fold(1.0, f64::min).max(0.01);
        let high = ratios().map(|ratio| ratio.high).fold(2.0, f64::max);
        let ticks = ticks(low, high);
        let left = self.rows.iter().map(|(name, _)| width_of(name)).fold(0.0, f64::max) + 24.0;
        let (first, last) = (ticks.first().copied().unwrap_or(1.0), ticks.last().copied().unwrap_or(10.0));
        let x = |ratio: f64| left + (ratio / first).ln() / (last / first).ln() * (size.width - 36.0 - left);
        let bottom = size.height - 44.0;
        for tick in &ticks {
            svg.line(if *tick == 1.0 { "axis" } else { "grid" }, (x(*tick), top - 8.0), (x(*tick), bottom));
            svg.text("", (x(*tick), bottom + 16.0), Anchor::Middle, format!("{tick}×"));
        }
        svg.text("", ((left + size.width) / 2.0, size.height - 8.0), Anchor::Middle, &self.label);
        for (row, (name, ratios)) in self.rows.iter().enumerate() {
            let middle = top + ROW * (row as f64 + 0.5) - 6.0;
            svg.text("key", (left - 14.0, middle + 4.0), Anchor::End, name);
            for (colour, ratio) in
                ratios.iter().enumerate().filter_map(|(colour, ratio)| Some((colour, (*ratio)?)))
            {
                let y = middle + (colour as f64 - (ratios.len() - 1) as f64 / 2.0) * 6.0;
                let colour = (colour + 1) % COLOURS;
                svg.line(&format!("error s{colour}"), (x(ratio.low.max(first)), y), (x(ratio.high), y));
                svg.circle(&format!("f{colour}"), (x(ratio.ratio.max(first)), y), 4.5);
            }
        }
        svg.finish()
    }
}

/// 1, 2, 5 and their tenfolds from one below `low` to one above `high`.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    let all: Vec<f64> =
        (-2..4).flat_map(|power| [1.0, 2.0, 5.0].map(|lead| lead * 10_f64.powi(power))).collect();
    let all: Vec<f64> = all.into_iter().map(|tick| (tick * 1000.0).round() / 1000.0).collect();
    let first = all.iter().rposition(|tick| *tick <= low).unwrap_or(0);
    let last = all.iter().position(|tick| *tick >= high).unwrap_or(all.len() - 1);
    all[first..=last].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_on_a_logarithmic_scale() {
        let ratio = |ratio: f64| Some(Ratio { ratio, low: ratio * 0.9, high: ratio * 1.1 });
        let forest = Forest {
            title: "engines".to_owned(),
            label: "times".to_owned(),
            series: vec!["dockerd".to_owned(), "podman".to_owned()],
            rows: vec![
                ("run".to_owned(), vec![ratio(9.0), ratio(20.0)]),
                ("exec".to_owned(), vec![ratio(3.0), None]),
            ],
        };
        let svg = forest.draw();
        for wanted in [">1×<", ">10×<", ">50×<", ">run<", ">podman<"] {
            assert!(svg.contains(wanted), "{wanted} is missing in {svg}");
        }
        assert_eq!(svg.matches("<circle").count(), 5);
        assert_eq!(ticks(0.8, 4.0), [0.5, 1.0, 2.0, 5.0]);
    }
}
