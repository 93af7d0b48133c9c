//! Data sources on the command line.

use std::collections::BTreeSet;

use sdpoint::core::EvalTransform;
use sdpoint::data::{Dataset, OpenOptions, Sizes, Source, Split, look_alike, open, visible_name};
use sdpoint::{DataError, Model};

use crate::failure::Failure;
use crate::output::{note, one_line};
use crate::size;

/// The forms of a data source, for the help of the commands.
pub const SOURCES: &str = "\
Data sources:
  shapes          built-in images: simple shapes of 32x32 pixels in 10 classes
  folder:DIR      JPEG, PNG and WebP files, one folder per class under DIR/train and DIR/test (or
                  DIR/val)
  tar:PATH        the same tree in a .tar or .tar.gz file, or WebDataset shards (.jpg with .cls);
                  also a folder of archives, a list separated by commas, or 'shard-{000..015}.tar'
  cifar10:PATH    the official files, binary or Python version, extracted or as .tar.gz;
                  `sdpoint fetch cifar10 DIR` downloads them
  cifar100:PATH   the same for CIFAR-100, with the 100 fine classes";

/// The longest side of small images, which keep their size.
pub const SMALL: usize = 64;

/// Options for reading data.
#[derive(clap::Args)]
#[command(next_help_heading = "Data options")]
pub struct DataArgs {
    /// Maximum number of unreadable images to skip per split [default: 1 % of the split, at least 10]
    #[arg(long, value_name = "N")]
    skip_unreadable: Option<usize>,
    /// For WebDataset samples with several images, the file name extension of the one to read: jpg,
    /// image.png
    #[arg(long, value_name = "EXT")]
    pub image_key: Option<String>,
    /// For WebDataset samples, the key of the .json members that holds the class [default: read
    /// .cls members]
    #[arg(long, value_name = "NAME")]
    pub label_key: Option<String>,
}

impl DataArgs {
    /// The options for [`open`].
    pub fn options(&self) -> OpenOptions {
        let mut options = OpenOptions::default();
        options.skip_limit = self.skip_unreadable;
        options.image_key.clone_from(&self.image_key);
        options.label_key.clone_from(&self.label_key);
        options
    }
}

/// Opens a split, and reports files that are not read.
pub fn open_split(
    source: &Source,
    split: Split,
    options: &OpenOptions,
) -> Result<Dataset, Failure> {
    let data = open(source, split, options)?;
    note_left_out(&data);
    note_look_alikes(data.classes());
    Ok(data)
}

/// Divides training images into those that a model was trained on, and those
/// that were held out, if there are any.
pub fn hold_out(model: &Model, train: Dataset) -> Result<(Dataset, Option<Dataset>), Failure> {
    let Some(how) = model.held_out else {
        return Ok((train, None));
    };
    note_other_names(model, train.source());
    let parts = train.hold_out(&how)?;
    Ok((parts.train, Some(parts.held_out)))
}

/// Reports that images held out of training are not recognised in another kind
/// of data than that of the training, which has other names.
fn note_other_names(model: &Model, now: &Source) {
    let then = model.training["data"].as_str();
    let then = then.and_then(|text| text.parse::<Source>().ok());
    let by_class_and_name = |source: &Source| match source {
        Source::Folder(_) | Source::Tar(_) => None,
        other => Some(std::mem::discriminant(other)),
    };
    if let Some(then) = then
        && by_class_and_name(&then) != by_class_and_name(now)
    {
        note(&format!(
            "The model was trained on {then}, whose images have other names than those of {now}: if \
             they are the same images, others than those held out of training are used in their \
             place, and accuracies are too high."
        ));
    }
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

/// Reports the files of a split that are not read, one line per reason.
pub fn note_left_out(data: &Dataset) {
    for line in data.left_out().lines() {
        note(&format!("Skipped in the {} split: {line}", data.split()));
    }
    if let Some(remark) = data.left_out().remark() {
        note(&format!("In the {} split: {remark}.", data.split()));
    }
}

/// Reports classes whose names look the same.
pub fn note_look_alikes(classes: &[String]) {
    const SHOWN: usize = 6;
    let alike = look_alike(classes);
    let names = std::iter::zip(classes, alike).filter(|(_, alike)| *alike);
    let names: Vec<String> = names.map(|(name, _)| visible_name(name)).collect();
    if names.is_empty() {
        return;
    }
    let more = match names.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let shown = names[..names.len().min(SHOWN)].join(", ");
    note(&format!(
        "These classes have names that look the same: {shown}{more}. They are different classes; \
         if that is not meant, merge their folders."
    ));
}

/// Reports that images differ in size if all are resized to the most common size
/// of the training images.
pub fn note_sizes(train: &Dataset, test: &Dataset) -> Result<(), Failure> {
    let (sizes, of_test) = (Sizes::of(train)?, Sizes::of(test)?);
    let commonest = sizes.commonest();
    if sizes.range().is_some() {
        let (tie, taken) = match sizes.all_commonest().len() {
            1 => (String::new(), "the most common one"),
            ties => (
                format!(" {ties} of them are equally common;"),
                "the largest of these",
            ),
        };
        note(&format!(
            "The training images have several sizes: {};{tie} all are resized to {}, {taken}, \
             without keeping the aspect ratio. --input N or --input HxW sets another size.",
            shares(&sizes),
            size::text(commonest),
        ));
    }
    let test_sizes = of_test.all_commonest();
    if !test_sizes.contains(&commonest) {
        let of_test = match test_sizes[..] {
            [size] => format!(
                "The most common size of the test images is {}",
                size::pixels(size)
            ),
            _ => format!(
                "The test images have several sizes, such as {}",
                size::pixels(of_test.commonest())
            ),
        };
        note(&format!(
            "{of_test}, but all images are resized to {}, a size of the training images, without \
             keeping the aspect ratio, so test images may look unlike those of training.",
            size::pixels(commonest),
        ));
    }
    Ok(())
}

/// Reports that a data set with small images counts as one of large ones, because
/// too many are larger, so that the small ones are enlarged.
pub fn note_enlarged(train: &Dataset, input: [usize; 2]) -> Result<(), Failure> {
    /// The share of small images that is worth a report.
    const MANY: f64 = 0.1;
    let sizes = Sizes::of(train)?;
    let small = sizes.share(|size| size.iter().all(|&side| side <= SMALL));
    if small >= MANY {
        note(&format!(
            "The images have several sizes: {}. Only {} are small, of at most {SMALL} pixels a side, \
             which is less than nine tenths: all images are prepared as large ones, for an input of \
             {}. --input N or --input HxW sets another size, such as --input 32.",
            shares(&sizes),
            share_text(small),
            size::text(input),
        ));
    }
    Ok(())
}

/// The most common sizes: `45% are 28x28, 30% 32x32, 25% others`.
fn shares(sizes: &Sizes) -> String {
    const SHOWN: usize = 4;
    let sizes = sizes.by_share();
    let shown = sizes.iter().take(SHOWN).enumerate();
    let mut parts: Vec<String> = shown
        .map(|(index, &([height, width], share))| {
            let verb = if index == 0 { " are" } else { "" };
            format!("{}{verb} {height}x{width}", share_text(share))
        })
        .collect();
    if sizes.len() > SHOWN {
        let others: f64 = sizes[SHOWN..].iter().map(|(_, share)| share).sum();
        parts.push(format!("{} others", share_text(others)));
    }
    parts.join(", ")
}

/// A share of a sample, in whole per cent.
fn share_text(share: f64) -> String {
    match (100.0 * share).round() {
        0.0 => "less than 1%".into(),
        per_cent => format!("{per_cent}%"),
    }
}

/// Reports that large images, or images of another shape, are squashed into the
/// input of a model for small images.
pub fn note_squashed(model: &Model, images: &Dataset) -> Result<(), Failure> {
    let size = model.preprocessing.size;
    let is_small = |size: [usize; 2]| size.iter().all(|&side| side <= SMALL);
    if !is_small(size) || model.preprocessing.evaluate != EvalTransform::Resize {
        return Ok(());
    }
    let commonest = Sizes::of(images)?.commonest();
    if !is_small(commonest) || is_distorting(commonest, size) {
        note(&format!(
            "Most images are {}: they are resized to {}, the input of the model, without keeping \
             the aspect ratio, and may look unlike those of its training.",
            size::pixels(commonest),
            size::text(size),
        ));
    }
    Ok(())
}

/// Whether resizing changes the ratio of the sides by more than a tenth.
fn is_distorting(from: [usize; 2], to: [usize; 2]) -> bool {
    let ratio = |[height, width]: [usize; 2]| width as f64 / height as f64;
    !(0.9..=1.1).contains(&(ratio(from) / ratio(to)))
}

/// Lists images that were skipped because they are unreadable.
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
