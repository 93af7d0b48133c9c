//! How much memory a hostile checkpoint can ask for.
//!
//! One test alone, as all threads of a process share the counter.

mod support;

use peak_alloc::PeakAlloc;
use sdpoint_exchange::{Checkpoint, import};
use support::archive::zip;
use support::{CHECKPOINTS, fixture, tiny};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// What a file may take beyond itself: so many times its size, and so much
/// for what its pickle or header describes.
const TIMES: usize = 4;
const BESIDE: usize = 48 << 20;

/// Reads all of a file; returns the most that was allocated meanwhile, and
/// what came of it.
fn read(file: Vec<u8>) -> (usize, String) {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let outcome = match Checkpoint::parse(file) {
        Err(fault) => fault.to_string(),
        Ok(checkpoint) => match import(&checkpoint, &tiny()) {
            Err(error) => error.to_string(),
            Ok(_) => "imported".into(),
        },
    };
    (MEMORY.peak_usage() - before, outcome)
}

/// A pickle of protocol 2 with these instructions.
fn pickle(parts: &[&[u8]]) -> Vec<u8> {
    [&[0x80, 2][..], &parts.concat(), b"."].concat()
}

/// Remembers a tensor of the storage "0" as 9 and its arguments as 8, with as
/// many sides of one element as are read.
fn tensor(class: &str) -> Vec<u8> {
    let sides = [&b"("[..], &b"K\x01".repeat(8), b"t"].concat();
    let parts: [&[u8]; 9] = [
        b"ctorch._utils\n_rebuild_tensor_v2\nq\x07((X\x07\0\0\0storagectorch\n",
        class.as_bytes(),
        b"\nX\x01\0\0\0",
        b"0X\x03\0\0\0cpuK\x01tQK\0",
        &sides,
        &sides,
        b"\x89",
        b"Ntq\x08R",
        b"q\x090",
    ];
    parts.concat()
}

/// A dictionary of `count` names, each with the tensor that was remembered.
fn many_names(count: u32) -> Vec<u8> {
    let named = |number: u32| {
        let name = format!("{number:05x}");
        [&[0x8c, 5][..], name.as_bytes(), b"h\x09"].concat()
    };
    let items: Vec<u8> = (0..count).flat_map(named).collect();
    [&b"}("[..], &items, b"u"].concat()
}

/// As [`many_names`], with names that take almost all that names may.
fn longer_names(count: u32) -> Vec<u8> {
    let named = |number: u32| {
        let name = format!("{number:0130}");
        [&[0x8c, 130][..], name.as_bytes(), b"h\x09"].concat()
    };
    let items: Vec<u8> = (0..count).flat_map(named).collect();
    [&b"}("[..], &items, b"u"].concat()
}

/// All that a small network needs, each tensor from the beginning of one
/// storage.
fn one_storage_for_all() -> Vec<u8> {
    let network = tiny();
    let parameters = network.parameters().iter();
    let parameters = parameters.map(|parameter| (parameter.name.clone(), parameter.shape.clone()));
    let norms = network.norms().iter();
    let statistics = norms.flat_map(|norm| {
        ["mean", "var"].map(|kind| (format!("{}.running_{kind}", norm.name), vec![norm.channels]))
    });
    let mut items = Vec::new();
    for (name, shape) in parameters.chain(statistics) {
        let number = |side: usize| [&b"M"[..], &(side as u16).to_le_bytes()].concat();
        let strides = (1..=shape.len()).map(|side| shape[side..].iter().product());
        let strides: Vec<u8> = strides.flat_map(number).collect();
        let shape: Vec<u8> = shape.into_iter().flat_map(number).collect();
        let name = [&[0x8c, name.len() as u8][..], name.as_bytes()].concat();
        items.push(
            [
                &name[..],
                b"h\x07(h\x06K\0(",
                &shape,
                b"t(",
                &strides,
                b"tNNtR",
            ]
            .concat(),
        );
    }
    let storage =
        b"ctorch._utils\n_rebuild_tensor_v2\nq\x070(X\x07\0\0\0storagectorch\nFloatStorage\n\
        X\x01\0\0\x000X\x03\0\0\0cpuM\x40\x02tQq\x060";
    let pickle = pickle(&[storage, b"}(", &items.concat(), b"u"]);
    zip(&[("data.pkl", &pickle), ("data/0", &[0; 4 * 576])])
}

/// Files that ask for as much as they can, each with a part of what is said.
fn hostile() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let alone = |pickle: Vec<u8>| zip(&[("data.pkl", &pickle), ("data/0", &[0; 64])]);
    let float = tensor("FloatStorage");
    let calls = b"h\x07h\x08R0".repeat(130_000);
    let pairs = [
        &b"]("[..],
        &b"NN\x86".repeat(1000),
        b"e\x85q\x00ccollections\nOrderedDict\nq\x01",
    ];
    let pairs = [pairs.concat(), b"h\x01h\x000h\x01h\x00R".repeat(100_000)].concat();

    let header = |tensors: &str| {
        let mut file = (tensors.len() as u64).to_le_bytes().to_vec();
        file.extend(tensors.as_bytes());
        file
    };
    let empty =
        |number: usize| format!(r#""{number}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#);
    let entries: Vec<String> = (0..36_000).map(empty).collect();
    let sides = vec!["0"; 1_000_000].join(",");
    let longer: Vec<String> = (0..50_000).map(empty).collect();

    // Sizes that no file has: of an entry, by 32 bits and by 64.
    let mut wide = alone(pickle(&[b"}"]));
    let place = wide.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
    wide[place + 20..][..8].fill(0xff);
    let mut legacy = std::fs::read(fixture("float64.legacy.pth")).unwrap();
    legacy.truncate(legacy.len() - 1);

    vec![
        (
            "dictionaries",
            alone(pickle(&[&vec![b'}'; 8 << 20]])),
            "too many objects besides the weights",
        ),
        (
            "copies on the stack",
            alone(pickle(&[b"N", &vec![b'2'; 8 << 20]])),
            "too many objects besides the weights",
        ),
        (
            "marks",
            alone(pickle(&[&vec![b'('; 8 << 20]])),
            "too many objects besides the weights",
        ),
        (
            "remembered",
            alone(pickle(&[b"N", &vec![0x94; 8 << 20]])),
            "too many objects besides the weights",
        ),
        (
            "tuples",
            alone(pickle(&[b"N", &vec![0x85; 8 << 20]])),
            "too many objects besides the weights",
        ),
        (
            "one list for many",
            alone(pickle(&[&pairs])),
            "too many objects besides the weights",
        ),
        (
            "tensors of one call",
            alone(pickle(&[&float, &calls, b"N"])),
            "no dictionary",
        ),
        (
            "names of one tensor",
            alone(pickle(&[&float, &many_names(60_000)])),
            "does not fit",
        ),
        (
            "more names",
            alone(pickle(&[&float, &many_names(200_000)])),
            "too many tensors",
        ),
        (
            "longer names",
            alone(pickle(&[&float, &longer_names(60_000)])),
            "does not fit",
        ),
        (
            "names of classes",
            alone(pickle(&[&b"c\n\n".repeat(600_000)])),
            "too many objects besides the weights",
        ),
        (
            "objects",
            alone(pickle(&[b"ca\nb\nq\x00", &b"h\x00)\x81".repeat(400_000)])),
            "too many objects besides the weights",
        ),
        (
            "storages",
            alone(pickle(&[
                b"(X\x07\0\0\0storageNNNNtq\x00",
                &b"h\x00Q".repeat(600_000),
            ])),
            "too many objects besides the weights",
        ),
        (
            "items of objects",
            alone(pickle(&[
                b"ca\nb\nq\x00",
                &b"h\x00)\x81NNsNa".repeat(300_000),
            ])),
            "too many objects besides the weights",
        ),
        (
            "dictionaries of one long name",
            alone(pickle(&[
                &float,
                b"](X\xe8\x03\0\0",
                &[b'n'; 1000],
                b"q\x0a0",
                &b"}h\x0ah\x09s".repeat(60),
                b"e",
            ])),
            "does not fit",
        ),
        (
            "one storage for all",
            one_storage_for_all(),
            "share their elements",
        ),
        ("entries of 4 GiB", wide, "damaged"),
        ("a truncated storage", legacy, "truncated"),
        (
            "a header of many tensors",
            header(&format!("{{{}}}", entries.join(","))),
            "does not fit",
        ),
        (
            "a longer header",
            header(&format!("{{{}}}", longer.join(","))),
            "its header has",
        ),
        (
            "a tensor of many sides",
            header(&format!(
                r#"{{"a":{{"dtype":"F32","shape":[{sides}],"data_offsets":[0,0]}}}}"#
            )),
            "has 1000000 sides",
        ),
        (
            "a header of any length",
            u64::MAX.to_le_bytes().iter().chain(b"{").copied().collect(),
            "damaged",
        ),
    ]
}

#[test]
fn a_file_takes_a_few_times_its_size_at_most() {
    for name in CHECKPOINTS {
        let file = std::fs::read(fixture(name)).unwrap();
        let size = file.len();
        let (peak, outcome) = read(file);
        assert_eq!(outcome, "imported", "{name}");
        // Sound files hold next to nothing but their values.
        assert!(peak < 12 * size, "{name}: {peak} of {size}");
    }
    for (what, file, expected) in hostile() {
        let size = file.len();
        let (peak, outcome) = read(file);
        let start: String = outcome.chars().take(300).collect();
        assert!(outcome.contains(expected), "{what}: {start}");
        println!("{what}: {size} bytes take {peak} beyond them");
        assert!(peak <= TIMES * size + BESIDE, "{what}: {peak} of {size}");
    }
}
