//! What every picture stands on: a white sheet with a title, a legend and a frame to draw in.

use plotters::backend::SVGBackend;
use plotters::coord::Shift;
use plotters::drawing::{DrawingArea, DrawingAreaErrorKind, IntoDrawingArea};
use plotters::element::{PathElement, Polygon, Rectangle, Text};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, IntoFont, RGBColor, TextStyle, WHITE};

use crate::problem::Problem;

/// Width of every picture, in pixels.
pub const WIDTH: i32 = 960;
/// Height of the title and the legend together.
const HEAD: i32 = 72;
/// Widest title, in pixels; its size.
const TITLE_WIDTH_MAX: i32 = WIDTH - 48;
const TITLE_SIZE: i32 = 19;
/// The backend divides sizes by this, for fonts that it does not know.
const SIZE_FACTOR: f64 = 1.24;
/// Words and numbers.
pub const INK: RGBColor = RGBColor(0x22, 0x2B, 0x33);
/// What is said besides.
pub const PALE: RGBColor = RGBColor(0x5C, 0x67, 0x70);
/// Lines behind what is drawn.
pub const GRID: RGBColor = RGBColor(0xE3, 0xE7, 0xEA);

/// What drawing comes to.
pub type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;

/// A point, in pixels from the upper left corner.
pub type Point = (i32, i32);

/// What the picture is called and about, and its colours in words.
pub struct Heading<'a> {
    /// Above all.
    pub title: &'a str,
    /// Below it: the window, the zone.
    pub subtitle: &'a str,
    /// Colours and what they stand for, from the left.
    pub legend: &'a [(RGBColor, &'a str)],
}

/// Where things are drawn, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// Its left edge.
    pub left: i32,
    /// Its upper edge.
    pub top: i32,
    /// Its right edge.
    pub right: i32,
    /// Its lower edge.
    pub bottom: i32,
}

/// A picture being drawn.
pub struct Sheet<'a> {
    area: DrawingArea<SVGBackend<'a>, Shift>,
    /// Where the data goes; labels stand around it.
    pub frame: Frame,
}

/// Draws a picture of that height. Errors: 500, which no data can bring about.
pub fn picture(
    height: i32,
    heading: &Heading<'_>,
    draw: impl FnOnce(&Sheet<'_>) -> Drawn,
) -> Result<String, Problem> {
    let mut svg = String::new();
    let size = (WIDTH.unsigned_abs(), height.unsigned_abs());
    let drawn = (|| {
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        area.fill(&WHITE)?;
        let frame = Frame { left: 72, top: HEAD + 24, right: WIDTH - 24, bottom: height - 44 };
        let sheet = Sheet { area, frame };
        sheet.head(heading)?;
        draw(&sheet)?;
        sheet.area.present()
    })();
    drawn.map_err(Problem::internal)?;
    Ok(svg)
}

impl Sheet<'_> {
    fn head(&self, heading: &Heading<'_>) -> Drawn {
        let title = shortened(heading.title);
        self.words(&title, (24, 18), TITLE_SIZE, INK, (HPos::Left, VPos::Top))?;
        self.words(heading.subtitle, (24, 46), 13, PALE, (HPos::Left, VPos::Top))?;
        // From the right, as the words to the left of it differ in length.
        let width: i32 = heading.legend.iter().map(|(_, words)| entry_width(words)).sum();
        let mut x = WIDTH - 24 - width;
        for (color, words) in heading.legend {
            self.rect((x, 47), (x + 12, 59), *color)?;
            self.words(words, (x + 18, 46), 13, INK, (HPos::Left, VPos::Top))?;
            x += entry_width(words);
        }
        Ok(())
    }

    /// A filled rectangle.
    pub fn rect(&self, from: Point, to: Point, color: RGBColor) -> Drawn {
        self.area.draw(&Rectangle::new([from, to], color.filled()))
    }

    /// A filled shape.
    pub fn shape(&self, corners: Vec<Point>, color: RGBColor) -> Drawn {
        self.area.draw(&Polygon::new(corners, color.filled()))
    }

    /// A thin line.
    pub fn line(&self, from: Point, to: Point, color: RGBColor) -> Drawn {
        self.area.draw(&PathElement::new(vec![from, to], color.stroke_width(1)))
    }

    /// Words of that size, anchored at a point. Escaped by the backend.
    pub fn words(
        &self,
        words: &str,
        at: Point,
        size: i32,
        color: RGBColor,
        (h, v): (HPos, VPos),
    ) -> Drawn {
        let size = f64::from(size) * SIZE_FACTOR;
        let font = ("Helvetica, Arial, sans-serif", size).into_font();
        let style = TextStyle::from(font).color(&color).pos(Pos::new(h, v));
        self.area.draw(&Text::new(words.to_owned(), at, style))
    }

    /// Says that there is nothing to draw.
    pub fn nothing(&self) -> Drawn {
        self.only("No data in this window")
    }

    /// Says that and nothing else.
    pub fn only(&self, words: &str) -> Drawn {
        let Frame { left, top, right, bottom } = self.frame;
        let middle = (i32::midpoint(left, right), i32::midpoint(top, bottom));
        self.words(words, middle, 16, PALE, (HPos::Center, VPos::Center))
    }

    /// Lines across at those heights with their numbers, and the unit above them.
    pub fn scale_up(&self, scale: &super::axis::Scale, unit: &str) -> Drawn {
        let Frame { left, top, right, .. } = self.frame;
        for value in scale.ticks() {
            let y = scale.y(value, self.frame);
            self.line((left, y), (right, y), if value == 0.0 { PALE } else { GRID })?;
            let number = scale.number(value);
            self.words(&number, (left - 8, y), 12, PALE, (HPos::Right, VPos::Center))?;
        }
        self.words(unit, (left - 8, top - 12), 12, PALE, (HPos::Right, VPos::Bottom))
    }

    /// Marks below the frame with their words.
    pub fn scale_along(&self, ticks: &[(i32, String)]) -> Drawn {
        let Frame { bottom, .. } = self.frame;
        for (x, words) in ticks {
            self.line((*x, bottom), (*x, bottom + 5), PALE)?;
            self.words(words, (*x, bottom + 10), 12, PALE, (HPos::Center, VPos::Top))?;
        }
        Ok(())
    }
}

fn entry_width(words: &str) -> i32 {
    18 + 7 * words.chars().count() as i32 + 16
}

/// As much of a title as surely fits.
fn shortened(title: &str) -> String {
    let width = |c: char| match c {
        'i' | 'j' | 'l' | 't' | 'f' | 'r' | '.' | ',' | ':' | '|' | '-' | ' ' => TITLE_SIZE * 2 / 5,
        'A'..='L' | 'N'..='V' | 'X'..='Z' => TITLE_SIZE * 4 / 5,
        'M' | 'W' | 'm' | '@' | '…' => TITLE_SIZE * 21 / 20,
        _ => TITLE_SIZE * 3 / 5,
    };
    let mut used = width('…');
    let mut fits = String::new();
    for c in title.chars() {
        used += width(c);
        if used > TITLE_WIDTH_MAX {
            fits.push('…');
            break;
        }
        fits.push(c);
    }
    fits
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn empty(sheet: &Sheet<'_>) -> Drawn {
        sheet.nothing()
    }

    #[test]
    fn what_people_are_called_cannot_become_part_of_the_picture() {
        let heading = Heading { title: "<script>&\"'", subtitle: "</svg>", legend: &[] };
        let svg = picture(200, &heading, empty).unwrap();
        assert!(svg.contains("&lt;script&gt;&amp;&quot;&apos;"), "{svg}");
        assert_eq!(svg.matches("</svg>").count(), 1);
    }

    #[test]
    fn the_widest_title_is_cut() {
        assert_eq!(shortened("Ana"), "Ana");
        assert!(shortened(&"W".repeat(128)).chars().count() < 50);
    }
}
