//! Test images in a model file.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A test image with its class, kept in the model file for whoever wants to try the model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptImage {
    /// The number of its class.
    pub label: usize,
    /// The image as a PNG file, in the model file in base64.
    #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
    pub png: Vec<u8>,
}

impl KeptImage {
    /// The most images in a model file.
    pub const MOST: usize = 64;

    /// The most bytes of a PNG file: the pixels of 128×128, not compressed, and as much
    /// again as its frame may need.
    pub const MOST_BYTES: usize = 1 << 16;

    /// The longest side in pixels to which images are reduced.
    pub const SIDE: usize = 128;
}

fn to_base64<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&STANDARD.encode(bytes))
}

fn from_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    STANDARD.decode(text).map_err(de::Error::custom)
}
