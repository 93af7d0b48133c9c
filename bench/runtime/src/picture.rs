//! Lines over deadlines, as SVG.

use plotters::prelude::*;

/// A line with its name.
pub struct Line {
    pub name: String,
    pub points: Vec<(f64, f64)>,
    pub wide: bool,
}

const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];

/// Draws panels of the same lines side by side; the first names them.
pub fn draw(panels: &[(&str, Vec<Line>)]) -> anyhow::Result<String> {
    let mut svg = String::new();
    {
        let canvas = SVGBackend::with_string(&mut svg, (1000, 460)).into_drawing_area();
        canvas.fill(&WHITE)?;
        let areas = canvas.split_evenly((1, panels.len()));
        for (index, (area, (title, lines))) in areas.iter().zip(panels).enumerate() {
            panel(area, title, lines, index == 0)?;
        }
        canvas.present()?;
    }
    Ok(svg)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn panel(area: &Area<'_>, title: &str, lines: &[Line], named: bool) -> anyhow::Result<()> {
    let all = || lines.iter().flat_map(|line| &line.points);
    let fold = |f: fn(f64, f64) -> f64, start, pick: fn(&(f64, f64)) -> f64| {
        all().map(pick).fold(start, f)
    };
    let x = fold(f64::min, f64::INFINITY, |p| p.0)..fold(f64::max, 0.0, |p| p.0);
    let y = fold(f64::min, f64::INFINITY, |p| p.1)..fold(f64::max, 0.0, |p| p.1);
    let margin = 0.05 * (y.end - y.start).max(1.0);
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(52)
        .build_cartesian_2d(x, y.start - margin..y.end + margin)?;
    chart
        .configure_mesh()
        .x_desc("deadline (ms)")
        .light_line_style(TRANSPARENT)
        .bold_line_style(RGBColor(228, 228, 228))
        .draw()?;
    for (index, line) in lines.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let style = colour.stroke_width(if line.wide { 4 } else { 2 });
        let drawn = LineSeries::new(line.points.iter().copied(), style);
        chart
            .draw_series(drawn)?
            .label(line.name.clone())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
    }
    if !named {
        return Ok(());
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.8))
        .border_style(RGBColor(228, 228, 228))
        .draw()?;
    Ok(())
}
