//! The options of opening a source.

/// Options of opening a source.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenOptions {
    /// Seed of the images that `shapes` draws.
    pub shapes_seed: u64,
    /// Number of training images that `shapes` draws.
    pub shapes_train: usize,
    /// Number of test images that `shapes` draws.
    pub shapes_test: usize,
    /// Unreadable images that may be skipped in a split; by default the larger
    /// of 10 and 1 % of its images.
    pub skip_limit: Option<usize>,
    /// Bytes of decoded images that are kept in memory, so that a small data
    /// set is decoded only once.
    pub cache_bytes: usize,
    /// Bytes of memory for the images of compressed archives, which cannot be
    /// read out of order from the file.
    pub archive_bytes: u64,
    /// The image to read of WebDataset samples with several images, by the part
    /// of its name after the key: `jpg`, `image.png`.
    pub image_key: Option<String>,
    /// The key of the class in `.json` members of WebDataset samples; if `None`,
    /// classes are read from `.cls` members.
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

impl OpenOptions {
    /// The option that is for WebDataset samples alone, if one is set, as on the
    /// command line.
    pub(crate) fn sample_option(&self) -> Option<&'static str> {
        match (&self.image_key, &self.label_key) {
            (Some(_), _) => Some("--image-key"),
            (_, Some(_)) => Some("--label-key"),
            _ => None,
        }
    }
}
