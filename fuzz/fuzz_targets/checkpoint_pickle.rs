//! Any pickle, within an archive that is sound, beside a storage of 64 bytes.

#![no_main]

/// A file of an archive, in the list of files at its end and before its
/// content.
fn entry(name: &str, content: &[u8]) -> [Vec<u8>; 2] {
    let sizes = [(content.len() as u32).to_le_bytes(); 2].concat();
    let lengths = [(name.len() as u16).to_le_bytes(), [0; 2]].concat();
    let local = [
        &b"PK\x03\x04"[..],
        &[0; 14],
        &sizes,
        &lengths,
        name.as_bytes(),
    ]
    .concat();
    let listed = [&b"PK\x01\x02"[..], &[0; 16], &sizes, &lengths, &[0; 10]].concat();
    [[&local, content].concat(), listed]
}

libfuzzer_sys::fuzz_target!(|pickle: &[u8]| {
    let mut archive = Vec::new();
    let mut list = Vec::new();
    for (name, content) in [("data.pkl", pickle), ("data/0", &[1; 64])] {
        let [local, listed] = entry(name, content);
        list.extend(listed);
        list.extend((archive.len() as u32).to_le_bytes());
        list.extend(name.as_bytes());
        archive.extend(local);
    }
    let place = [list.len() as u32, archive.len() as u32]
        .map(u32::to_le_bytes)
        .concat();
    archive.extend(list);
    archive.extend([&b"PK\x05\x06\0\0\0\0\x02\0\x02\0"[..], &place, &[0; 2]].concat());
    sdpoint_fuzz::checkpoint(archive);
});
