//! Assembles the images of several jobs into a batch.

use sdpoint::core::Preprocessing;

use super::pending::Piece;
use crate::{Input, Job, Refusal};

/// Writes the images of jobs into a batch, normalised and in NHWC order.
pub(super) struct Assembler {
    channels: usize,
    /// Height times width.
    area: usize,
    /// For each channel, the normalised values of all bytes.
    normalised: Vec<[f32; 256]>,
}

impl Assembler {
    pub fn new(preprocessing: &Preprocessing, channels: usize) -> Self {
        Self {
            channels,
            area: preprocessing.size.iter().product(),
            normalised: preprocessing.normalised_bytes(),
        }
    }

    /// The number of values of an image.
    pub fn image_len(&self) -> usize {
        self.area * self.channels
    }

    /// Checks that a job has the right number of values.
    pub fn check(&self, job: &Job) -> Result<(), Refusal> {
        let (found, size, unit) = match &job.input {
            Input::Planes(raw) => (raw.len(), size_of::<f32>(), "bytes"),
            Input::Prepared(values) => (values.len(), 1, "values"),
            Input::Pixels(pixels) => (pixels.len(), 1, "values"),
        };
        let each = self.image_len() * size;
        let needed = each.checked_mul(job.images);
        if job.images == 0 {
            return Err(Refusal::Failed("the request has no images".into()));
        }
        if needed != Some(found) {
            let images = job.images;
            return Err(Refusal::Failed(format!(
                "the request has {found} {unit}; {images} images need {each} each"
            )));
        }
        if matches!(job.input, Input::Pixels(_)) && self.normalised.len() != self.channels {
            return Err(Refusal::Failed(
                "the model has no normalisation for its channels".into(),
            ));
        }
        Ok(())
    }

    /// Fills `batch` with the images of `pieces`.
    pub fn assemble<'a>(
        &self,
        pieces: impl Iterator<Item = &'a Piece> + Clone,
        batch: &mut Vec<f32>,
    ) {
        let len = self.image_len();
        let images: usize = pieces.clone().map(|piece| piece.images).sum();
        // Without clearing it first: all of it is overwritten.
        batch.resize(images * len, 0.0);
        let mut left = batch.as_mut_slice();
        for piece in pieces {
            let (out, rest) = left.split_at_mut(piece.images * len);
            left = rest;
            let range = piece.first * len..(piece.first + piece.images) * len;
            match &piece.pending.job.input {
                Input::Prepared(values) => out.copy_from_slice(&values[range]),
                Input::Planes(raw) => {
                    let (values, _) = raw.as_chunks();
                    let images = values[range].chunks_exact(len);
                    let outs = out.chunks_exact_mut(len);
                    outs.zip(images)
                        .for_each(|(out, image)| self.interleave(image, out));
                }
                Input::Pixels(pixels) => self.normalise(&pixels[range], out),
            }
        }
    }

    /// Converts an image from channel-major to channel-minor order.
    fn interleave(&self, planes: &[[u8; 4]], out: &mut [f32]) {
        if self.channels == 3 {
            // Nearly all networks have three channels; this takes a third of the time.
            let (a, rest) = planes.split_at(self.area);
            let (b, c) = rest.split_at(self.area);
            let (out, _) = out.as_chunks_mut();
            let cells = a.iter().zip(b).zip(c);
            let value = f32::from_le_bytes;
            for (out, ((&a, &b), &c)) in out.iter_mut().zip(cells) {
                *out = [value(a), value(b), value(c)];
            }
            return;
        }
        for (channel, plane) in planes.chunks_exact(self.area).enumerate() {
            let out = out[channel..].iter_mut().step_by(self.channels);
            out.zip(plane)
                .for_each(|(out, &value)| *out = f32::from_le_bytes(value));
        }
    }

    fn normalise(&self, pixels: &[u8], out: &mut [f32]) {
        if let [a, b, c] = self.normalised.as_slice() {
            let ((out, _), (cells, _)) = (out.as_chunks_mut(), pixels.as_chunks());
            for (out, &[x, y, z]) in out.iter_mut().zip(cells) {
                *out = [a[usize::from(x)], b[usize::from(y)], c[usize::from(z)]];
            }
            return;
        }
        let cells = out.chunks_exact_mut(self.channels);
        for (out, cell) in cells.zip(pixels.chunks_exact(self.channels)) {
            for ((out, byte), table) in out.iter_mut().zip(cell).zip(&self.normalised) {
                *out = table[usize::from(*byte)];
            }
        }
    }
}
