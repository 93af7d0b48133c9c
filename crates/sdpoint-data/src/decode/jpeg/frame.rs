//! What the frame header says: size, components, and how they are coded.

use super::Refusal;
use crate::error::ImageError;
use crate::image::check_size;

/// The most blocks that a minimum coded unit may have.
const MAX_BLOCKS: usize = 10;

/// A frame with 8 bits, Huffman codes and 1, 3 or 4 components.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    pub progressive: bool,
    pub width: usize,
    pub height: usize,
    pub components: Vec<Component>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Component {
    pub id: u8,
    /// How often it is sampled, across and down, relative to the others.
    pub sampling: [usize; 2],
    quantiser: u8,
}

impl Frame {
    /// Reads a frame header: the marker's code, and the segment after its length.
    pub fn parse(code: u8, body: &[u8]) -> Result<Frame, ImageError> {
        let progressive = match code {
            0xc0 | 0xc1 => false,
            0xc2 => true,
            0xc3 => return Err(Refusal::Lossless.into()),
            0xc9..=0xcb => return Err(Refusal::Arithmetic.into()),
            _ => return Err(Refusal::Hierarchical.into()),
        };
        let [precision, h1, h0, w1, w0, count, listed @ ..] = body else {
            return Err(Refusal::Damaged.into());
        };
        if *precision != 8 {
            return Err(Refusal::Precision.into());
        }
        let height = usize::from(u16::from_be_bytes([*h1, *h0]));
        let width = usize::from(u16::from_be_bytes([*w1, *w0]));
        if height == 0 {
            return Err(Refusal::NoHeight.into());
        }
        if width == 0 {
            return Err(Refusal::Damaged.into());
        }
        check_size(width, height)?;
        let count = usize::from(*count);
        if !matches!(count, 1 | 3 | 4) {
            return Err(Refusal::Components.into());
        }
        let (listed, rest) = listed.as_chunks::<3>();
        if listed.len() != count || !rest.is_empty() {
            return Err(Refusal::Damaged.into());
        }
        let components = listed.iter().map(|&[id, sampling, quantiser]| Component {
            id,
            sampling: [usize::from(sampling >> 4), usize::from(sampling & 15)],
            quantiser,
        });
        let mut frame = Frame {
            progressive,
            width,
            height,
            components: components.collect(),
        };
        let sound = |c: &Component| {
            let twice = frame.components.iter().filter(|d| d.id == c.id).count() > 1;
            c.sampling.iter().all(|s| (1..=4).contains(s)) && !twice
        };
        if !frame.components.iter().all(sound) {
            return Err(Refusal::Damaged.into());
        }
        // Of a single component the sampling means nothing, but decoders may
        // stumble over it.
        if let [only] = &mut frame.components[..] {
            only.sampling = [1, 1];
        }
        Ok(frame)
    }

    /// The header's segment with components numbered from 1, whatever they
    /// were called: decoders guess colours from the names.
    pub fn segment(&self) -> Vec<u8> {
        let code = if self.progressive { 0xc2 } else { 0xc1 };
        let len = 8 + 3 * self.components.len() as u8;
        let mut segment = vec![0xff, code, 0, len, 8];
        segment.extend((self.height as u16).to_be_bytes());
        segment.extend((self.width as u16).to_be_bytes());
        segment.push(self.components.len() as u8);
        for (number, component) in (1..).zip(&self.components) {
            let [across, down] = component.sampling;
            segment.extend([number, (across << 4 | down) as u8, component.quantiser]);
        }
        segment
    }

    /// The number of the component with this name.
    pub fn component(&self, id: u8) -> Option<usize> {
        self.components.iter().position(|c| c.id == id)
    }

    /// The finest sampling of any component, across and down.
    pub fn finest(&self) -> [usize; 2] {
        let finest = |axis: usize| self.components.iter().map(|c| c.sampling[axis]).max();
        [0, 1].map(|axis| finest(axis).unwrap_or(1))
    }

    /// How many blocks of a component there are without padding, across and down.
    pub fn blocks(&self, component: usize) -> [usize; 2] {
        let finest = self.finest();
        let sampling = self.components[component].sampling;
        let sides = [self.width, self.height];
        [0, 1].map(|axis| (sides[axis] * sampling[axis]).div_ceil(8 * finest[axis]))
    }

    /// How many minimum coded units a scan of these components has.
    pub fn units(&self, components: &[usize]) -> usize {
        if let [only] = components {
            return self.blocks(*only).iter().product();
        }
        let [across, down] = self.finest();
        self.width.div_ceil(8 * across) * self.height.div_ceil(8 * down)
    }

    /// Whether a scan of these components is within the standard's limit.
    pub fn may_interleave(&self, components: &[usize]) -> bool {
        let blocks = components.iter().map(|&c| {
            let [across, down] = self.components[c].sampling;
            across * down
        });
        components.len() == 1 || blocks.sum::<usize>() <= MAX_BLOCKS
    }
}
