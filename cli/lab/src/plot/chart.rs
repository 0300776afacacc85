//! Charts with two axes: lines, steps, points, error bars.

use super::scale::Scale;
use super::svg::{Anchor, Svg, alone, width_of};
use super::{COLOURS, Size};

/// What to draw.
#[derive(Debug, Clone, Default)]
pub struct Chart {
    /// Title.
    pub title: String,
    /// Label of the horizontal axis, with its unit.
    pub x_label: String,
    /// Label of the vertical axis, with its unit.
    pub y_label: String,
    /// What is drawn, in this order.
    pub layers: Vec<Layer>,
    /// Names of places on the horizontal axis, at 0, 1, 2 …; empty if it has numbers.
    pub names: Vec<String>,
    /// Vertical lines with what happened there.
    pub events: Vec<(f64, String)>,
    /// At least this much of the vertical axis is shown.
    pub y_at_least: f64,
    /// Whether the horizontal axis ends with the data.
    pub exact: bool,
    /// Whether the layers' names are shown.
    pub legend: bool,
}

/// One series.
#[derive(Debug, Clone)]
pub struct Layer {
    /// Its name in the legend; empty is not in it.
    pub name: String,
    /// Number of its colour.
    pub colour: usize,
    /// How it is drawn.
    pub shape: Shape,
    /// Points.
    pub points: Vec<(f64, f64)>,
    /// Pixels to the right, so that equal values of two series lie beside each other.
    pub shift: f64,
}

/// How a series is drawn.
#[derive(Debug, Clone, PartialEq)]
pub enum Shape {
    /// A line from point to point.
    Line,
    /// The same, dashed.
    Dashed,
    /// A line that goes level to the next point and jumps there.
    Step,
    /// A thin dashed line without a colour: what should be.
    Ideal,
    /// The same as [`Shape::Step`].
    IdealStep,
    /// Small pale dots.
    Dots,
    /// Dots with lines that reach so far above and below them.
    Errors(Vec<f64>),
}

impl Chart {
    /// The picture for a page that has the style.
    #[must_use]
    pub fn draw(&self, size: Size) -> String {
        let mut svg = Svg::new(size, &self.title);
        let top = self.head(&mut svg, size);
        let (x, y) = self.scales(size, top);
        self.axes(&mut svg, size, top, &x, &y);
        // A name that would run into the one before goes below it.
        let (mut end, mut row) = (f64::NEG_INFINITY, 0.0);
        for (at, what) in &self.events {
            let at = x.at(*at);
            row = if at < end { row + 1.0 } else { 0.0 };
            end = at + width_of(what) + 12.0;
            svg.line("event", (at, top), (at, size.height - BOTTOM));
            svg.text("event-name", (at + 4.0, top + 10.0 + 14.0 * row), Anchor::Start, what);
        }
        for layer in &self.layers {
            draw(&mut svg, layer, &x, &y);
        }
        svg.finish()
    }

    /// The picture as a file of its own.
    #[must_use]
    pub fn draw_alone(&self, size: Size) -> String {
        alone(&self.draw(size))
    }

    /// Title, legend and the label of the vertical axis; gives where the plot itself begins.
    fn head(&self, svg: &mut Svg, size: Size) -> f64 {
        svg.text("title", (8.0, 20.0), Anchor::Start, &self.title);
        let mut y = 40.0;
        if self.legend {
            y = legend(svg, size, y, &self.layers);
        }
        svg.text("", (8.0, y), Anchor::Start, &self.y_label);
        y + 12.0
    }

    fn scales(&self, size: Size, top: f64) -> (Scale, Scale) {
        let points = || self.layers.iter().flat_map(|layer| layer.points.iter().copied());
        let spread = |layer: &Layer| match &layer.shape {
            Shape::Errors(errors) => errors.clone(),
            _ => Vec::new(),
        };
        let upper = self.layers.iter().flat_map(|layer| {
            let errors = spread(layer);
            let points = layer.points.iter().enumerate();
            points
                .map(move |(index, (_, y))| y + errors.get(index).copied().unwrap_or(0.0))
                .collect::<Vec<_>>()
        });
        let high = upper.filter(|y| y.is_finite()).fold(self.y_at_least, f64::max);
        let low = points().map(|(_, y)| y).filter(|y| y.is_finite()).fold(0.0, f64::min);
        let y = Scale::new(low, high, (size.height / 70.0).round(), (size.height - BOTTOM, top));
        let widest = y.ticks().iter().map(|tick| width_of(&y.label(*tick))).fold(0.0, f64::max);
        let pixels = (widest + 18.0, size.width - RIGHT);
        let (first, last) = points()
            .map(|(x, _)| x)
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)));
        let (first, last) = if first <= last { (first, last) } else { (0.0, 1.0) };
        let ticks = (size.width / 110.0).round();
        let x = match (self.names.is_empty(), self.exact) {
            (false, _) => Scale::exact(-0.5, self.names.len() as f64 - 0.5, ticks, pixels),
            (true, true) => Scale::exact(first.min(0.0), last, ticks, pixels),
            (true, false) => Scale::new(first.min(0.0), last, ticks, pixels),
        };
        (x, y)
    }

    fn axes(&self, svg: &mut Svg, size: Size, top: f64, x: &Scale, y: &Scale) {
        let bottom = size.height - BOTTOM;
        let left = x.at(x.ticks().first().copied().unwrap_or(0.0)).min(size.width);
        let left = if self.names.is_empty() { left } else { x.at(-0.5) };
        for tick in y.ticks() {
            let at = y.at(tick);
            svg.line(if tick == 0.0 { "axis" } else { "grid" }, (left, at), (size.width - RIGHT, at));
            svg.text("", (left - 8.0, at + 4.0), Anchor::End, y.label(tick));
        }
        if self.names.is_empty() {
            for tick in x.ticks() {
                let at = x.at(tick);
                svg.line("axis", (at, bottom), (at, bottom + 4.0));
                svg.text("", (at, bottom + 18.0), Anchor::Middle, x.label(tick));
            }
        } else {
            for (place, name) in self.names.iter().enumerate() {
                svg.text("key", (x.at(place as f64), bottom + 18.0), Anchor::Middle, name);
            }
        }
        let middle = (left + size.width - RIGHT) / 2.0;
        svg.text("", (middle, size.height - 8.0), Anchor::Middle, &self.x_label);
        debug_assert!(top < bottom);
    }
}

/// Room below the plot: ticks and the axis' label.
pub(super) const BOTTOM: f64 = 46.0;
/// Room at its right.
pub(super) const RIGHT: f64 = 18.0;

/// Names of series in rows; gives where the next line of text stands.
pub(super) fn legend(svg: &mut Svg, size: Size, mut y: f64, layers: &[Layer]) -> f64 {
    let mut at = 8.0;
    for layer in layers.iter().filter(|layer| !layer.name.is_empty()) {
        let width = width_of(&layer.name) + 40.0;
        if at + width > size.width && at > 8.0 {
            at = 8.0;
            y += 18.0;
        }
        let class = class_of(layer);
        match layer.shape {
            Shape::Dots | Shape::Errors(_) => {
                svg.circle(&format!("f{}", layer.colour % COLOURS), (at + 10.0, y - 4.0), 4.0);
            }
            _ => svg.line(&class, (at, y - 4.0), (at + 22.0, y - 4.0)),
        }
        svg.text("key", (at + 28.0, y), Anchor::Start, &layer.name);
        at += width + 8.0;
    }
    if at > 8.0 { y + 22.0 } else { y }
}

fn class_of(layer: &Layer) -> String {
    let colour = layer.colour % COLOURS;
    match layer.shape {
        Shape::Line | Shape::Step | Shape::Dots => format!("line s{colour}"),
        Shape::Dashed => format!("line dashed s{colour}"),
        Shape::Ideal | Shape::IdealStep => "ideal".to_owned(),
        Shape::Errors(_) => format!("error s{colour}"),
    }
}

fn draw(svg: &mut Svg, layer: &Layer, x: &Scale, y: &Scale) {
    let at = |(px, py): (f64, f64)| (x.at(px) + layer.shift, y.at(py));
    let points: Vec<(f64, f64)> =
        layer.points.iter().copied().filter(|(_, y)| y.is_finite()).map(at).collect();
    let class = class_of(layer);
    let fill = format!("f{}", layer.colour % COLOURS);
    match &layer.shape {
        Shape::Line | Shape::Dashed | Shape::Ideal => svg.path(&class, &points),
        Shape::Step | Shape::IdealStep => {
            let corners = points.windows(2).flat_map(|pair| [pair[0], (pair[1].0, pair[0].1)]);
            svg.path(&class, &corners.chain(points.last().copied()).collect::<Vec<_>>());
        }
        Shape::Dots => points.iter().for_each(|point| svg.circle(&format!("{fill} faint"), *point, 3.0)),
        Shape::Errors(errors) => {
            for ((px, py), error) in layer.points.iter().zip(errors) {
                let (above, below) = (at((*px, y.clamp(py + error))), at((*px, y.clamp(py - error))));
                if *error > 0.0 {
                    svg.line(&class, above, below);
                    for end in [above, below] {
                        svg.line(&class, (end.0 - 4.0, end.1), (end.0 + 4.0, end.1));
                    }
                }
                svg.circle(&fill, at((*px, *py)), 3.8);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart() -> Chart {
        Chart {
            title: "throughput <against> limit".to_owned(),
            x_label: "limit (cores)".to_owned(),
            y_label: "processor time (cores)".to_owned(),
            layers: vec![
                Layer {
                    name: "ideal".to_owned(),
                    colour: 0,
                    shape: Shape::Ideal,
                    points: vec![(0.0, 0.0), (2.0, 2.0)],
                    shift: 0.0,
                },
                Layer {
                    name: "berth".to_owned(),
                    colour: 1,
                    shape: Shape::Errors(vec![0.0, 0.1]),
                    points: vec![(0.5, 0.5), (2.0, 1.9)],
                    shift: 4.0,
                },
            ],
            legend: true,
            ..Chart::default()
        }
    }

    #[test]
    fn a_chart_has_title_labels_ticks_and_series() {
        let svg = chart().draw(Size::WIDE);
        for wanted in [
            "throughput &lt;against&gt; limit",
            "limit (cores)",
            "processor time (cores)",
            ">ideal<",
            ">berth<",
            ">0.5<",
            ">2.0<",
        ] {
            assert!(svg.contains(wanted), "{wanted} is missing in {svg}");
        }
        assert_eq!(svg.matches("<circle").count(), 3, "two points and one in the legend");
    }

    #[test]
    fn everything_lies_within_the_picture() {
        let svg = chart().draw(Size::PANEL);
        for (attribute, bound) in [("cx=\"", Size::PANEL.width), ("cy=\"", Size::PANEL.height)] {
            for piece in svg.split(attribute).skip(1) {
                let value: f64 =
                    piece.split('"').next().and_then(|text| text.parse().ok()).expect("a number");
                assert!((0.0..=bound).contains(&value), "{attribute}{value}");
            }
        }
    }

    #[test]
    fn a_chart_of_nothing_is_drawn_all_the_same() {
        let svg = Chart { title: "empty".to_owned(), ..Chart::default() }.draw(Size::PANEL);
        assert!(svg.contains("empty") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    #[test]
    fn alone_it_carries_its_style() {
        let svg = chart().draw_alone(Size::WIDE);
        assert!(
            svg.starts_with("<svg")
                && svg.contains("prefers-color-scheme")
                && svg.contains("class=\"paper\"")
        );
    }
}
