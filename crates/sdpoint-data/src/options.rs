//! The options of opening a source.

/// How a source is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenOptions {
    /// Seed of the images that `shapes` draws.
    pub shapes_seed: u64,
    /// How many training images `shapes` draws.
    pub shapes_train: usize,
    /// How many test images `shapes` draws.
    pub shapes_test: usize,
    /// How many unreadable images may be skipped in a split; by default the
    /// larger of 10 and 1 % of its images.
    pub skip_limit: Option<usize>,
    /// Bytes of decoded images that are kept in memory, so that a small data
    /// set is decoded only once.
    pub cache_bytes: usize,
    /// Bytes that the images of compressed archives may take in memory: they
    /// cannot be read out of order from the file.
    pub archive_bytes: u64,
    /// In WebDataset samples with several images, which one to read, by the
    /// end of its name after the key: `jpg`, `image.png`.
    pub image_key: Option<String>,
    /// In WebDataset samples, the key of `.json` members that has the class;
    /// without it, classes are read from `.cls` members.
    pub label_key: Option<String>,
}

impl Default for OpenOptions {
    fn default() -> Self {
        OpenOptions {
            shapes_seed: 0,
            shapes_train: 10_000,
            shapes_test: 2_000,
            skip_limit: None,
            cache_bytes: 512 << 20,
            archive_bytes: 4 << 30,
            image_key: None,
            label_key: None,
        }
    }
}
