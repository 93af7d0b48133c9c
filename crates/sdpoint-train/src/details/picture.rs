//! A confusion matrix as a picture.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::Confusion;
use crate::curve::{FONT, INK, sealed};

/// The most classes that a picture has room for.
pub const MAX_PICTURED_CLASSES: usize = 200;

/// Drawing into a string never fails.
const INFALLIBLE: &str = "drawing into a string never fails";

/// Cells of at least this many pixels a side have room for names beside them.
const NAMED: i32 = 13;
/// And these for numbers in them.
const NUMBERED: i32 = 26;
/// Font size of names and numbers; plotters writes 0.8 of it as pixels.
const SMALL: i32 = 14;
/// The width of a character, in pixels.
const CHARACTER: i32 = 7;
/// The longest name that is shown in full.
const LONGEST: usize = 24;
const MARGIN: i32 = 16;
const TITLE: i32 = 40;

/// The colour of a cell that has all images of its row: the first of the curves'.
const DARKEST: (u8, u8, u8) = (0, 114, 178);

impl Confusion {
    /// The matrix as an SVG picture: a row for each true class, a column for each
    /// predicted class. The darker a cell, the larger its share of the row.
    ///
    /// # Panics
    /// If `names` are not those of all classes, or there are more than
    /// [`MAX_PICTURED_CLASSES`].
    pub fn svg(&self, title: &str, names: &[String]) -> String {
        assert_eq!(names.len(), self.classes, "names of the classes");
        assert!(self.classes <= MAX_PICTURED_CLASSES, "too many classes");
        let names: Vec<String> = names.iter().map(|name| shown(name)).collect();
        let layout = Layout::new(&names);
        let mut svg = String::new();
        let canvas = SVGBackend::with_string(&mut svg, layout.size).into_drawing_area();
        canvas.fill(&WHITE).expect(INFALLIBLE);
        let draw = |text: &str, at: (i32, i32), style: TextStyle<'_>| {
            let text = Text::new(text.to_owned(), at, style);
            canvas.draw(&text).expect(INFALLIBLE);
        };
        let [left, top] = layout.origin;
        let style = |side, size: i32| {
            let font = (FONT, size).into_font().color(&INK);
            font.pos(Pos::new(side, VPos::Center))
        };
        let heading = format!("{}: confusion matrix, rows are true classes", plain(title));
        draw(&heading, (MARGIN, TITLE / 2 + 4), style(HPos::Left, 18));
        if layout.cell >= NAMED {
            for (class, name) in (0..).zip(&names) {
                let middle = layout.cell * class + layout.cell / 2;
                draw(name, (left - 6, top + middle), style(HPos::Right, SMALL));
                let below = top + layout.side() + 6;
                let turned = (FONT, SMALL).into_font().transform(FontTransform::Rotate90);
                let turned = turned.color(&INK).pos(Pos::new(HPos::Left, VPos::Center));
                draw(name, (left + middle, below), turned);
            }
        }
        for class in 0..self.classes {
            let row = self.row(class);
            let images: u64 = row.iter().sum();
            for (predicted, &count) in (0..).zip(row) {
                if count == 0 {
                    continue;
                }
                let share = count as f64 / images as f64;
                let corner = (
                    left + layout.cell * predicted,
                    top + layout.cell * class as i32,
                );
                let end = (corner.0 + layout.cell, corner.1 + layout.cell);
                let cell = Rectangle::new([corner, end], shade(share).filled());
                canvas.draw(&cell).expect(INFALLIBLE);
                if layout.cell >= NUMBERED {
                    let ink = if share > 0.5 { WHITE } else { INK };
                    let number = (FONT, SMALL).into_font().color(&ink);
                    let number = number.pos(Pos::new(HPos::Center, VPos::Center));
                    let middle = (corner.0 + layout.cell / 2, corner.1 + layout.cell / 2);
                    draw(&count.to_string(), middle, number);
                }
            }
        }
        let end = (left + layout.side(), top + layout.side());
        let frame = Rectangle::new([(left, top), end], INK.stroke_width(1));
        canvas.draw(&frame).expect(INFALLIBLE);
        canvas.present().expect(INFALLIBLE);
        drop(canvas);
        sealed(svg)
    }
}

/// Places in pixels.
struct Layout {
    /// Width and height of the picture.
    size: (u32, u32),
    /// Left and top of the matrix.
    origin: [i32; 2],
    /// The side of a cell.
    cell: i32,
    classes: i32,
}

impl Layout {
    fn new(names: &[String]) -> Self {
        let classes = names.len() as i32;
        let cell = (720 / classes.max(1)).clamp(4, 48);
        let longest = names.iter().map(|name| name.chars().count()).max();
        let beside = match cell >= NAMED {
            true => 10 + CHARACTER * longest.unwrap_or(0) as i32,
            false => 0,
        };
        let origin = [MARGIN + beside, TITLE + MARGIN];
        let side = cell * classes;
        let width = (origin[0] + side + MARGIN).max(640);
        let height = origin[1] + side + beside + MARGIN;
        Self {
            size: (width as u32, height as u32),
            origin,
            cell,
            classes,
        }
    }

    /// The side of the matrix.
    fn side(&self) -> i32 {
        self.cell * self.classes
    }
}

/// White for a share of 0, the darkest colour for 1.
fn shade(share: f64) -> RGBColor {
    let mix = |to: u8| (255.0 + (f64::from(to) - 255.0) * share).round() as u8;
    RGBColor(mix(DARKEST.0), mix(DARKEST.1), mix(DARKEST.2))
}

/// Text without control characters, which XML forbids.
fn plain(text: &str) -> String {
    text.replace(char::is_control, " ")
}

/// A name that fits beside the matrix.
fn shown(name: &str) -> String {
    let name = plain(name);
    match name.char_indices().nth(LONGEST) {
        None => name,
        Some((end, _)) => format!("{}…", &name[..end]),
    }
}

#[cfg(test)]
mod tests {
    use sdpoint_core::Instance;
    use sdpoint_core::seal::is_sealed;

    use super::*;

    #[test]
    fn the_picture_has_all_names_and_numbers() {
        let mut confusion = Confusion::new(Instance::Full, 3);
        confusion.counts = vec![70, 7, 0, 0, 0, 0, 1, 2, 13];
        let names = [
            "<cat>",
            "a\u{1b}b",
            "a name that is far too long to be shown",
        ];
        let svg = confusion.svg("net & full", &names.map(str::to_owned));
        assert!(svg.starts_with("<svg") && is_sealed(svg.as_bytes()));
        for text in [
            "net &amp; full: confusion matrix",
            "&lt;cat&gt;",
            "a b",
            "a name that is far too l…",
        ] {
            assert!(svg.contains(text), "{text}: {svg}");
        }
        for number in ["70", "7", "1", "2", "13"] {
            assert!(
                svg.contains(&format!("\n{number}\n</text>")),
                "{number}: {svg}"
            );
        }
    }

    #[test]
    fn many_classes_still_fit() {
        for classes in [1, 50, MAX_PICTURED_CLASSES] {
            let mut confusion = Confusion::new(Instance::Full, classes);
            confusion.counts.fill(1);
            let names = vec!["class".to_owned(); classes];
            assert!(confusion.svg("x", &names).ends_with("-->\n"));
        }
    }
}
