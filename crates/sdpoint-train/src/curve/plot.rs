//! The curve as a picture.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use sdpoint_core::pareto;
use sdpoint_core::seal::{BLANK, SEAL, seal};

use super::labels::Placer;
use super::{Mark, MarkKind, Series};

const SIZE: (u32, u32) = (860, 540);
pub(crate) const FONT: &str = "sans-serif";
/// Font sizes; plotters writes 0.8 of them as pixels.
const SMALL: f64 = 15.0;
const MIDDLE: f64 = 18.0;
const LARGE: f64 = 23.0;
/// An upper bound on the width of a small character, in pixels.
const CHARACTER: f64 = 8.0;
pub(crate) const INK: RGBColor = RGBColor(40, 40, 40);
const GRID: RGBColor = RGBColor(228, 228, 228);

/// Okabe and Ito's palette, which is safe for colour-blind readers, by contrast
/// on white.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];

/// Drawing into a string never fails.
const INFALLIBLE: &str = "drawing into a string never fails";

type Canvas<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Pixel = [f64; 2];

/// Draws top-1 accuracy over multiply-accumulates as an SVG image.
///
/// Instances on the Pareto frontier of their series are filled, connected by a
/// line and, where there is room, labelled; `full` is a diamond. Series differ
/// in colour. Text is in the viewer's sans-serif font.
pub fn curve_svg(title: &str, series: &[Series]) -> String {
    let mut svg = String::new();
    let canvas = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
    canvas.fill(&WHITE).expect(INFALLIBLE);
    // The name of a folder may have control characters, which XML forbids.
    let title = title.replace(char::is_control, " ");
    let axes = Axes::draw(&canvas, &title, series);
    draw(&canvas, &axes, series);
    canvas.present().expect(INFALLIBLE);
    drop(canvas);
    sealed(svg)
}

/// The picture with a digest in a comment, by which edits are noticed.
pub(crate) fn sealed(svg: String) -> String {
    let mut svg = format!("{svg}<!-- {SEAL}: {BLANK} -->\n").into_bytes();
    seal(&mut svg);
    String::from_utf8(svg).expect("a seal is text")
}

fn draw(canvas: &Canvas<'_>, axes: &Axes, series: &[Series]) {
    let mut placer = Placer::new(axes.area);
    for (index, one) in series.iter().enumerate() {
        let line: Vec<Pixel> = frontier(one).iter().map(|mark| axes.pixel(mark)).collect();
        for pair in line.windows(2) {
            placer.avoid_line(pair[0], pair[1]);
        }
        draw_line(canvas, &line, colour(index));
    }
    let marks: Vec<Pixel> = series
        .iter()
        .flat_map(|one| one.marks.iter().map(|mark| axes.pixel(mark)))
        .collect();
    for &[x, y] in &marks {
        placer.avoid([x - 6.0, y - 6.0, x + 6.0, y + 6.0]);
    }
    placer.avoid(draw_legend(canvas, axes, series, &marks));
    for (index, one) in series.iter().enumerate() {
        draw_marks(canvas, axes, one, colour(index));
    }
    for (index, one) in series.iter().enumerate() {
        draw_labels(canvas, axes, one, colour(index), &mut placer);
    }
}

fn draw_line(canvas: &Canvas<'_>, line: &[Pixel], colour: RGBColor) {
    let line: Vec<(i32, i32)> = line.iter().map(|&at| whole(at)).collect();
    let path = PathElement::new(line, colour.stroke_width(2));
    canvas.draw(&path).expect(INFALLIBLE);
}

fn draw_marks(canvas: &Canvas<'_>, axes: &Axes, series: &Series, colour: RGBColor) {
    let frontier = frontier(series);
    let mut marks = series.marks.clone();
    // The most informative marks are drawn last, on top.
    marks.sort_by_key(|mark| (mark.kind == MarkKind::Full, frontier.contains(mark)));
    for mark in marks {
        let symbol = match (mark.kind, frontier.contains(&mark)) {
            (MarkKind::Full, best) => Symbol::Diamond { filled: best },
            (MarkKind::Combination, best) => Symbol::Triangle { filled: best },
            (_, true) => Symbol::Disc,
            (_, false) => Symbol::Ring,
        };
        symbol.draw(canvas, axes.pixel(&mark), colour);
    }
}

/// Labels `full` and the instances of the frontier, where there is room.
fn draw_labels(
    canvas: &Canvas<'_>,
    axes: &Axes,
    series: &Series,
    colour: RGBColor,
    placer: &mut Placer,
) {
    let full = series
        .marks
        .iter()
        .filter(|mark| mark.kind == MarkKind::Full)
        .cloned();
    let rest = frontier(series)
        .into_iter()
        .filter(|mark| mark.kind != MarkKind::Full);
    for mark in full.chain(rest) {
        let text = mark.name.clone();
        let size = [text.len() as f64 * CHARACTER, SMALL];
        if let Some([left, top]) = placer.place(axes.pixel(&mark), size) {
            let middle = [left + size[0] / 2.0, top + size[1] / 2.0];
            draw_text(canvas, text, middle, HPos::Center, colour);
        }
    }
}

/// Draws the legend in the corner with the fewest marks, and returns its box.
fn draw_legend(canvas: &Canvas<'_>, axes: &Axes, series: &[Series], marks: &[Pixel]) -> [f64; 4] {
    const LINE: f64 = 19.0;
    const KEY: f64 = 34.0;
    let names = series.iter().map(|one| one.name.as_str());
    let several = series.len() > 1;
    let mut lines: Vec<(Key, &str)> = names
        .enumerate()
        .filter(|_| several)
        .map(|(index, name)| (Key::Line(colour(index)), name))
        .collect();
    lines.extend([
        (Key::Symbol(Symbol::Disc), "on the Pareto frontier"),
        (Key::Symbol(Symbol::Ring), "other instance"),
        (
            Key::Symbol(Symbol::Diamond { filled: false }),
            "full: no downsampling",
        ),
    ]);
    let combined = |one: &Series| {
        one.marks
            .iter()
            .any(|mark| mark.kind == MarkKind::Combination)
    };
    if series.iter().any(combined) {
        let symbol = Symbol::Triangle { filled: false };
        lines.push((Key::Symbol(symbol), "cascade (>) or ensemble (+)"));
    }
    let longest = lines
        .iter()
        .map(|(_, text)| text.chars().count())
        .max()
        .unwrap_or(0);
    let width = KEY + CHARACTER * longest as f64;
    let height = LINE * lines.len() as f64 + 8.0;
    let [left, top, right, bottom] = axes.area;
    let corners = [
        [right - width - 8.0, bottom - height - 8.0],
        [left + 10.0, top + 8.0],
        [left + 10.0, bottom - height - 8.0],
    ];
    let covers = |&[x, y]: &Pixel| {
        let under = |at: &&Pixel| {
            (x - 8.0..x + width + 8.0).contains(&at[0])
                && (y - 8.0..y + height + 8.0).contains(&at[1])
        };
        marks.iter().filter(under).count()
    };
    let [x, y] = corners.into_iter().min_by_key(covers).unwrap_or(corners[0]);
    let frame = [whole([x, y]), whole([x + width, y + height])];
    for style in [WHITE.filled(), GRID.stroke_width(1)] {
        canvas
            .draw(&Rectangle::new(frame, style))
            .expect(INFALLIBLE);
    }
    for (row, (key, text)) in lines.into_iter().enumerate() {
        let middle = y + 4.0 + LINE * (row as f64 + 0.5);
        match key {
            Key::Line(colour) => {
                draw_line(canvas, &[[x + 6.0, middle], [x + 26.0, middle]], colour)
            }
            Key::Symbol(symbol) => symbol.draw(canvas, [x + 16.0, middle], INK),
        }
        draw_text(canvas, text.to_owned(), [x + KEY, middle], HPos::Left, INK);
    }
    [x, y, x + width, y + height]
}

/// The key of a line of the legend.
enum Key {
    Line(RGBColor),
    Symbol(Symbol),
}

/// The symbol of an instance.
#[derive(Clone, Copy, Debug)]
enum Symbol {
    Disc,
    Ring,
    Diamond { filled: bool },
    Triangle { filled: bool },
}

impl Symbol {
    fn draw(self, canvas: &Canvas<'_>, at: Pixel, colour: RGBColor) {
        let at = whole(at);
        let ring = |radius, style| {
            canvas
                .draw(&Circle::new(at, radius, style))
                .expect(INFALLIBLE)
        };
        match self {
            Self::Disc => ring(5, colour.filled()),
            Self::Ring => ring(4, colour.stroke_width(1)),
            Self::Diamond { filled } => {
                let corners = [(0, -8), (7, 0), (0, 8), (-7, 0), (0, -8)];
                draw_polygon(canvas, at, &corners, filled, colour);
            }
            Self::Triangle { filled } => {
                let corners = [(0, -7), (6, 5), (-6, 5), (0, -7)];
                draw_polygon(canvas, at, &corners, filled, colour);
            }
        }
    }
}

/// Draws a polygon around `at`, filled with its colour or with white.
fn draw_polygon(
    canvas: &Canvas<'_>,
    at: (i32, i32),
    corners: &[(i32, i32)],
    filled: bool,
    colour: RGBColor,
) {
    let corners: Vec<(i32, i32)> = corners.iter().map(|(x, y)| (at.0 + x, at.1 + y)).collect();
    let inside = if filled { colour } else { WHITE };
    let area = Polygon::new(corners.clone(), inside.filled());
    canvas.draw(&area).expect(INFALLIBLE);
    let outline = PathElement::new(corners, colour.stroke_width(2));
    canvas.draw(&outline).expect(INFALLIBLE);
}

fn draw_text(canvas: &Canvas<'_>, text: String, at: Pixel, side: HPos, colour: RGBColor) {
    let font = (FONT, SMALL).into_font().color(&colour);
    let style = font.pos(Pos::new(side, VPos::Center));
    canvas
        .draw(&Text::new(text, whole(at), style))
        .expect(INFALLIBLE);
}

fn whole([x, y]: Pixel) -> (i32, i32) {
    (x.round() as i32, y.round() as i32)
}

/// Maps marks to pixels.
#[derive(Debug)]
struct Axes {
    unit: Unit,
    x: Range,
    y: Range,
    /// Left, top, right and bottom of the plotting area, in pixels.
    area: [f64; 4],
}

impl Axes {
    fn draw(canvas: &Canvas<'_>, title: &str, series: &[Series]) -> Self {
        let unit = Unit::of(series);
        let (x, y) = ranges(series, unit);
        let mut chart = ChartBuilder::on(canvas)
            .caption(title, (FONT, LARGE).into_font().color(&INK))
            .margin(14)
            .margin_right(24)
            .x_label_area_size(54)
            .y_label_area_size(64)
            .build_cartesian_2d(x.clone(), y.clone())
            .expect(INFALLIBLE);
        let number = |value: &f64| format!("{}", (value * 1e6).round() / 1e6);
        chart
            .configure_mesh()
            .x_desc(format!("multiply-accumulates per image{}", unit.name))
            .y_desc("top-1 accuracy on test images (%)")
            .axis_desc_style((FONT, MIDDLE).into_font().color(&INK))
            .label_style((FONT, SMALL).into_font().color(&INK))
            .x_label_formatter(&number)
            .y_label_formatter(&number)
            .x_labels(9)
            .y_labels(9)
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .axis_style(INK)
            .draw()
            .expect(INFALLIBLE);
        let (columns, rows) = chart.plotting_area().get_pixel_range();
        let area = [columns.start, rows.start, columns.end, rows.end].map(f64::from);
        Self { unit, x, y, area }
    }

    fn pixel(&self, mark: &Mark) -> Pixel {
        let (x, y) = place(mark, self.unit);
        let part = |range: &Range, value: f64| (value - range.start) / (range.end - range.start);
        let [left, top, right, bottom] = self.area;
        [
            left + part(&self.x, x) * (right - left),
            bottom - part(&self.y, y) * (bottom - top),
        ]
    }
}

/// The marks on a series' Pareto frontier by cost, without duplicates.
pub(super) fn frontier(series: &Series) -> Vec<Mark> {
    let points: Vec<(u64, f64)> = series.marks.iter().map(|m| (m.macs, m.chosen_by)).collect();
    let on = pareto(&points);
    let mut marks: Vec<Mark> = std::iter::zip(&series.marks, on)
        .filter(|(_, on)| *on)
        .map(|(mark, _)| mark.clone())
        .collect();
    marks.sort_by_key(|mark| (mark.macs, mark.kind));
    marks.dedup_by_key(|mark| (mark.macs, mark.top1.to_bits()));
    marks
}

fn colour(index: usize) -> RGBColor {
    COLOURS[index % COLOURS.len()]
}

/// The coordinates of a mark: cost in the unit of the axis, accuracy in per
/// cent.
fn place(mark: &Mark, unit: Unit) -> (f64, f64) {
    (mark.macs as f64 / unit.size, 100.0 * mark.top1)
}

/// The unit of the cost axis.
#[derive(Clone, Copy, Debug)]
struct Unit {
    size: f64,
    name: &'static str,
}

impl Unit {
    fn of(series: &[Series]) -> Self {
        let all = series.iter().flat_map(|one| &one.marks);
        let (size, name) = match all.map(|mark| mark.macs).max().unwrap_or(0) {
            1_000_000_000.. => (1e9, " (billions)"),
            1_000_000.. => (1e6, " (millions)"),
            1_000.. => (1e3, " (thousands)"),
            _ => (1.0, ""),
        };
        Self { size, name }
    }
}

type Range = std::ops::Range<f64>;

/// The ranges of the axes: all marks with a margin, and costs from zero.
fn ranges(series: &[Series], unit: Unit) -> (Range, Range) {
    let places: Vec<(f64, f64)> = series
        .iter()
        .flat_map(|one| one.marks.iter().map(|mark| place(mark, unit)))
        .collect();
    let most = places.iter().map(|p| p.0).fold(0.0, f64::max);
    let low = places.iter().map(|p| p.1).fold(f64::INFINITY, f64::min);
    let high = places.iter().map(|p| p.1).fold(f64::NEG_INFINITY, f64::max);
    if places.is_empty() || most == 0.0 {
        return (0.0..1.0, 0.0..100.0);
    }
    let margin = (0.12 * (high - low)).max(0.5);
    (0.0..1.06 * most, (low - margin).max(0.0)..high + margin)
}
