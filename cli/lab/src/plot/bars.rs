//! Bars side by side, in groups, with how far their values scatter.

use super::chart::{BOTTOM, Layer, RIGHT, Shape, legend};
use super::scale::Scale;
use super::svg::{Anchor, Svg, alone, width_of};
use super::{COLOURS, Size};

/// What to draw.
#[derive(Debug, Clone, Default)]
pub struct Bars {
    /// Title.
    pub title: String,
    /// Label of the vertical axis, with its unit.
    pub y_label: String,
    /// Names of the colours within a group; one alone is not shown.
    pub series: Vec<String>,
    /// Groups with their names; a bar per series.
    pub groups: Vec<(String, Vec<Option<Bar>>)>,
}

/// One bar.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bar {
    /// Its height.
    pub value: f64,
    /// How far its interval reaches below and above.
    pub error: (f64, f64),
    /// What it should be.
    pub ideal: Option<f64>,
}

impl Bars {
    /// The picture for a page that has the style.
    #[must_use]
    pub fn draw(&self, size: Size) -> String {
        let mut svg = Svg::new(size, &self.title);
        svg.text("title", (8.0, 20.0), Anchor::Start, &self.title);
        let mut top = 40.0;
        if self.series.len() > 1 {
            let layers: Vec<Layer> = (self.series.iter().enumerate())
                .map(|(colour, name)| Layer {
                    name: name.clone(),
                    colour,
                    shape: Shape::Dots,
                    points: Vec::new(),
                    shift: 0.0,
                })
                .collect();
            top = legend(&mut svg, size, top, &layers);
        }
        svg.text("", (8.0, top), Anchor::Start, &self.y_label);
        top += 12.0;
        let bars = || self.groups.iter().flat_map(|(_, bars)| bars.iter().flatten());
        // Room for the interval and the number above it; an endless interval is cut off.
        let high = bars()
            .map(|bar| (bar.value + bar.error.1.min(bar.value * 0.25)).max(bar.ideal.unwrap_or(0.0)))
            .fold(0.0, f64::max)
            * 1.06;
        let bottom = size.height - BOTTOM + 16.0;
        let y = Scale::new(0.0, high, (size.height / 70.0).round(), (bottom, top));
        let left = y.ticks().iter().map(|tick| width_of(&y.label(*tick))).fold(0.0, f64::max) + 18.0;
        let right = size.width - RIGHT;
        for tick in y.ticks() {
            svg.line(if tick == 0.0 { "axis" } else { "grid" }, (left, y.at(tick)), (right, y.at(tick)));
            svg.text("", (left - 8.0, y.at(tick) + 4.0), Anchor::End, y.label(tick));
        }
        let group_width = (right - left) / self.groups.len().max(1) as f64;
        // Names that are wider than their group stand in two rows.
        let crowded = self.groups.iter().any(|(name, _)| width_of(name) > group_width - 6.0);
        for (index, (name, bars)) in self.groups.iter().enumerate() {
            let begin = left + group_width * index as f64;
            let row = if crowded && index % 2 == 1 { 14.0 } else { 0.0 };
            svg.text("key", (begin + group_width / 2.0, bottom + 14.0 + row), Anchor::Middle, name);
            let width = (group_width * 0.7 / bars.len().max(1) as f64).min(64.0);
            let begin = begin + (group_width - width * bars.len() as f64) / 2.0;
            for (colour, bar) in bars.iter().enumerate().filter_map(|(colour, bar)| Some((colour, (*bar)?))) {
                draw(&mut svg, bar, colour, (begin + width * colour as f64, width), &y);
            }
        }
        svg.finish()
    }

    /// The picture as a file of its own.
    #[must_use]
    pub fn draw_alone(&self, size: Size) -> String {
        alone(&self.draw(size))
    }
}

fn draw(svg: &mut Svg, bar: Bar, colour: usize, (x, width): (f64, f64), y: &Scale) {
    let (top, base) = (y.at(bar.value.max(0.0)), y.at(0.0));
    let inner = width * 0.84;
    let x = x + (width - inner) / 2.0;
    svg.rect(
        &format!("f{}", colour % COLOURS),
        (x, top),
        (inner, (base - top).max(0.0)),
        &format!("{:.4}", bar.value),
    );
    let middle = x + inner / 2.0;
    if bar.error.0 > 0.0 || bar.error.1 > 0.0 {
        let (low, high) = (y.at(y.clamp(bar.value - bar.error.0)), y.at(y.clamp(bar.value + bar.error.1)));
        svg.line("axis whisker", (middle, low), (middle, high));
        for end in [low, high] {
            svg.line("axis whisker", (middle - 4.0, end), (middle + 4.0, end));
        }
    }
    if let Some(ideal) = bar.ideal {
        svg.line("ideal", (x - 4.0, y.at(ideal)), (x + inner + 4.0, y.at(ideal)));
    }
    let above = y.at(y.clamp(bar.value + bar.error.1)) - 6.0;
    svg.text("key", (middle, above), Anchor::Middle, short(bar.value));
}

/// A number in at most four significant digits.
fn short(value: f64) -> String {
    let digits = match value.abs() {
        ..1.0 => 3,
        ..10.0 => 2,
        ..100.0 => 1,
        _ => 0,
    };
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_with_a_bar_per_series() {
        let bar = |value| Some(Bar { value, error: (0.1, 0.1), ideal: Some(1.0) });
        let bars = Bars {
            title: "shares".to_owned(),
            y_label: "cores".to_owned(),
            series: vec!["berth".to_owned(), "dockerd".to_owned()],
            groups: vec![
                ("low".to_owned(), vec![bar(1.0), bar(1.1)]),
                ("high".to_owned(), vec![bar(2.0), None]),
            ],
        };
        let svg = bars.draw(Size::PANEL);
        assert_eq!(svg.matches("<rect").count(), 3, "{svg}");
        for wanted in [">berth<", ">dockerd<", ">low<", ">high<", ">1.1<"] {
            assert!(svg.contains(wanted), "{wanted} is missing");
        }
        assert!(!Bars::default().draw(Size::PANEL).contains("NaN"));
    }
}
