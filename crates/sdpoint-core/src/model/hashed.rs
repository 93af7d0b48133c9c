//! Reading of a file whose digest is computed beside.

use std::io::{self, Read};
use std::sync::mpsc;
use std::thread;

use sha2::{Digest, Sha256};

use crate::digest::hex;

/// The bytes that are read at once, but for the last.
pub(super) const PIECE: usize = 1 << 18;

/// The pieces that may wait to be hashed, which bounds memory where hashing is slower than reading:
/// enough that hashing goes on while a large parameter is packed.
const WAITING: usize = 16;

/// The data of a file, all of which is hashed.
pub(super) struct HashedReader<'a> {
    file: &'a mut dyn Read,
    /// Bytes of the data that are not in a piece yet.
    left: u64,
    piece: Vec<u8>,
    /// Bytes of the piece that were read.
    read: usize,
    /// Hashes a piece, and returns memory for the next.
    hash: &'a mut dyn FnMut(Vec<u8>) -> Vec<u8>,
}

impl HashedReader<'_> {
    /// The next bytes, at most this many, and at least one unless the data has ended. They are a
    /// multiple of four where `most` always is one.
    pub fn read(&mut self, most: usize) -> io::Result<&[u8]> {
        if self.read == self.piece.len() {
            self.next_piece()?;
        }
        let start = self.read;
        self.read = self.piece.len().min(start + most);
        Ok(&self.piece[start..self.read])
    }

    fn next_piece(&mut self) -> io::Result<()> {
        if !self.piece.is_empty() {
            self.piece = (self.hash)(std::mem::take(&mut self.piece));
        }
        let len = self.left.min(PIECE as u64);
        self.left -= len;
        self.piece.resize(len as usize, 0);
        self.read = 0;
        self.file.read_exact(&mut self.piece)
    }
}

/// Hashes `len` bytes of a file while `read` reads them, on a thread of its own, as it takes longer
/// than reading. Returns what `read` returns, and the digest of what `hasher` has hashed before and
/// of the bytes, if `read` has read all of them.
pub(super) fn read_hashed<R>(
    file: &mut dyn Read,
    len: u64,
    mut hasher: Sha256,
    read: impl FnOnce(&mut HashedReader<'_>) -> R,
) -> (R, String) {
    let (pieces, to_hash) = mpsc::sync_channel::<Vec<u8>>(WAITING);
    let (hashed, buffers) = mpsc::channel();
    let mut own = hasher.clone();
    let hashing = move || {
        for piece in to_hash {
            hasher.update(&piece);
            // Nobody takes the buffers after the last piece.
            let _ = hashed.send(piece);
        }
        hasher
    };
    let read = |hash: &mut dyn FnMut(Vec<u8>) -> Vec<u8>| {
        let mut data = HashedReader {
            file,
            left: len,
            piece: Vec::new(),
            read: 0,
            hash,
        };
        let result = read(&mut data);
        let last = std::mem::take(&mut data.piece);
        (data.hash)(last);
        result
    };
    thread::scope(
        |scope| match thread::Builder::new().spawn_scoped(scope, hashing) {
            Ok(hashing) => {
                let result = read(&mut |piece| {
                    pieces.send(piece).expect("it hashes until this ends");
                    buffers.try_recv().unwrap_or_default()
                });
                drop(pieces);
                let hasher = hashing.join().expect("hashing does not panic");
                (result, hex(&hasher.finalize()))
            }
            // Where the system allows no further thread, this one does both.
            Err(_) => {
                let result = read(&mut |piece| {
                    own.update(&piece);
                    piece
                });
                (result, hex(&own.finalize()))
            }
        },
    )
}
