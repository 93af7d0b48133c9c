//! Prints the simulation tables of `docs/controller.md`, and draws their picture.
//!
//! ```sh
//! cargo run --release -p sdpoint-serve --example controller [REQUESTS] [PICTURE.svg]
//! ```

use std::error::Error;
use std::fmt::Write as _;

use sdpoint_serve::control::{Costs, Policy};
use sdpoint_serve::simulation::{Comparison, Scenario, example_costs};

const LOADS: [f64; 7] = [0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 9.0];

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let requests = arguments.next().map_or(Ok(100_000), |n| n.parse())?;
    let costs = example_costs(32);
    let mut curves = Vec::new();
    for objective in [15.0, 50.0] {
        for burstiness in [1.0, 4.0, 8.0] {
            println!("\nobjective {objective} service times, burstiness {burstiness}\n");
            println!("{HEADER}");
            let results = LOADS.map(|load| {
                let scenario = Scenario {
                    load,
                    burstiness,
                    objective,
                    requests,
                };
                let result = scenario.compare(&costs, Policy::default(), 1);
                println!("{}", row(load, &result, &costs));
                result
            });
            if burstiness == 4.0 {
                curves.push((objective, results));
            }
        }
    }
    if let Some(file) = arguments.next() {
        let panels = curves.iter().enumerate();
        let panels = panels.map(|(number, (objective, results))| {
            panel(
                320 * number,
                &format!("{objective} service times"),
                results,
                &costs,
            )
        });
        std::fs::write(file, picture(&panels.collect::<String>()))?;
    }
    Ok(())
}

const HEADER: &str = "| load | in time | cheapest in time | equally accurate in time | goodput \
| accuracy | best fixed | ideal | fluid bound | closed to ideal | closed to bound |\n\
| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |";

fn row(load: f64, result: &Comparison, costs: &Costs) -> String {
    let Comparison {
        chosen,
        fixed,
        cheapest,
        bound,
        ideal,
        capacity,
    } = result;
    let percent = |share: f64| format!("{:.2} %", 100.0 * share);
    let best = costs.choices()[result.best_fixed(costs)].worth;
    // There is no distance if a fixed instance is as good.
    let closed = |to: f64| match to - best >= 0.002 {
        true => format!("{:.2}", result.closed(costs, to)),
        false => "–".to_owned(),
    };
    let cells = [
        format!("{load}"),
        percent(chosen.attainment()),
        percent(fixed[*cheapest].attainment()),
        percent(equally_accurate(result, costs)),
        percent(chosen.goodput() / capacity),
        percent(chosen.accuracy()),
        percent(best),
        percent(ideal.accuracy),
        bound.map_or("–".to_owned(), percent),
        closed(ideal.accuracy),
        bound.map_or("–".to_owned(), closed),
    ];
    format!("| {} |", cells.join(" | "))
}

/// The largest attainment of a fixed instance that is at least as accurate as the answers.
fn equally_accurate(result: &Comparison, costs: &Costs) -> f64 {
    // A hundredth of a point less counts as equal.
    let least = result.chosen.accuracy() - 1e-4;
    let choices = std::iter::zip(costs.choices(), &result.fixed);
    let equal = choices.filter(|(choice, _)| choice.worth >= least);
    equal.map(|(_, run)| run.attainment()).fold(0.0, f64::max)
}

/// Accuracy over load, without the last load, which is far beyond capacity.
fn panel(left: usize, title: &str, results: &[Comparison], costs: &Costs) -> String {
    let [low, high] = [0.91, 0.942];
    let x = |load: f64| left as f64 + 50.0 + 250.0 * load / 3.0;
    let y = |accuracy: f64| 220.0 - 180.0 * (accuracy - low) / (high - low);
    let mut svg = format!("<text x=\"{}\" y=\"24\">{title}</text>", left + 120);
    for percent in [91, 92, 93, 94] {
        let at = y(f64::from(percent) / 100.0);
        write!(
            svg,
            "<line class=\"grid\" x1=\"{}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text x=\"{}\" y=\"{:.1}\">{percent} %</text>",
            left + 50,
            left + 300,
            left + 8,
            at + 4.0
        )
        .expect("a string");
    }
    for load in [1.0, 2.0, 3.0] {
        write!(
            svg,
            "<text x=\"{:.1}\" y=\"238\">{load}</text>",
            x(load) - 4.0
        )
        .expect("a string");
    }
    write!(svg, "<text x=\"{}\" y=\"256\">load</text>", left + 160).expect("a string");
    type Value = fn(&Comparison, &Costs) -> f64;
    let lines: [(&str, Value); 3] = [
        ("ideal", |result, _| result.ideal.accuracy),
        ("chosen", |result, _| result.chosen.accuracy()),
        ("fixed", |result, costs| {
            costs.choices()[result.best_fixed(costs)].worth
        }),
    ];
    for (class, value) in lines {
        let points = std::iter::zip(LOADS, results).filter(|(load, _)| *load <= 3.0);
        let points = points.map(|(load, r)| format!("{:.1},{:.1}", x(load), y(value(r, costs))));
        let points = points.collect::<Vec<_>>().join(" ");
        write!(svg, "<polyline class=\"{class}\" points=\"{points}\"/>").expect("a string");
    }
    svg
}

fn picture(panels: &str) -> String {
    let key = [
        ("ideal", "ideal policy"),
        ("chosen", "controller"),
        ("fixed", "best fixed instance"),
    ];
    let key = key.iter().enumerate().map(|(number, (class, text))| {
        let left = 60 + 200 * number;
        format!(
            "<polyline class=\"{class}\" points=\"{left},276 {},276\"/>\
             <text x=\"{}\" y=\"280\">{text}</text>",
            left + 30,
            left + 36
        )
    });
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"640\" height=\"296\" \
         font-family=\"sans-serif\" font-size=\"12\"><style>\
         polyline{{fill:none;stroke-width:2}}.grid{{stroke:#ddd}}.ideal{{stroke:#999;stroke-dasharray:5 4}}\
         .chosen{{stroke:#1f6fb4}}.fixed{{stroke:#c0504d}}</style>\
         <rect width=\"640\" height=\"296\" fill=\"#fff\"/>{panels}{}</svg>\n",
        key.collect::<String>()
    )
}
