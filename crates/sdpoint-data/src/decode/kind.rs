//! The supported kinds of image files, and their extensions. This is the only
//! list of them: a new kind is a variant here, its first bytes in `signature.rs`,
//! and a decoder.

use std::fmt;

/// A supported kind of image file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageKind {
    /// JPEG: sequential and progressive, with Huffman codes and 8 bits.
    Jpeg,
    /// PNG; of an animated one the first picture.
    Png,
    /// WebP, lossy and lossless; of an animated one the first frame.
    WebP,
}

impl ImageKind {
    /// All supported kinds.
    pub const ALL: [ImageKind; 3] = [ImageKind::Jpeg, ImageKind::Png, ImageKind::WebP];

    /// The extensions, in lower case, without the dot.
    pub fn extensions(self) -> &'static [&'static str] {
        match self {
            ImageKind::Jpeg => &["jpg", "jpeg", "jpe", "jfif"],
            ImageKind::Png => &["png"],
            ImageKind::WebP => &["webp"],
        }
    }

    /// The kind of a file by its extension, if supported; case-insensitive.
    pub fn of_name(name: &str) -> Option<ImageKind> {
        let (_, extension) = name.rsplit_once('.')?;
        let is = |known: &str| extension.eq_ignore_ascii_case(known);
        ImageKind::ALL
            .into_iter()
            .find(|kind| kind.extensions().iter().any(|known| is(known)))
    }
}

impl fmt::Display for ImageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ImageKind::Jpeg => "JPEG",
            ImageKind::Png => "PNG",
            ImageKind::WebP => "WebP",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_by_their_endings() {
        assert_eq!(ImageKind::of_name("a.b/c.JPG"), Some(ImageKind::Jpeg));
        assert_eq!(ImageKind::of_name("x.WebP"), Some(ImageKind::WebP));
        assert_eq!(ImageKind::of_name("x.png"), Some(ImageKind::Png));
        for other in ["png", "x.gif", "x.jpg.txt", "x.", ""] {
            assert_eq!(ImageKind::of_name(other), None, "{other}");
        }
    }
}
