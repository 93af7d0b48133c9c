//! `sdpoint fetch`: downloads the official data sets.

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use sdpoint::data::{CifarKind, Fetched, OFFICIAL_ADDRESS, fetch};

use crate::failure::Outcome;
use crate::output::{note, print, program};
use crate::path;

const EXAMPLES: &str = "\
Examples:
  sdpoint fetch cifar10 data
  sdpoint train --data cifar10:data --network preresnet20

An interrupted download is resumed. The checksum of the archive is compared with the published one \
before anything is extracted.";

/// Download CIFAR-10 or CIFAR-100 from the official site
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Data set; each is 170 MB
    #[arg(value_name = "NAME")]
    name: Name,
    /// Destination folder
    #[arg(value_name = "DIR", value_parser = path::parser())]
    folder: PathBuf,
    /// URL of a mirror, without the name of the archive
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
        note(&format!("downloading {name} from {}", args.from));
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
        Fetched::Downloaded => format!("{name} is in {folder}; its checksum is correct."),
        Fetched::AlreadyThere => format!("{name} is already in {folder}."),
    };
    print(&format!(
        "{what}\nNext:\n  {} train --data {name}:{folder} --network preresnet20\n",
        program()
    ))
}

/// A progress bar, on a terminal only.
fn bar() -> Option<ProgressBar> {
    std::io::stderr().is_terminal().then(|| {
        let template = "{bar:32} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left";
        let style = ProgressStyle::with_template(template).expect("the template is valid");
        ProgressBar::new(0).with_style(style)
    })
}
