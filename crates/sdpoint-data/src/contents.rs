//! What a source of images provides.

use crate::error::{DataError, ImageError};
use crate::image::Image;
use crate::left_out::LeftOut;

/// Access to the images of a source by number.
pub(crate) trait Images: Send + Sync {
    /// Decodes the image.
    fn load(&self, index: usize) -> Result<Image, ImageError>;

    /// The image's name for messages.
    fn name(&self, index: usize) -> String;

    /// Identifies the image within the data set, independently of where the data
    /// set is stored.
    fn key(&self, index: usize) -> String;

    /// The size of the stored image in bytes.
    fn stored(&self, index: usize) -> Result<u64, DataError>;

    /// The stored image, if it can be read.
    fn bytes(&self, index: usize) -> Option<Vec<u8>>;
}

/// The result of opening a source.
pub(crate) struct Contents {
    pub classes: Vec<String>,
    /// The class of each image.
    pub labels: Vec<u32>,
    pub left_out: LeftOut,
    pub images: Box<dyn Images>,
}
