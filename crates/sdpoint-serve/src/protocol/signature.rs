//! The inputs and outputs of a model, as its metadata lists them.

use serde::Serialize;

use super::datatype::DataType;

/// Input: normalised values, NCHW, as in exported ONNX files.
pub const IMAGES: &str = "images";

/// Input: pixels of the network's input size, NHWC.
pub const PIXELS: &str = "pixels";

/// Input: JPEG, PNG or WebP files.
pub const ENCODED: &str = "encoded";

/// Output: the logits.
pub const LOGITS: &str = "logits";

/// Output: the probabilities.
pub const PROBABILITIES: &str = "probabilities";

/// Name, type and shape of an input or output.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TensorMetadata {
    /// The name.
    pub name: &'static str,
    /// The type of the elements.
    #[serde(serialize_with = "as_text")]
    pub datatype: DataType,
    /// The shape; its first element, the number of images, is -1.
    pub shape: Vec<i64>,
}

fn as_text<S: serde::Serializer>(datatype: &DataType, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(datatype)
}

/// The inputs and outputs of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature {
    /// Height and width of the images.
    pub size: [usize; 2],
    /// Channels of the images.
    pub channels: usize,
    /// The number of classes.
    pub classes: usize,
}

impl Signature {
    /// The number of values per image.
    pub fn image_len(&self) -> usize {
        self.size[0] * self.size[1] * self.channels
    }

    /// The inputs, of which a request has exactly one.
    pub fn inputs(&self) -> [TensorMetadata; 3] {
        let [height, width] = self.size.map(|side| side as i64);
        let channels = self.channels as i64;
        [
            TensorMetadata {
                name: IMAGES,
                datatype: DataType::FP32,
                shape: vec![-1, channels, height, width],
            },
            TensorMetadata {
                name: PIXELS,
                datatype: DataType::UINT8,
                shape: vec![-1, height, width, channels],
            },
            TensorMetadata {
                name: ENCODED,
                datatype: DataType::Bytes,
                shape: vec![-1],
            },
        ]
    }

    /// The outputs.
    pub fn outputs(&self) -> [TensorMetadata; 2] {
        [LOGITS, PROBABILITIES].map(|name| TensorMetadata {
            name,
            datatype: DataType::FP32,
            shape: vec![-1, self.classes as i64],
        })
    }
}
