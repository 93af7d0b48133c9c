//! Decompression of a whole gzip file.

use std::io::{self, BufRead, Read};

use flate2::bufread::GzDecoder;

/// Decompresses all gzip streams of a file, one after the other. What follows
/// them must be zeros, which fill the blocks of a tape: flate2's decoder of
/// several streams does not tell them from other data.
pub(super) struct Gunzip<R> {
    /// `None` after the last stream.
    stream: Option<GzDecoder<R>>,
}

impl<R: BufRead> Gunzip<R> {
    pub fn new(file: R) -> Self {
        Self {
            stream: Some(GzDecoder::new(file)),
        }
    }
}

impl<R: BufRead> Read for Gunzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        while let Some(mut stream) = self.stream.take() {
            let count = stream.read(buffer)?;
            if count > 0 {
                self.stream = Some(stream);
                return Ok(count);
            }
            let mut file = stream.into_inner();
            if !only_zeros(&mut file)? {
                self.stream = Some(GzDecoder::new(file));
            }
        }
        Ok(0)
    }
}

/// Whether nothing but zeros is left, which are consumed; false at the beginning
/// of another gzip stream.
fn only_zeros(file: &mut impl BufRead) -> io::Result<bool> {
    const GZIP: u8 = 0x1f;
    let mut zeros = 0;
    loop {
        let bytes = file.fill_buf()?;
        match bytes.iter().position(|&byte| byte != 0) {
            None if bytes.is_empty() => return Ok(true),
            None => {
                let count = bytes.len();
                zeros += count;
                file.consume(count);
            }
            Some(0) if zeros == 0 && bytes[0] == GZIP => return Ok(false),
            Some(_) => {
                return Err(io::Error::other(
                    "other data follows the compressed archive; get it again",
                ));
            }
        }
    }
}
