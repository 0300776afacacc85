//! Plots as SVG: light and dark, with units on both axes, readable without anything but a browser.
//!
//! ```text
//! Chart (what) ─▶ Scale (data ─▶ pixels, ticks at 1, 2, 5) ─▶ Svg (text) ─▶ Png (pixels, of a file of its own)
//! ```

mod bars;
mod chart;
mod forest;
mod png;
mod scale;
mod svg;

pub use bars::{Bar, Bars};
pub use chart::{Chart, Layer, Shape};
pub use forest::Forest;
pub use png::{Error as PngError, render as png};
pub use scale::Quantified;

/// The style of all plots. In a report it stands once; a plot in a file of its own carries it.
pub const STYLE: &str = include_str!("style.css");

/// How many colours there are; series beyond begin again.
pub const COLOURS: usize = 6;

/// Size of a plot in pixels, before it is scaled to its place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Size {
    /// Width.
    pub width: f64,
    /// Height.
    pub height: f64,
}

impl Size {
    /// A plot across the page.
    pub const WIDE: Self = Self { width: 880.0, height: 360.0 };
    /// One panel among several.
    pub const PANEL: Self = Self { width: 430.0, height: 240.0 };
}
