//! Where images come from, as all commands take it.

use std::collections::BTreeSet;

use sdpoint::data::{DataError, Dataset, OpenOptions, Source, Split, open};

use crate::failure::Failure;
use crate::output::note;

/// The forms of a source, for the help texts of the commands.
pub const SOURCES: &str = "\
Data sources:
  shapes          drawn by the program itself: 32x32 pixels, 10 classes
  folder:DIR      JPEG and PNG files in a folder for each class, under DIR/train and DIR/test
                  (or DIR/val)
  tar:PATH        the same tree in a .tar or .tar.gz, or WebDataset shards (.jpg with .cls); a
                  folder of archives, or several separated by commas
  cifar10:DIR     the official binary files, as `sdpoint fetch cifar10 DIR` leaves them
  cifar100:DIR    likewise, with the 100 fine classes";

/// Options of how data is read.
#[derive(clap::Args)]
pub struct Reading {
    /// Unreadable images to skip in a split before giving up [default: 1 % of them, at least 10]
    #[arg(long, value_name = "N")]
    skip_unreadable: Option<usize>,
}

impl Reading {
    /// What [`open`] takes.
    pub fn options(&self) -> OpenOptions {
        OpenOptions {
            skip_limit: self.skip_unreadable,
            ..OpenOptions::default()
        }
    }
}

/// Opens the test split, if the source has one.
pub fn open_test(source: &Source, options: &OpenOptions) -> Result<Option<Dataset>, Failure> {
    match open(source, Split::Test, options) {
        Ok(data) => Ok(Some(data)),
        Err(DataError::NoSplit { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Names the images that were skipped because they are unreadable.
pub fn note_skipped(data: &[&Dataset]) {
    const SHOWN: usize = 10;
    let skipped: BTreeSet<String> = data.iter().flat_map(|data| data.skipped()).collect();
    if skipped.is_empty() {
        return;
    }
    note(&format!("Skipped {} unreadable:", skipped.len()));
    for image in skipped.iter().take(SHOWN) {
        note(&format!("  {image}"));
    }
    if skipped.len() > SHOWN {
        note(&format!("  and {} more", skipped.len() - SHOWN));
    }
}
