//! Images and trees of them for the tests.

use std::fs;
use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use sdpoint_data::Dataset;

pub const RED: [u8; 3] = [220, 30, 30];
pub const BLUE: [u8; 3] = [30, 30, 220];

/// A JPEG file of one colour.
pub fn jpeg(width: u16, height: u16, colour: [u8; 3]) -> Vec<u8> {
    let pixels = colour.repeat(usize::from(width) * usize::from(height));
    let mut bytes = Vec::new();
    jpeg_encoder::Encoder::new(&mut bytes, 95)
        .encode(&pixels, width, height, jpeg_encoder::ColorType::Rgb)
        .unwrap();
    bytes
}

/// A PNG file of the given pixels.
pub fn png(
    width: u32,
    height: u32,
    colour: png::ColorType,
    depth: png::BitDepth,
    data: &[u8],
) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(colour);
    encoder.set_depth(depth);
    if colour == png::ColorType::Indexed {
        encoder.set_palette(vec![10, 20, 30, 40, 50, 60]);
    }
    encoder
        .write_header()
        .unwrap()
        .write_image_data(data)
        .unwrap();
    bytes
}

/// Writes a file and the folders above it.
pub fn write(root: &Path, path: &str, bytes: impl AsRef<[u8]>) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// Whether every channel of a decoded image is within 6 of the colour that
/// was encoded.
pub fn is_colour(image: &sdpoint_data::Image, colour: [u8; 3]) -> bool {
    image
        .pixels()
        .chunks(3)
        .all(|p| p.iter().zip(colour).all(|(a, b)| a.abs_diff(b) <= 6))
}

/// A tar archive of the given members; a path that ends in `/` is a folder.
pub fn tar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, bytes) in members {
        add(&mut builder, path, bytes);
    }
    builder.into_inner().unwrap()
}

/// Adds a member to an archive.
pub fn add(builder: &mut tar::Builder<Vec<u8>>, path: &str, bytes: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    if path.ends_with('/') {
        header.set_entry_type(tar::EntryType::Directory);
    }
    builder.append_data(&mut header, path, bytes).unwrap();
}

/// Adds a link to an archive.
pub fn add_link(
    builder: &mut tar::Builder<Vec<u8>>,
    kind: tar::EntryType,
    path: &str,
    target: &str,
) {
    let mut header = tar::Header::new_gnu();
    header.set_size(0);
    header.set_mode(0o644);
    header.set_entry_type(kind);
    builder.append_link(&mut header, path, target).unwrap();
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Class and colour of every image.
#[track_caller]
pub fn check(dataset: &Dataset, expected: &[(&str, [u8; 3])]) {
    let classes: Vec<&str> = (0..dataset.len())
        .map(|i| dataset.classes()[dataset.label(i) as usize].as_str())
        .collect();
    assert_eq!(
        classes,
        expected.iter().map(|(class, _)| *class).collect::<Vec<_>>()
    );
    for (index, (_, colour)) in expected.iter().enumerate() {
        assert!(
            is_colour(&dataset.image(index).unwrap(), *colour),
            "image {index}"
        );
    }
}
