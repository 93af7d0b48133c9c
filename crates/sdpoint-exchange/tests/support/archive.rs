//! Archives to read, made by hand: unit tests and fuzz targets use this too.

/// A zip archive of stored files, as PyTorch lays it out when it is told to
/// leave out checksums.
pub fn zip(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = Vec::new();
    let mut list = Vec::new();
    for (name, content) in files {
        let at = archive.len() as u32;
        let sizes = [(content.len() as u32).to_le_bytes(); 2].concat();
        let lengths = [name.len() as u16, 0].map(u16::to_le_bytes).concat();
        archive.extend(
            [
                &b"PK\x03\x04"[..],
                &[0; 14],
                &sizes,
                &lengths,
                name.as_bytes(),
            ]
            .concat(),
        );
        archive.extend_from_slice(content);
        let entry = [
            &b"PK\x01\x02"[..],
            &[0; 16],
            &sizes,
            &lengths,
            &[0; 10],
            &at.to_le_bytes(),
        ];
        list.extend(entry.concat());
        list.extend(name.as_bytes());
    }
    let count = [(files.len() as u16).to_le_bytes(); 2].concat();
    let place = [list.len() as u32, archive.len() as u32]
        .map(u32::to_le_bytes)
        .concat();
    archive.extend(list);
    archive.extend([&b"PK\x05\x06"[..], &[0; 4], &count, &place, &[0; 2]].concat());
    archive
}
