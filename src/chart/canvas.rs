//! A sheet to draw on, the same for SVG and PNG.
//!
//! Figures are drawn in pixels of a sheet [`WIDTH`] wide; the backend gets
//! twice as many, so that PNG is sharp on dense screens and SVG, whose backend
//! knows whole numbers only, is placed to half a pixel.

use std::sync::Once;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontFamily, register_font};

use super::ChartError;

/// Width of every figure.
pub(super) const WIDTH: f64 = 960.0;
/// Backend pixels per pixel of the sheet.
pub(super) const SCALE: f64 = 2.0;
/// `DejaVu Sans` is embedded for measuring and for PNG. In an SVG the reader's
/// browser chooses; Verdana shares the ancestry and the width.
const FAMILY: &str = "DejaVu Sans, Verdana, Arial, sans-serif";

/// A colour of 8 bits per channel.
pub(super) type Colour = RGBColor;

pub(super) const BLACK: Colour = RGBColor(0x1a, 0x1a, 0x1a);
pub(super) const GREY: Colour = RGBColor(0x59, 0x59, 0x59);
pub(super) const RULE: Colour = RGBColor(0xe2, 0xe2, 0xe2);
pub(super) const AXIS: Colour = RGBColor(0x8c, 0x8c, 0x8c);
const PAPER: Colour = RGBColor(0xff, 0xff, 0xff);

/// Where a text stands in relation to its point; it is centred vertically.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Anchor {
    Left,
    Middle,
    Right,
}

/// Size, weight and colour of a text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Type {
    /// Size of an em in pixels.
    pub(super) size: f64,
    pub(super) bold: bool,
    pub(super) colour: Colour,
}

impl Type {
    pub(super) const TITLE: Self = Self { size: 17.0, bold: true, colour: BLACK };
    pub(super) const HEAD: Self = Self { size: 12.0, bold: true, colour: BLACK };
    pub(super) const BODY: Self = Self { size: 12.0, bold: false, colour: BLACK };
    pub(super) const SMALL: Self = Self { size: 11.0, bold: false, colour: BLACK };
    pub(super) const NOTE: Self = Self { size: 11.0, bold: false, colour: GREY };
}

/// How a backend must be told a font's size to get an em of a given height,
/// and how far below the point it must be told to centre a text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Habits {
    size_per_em: f64,
    drop_per_em: f64,
}

impl Habits {
    /// `plotters-svg` writes the size divided by 1.24 and shifts by half an ex.
    pub(super) const SVG: Self = Self { size_per_em: 1.24, drop_per_em: 0.09 };
    /// `ab_glyph` scales to the font's height, 1.164 em for `DejaVu Sans`.
    pub(super) const BITMAP: Self = Self { size_per_em: 1.164, drop_per_em: 0.25 };
}

/// A sheet of one backend.
pub(super) struct Canvas<DB: DrawingBackend> {
    area: DrawingArea<DB, plotters::coord::Shift>,
    habits: Habits,
}

/// The result of a drawing step.
pub(super) type Drawn = Result<(), ChartError>;

impl<DB: DrawingBackend> Canvas<DB>
where
    DB::ErrorType: 'static,
{
    /// A blank sheet.
    pub(super) fn new(backend: DB, habits: Habits) -> Result<Self, ChartError> {
        register_fonts()?;
        let area = backend.into_drawing_area();
        area.fill(&PAPER).map_err(ChartError::draw)?;
        Ok(Self { area, habits })
    }

    /// Ends the drawing.
    pub(super) fn present(&self) -> Drawn {
        self.area.present().map_err(ChartError::draw)
    }

    /// A line through points.
    pub(super) fn line(&self, points: &[(f64, f64)], colour: Colour, width: f64) -> Drawn {
        let mut path: Vec<(i32, i32)> = points.iter().map(|point| at(*point)).collect();
        path.dedup();
        let style =
            ShapeStyle { color: colour.to_rgba(), filled: false, stroke_width: wide(width) };
        self.area.draw(&PathElement::new(path, style)).map_err(ChartError::draw)
    }

    /// A broken line through points.
    pub(super) fn dashes(&self, points: &[(f64, f64)], colour: Colour) -> Drawn {
        const DASH: f64 = 5.0;
        for pair in points.windows(2) {
            let (from, to) = (pair[0], pair[1]);
            let length = (to.0 - from.0).hypot(to.1 - from.1);
            let at = |share: f64| {
                let share = share.min(1.0);
                (from.0 + share * (to.0 - from.0), from.1 + share * (to.1 - from.1))
            };
            let mut begin = 0.0;
            while begin < length {
                self.line(&[at(begin / length), at((begin + DASH) / length)], colour, 1.0)?;
                begin += 2.0 * DASH;
            }
        }
        Ok(())
    }

    /// A filled rectangle between two corners, at least one backend pixel wide.
    pub(super) fn bar(&self, from: (f64, f64), to: (f64, f64), colour: Colour) -> Drawn {
        let (a, mut b) = (at(from), at(to));
        b.0 = b.0.max(a.0 + 1);
        self.area.draw(&Rectangle::new([a, b], colour.filled())).map_err(ChartError::draw)
    }

    /// A filled shape.
    pub(super) fn shape(&self, points: &[(f64, f64)], colour: Colour) -> Drawn {
        let points: Vec<(i32, i32)> = points.iter().map(|point| at(*point)).collect();
        self.area.draw(&Polygon::new(points, colour.filled())).map_err(ChartError::draw)
    }

    /// A filled disc.
    pub(super) fn disc(&self, centre: (f64, f64), radius: f64, colour: Colour) -> Drawn {
        let disc = Circle::new(at(centre), whole(radius * SCALE), colour.filled());
        self.area.draw(&disc).map_err(ChartError::draw)
    }

    /// A line of text.
    pub(super) fn text(&self, text: &str, point: (f64, f64), kind: Type, anchor: Anchor) -> Drawn {
        let h_pos = match anchor {
            Anchor::Left => HPos::Left,
            Anchor::Middle => HPos::Center,
            Anchor::Right => HPos::Right,
        };
        let style = font(kind, self.habits.size_per_em * SCALE)
            .color(&kind.colour)
            .pos(Pos::new(h_pos, VPos::Center));
        let lower = (point.0, point.1 + self.habits.drop_per_em * kind.size);
        self.area.draw(&Text::new(text.to_owned(), at(lower), style)).map_err(ChartError::draw)
    }
}

/// The width of a text on the sheet.
pub(super) fn width(text: &str, kind: Type) -> Result<f64, ChartError> {
    register_fonts()?;
    // Measured large, since the layout is told in whole pixels.
    let (wide, _) = font(kind, Habits::BITMAP.size_per_em * 16.0)
        .box_size(text)
        .map_err(|_| ChartError::Font)?;
    Ok(f64::from(wide) / 16.0)
}

/// Breaks a text into lines of at most `limit` pixels at its spaces. A word
/// that is wider stands alone.
pub(super) fn wrap(text: &str, kind: Type, limit: f64) -> Result<Vec<String>, ChartError> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if width(&format!("{line} {word}"), kind)? <= limit => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    Ok(lines)
}

/// The text, or its beginning with an ellipsis when it is too wide.
pub(super) fn shortened(text: &str, kind: Type, limit: f64) -> Result<String, ChartError> {
    if width(text, kind)? <= limit {
        return Ok(text.to_owned());
    }
    let mut short = text.to_owned();
    while short.pop().is_some() {
        let candidate = format!("{}…", short.trim_end());
        if width(&candidate, kind)? <= limit {
            return Ok(candidate);
        }
    }
    Ok(String::new())
}

fn font(kind: Type, factor: f64) -> FontDesc<'static> {
    let style = if kind.bold { FontStyle::Bold } else { FontStyle::Normal };
    FontDesc::new(FontFamily::Name(FAMILY), kind.size * factor, style)
}

/// Makes the embedded fonts known to plotters, once.
fn register_fonts() -> Result<(), ChartError> {
    static DONE: Once = Once::new();
    let mut result = Ok(());
    DONE.call_once(|| {
        for (style, bytes) in
            [(FontStyle::Normal, dejavu::sans::regular()), (FontStyle::Bold, dejavu::sans::bold())]
        {
            if register_font(FAMILY, style, bytes).is_err() {
                result = Err(ChartError::Font);
            }
        }
    });
    result
}

fn at(point: (f64, f64)) -> (i32, i32) {
    (whole(point.0 * SCALE), whole(point.1 * SCALE))
}

#[expect(clippy::cast_possible_truncation, reason = "positions on a sheet; the cast saturates")]
fn whole(value: f64) -> i32 {
    value.round() as i32
}

fn wide(width: f64) -> u32 {
    u32::try_from(whole(width * SCALE)).unwrap_or(1).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_measured_wrapped_and_shortened() {
        let wide = width("mmmm", Type::BODY).expect("font");
        let narrow = width("iiii", Type::BODY).expect("font");
        assert!(wide > 2.0 * narrow && narrow > 0.0, "{wide} {narrow}");
        let lines = wrap("one two three four five", Type::BODY, 60.0).expect("font");
        assert!(lines.len() > 1);
        assert_eq!(lines.join(" "), "one two three four five");
        let short = shortened("a rather long sentence", Type::BODY, 60.0).expect("font");
        assert!(short.ends_with('…') && width(&short, Type::BODY).expect("font") <= 60.0);
        assert_eq!(shortened("ab", Type::BODY, 60.0).expect("font"), "ab");
    }
}
