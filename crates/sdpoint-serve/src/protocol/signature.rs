//! What a model takes and gives, as clients are told.

use serde::Serialize;

use super::datatype::DataType;

/// Input: normalised values, image by channel by row by column, as the exported ONNX
/// file has it.
pub const IMAGES: &str = "images";

/// Input: pixels of the network's input size, image by row by column by channel.
pub const PIXELS: &str = "pixels";

/// Input: JPEG, PNG or WebP files.
pub const ENCODED: &str = "encoded";

/// Output: what the classifier computes.
pub const LOGITS: &str = "logits";

/// Output: logits turned into probabilities.
pub const PROBABILITIES: &str = "probabilities";

/// Name, type and shape of an input or output; -1 stands for the number of images.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TensorMetadata {
    /// The name.
    pub name: &'static str,
    /// The type of the elements.
    #[serde(serialize_with = "as_text")]
    pub datatype: DataType,
    /// The sides, the number of images first.
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
    /// Values of an image.
    pub fn image_len(&self) -> usize {
        self.size[0] * self.size[1] * self.channels
    }

    /// The inputs, of which a request gives one.
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
