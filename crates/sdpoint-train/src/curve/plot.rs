//! The curve as a picture.

use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use sdpoint_core::Instance;
use sdpoint_core::select::pareto;

use super::labels::Placer;
use super::{Mark, Series};

const SIZE: (u32, u32) = (860, 540);
const FONT: &str = "sans-serif";
const LABEL_SIZE: f64 = 13.0;
const INK: RGBColor = RGBColor(40, 40, 40);
const GRID: RGBColor = RGBColor(228, 228, 228);

/// Okabe and Ito's colours, which the colour-blind tell apart, in the order
/// of their contrast on white.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];

/// Something that draws into a string never fails.
const INFALLIBLE: &str = "a string takes all";

type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// Draws top-1 accuracy over multiply-accumulates as an SVG image.
///
/// The instances on the Pareto frontier of their series are filled, joined by
/// a line and, as far as there is room, named; `full` is a diamond. Several
/// series differ in colour and are told apart by a legend. The text is in
/// whatever sans-serif font the viewer has.
pub fn curve_svg(title: &str, series: &[Series]) -> String {
    let mut svg = String::new();
    let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
    root.fill(&WHITE).expect(INFALLIBLE);
    draw(&root, title, series);
    root.present().expect(INFALLIBLE);
    drop(root);
    svg
}

fn draw(root: &DrawingArea<SVGBackend<'_>, Shift>, title: &str, series: &[Series]) {
    let unit = Unit::of(series);
    let (x, y) = ranges(series, unit);
    let mut chart: Chart = ChartBuilder::on(root)
        .caption(title, (FONT, 19).into_font().color(&INK))
        .margin(14)
        .margin_right(24)
        .x_label_area_size(48)
        .y_label_area_size(58)
        .build_cartesian_2d(x, y)
        .expect(INFALLIBLE);
    chart
        .configure_mesh()
        .x_desc(format!("multiply-accumulates an image ({})", unit.name))
        .y_desc("top-1 accuracy on test images (%)")
        .axis_desc_style((FONT, 15).into_font().color(&INK))
        .label_style((FONT, 13).into_font().color(&INK))
        .x_label_formatter(&|x| format!("{}", (x * 1e6).round() / 1e6))
        .y_label_formatter(&|y| format!("{}", (y * 1e6).round() / 1e6))
        .x_labels(9)
        .y_labels(9)
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .axis_style(INK)
        .draw()
        .expect(INFALLIBLE);
    for (index, one) in series.iter().enumerate() {
        draw_series(&mut chart, one, colour(index), unit);
    }
    draw_labels(root, &chart, series, unit);
    if series.len() > 1 {
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerRight)
            .background_style(WHITE.mix(0.9))
            .border_style(GRID)
            .label_font((FONT, 14).into_font().color(&INK))
            .draw()
            .expect(INFALLIBLE);
    }
}

fn draw_series(chart: &mut Chart, series: &Series, colour: RGBColor, unit: Unit) {
    let frontier = frontier(series);
    let line = frontier.iter().map(|mark| place(mark, unit));
    chart
        .draw_series(LineSeries::new(line, colour.stroke_width(2)))
        .expect(INFALLIBLE)
        .label(&series.name)
        .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(3)));
    for mark in &series.marks {
        let best = frontier.contains(mark);
        let style = match best {
            true => colour.filled(),
            false => colour.mix(0.75).stroke_width(1),
        };
        let element = EmptyElement::at(place(mark, unit));
        if mark.instance == Instance::Full {
            let corners = [(0, -8), (7, 0), (0, 8), (-7, 0)];
            let inside = if best { colour } else { WHITE };
            let mut outline = corners.to_vec();
            outline.push(corners[0]);
            let diamond = element
                + Polygon::new(corners, inside.filled())
                + PathElement::new(outline, colour.stroke_width(2));
            chart.draw_series([diamond]).expect(INFALLIBLE);
        } else {
            let dot = element + Circle::new((0, 0), if best { 5 } else { 4 }, style);
            chart.draw_series([dot]).expect(INFALLIBLE);
        }
    }
}

/// Names the instances of the frontiers and every `full`, as far as there is
/// room.
fn draw_labels(
    root: &DrawingArea<SVGBackend<'_>, Shift>,
    chart: &Chart,
    series: &[Series],
    unit: Unit,
) {
    let pixel = |mark: &Mark| {
        let (x, y) = chart.backend_coord(&place(mark, unit));
        [f64::from(x), f64::from(y)]
    };
    let (columns, rows) = chart.plotting_area().get_pixel_range();
    let mut placer = Placer::new([
        f64::from(columns.start),
        f64::from(rows.start),
        f64::from(columns.end),
        f64::from(rows.end),
    ]);
    if series.len() > 1 {
        placer.avoid(legend_box(series, columns.end, rows.end));
    }
    for one in series {
        for [x, y] in one.marks.iter().map(pixel) {
            placer.avoid([x - 6.0, y - 6.0, x + 6.0, y + 6.0]);
        }
        for pair in frontier(one).windows(2) {
            placer.avoid_line(pixel(&pair[0]), pixel(&pair[1]));
        }
    }
    for (index, one) in series.iter().enumerate() {
        let mut named = frontier(one);
        // Those at the ends first: they say most if there is little room.
        named.sort_by_key(|mark| mark.instance != Instance::Full);
        let full = one
            .marks
            .iter()
            .find(|mark| mark.instance == Instance::Full);
        named.extend(full.filter(|&mark| !named.contains(mark)));
        for mark in named {
            let text = mark.instance.to_string();
            let size = [text.len() as f64 * LABEL_SIZE * 0.58, LABEL_SIZE];
            if let Some([left, top]) = placer.place(pixel(&mark), size) {
                let middle = (left + size[0] / 2.0, top + size[1] / 2.0);
                let style = (FONT, LABEL_SIZE)
                    .into_font()
                    .color(&colour(index))
                    .pos(Pos::new(HPos::Center, VPos::Center));
                let at = (middle.0 as i32, middle.1 as i32);
                root.draw(&Text::new(text, at, style)).expect(INFALLIBLE);
            }
        }
    }
}

/// About where plotters puts the legend.
fn legend_box(series: &[Series], right: i32, bottom: i32) -> super::labels::Box {
    let longest = series.iter().map(|one| one.name.len()).max().unwrap_or(0);
    let (right, bottom) = (f64::from(right), f64::from(bottom));
    [
        right - 60.0 - 8.5 * longest as f64,
        bottom - 24.0 - 22.0 * series.len() as f64,
        right,
        bottom,
    ]
}

/// The marks on a series' Pareto frontier, by cost; of equal ones the first.
fn frontier(series: &Series) -> Vec<Mark> {
    let points: Vec<(u64, f64)> = series.marks.iter().map(|m| (m.macs, m.top1)).collect();
    let on = pareto(&points);
    let mut marks: Vec<Mark> = std::iter::zip(&series.marks, on)
        .filter_map(|(&mark, on)| on.then_some(mark))
        .collect();
    marks.sort_by_key(|mark| (mark.macs, mark.instance));
    marks.dedup_by_key(|mark| (mark.macs, mark.top1.to_bits()));
    marks
}

fn colour(index: usize) -> RGBColor {
    COLOURS[index % COLOURS.len()]
}

/// Where a mark is on the axes: in units of MACs, and in per cent.
fn place(mark: &Mark, unit: Unit) -> (f64, f64) {
    (mark.macs as f64 / unit.size, 100.0 * mark.top1)
}

/// What MACs are counted in.
#[derive(Clone, Copy, Debug)]
struct Unit {
    size: f64,
    name: &'static str,
}

impl Unit {
    fn of(series: &[Series]) -> Self {
        let all = series.iter().flat_map(|one| &one.marks);
        let (size, name) = match all.map(|mark| mark.macs).max().unwrap_or(0) {
            1_000_000_000.. => (1e9, "billions"),
            1_000_000.. => (1e6, "millions"),
            1_000.. => (1e3, "thousands"),
            _ => (1.0, "single"),
        };
        Self { size, name }
    }
}

type Range = std::ops::Range<f64>;

/// What the axes show: all marks with a margin, costs from zero.
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
