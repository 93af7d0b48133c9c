//! Pictures as SVG.

use plotters::coord::Shift;
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
    RGBColor(120, 120, 120),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
];

const GRID: RGBColor = RGBColor(228, 228, 228);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws panels in rows of `columns`, with the same x axis. The first names the lines.
pub fn draw(
    panels: &[(String, Vec<Line>)],
    columns: usize,
    x_axis: &str,
) -> anyhow::Result<String> {
    let columns = columns.max(1);
    let rows = panels.len().div_ceil(columns);
    let mut svg = String::new();
    {
        let size = (460 * columns as u32, 320 * rows as u32);
        let canvas = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        canvas.fill(&WHITE)?;
        let areas = canvas.split_evenly((rows, columns));
        for (index, (area, (title, lines))) in areas.iter().zip(panels).enumerate() {
            panel(area, title, lines, x_axis, index == 0)?;
        }
        canvas.present()?;
    }
    Ok(svg)
}

fn panel(
    area: &Area<'_>,
    title: &str,
    lines: &[Line],
    x_axis: &str,
    named: bool,
) -> anyhow::Result<()> {
    let points = || lines.iter().flat_map(|line| &line.points);
    let range = |pick: fn(&(f64, f64)) -> f64| {
        // A panel may be empty: where no row belongs to it.
        if points().next().is_none() {
            return 0.0..1.0;
        }
        let low = points().map(pick).fold(f64::INFINITY, f64::min);
        let high = points().map(pick).fold(f64::NEG_INFINITY, f64::max);
        let margin = 0.05 * (high - low).max(0.1);
        low - margin..high + margin
    };
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 16))
        .margin(10)
        .x_label_area_size(40)
        .y_label_area_size(48)
        .build_cartesian_2d(range(|p| p.0), range(|p| p.1))?;
    chart
        .configure_mesh()
        .x_desc(x_axis)
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
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
    if named {
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .background_style(WHITE.mix(0.8))
            .border_style(GRID)
            .draw()?;
    }
    Ok(())
}

/// Draws shares over time, stacked: for each step of time, the shares of all layers.
pub fn stack(title: &str, names: &[String], steps: &[(f64, Vec<f64>)]) -> anyhow::Result<String> {
    let mut svg = String::new();
    {
        let canvas = SVGBackend::with_string(&mut svg, (920, 360)).into_drawing_area();
        canvas.fill(&WHITE)?;
        let end = steps.last().map_or(1.0, |step| step.0);
        let mut chart = ChartBuilder::on(&canvas)
            .caption(title, ("sans-serif", 16))
            .margin(10)
            .margin_right(110)
            .x_label_area_size(40)
            .y_label_area_size(48)
            .build_cartesian_2d(0.0..end, 0.0..100.0)?;
        chart
            .configure_mesh()
            .x_desc("seconds")
            .y_desc("answers (%)")
            .disable_mesh()
            .draw()?;
        let count = names.len().max(1) as f64;
        // From the top layer down: each area hides what is below it.
        for layer in (0..names.len()).rev() {
            let height = |shares: &[f64]| 100.0 * shares[..=layer].iter().sum::<f64>();
            let points = steps.iter().map(|(at, shares)| (*at, height(shares)));
            let colour = HSLColor(0.58 + 0.5 * layer as f64 / count, 0.55, 0.55).filled();
            chart.draw_series(AreaSeries::new(points, 0.0, colour))?;
            // Beside the chart, in whose area a legend of the library's would be.
            let y = 34 + 16 * (names.len() - 1 - layer) as i32;
            canvas.draw(&Rectangle::new([(822, y), (834, y + 10)], colour))?;
            let text = Text::new(names[layer].clone(), (840, y), ("sans-serif", 12));
            canvas.draw(&text)?;
        }
        canvas.present()?;
    }
    Ok(svg)
}
