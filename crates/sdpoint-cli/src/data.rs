//! Where images come from, as all commands take it.

use std::collections::BTreeSet;

use sdpoint::DataError;
use sdpoint::data::{Dataset, OpenOptions, Sizes, Source, Split, open};

use crate::failure::Failure;
use crate::output::{note, one_line};
use crate::size;

/// The forms of a source, for the help texts of the commands.
pub const SOURCES: &str = "\
Data sources:
  shapes          drawn by the program itself: 32x32 pixels, 10 classes
  folder:DIR      JPEG, PNG and WebP files in a folder for each class, under DIR/train and
                  DIR/test (or DIR/val)
  tar:PATH        the same tree in a .tar or .tar.gz, or WebDataset shards (.jpg with .cls); a
                  folder of archives, several separated by commas, or 'shard-{000..015}.tar'
  cifar10:PATH    the official files, binary or of Python, unpacked or as .tar.gz; `sdpoint fetch
                  cifar10 DIR` downloads them
  cifar100:PATH   likewise, with the 100 fine classes";

/// Options of how data is read.
#[derive(clap::Args)]
pub struct DataArgs {
    /// Unreadable images to skip in a split before giving up [default: 1 % of them, at least 10]
    #[arg(long, value_name = "N")]
    skip_unreadable: Option<usize>,
    /// In WebDataset samples with several images, the one to read, by the end of its name: jpg,
    /// image.png
    #[arg(long, value_name = "EXT")]
    pub image_key: Option<String>,
    /// In WebDataset samples, take the class from this key of the .json members [default: .cls
    /// members]
    #[arg(long, value_name = "NAME")]
    pub label_key: Option<String>,
}

impl DataArgs {
    /// What [`open`] takes.
    pub fn options(&self) -> OpenOptions {
        OpenOptions {
            skip_limit: self.skip_unreadable,
            image_key: self.image_key.clone(),
            label_key: self.label_key.clone(),
            ..OpenOptions::default()
        }
    }
}

/// Opens a split, and tells what of it is not read.
pub fn open_split(
    source: &Source,
    split: Split,
    options: &OpenOptions,
) -> Result<Dataset, Failure> {
    let data = open(source, split, options)?;
    note_left_out(&data);
    Ok(data)
}

/// Opens the test split, if the source has one.
pub fn open_test(source: &Source, options: &OpenOptions) -> Result<Option<Dataset>, Failure> {
    match open(source, Split::Test, options) {
        Ok(data) => {
            note_left_out(&data);
            Ok(Some(data))
        }
        Err(DataError::NoSplit { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Tells what a split holds that is not read, a line for each reason.
pub fn note_left_out(data: &Dataset) {
    for line in data.left_out().lines() {
        note(&format!("Not read of the {} images: {line}", data.split()));
    }
    if let Some(remark) = data.left_out().remark() {
        note(&remark);
    }
}

/// Tells that images are of several sizes where all are brought to the commonest one.
pub fn note_sizes(data: &Dataset) -> Result<(), Failure> {
    let sizes = Sizes::of(data)?;
    if let Some([least, most]) = sizes.range() {
        note(&format!(
            "Images are of several sizes, {} to {} pixels; all become {}, the commonest; --input \
             takes another.",
            size::text(least),
            size::text(most),
            size::text(sizes.commonest()),
        ));
    }
    Ok(())
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
        note(&format!("  {}", one_line(image)));
    }
    if skipped.len() > SHOWN {
        note(&format!("  and {} more", skipped.len() - SHOWN));
    }
}
