//! `sdpoint networks`: lists the networks that can be trained.

use sdpoint::Instance;
use sdpoint::core::format_macs;
use sdpoint::zoo::{self, Entry};
use serde::Serialize;

use crate::failure::{Failure, Outcome};
use crate::output::{Table, print, print_json};

const EXAMPLES: &str = "\
Examples:
  sdpoint networks
  sdpoint networks --json
  sdpoint instances wrn28-10        the instances of one of them and their cost";

/// List the networks with their size and cost
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Print an array of JSON objects instead of a table
    #[arg(long)]
    json: bool,
}

/// A row of the list.
#[derive(Serialize)]
struct Row {
    name: &'static str,
    /// The name pattern of its family.
    #[serde(skip_serializing_if = "Option::is_none")]
    family: Option<&'static str>,
    parameters: u64,
    macs: u64,
    points: usize,
    input: usize,
    classes: usize,
}

impl Row {
    fn new(entry: &Entry) -> Result<Self, Failure> {
        let network = zoo::build(entry.name, entry.classes)?;
        let cost = network.cost([entry.input; 2], Instance::Full)?;
        Ok(Self {
            name: entry.name,
            family: entry.pattern,
            parameters: cost.parameters,
            macs: cost.macs,
            points: network.points().len(),
            input: entry.input,
            classes: entry.classes,
        })
    }
}

pub fn run(args: &Args) -> Outcome {
    let rows: Result<Vec<Row>, Failure> = zoo::entries().iter().map(Row::new).collect();
    let rows = rows?;
    if args.json {
        return print_json(&rows);
    }
    let mut table = Table::new([
        "network",
        "parameters",
        "MACs",
        "points",
        "input",
        "classes",
    ]);
    for row in &rows {
        table.row([
            row.name.to_owned(),
            format_macs(row.parameters),
            format_macs(row.macs),
            row.points.to_string(),
            row.input.to_string(),
            row.classes.to_string(),
        ]);
    }
    let mut families: Vec<&str> = rows.iter().filter_map(|row| row.family).collect();
    families.dedup();
    let mut text = table.text();
    text.push_str("\nFamilies, of which the table shows some members:\n");
    for family in families {
        text.push_str(&format!("  {family}\n"));
    }
    text.push_str("\nMACs are those of one image of the given input size. Other input sizes and\n");
    text.push_str("numbers of classes are possible.\n");
    print(&text)
}
