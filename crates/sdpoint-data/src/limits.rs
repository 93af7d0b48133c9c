//! Limits of the images that are read.

/// The longest side of an image, in pixels.
pub const MAX_SIDE: usize = 1 << 15;

/// The most pixels of an image: 192 MiB in RGB.
pub const MAX_PIXELS: usize = 1 << 26;
