//! Recognition of files that are not checkpoints, for error messages.

use super::Fault;
use super::zip::Directory;

/// The first bytes of compressed files: XZ, Zstandard, bzip2, LZ4, lzip, compress,
/// LZMA.
const PACKED: [&[u8]; 7] = [
    b"\xfd7zXZ",
    b"\x28\xb5\x2f\xfd",
    b"BZh",
    b"\x04\x22\x4d\x18",
    b"LZIP",
    b"\x1f\x9d",
    b"\x5d\0\0",
];

/// The kind of a file, by its first bytes.
pub(super) fn file(content: &[u8]) -> Fault {
    let begins = |magic: &[u8]| content.starts_with(magic);
    let text = content.trim_ascii_start();
    let lower: Vec<u8> = text.iter().take(16).map(u8::to_ascii_lowercase).collect();
    let what = if content.is_empty() {
        "it is empty"
    } else if begins(b"\x89HDF\r\n\x1a\n") {
        "it is an HDF5 file, as Keras writes them; sdpoint reads those of PyTorch"
    } else if begins(b"\x1f\x8b") {
        "it is compressed with gzip; unpack it first"
    } else if PACKED.iter().any(|magic| begins(magic)) {
        "it is compressed; unpack it first"
    } else if begins(b"7z\xbc\xaf\x27\x1c") {
        "it is a 7-Zip archive; unpack it first"
    } else if begins(b"Rar!\x1a\x07") {
        "it is a RAR archive; unpack it first"
    } else if begins(b"GGUF") {
        "it is a GGUF file; sdpoint reads those of PyTorch and safetensors"
    } else if is_onnx(content) {
        "it is an ONNX file, which sdpoint writes but does not read; import the weights of PyTorch \
         that it was exported from"
    } else if begins(b"\x93NUMPY") {
        "it is a single NumPy array"
    } else if begins(b"version https://git-lfs") {
        "it is a pointer of Git LFS, not the file itself; `git lfs pull` fetches that"
    } else if lower.starts_with(b"<!doctype") || lower.starts_with(b"<html") {
        "it is a web page, perhaps that of a download which failed"
    } else if content.get(257..262) == Some(b"ustar") {
        "it is a tar archive; unpack it first"
    } else if text.first() == Some(&b'{') {
        "it is JSON text; the weights are in another file"
    } else {
        return Fault::Unrecognised;
    };
    Fault::Foreign(what.into())
}

/// Whether it starts like an ONNX file: the version of the format, followed by
/// the producer, the domain, the graph or the operator set.
fn is_onnx(content: &[u8]) -> bool {
    matches!(content, [8, 1..=32, 0x12 | 0x1a | 0x3a | 0x42, ..])
}

/// The kind of a zip archive without a `data.pkl`.
pub(super) fn archive(files: &Directory<'_>) -> Fault {
    let has = |part: &str| files.keys().any(|name| name.contains(part));
    let what = if has("archive_format") || has("models/model.json") {
        "it is a program of torch.export (.pt2), not weights: \
         save torch.export.load(path).state_dict"
    } else if has(".npy") {
        "it is an archive of NumPy arrays (.npz); sdpoint reads files of PyTorch and safetensors"
    } else if has("model.weights.h5") {
        "it is a model of Keras; sdpoint reads files of PyTorch and safetensors"
    } else if has(".data/extern_modules") {
        "it is a package of torch.package, not weights: \
         save torch.package.PackageImporter(path).load_pickle(...).state_dict()"
    } else {
        "it is a zip archive that torch.save did not write; unpack it if a checkpoint is in it"
    };
    Fault::Foreign(what.into())
}
