//! JPEG.
//!
//! The file's segments are parsed and rewritten in the simplest form ([`walk`]),
//! and passed to one of two decoders. The fast one is zune-jpeg. It decodes
//! sequential files of several scans, and samplings in which luma is not the
//! finest or chroma components differ, incorrectly; these go to jpeg-decoder.

mod colour;
mod frame;
mod tables;
mod walk;

use jpeg_decoder::ColorTransform;
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::kind::ImageKind;
use crate::error::ImageError;
use crate::image::Image;
use crate::limits::{MAX_PIXELS, MAX_SIDE};
use colour::{from_ycck, inks_to_rgb};
use frame::Frame;
use walk::{BARRIER, Colours, Walked, frame, walk};

/// Why a file is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    Arithmetic,
    Components,
    Damaged,
    Hierarchical,
    Lossless,
    NoHeight,
    Precision,
    Sampling,
    Scans,
    Truncated,
}

impl From<Refusal> for ImageError {
    fn from(refusal: Refusal) -> ImageError {
        let kind = ImageKind::Jpeg;
        let what = match refusal {
            Refusal::Damaged => return ImageError::Damaged(kind),
            Refusal::Truncated => return ImageError::Truncated(kind),
            Refusal::Arithmetic => "with arithmetic coding",
            Refusal::Components => "with neither one, three nor four colour channels",
            Refusal::Hierarchical => "in several resolutions (hierarchical)",
            Refusal::Lossless => "in lossless coding",
            Refusal::NoHeight => "whose height is not in its header",
            Refusal::Precision => "with more than 8 bits a channel",
            Refusal::Sampling => "with unusual sampling of its colour channels",
            Refusal::Scans => "with more than 100 scans",
        };
        ImageError::Unsupported { kind, what }
    }
}

pub(super) fn decode(bytes: &[u8]) -> Result<Image, ImageError> {
    let mut walked = walk(bytes)?;
    let decoder = choose(&walked)?;
    let pixels = match walked.ended {
        true => decode_ended(&mut walked, decoder)?,
        false => decode_unended(&mut walked, decoder)?,
    };
    let Frame { width, height, .. } = walked.frame;
    let image = Image::new(width, height, pixels).map_err(|_| Refusal::Damaged)?;
    Ok(image.with_orientation(walked.orientation))
}

/// The height and width.
pub(super) fn size(bytes: &[u8]) -> Result<[usize; 2], ImageError> {
    let Frame { width, height, .. } = frame(bytes)?;
    Ok([height, width])
}

const END: [u8; 2] = [0xff, 0xd9];

/// Decodes a file with an end marker. Decoders take what is missing before it for
/// zeros, unless a barrier stops them.
fn decode_ended(walked: &mut Walked, decoder: Decoder) -> Result<Vec<u8>, ImageError> {
    let len = walked.plain.len();
    if walked.open {
        walked.plain.extend(BARRIER);
    }
    walked.plain.extend(END);
    decoder(walked).map_err(|error| {
        walked.plain.truncate(len);
        walked.plain.extend(END);
        if walked.open && decoder(walked).is_ok() {
            Refusal::Truncated.into()
        } else {
            error
        }
    })
}

/// Decodes a file without an end marker if no pixel is missing, which is so if
/// the pixels do not depend on what would follow.
fn decode_unended(walked: &mut Walked, decoder: Decoder) -> Result<Vec<u8>, ImageError> {
    const FOLLOWING: [[u8; 64]; 2] = [[0; 64], [0xa7; 64]];
    trim_filling(&mut walked.plain);
    let len = walked.plain.len();
    let mut decoded = FOLLOWING.iter().map(|following| {
        walked.plain.truncate(len);
        walked.plain.extend(following);
        walked.plain.extend(END);
        decoder(walked).map_err(|_| ImageError::from(Refusal::Truncated))
    });
    match (decoded.next(), decoded.next()) {
        (Some(Ok(one)), Some(Ok(other))) if one == other => Ok(one),
        _ => Err(Refusal::Truncated.into()),
    }
}

/// Removes the zeros that truncated downloads are padded with. The data of a
/// complete picture rarely ends in a zero byte, and hardly ever in several, as
/// its last byte is padded with ones.
fn trim_filling(data: &mut Vec<u8>) {
    const FEW: usize = 4;
    let zeros = data.iter().rev().take_while(|b| **b == 0).count();
    if zeros >= FEW {
        data.truncate(data.len() - zeros);
        if data.last() == Some(&0xff) {
            // This zero belongs to the byte before it.
            data.push(0);
        }
    }
    // Half of a marker, or of such a pair.
    if data.last() == Some(&0xff) {
        data.pop();
    }
}

type Decoder = fn(&Walked) -> Result<Vec<u8>, ImageError>;

fn choose(walked: &Walked) -> Result<Decoder, ImageError> {
    if suits_zune(walked) {
        Ok(with_zune)
    } else if suits_jpeg_decoder(walked) {
        Ok(with_jpeg_decoder)
    } else {
        Err(Refusal::Sampling.into())
    }
}

/// Whether zune-jpeg decodes the file as others do: `tests/peers/run images`
/// compares.
fn suits_zune(walked: &Walked) -> bool {
    let Walked { frame, scans, .. } = walked;
    let finest = frame.finest();
    let usual = match frame
        .components
        .iter()
        .map(|c| c.sampling)
        .collect::<Vec<_>>()[..]
    {
        [_] => true,
        [luma, cb, cr] => luma == finest && cb == cr && is_coarse(cb, finest),
        [luma, cb, cr, k] => luma == finest && k == finest && cb == cr && is_coarse(cb, finest),
        _ => false,
    };
    let halved = finest.iter().all(|side| side.is_power_of_two());
    usual && halved && (frame.progressive || scans.len() == 1)
}

/// Whether a component is sampled once or as often as the finest, by axis.
fn is_coarse(sampling: [usize; 2], finest: [usize; 2]) -> bool {
    std::iter::zip(sampling, finest).all(|(side, most)| side == 1 || side == most)
}

/// Whether jpeg-decoder does: samplings have to divide the finest, and scans
/// of one component have to have as many blocks as it thinks.
fn suits_jpeg_decoder(walked: &Walked) -> bool {
    let Walked { frame, scans, .. } = walked;
    let sides = [frame.width, frame.height];
    let finest = frame.finest();
    let divides = |c: usize| {
        let sampling = frame.components[c].sampling;
        std::iter::zip(sampling, finest).all(|(side, most)| most % side == 0)
    };
    let counts = |c: usize| {
        let sampling = frame.components[c].sampling;
        (0..2).all(|axis| {
            let padded = sides[axis].div_ceil(8 * finest[axis]) * sampling[axis];
            frame.blocks(c)[axis] == padded.min(sides[axis].div_ceil(8))
        })
    };
    let alone = scans.iter().filter(|components| components.len() == 1);
    (0..frame.components.len()).all(divides) && alone.flatten().all(|&c| counts(c))
}

fn with_zune(walked: &Walked) -> Result<Vec<u8>, ImageError> {
    let options = DecoderOptions::default()
        .jpeg_set_out_colorspace(ColorSpace::RGB)
        // Otherwise it fills the rest of the picture with grey after an error.
        .set_strict_mode(true)
        .set_max_width(MAX_SIDE)
        .set_max_height(MAX_SIDE);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(&walked.plain), options);
    decoder.decode().map_err(|_| Refusal::Damaged.into())
}

fn with_jpeg_decoder(walked: &Walked) -> Result<Vec<u8>, ImageError> {
    let mut decoder = jpeg_decoder::Decoder::new(&walked.plain[..]);
    decoder.set_color_transform(match walked.colours {
        Colours::Grey => ColorTransform::Grayscale,
        Colours::Rgb => ColorTransform::RGB,
        Colours::YCbCr => ColorTransform::YCbCr,
        // Both come as they are stored, but inverted.
        Colours::Cmyk | Colours::Ycck => ColorTransform::CMYK,
    });
    decoder.set_max_decoding_buffer_size(MAX_PIXELS * 4);
    let samples = decoder.decode().map_err(|_| Refusal::Damaged)?;
    Ok(match walked.colours {
        Colours::Rgb | Colours::YCbCr => samples,
        Colours::Grey => samples.iter().flat_map(|&v| [v; 3]).collect(),
        Colours::Cmyk => inks_to_rgb(&samples, |inks| inks),
        Colours::Ycck => inks_to_rgb(&samples, from_ycck),
    })
}
