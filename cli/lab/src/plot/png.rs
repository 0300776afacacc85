//! A plot as PNG, for where SVG is not taken: light, at twice its size, in letters that are carried along.
//!
//! The renderer knows neither variables nor media queries of CSS, so the style is resolved to the light theme first.

use std::sync::{Arc, LazyLock};

use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{self, fontdb};

use super::STYLE;

/// Pixels for each unit of the picture: sharp on paper and on dense screens.
const SCALE: f32 = 2.0;

/// A picture that cannot be rendered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It is not what the renderer calls SVG.
    #[error("the plot is not valid SVG")]
    Svg(#[from] usvg::Error),
    /// It has no area, or one beyond all measure.
    #[error("the plot is {width} by {height} pixels")]
    Size {
        /// Width.
        width: u32,
        /// Height.
        height: u32,
    },
    /// The pixels cannot be encoded.
    #[error("cannot encode the pixels: {0}")]
    Encode(String),
}

/// DejaVu Sans, the widest of the families that the style names; the machine's own fonts would make a plot depend on it.
static FONTS: LazyLock<Arc<fontdb::Database>> = LazyLock::new(|| {
    let mut fonts = fontdb::Database::new();
    fonts.load_font_data(dejavu::sans::regular().to_vec());
    Arc::new(fonts)
});

/// The style in the light theme, without variables.
static LIGHT: LazyLock<String> = LazyLock::new(|| resolve(STYLE));

/// Renders a picture that stands alone.
///
/// # Errors
/// [`Error`], if the picture is not one of this module's siblings.
pub fn render(alone: &str) -> Result<Vec<u8>, Error> {
    let options = usvg::Options { fontdb: Arc::clone(&FONTS), ..usvg::Options::default() };
    let tree = usvg::Tree::from_str(&alone.replace(STYLE, &LIGHT), &options)?;
    let size = tree.size().to_int_size();
    let (width, height) = (size.width() * SCALE as u32, size.height() * SCALE as u32);
    let mut pixels = Pixmap::new(width, height).ok_or(Error::Size { width, height })?;
    resvg::render(&tree, Transform::from_scale(SCALE, SCALE), &mut pixels.as_mut());
    pixels.encode_png().map_err(|error| Error::Encode(error.to_string()))
}

/// Puts the values of the first rule's variables where they are used, and leaves out what `@media` says otherwise.
fn resolve(style: &str) -> String {
    let first = style.split('}').next().unwrap_or_default();
    let rules = style.lines().filter(|line| line.starts_with(".plot ")).collect::<Vec<_>>().join("\n");
    let declarations =
        first.split(['{', ';', '\n']).filter_map(|declaration| declaration.trim().split_once(':'));
    let (variables, plain): (Vec<_>, Vec<_>) = declarations.partition(|(name, _)| name.starts_with("--"));
    let plain: String = plain.iter().map(|(name, value)| format!("{name}:{value};")).collect();
    let resolved = format!(".plot{{{plain}}}\n{rules}");
    variables.iter().fold(resolved, |text, (name, value)| text.replace(&format!("var({name})"), value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plot::{Chart, Layer, Shape, Size};

    #[test]
    fn the_style_is_resolved_to_colours() {
        assert!(!LIGHT.contains("var("), "{}", *LIGHT);
        assert!(!LIGHT.contains("@media"));
        assert!(LIGHT.contains(".plot .paper{fill:#fff}"));
        assert!(LIGHT.contains(".plot .s0{stroke:#2563eb}"));
    }

    /// How many pixels within a part of the picture are near a colour.
    fn count(pixels: &Pixmap, rows: std::ops::Range<u32>, colour: [u8; 3]) -> usize {
        let near = |&(x, y): &(u32, u32)| {
            let pixel = pixels.pixel(x, y).expect("inside");
            let found = [pixel.red(), pixel.green(), pixel.blue()];
            found.iter().zip(colour).all(|(a, b)| a.abs_diff(b) < 24)
        };
        rows.flat_map(|y| (0..pixels.width()).map(move |x| (x, y))).filter(near).count()
    }

    #[test]
    fn a_plot_becomes_pixels_with_its_line_and_its_letters() {
        let line = Layer {
            name: String::new(),
            colour: 0,
            shape: Shape::Line,
            points: vec![(0.0, 0.0), (1.0, 1.0)],
            shift: 0.0,
        };
        let chart = Chart { title: "Throughput".to_owned(), layers: vec![line], ..Chart::default() };
        let untitled = Chart { title: String::new(), ..chart.clone() };
        let [titled, untitled] = [chart, untitled].map(|chart| {
            Pixmap::decode_png(&render(&chart.draw_alone(Size::WIDE)).expect("renders")).expect("is a PNG")
        });
        assert_eq!((titled.width(), titled.height()), (1760, 720));
        assert_eq!(count(&titled, 0..1, [255; 3]), 1760, "paper at the upper edge");
        assert!(count(&titled, 0..720, [0x25, 0x63, 0xeb]) > 1000, "the line in the first colour");
        let ink = [0x1c, 0x24, 0x30];
        assert!(count(&titled, 0..80, ink) > count(&untitled, 0..80, ink) + 200, "letters of the title");
    }

    #[test]
    fn what_is_no_picture_is_refused() {
        assert!(matches!(render("<p>text</p>"), Err(Error::Svg(_))));
    }
}
