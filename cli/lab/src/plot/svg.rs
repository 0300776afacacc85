//! SVG as text.

use std::fmt::{Display, Write as _};

use super::{STYLE, Size};

/// A picture that is being written.
#[derive(Debug)]
pub(super) struct Svg {
    body: String,
    size: Size,
    title: String,
}

/// Where a text is fastened.
#[derive(Debug, Clone, Copy)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

impl Svg {
    pub(super) fn new(size: Size, title: &str) -> Self {
        Self { body: String::new(), size, title: title.to_owned() }
    }

    fn add(&mut self, element: std::fmt::Arguments<'_>) {
        // Writing into a String does not fail.
        self.body.write_fmt(element).ok();
        self.body.push('\n');
    }

    pub(super) fn line(&mut self, class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
        self.add(format_args!(
            "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"
        ));
    }

    pub(super) fn path(&mut self, class: &str, points: &[(f64, f64)]) {
        let mut d = String::new();
        for (index, (x, y)) in points.iter().enumerate() {
            write!(d, "{}{x:.1} {y:.1}", if index == 0 { 'M' } else { 'L' }).ok();
        }
        if !points.is_empty() {
            self.add(format_args!("<path class=\"{class}\" d=\"{d}\"/>"));
        }
    }

    pub(super) fn circle(&mut self, class: &str, (x, y): (f64, f64), radius: f64) {
        self.add(format_args!("<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\"/>"));
    }

    /// A rectangle; `tip` is shown when the pointer rests on it.
    pub(super) fn rect(&mut self, class: &str, (x, y): (f64, f64), (width, height): (f64, f64), tip: &str) {
        self.add(format_args!(
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"><title>{}</title></rect>",
            escape(tip)
        ));
    }

    pub(super) fn text(&mut self, class: &str, (x, y): (f64, f64), anchor: Anchor, text: impl Display) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let text = escape(&text.to_string());
        self.add(format_args!(
            "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"
        ));
    }

    /// The picture, to stand in a page that has the style.
    pub(super) fn finish(self) -> String {
        let Size { width, height } = self.size;
        format!(
            "<svg class=\"plot\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" role=\"img\" \
             aria-label=\"{}\" xmlns=\"http://www.w3.org/2000/svg\">\n{}</svg>\n",
            escape(&self.title),
            self.body
        )
    }
}

/// A picture as a file of its own: with the style, on paper.
pub(super) fn alone(picture: &str) -> String {
    let Some(end) = picture.find('>') else { return picture.to_owned() };
    let (head, body) = picture.split_at(end + 1);
    format!("{head}\n<style>\n{STYLE}</style>\n<rect class=\"paper\" width=\"100%\" height=\"100%\"/>{body}")
}

/// Text in XML.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// About how wide a text is, in pixels at the plots' size of letters.
pub(super) fn width_of(text: &str) -> f64 {
    text.chars().count() as f64 * 6.9
}
