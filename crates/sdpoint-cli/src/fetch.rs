//! `sdpoint fetch`: the official data sets.

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use sdpoint::data::{CifarKind, Fetched, OFFICIAL_ADDRESS, fetch};

use crate::failure::Outcome;
use crate::output::{note, print, program};

const EXAMPLES: &str = "\
Examples:
  sdpoint fetch cifar10 data
  sdpoint train --data cifar10:data --network preresnet20

A download that broke off is gone on with. The archive's checksum is compared with the published \
one before anything is unpacked.";

/// Download CIFAR-10 or CIFAR-100 from their official address
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Which data set; 170 MB either
    #[arg(value_name = "NAME")]
    name: Name,
    /// The folder to put it into
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// The address of a mirror, without the archive's name
    #[arg(long, value_name = "URL", default_value = OFFICIAL_ADDRESS)]
    from: String,
}

#[derive(Clone, Copy, ValueEnum)]
enum Name {
    Cifar10,
    Cifar100,
}

pub fn run(args: &Args) -> Outcome {
    let (kind, name) = match args.name {
        Name::Cifar10 => (CifarKind::Cifar10, "cifar10"),
        Name::Cifar100 => (CifarKind::Cifar100, "cifar100"),
    };
    let bar = bar();
    if bar.is_none() {
        note(&format!("fetching {name} from {}", args.from));
    }
    let fetched = fetch(kind, &args.folder, &args.from, |done, all| {
        if let Some(bar) = &bar {
            if let Some(all) = all {
                bar.set_length(all);
            }
            bar.set_position(done);
        }
    });
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    let folder = args.folder.display();
    let what = match fetched? {
        Fetched::Downloaded => format!("{name} is in {folder}, its checksum is right."),
        Fetched::AlreadyThere => format!("{name} is in {folder} already."),
    };
    print(&format!(
        "{what}\nNext:\n  {} train --data {name}:{folder} --network preresnet20\n",
        program()
    ))
}

/// A bar on a terminal.
fn bar() -> Option<ProgressBar> {
    std::io::stderr().is_terminal().then(|| {
        let template = "{bar:32} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left";
        let style = ProgressStyle::with_template(template).expect("the template is sound");
        ProgressBar::new(0).with_style(style)
    })
}
