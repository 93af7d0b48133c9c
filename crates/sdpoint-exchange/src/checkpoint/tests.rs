use super::*;

#[path = "../../tests/support/archive.rs"]
mod archive;

use archive::zip;

/// A pickle by the names of its instructions.
#[derive(Clone, Default)]
struct Pickle(Vec<u8>);

impl Pickle {
    fn new() -> Self {
        Self(vec![0x80, 2])
    }

    fn op(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    fn text(self, text: &str) -> Self {
        self.op(&[0x8c, text.len() as u8]).op(text.as_bytes())
    }

    fn int(self, value: i32) -> Self {
        self.op(b"J").op(&value.to_le_bytes())
    }

    fn global(self, module: &str, name: &str) -> Self {
        self.op(format!("c{module}\n{name}\n").as_bytes())
    }

    /// A tensor of a storage "0" of `class`, by a call.
    fn tensor(self, class: &str, offset: i32, shape: &[i32], strides: &[i32]) -> Self {
        let sizes = |pickle: Self, sizes: &[i32]| {
            let pickle = sizes
                .iter()
                .fold(pickle.op(b"("), |pickle, &size| pickle.int(size));
            pickle.op(b"t")
        };
        let storage = self
            .global("torch._utils", "_rebuild_tensor_v2")
            .op(b"((")
            .text("storage")
            .global("torch", class)
            .text("0")
            .text("cpu")
            .int(1)
            .op(b"tQ")
            .int(offset);
        let pickle = sizes(sizes(storage, shape), strides);
        pickle.op(b"\x89").op(b"NtR")
    }

    /// A dictionary with this pickle's value as "x".
    fn file(self) -> Vec<u8> {
        let mut pickle = Pickle::new().op(b"}").text("x");
        pickle.0.extend(&self.0[2..]);
        zip(&[("a/data.pkl", &pickle.op(b"s.").0), ("a/data/0", &[0; 16])])
    }
}

fn refused(file: Vec<u8>) -> String {
    Checkpoint::parse(file).unwrap_err().to_string()
}

#[test]
fn strides_and_offsets_say_where_elements_lie() {
    let data: Vec<u8> = (0..6u8).flat_map(|x| f32::from(x).to_le_bytes()).collect();
    let pickle = Pickle::new().op(b"}").text("x");
    let tensor = Pickle::default().tensor("FloatStorage", 1, &[2, 2], &[1, 3]);
    let pickle = pickle.op(&tensor.0).op(b"s.");
    let file = zip(&[("data.pkl", &pickle.0), ("data/0", &data)]);
    let checkpoint = Checkpoint::parse(file).unwrap();
    let tensor = checkpoint.sets()[0].get("x").unwrap();
    assert_eq!(
        (tensor.shape(), tensor.dtype()),
        (&[2, 2][..], "float32".into())
    );
    assert_eq!(checkpoint.values(tensor).unwrap(), [1.0, 4.0, 2.0, 5.0]);
}

#[test]
fn expanded_tensors_repeat_their_data() {
    let data: Vec<u8> = [7f32, 8.0].into_iter().flat_map(f32::to_le_bytes).collect();
    for (shape, strides, values) in [
        (&[3][..], &[0][..], &[8.0; 3][..]),
        (&[1, 2], &[0, 0], &[8.0; 2]),
        (&[2, 1, 3], &[-1, 1, 0], &[]),
    ] {
        let tensor = Pickle::default().tensor("FloatStorage", 1, shape, strides);
        let pickle = Pickle::new().op(b"}").text("x").op(&tensor.0).op(b"s.");
        let file = zip(&[("data.pkl", &pickle.0), ("data/0", &data)]);
        match Checkpoint::parse(file) {
            Ok(checkpoint) => {
                let tensor = checkpoint.sets()[0].get("x").unwrap();
                assert_eq!(checkpoint.values(tensor).unwrap(), values);
            }
            // There are no negative strides.
            Err(_) => assert!(values.is_empty()),
        }
    }
}

#[test]
fn a_tensor_of_any_name_is_there() {
    let tensor = Pickle::default().tensor("FloatStorage", 0, &[4], &[1]);
    let long = |text: &str| {
        let length = (text.len() as u32).to_le_bytes();
        Pickle::default().op(b"X").op(&length).op(text.as_bytes())
    };
    let mut pickle = Pickle::new().op(b"}");
    for length in [1, 1024, 1025, 1500, 70_000] {
        pickle = pickle
            .op(&long(&"é".repeat(length)).0)
            .op(&tensor.0)
            .op(b"s");
    }
    // Names that are equal as far as they are kept.
    let same = "é".repeat(1500) + "!";
    pickle = pickle.op(&long(&same).0).op(&tensor.0).op(b"s.");
    let file = zip(&[("data.pkl", &pickle.0), ("data/0", &[0; 16])]);
    let checkpoint = Checkpoint::parse(file).unwrap();
    let names: Vec<&str> = checkpoint.sets()[0].names().collect();
    assert_eq!(names.len(), 6);
    assert!(names.iter().all(|name| name.len() < 1100));
}

#[test]
fn a_text_is_encoded_once() {
    // Two thousand calls that encode the same text.
    let text = "é".repeat(2000);
    let length = (text.len() as u32).to_le_bytes();
    let mut pickle = Pickle::new()
        .global("_codecs", "encode")
        .op(b"q\x01(X")
        .op(&length)
        .op(text.as_bytes())
        .text("latin1")
        .op(b"tq\x02");
    for _ in 0..2000 {
        pickle = pickle.op(b"h\x01h\x02R");
    }
    assert!(refused(zip(&[("data.pkl", &pickle.op(b".").0)])).contains("too many objects"));
}

/// Why the tensor "x" of a file cannot be read.
fn obstacle(file: Vec<u8>) -> String {
    let checkpoint = Checkpoint::parse(file).unwrap();
    let found = checkpoint
        .sets()
        .iter()
        .find_map(|set| set.entries.get("x"));
    found.unwrap().clone().unwrap_err().problem
}

/// A dictionary that holds a whole tensor and, as "x", another value.
fn beside(value: Pickle) -> Vec<u8> {
    let tensor = Pickle::default().tensor("FloatStorage", 0, &[4], &[1]);
    let pickle = Pickle::new().op(b"}").text("whole").op(&tensor.0).op(b"s");
    let pickle = pickle.text("x").op(&value.0[2..]).op(b"s.");
    zip(&[("a/data.pkl", &pickle.0), ("a/data/0", &[0; 16])])
}

#[test]
fn calls_become_objects_that_only_matter_where_a_weight_should_be() {
    for (module, name) in [("os", "system"), ("builtins", "eval"), ("torch", "load")] {
        let call = Pickle::new()
            .global(module, name)
            .op(b"(")
            .text("true")
            .op(b"tR");
        let message = obstacle(beside(call));
        assert!(message.contains(&format!("{module}.{name}")), "{message}");
        assert!(message.contains("is not run"), "{message}");
    }
    let stacked = Pickle::new().text("os").text("system").op(b"\x93)\x81}b");
    assert!(obstacle(beside(stacked)).contains("os.system"));
    // A call of what a call gave.
    let twice = Pickle::new().global("a", "b").op(b")R)R");
    assert!(obstacle(beside(twice)).contains("a.b"));
}

#[test]
fn tensors_of_kinds_that_are_not_read_are_named() {
    for (name, part) in [
        ("_rebuild_sparse_tensor", "sparse"),
        ("_rebuild_qtensor", "quantised"),
        ("_rebuild_meta_tensor_no_storage", "meta device"),
        ("_rebuild_nested_tensor", "nested"),
        ("_rebuild_wrapper_subclass", "subclass"),
    ] {
        let made = Pickle::new().global("torch._utils", name).op(b")R");
        let message = obstacle(beside(made));
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn arrays_of_all_plain_numbers_are_known() {
    for (code, bytes, dtype) in [
        ("f4", 4u8, "float32"),
        ("c8", 8, "complex64"),
        ("c16", 16, "complex128"),
        ("u2", 2, "uint16"),
        ("u4", 4, "uint32"),
        ("u8", 8, "uint64"),
    ] {
        let array = Pickle::new()
            .global("numpy._core.numeric", "_frombuffer")
            .op(&[b'(', b'C', bytes])
            .op(&vec![0; usize::from(bytes)])
            .global("numpy", "dtype")
            .op(b"(")
            .text(code)
            .op(b"\x89\x88tR(K\x03")
            .text("<")
            .op(b"NNNK\x00K\x00K\x00tb(K\x01t")
            .text("C")
            .op(b"tR");
        let checkpoint = Checkpoint::parse(array.file()).unwrap();
        assert_eq!(checkpoint.sets()[0].get("x").unwrap().dtype(), dtype);
    }
}

#[test]
fn old_instructions_are_read_as_new_ones() {
    // Protocol 0: marks, lines of text and digits.
    let tensor = b"ctorch._utils\n_rebuild_tensor\n((S'storage'\nctorch\nFloatStorage\nS'0'\n\
        S'cpu'\nI4\ntQL0L\n(I4\nt(I1\nttRp1\n";
    let pickle = [&b"(dp0\nVx\n"[..], tensor, b"s."].concat();
    let file = zip(&[("data.pkl", &pickle), ("data/0", &[0; 16])]);
    let checkpoint = Checkpoint::parse(file).unwrap();
    assert_eq!(checkpoint.sets()[0].get("x").unwrap().shape(), [4]);
}

#[test]
fn tensors_larger_than_their_data_are_refused() {
    // A storage of 16 bytes holds four single, two double or eight half ones.
    let fits = |class, offset, shape: &[i32], strides: &[i32]| {
        Checkpoint::parse(Pickle::new().tensor(class, offset, shape, strides).file())
    };
    assert!(fits("FloatStorage", 0, &[4], &[1]).is_ok());
    assert!(fits("HalfStorage", 4, &[2, 2], &[2, 1]).is_ok());
    assert!(fits("FloatStorage", 3, &[1], &[i32::MAX]).is_ok());
    for (class, offset, shape, strides) in [
        ("FloatStorage", 0, &[5][..], &[1][..]),
        ("DoubleStorage", 0, &[3], &[1]),
        ("FloatStorage", 1, &[4], &[1]),
        ("FloatStorage", 0, &[2, 2], &[4, 1]),
        // All elements in one place.
        ("FloatStorage", 0, &[1 << 30, 1 << 30, 1 << 30], &[0, 0, 0]),
        ("FloatStorage", 0, &[i32::MAX], &[1]),
        ("FloatStorage", 0, &[i32::MAX], &[0]),
        ("FloatStorage", i32::MAX, &[1], &[1]),
    ] {
        let tensor = Pickle::new().tensor(class, offset, shape, strides);
        let message = obstacle(beside(tensor));
        assert!(message.contains("more than"), "{message}");
    }
    for (shape, strides) in [(&[-1][..], &[1][..]), (&[1], &[1, 1]), (&[1; 40], &[1; 40])] {
        let tensor = Pickle::new().tensor("FloatStorage", 0, shape, strides);
        let message = obstacle(beside(tensor));
        assert!(message.starts_with("has s"), "{message}");
    }
}

#[test]
fn a_value_that_holds_itself_does_no_harm() {
    // A dictionary remembered as 0 that gets itself as "state_dict".
    let cycle = Pickle::new().op(b"}q\0").text("state_dict").op(b"h\0s.");
    let message = refused(zip(&[("data.pkl", &cycle.0)]));
    assert!(message.contains("no dictionary of tensors"), "{message}");
    // A module that is one of its own modules.
    let module = Pickle::new()
        .global("a", "Module")
        .op(b")\x81q\0}")
        .text("_modules")
        .op(b"}")
        .text("own")
        .op(b"h\0ssb.");
    let message = refused(zip(&[("data.pkl", &module.0)]));
    assert!(message.contains("no dictionary of tensors"), "{message}");
}

#[test]
fn a_small_pickle_cannot_ask_for_much() {
    let values = Pickle::new().op(&vec![b'}'; 2 << 20]);
    assert!(refused(zip(&[("data.pkl", &values.0)])).contains("too many objects"));
    // A list of a thousand pairs, of which ten thousand dictionaries are made.
    let mut pickle = Pickle::new().op(b"](");
    for _ in 0..1000 {
        pickle = pickle.op(b"NN\x86");
    }
    pickle = pickle
        .op(b"e\x85q\0")
        .global("collections", "OrderedDict")
        .op(b"q\x01");
    for _ in 0..10_000 {
        pickle = pickle.op(b"h\x01h\0R");
    }
    assert!(refused(zip(&[("data.pkl", &pickle.0)])).contains("too many objects"));
}

#[test]
fn modules_that_share_modules_do_not_take_for_ever() {
    // Thirty levels of modules, each holding the one below twice.
    let mut pickle = Pickle::new().op(b"}q\x01");
    for _ in 0..30 {
        let module = Pickle::default()
            .global("a", "Module")
            .op(b")\x81}")
            .text("_modules")
            .op(b"}")
            .text("one")
            .op(b"h\x01s")
            .text("two")
            .op(b"h\x01ssb")
            .op(b"q\x01");
        pickle = pickle.op(&module.0);
    }
    let message = refused(zip(&[("data.pkl", &pickle.op(b".").0)]));
    assert!(message.contains("Save the weights alone"), "{message}");
}

#[test]
fn elements_are_read_in_the_order_of_the_machine_that_wrote_them() {
    let pickle = Pickle::new().op(b"}").text("x");
    let tensor = Pickle::default().tensor("FloatStorage", 0, &[2], &[1]);
    let pickle = pickle.op(&tensor.0).op(b"s.");
    let data = [1.5f32.to_be_bytes(), (-2f32).to_be_bytes()].concat();
    let order = |order: &[u8]| {
        let files = [
            ("data.pkl", &pickle.0[..]),
            ("byteorder", order),
            ("data/0", &data),
        ];
        Checkpoint::parse(zip(&files))
    };
    let checkpoint = order(b"big").unwrap();
    let tensor = checkpoint.sets()[0].get("x").unwrap();
    assert_eq!(checkpoint.values(tensor).unwrap(), [1.5, -2.0]);
    assert!(
        order(b"mixed")
            .unwrap_err()
            .to_string()
            .contains("byteorder")
    );
}

#[test]
fn other_files_are_told_apart() {
    for file in [&b"PK"[..], b"GIF89a..........", &[0; 100]] {
        let message = refused(file.to_vec());
        assert!(message.contains("neither"), "{message}");
    }
    for (file, part) in [
        (&b""[..], "empty"),
        (&[0x80], "too early"),
        (b"\x89HDF\r\n\x1a\n....", "HDF5"),
        (b"<!DOCTYPE html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS"),
        (b"LZIP\x01\x0c", "compressed"),
        (b"\x1f\x9d\x90", "compressed"),
        (b"\x5d\0\0\x80\0", "compressed"),
        (b"7z\xbc\xaf\x27\x1c", "7-Zip"),
        (b"Rar!\x1a\x07\x01\0", "RAR"),
    ] {
        let message = refused(file.to_vec());
        assert!(message.contains(part), "{message}");
        assert!(
            part == "too early" || !message.contains("damaged"),
            "{message}"
        );
    }
    for (name, part) in [
        ("photo.jpg", "torch.save did not write"),
        ("arr_0.npy", "NumPy"),
        ("net/archive_format", "torch.export"),
        ("net/.data/extern_modules", "torch.package"),
    ] {
        let message = refused(zip(&[(name, &[])]));
        assert!(message.contains(part), "{message}");
        assert!(!message.contains("damaged"), "{message}");
    }
    let number = Pickle::new().int(1).op(b".");
    assert!(refused(number.0.clone()).contains("state_dict"));
    assert!(refused(zip(&[("data.pkl", &number.0)])).contains("state_dict"));
}

#[test]
fn a_damaged_archive_says_where() {
    let whole = Pickle::new().tensor("FloatStorage", 0, &[4], &[1]).file();
    assert!(refused(whole[..whole.len() - 1].to_vec()).contains("truncated"));
    // A file that reaches past the end: its size in the list of files.
    let place = whole.windows(4).rposition(|w| w == b"PK\x01\x02").unwrap();
    let mut longer = whole.clone();
    longer[place + 24..][..4].copy_from_slice(&0x00ff_ffffu32.to_le_bytes());
    let message = refused(longer);
    assert!(
        message.contains("'a/data/0'") && message.contains("truncated"),
        "{message}"
    );
    let list = whole.len() - 6;
    let mut outside = whole.clone();
    outside[list..][..4].copy_from_slice(&u32::to_le_bytes(1 << 30));
    assert!(refused(outside).contains("points outside"));
    let mut twice = whole.clone();
    let name = twice.windows(8).rposition(|w| w == b"a/data/0").unwrap();
    twice.splice(name..name + 8, *b"a/data.p");
    assert!(refused(twice).contains("no dictionary of tensors"));
    let pickle = Pickle::new().op(b"}.");
    assert!(refused(zip(&[("data.pkl", &pickle.0[..]); 2])).contains("two files"));
    let mut deflated = whole;
    deflated[place + 10] = 8;
    assert!(refused(deflated).contains("compressed"));
    // A checksum of one file alone: the others should have one, too.
    let mut checked = Pickle::new().tensor("FloatStorage", 0, &[4], &[1]).file();
    checked[place + 16] = 1;
    assert!(refused(checked).contains("checksum"));
}

#[test]
fn safetensors_of_wrong_sizes_are_refused() {
    let file = |header: &str, data: usize| {
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header.as_bytes());
        file.resize(file.len() + data, 0);
        file
    };
    let x = r#"{"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
    assert!(Checkpoint::parse(file(x, 8)).is_ok());
    assert!(refused(file(x, 7)).contains("truncated"));
    for header in [
        r#"{"x":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}"#,
        r#"{"x":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}}"#,
        r#"{"x":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}"#,
        r#"{"x":{"dtype":"F32","shape":[4611686018427387903],"data_offsets":[0,18446744073709551612]}}"#,
        r#"{"x":"#,
    ] {
        assert!(refused(file(header, 8)).contains("damaged"), "{header}");
    }
    for (header, words) in [
        (r#"{"x":"#, "its header is not JSON"),
        (
            r#"{"x":{"dtype":"F4x","shape":[2],"data_offsets":[0,8]}}"#,
            "tensor 'x' has elements of the unknown type 'F4x'",
        ),
        (
            r#"{"x":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,8]}}"#,
            "the shape of tensor 'x' is too large",
        ),
        (
            r#"{"x":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}"#,
            "the data of tensor 'x' does not have the size of its shape",
        ),
        (
            r#"{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"y":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#,
            "the data of tensor 'y' does not begin where",
        ),
        (
            r#"{"x":{"dtype":"F32","shape":[-1],"data_offsets":[0,8]}}"#,
            "tensor 'x' has no valid shape or place",
        ),
        (
            r#"{"__metadata__":{"a":1}}"#,
            "its __metadata__ has values that are not text",
        ),
        (r#"{"x":[]}"#, "tensor 'x' has no type of elements"),
        (r#"{"#, "its header is not JSON"),
    ] {
        let error = refused(file(header, 8));
        assert!(error.contains(words), "{header}: {error}");
        for word in ["expected", "column", "variant", "invalid"] {
            assert!(!error.contains(word), "{header}: {error}");
        }
    }
    let model = r#"{"__metadata__":{"sdpoint":"{}"}}"#;
    assert!(refused(file(model, 0)).contains("already"));
    let run = r#"{"__metadata__":{"sdpoint_checkpoint":"{}"}}"#;
    assert!(refused(file(run, 0)).contains("train --resume"));
}

#[test]
fn dictionaries_under_numbers_are_found() {
    let tensor = Pickle::default().tensor("FloatStorage", 0, &[4], &[1]);
    let pickle = Pickle::new().op(b"}").int(0).op(b"}").text("x");
    let pickle = pickle.op(&tensor.0).op(b"ss").int(-1).op(b"}s.");
    let file = zip(&[("a/data.pkl", &pickle.0), ("a/data/0", &[0; 16])]);
    let checkpoint = Checkpoint::parse(file).unwrap();
    let sets: Vec<(&str, usize)> = checkpoint
        .sets()
        .iter()
        .map(|s| (s.key(), s.len()))
        .collect();
    assert_eq!(sets, [("0", 1)]);
}

#[test]
fn an_onnx_file_is_named() {
    let onnx = refused(b"\x08\x0a\x12\x07pytorch".to_vec());
    assert!(onnx.contains("an ONNX file"), "{onnx}");
}

/// Whatever its length, a file of another kind is refused by its start, and one
/// beyond the memory by its length.
#[cfg(unix)]
#[test]
fn files_beyond_the_memory_are_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large");
    for (start, words) in [
        (&b"\0"[..], "neither a safetensors file"),
        (
            b"\x10\0\0\0\0\0\0\0{",
            "8796093022208 bytes, more than the free memory",
        ),
        (b"PK\x03\x04", "more than the free memory"),
    ] {
        std::fs::write(&path, start).unwrap();
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.set_len(1 << 43).unwrap();
        let error = Checkpoint::open(&path).unwrap_err().to_string();
        assert!(error.contains(words) && error.contains("large"), "{error}");
    }
}

#[test]
fn shards_are_read_as_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let shard = |name: &str, tensor: &str, value: f32| {
        let header =
            format!(r#"{{"{tensor}":{{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}}}"#);
        let length = (header.len() as u64).to_le_bytes();
        let file = [&length, header.as_bytes(), &value.to_le_bytes()].concat();
        std::fs::write(path(name), file).unwrap();
    };
    shard("a.safetensors", "x", 1.5);
    shard("b.safetensors", "y", -2.0);
    let index = path("model.safetensors.index.json");
    let open = |text: &str| {
        std::fs::write(&index, text).unwrap();
        Checkpoint::open(&index)
    };
    let checkpoint =
        open(r#"{"metadata":{},"weight_map":{"y":"b.safetensors","x":"a.safetensors"}}"#).unwrap();
    let [set] = checkpoint.sets() else {
        panic!("{:?}", checkpoint.sets());
    };
    let value = |name: &str| checkpoint.values(set.get(name).unwrap()).unwrap();
    assert_eq!((value("x"), value("y")), (vec![1.5], vec![-2.0]));
    for (text, words) in [
        (
            r#"{"weight_map":{"z":"a.safetensors"}}"#,
            "'a.safetensors' has no tensor 'z'",
        ),
        (r#"{"weight_map":{"x":"../a.safetensors"}}"#, "no file name"),
        (r#"{"weight_map":{"x":"/a.safetensors"}}"#, "no file name"),
        (r#"{"weight_map":{"x":".."}}"#, "no file name"),
        (r#"{"weight_map":{"x":"c.safetensors"}}"#, "c.safetensors"),
        (
            r#"{"weight_map":{"x":"pytorch_model-1.bin"}}"#,
            "torch.save(model.state_dict()",
        ),
        (r#"{"weight_map":{}}"#, "no dictionary of tensors"),
        ("[1]", "weight_map"),
    ] {
        let error = open(text).unwrap_err().to_string();
        assert!(error.contains(words), "{text}: {error}");
    }
}

/// A dictionary of texts, whose values may be other dictionaries or objects.
fn dictionary(items: &[(&str, Pickle)]) -> Pickle {
    items
        .iter()
        .fold(Pickle::default().op(b"}"), |all, (key, value)| {
            all.text(key).op(&value.0).op(b"s")
        })
}

/// An object of a class that is not installed, with attributes.
fn object(module: &str, name: &str, attributes: Pickle) -> Pickle {
    let made = Pickle::default().global(module, name).op(b")\x81");
    made.op(&attributes.0).op(b"b")
}

/// A `numpy.str_`, as `torch.save` writes it.
fn numpy_text(text: &str, order: &str) -> Pickle {
    let unit = |c: char| match order {
        ">" => u32::from(c).to_be_bytes(),
        _ => u32::from(c).to_le_bytes(),
    };
    let bytes: Vec<u8> = text.chars().flat_map(unit).collect();
    let latin: String = bytes.iter().map(|&byte| char::from(byte)).collect();
    let dtype = Pickle::default()
        .global("numpy", "dtype")
        .op(b"(")
        .text(&format!("U{}", text.len()))
        .op(b"\x89\x88tR(K\x03")
        .text(order)
        .op(b"NNNK\x30K\x04K\x08tb");
    Pickle::default()
        .global("numpy._core.multiarray", "scalar")
        .op(b"(")
        .op(&dtype.0)
        .global("_codecs", "encode")
        .op(b"(X")
        .op(&(latin.len() as u32).to_le_bytes())
        .op(latin.as_bytes())
        .text("latin1")
        .op(b"tRtR")
}

/// A hostile file may have very many options in options.
#[test]
fn options_within_options_are_searched_to_a_limit() {
    let keys = [
        "args", "config", "cfg", "opt", "options", "hparams", "model",
    ];
    let leaf = dictionary(&[("epochs", Pickle::default().int(3))]);
    // Each level has the one below several times, by reference.
    let shared = (0..12u8).fold(leaf.op(b"q\x00"), |inner, level| {
        let first = dictionary(&[(keys[0], inner)]);
        let all = keys[1..]
            .iter()
            .fold(first, |all, key| all.text(key).op(&[b'h', level]).op(b"s"));
        all.op(&[b'q', level + 1])
    });
    let tensor = Pickle::default().tensor("FloatStorage", 0, &[4], &[1]);
    let all = dictionary(&[
        ("state_dict", dictionary(&[("x", tensor)])),
        ("args", shared),
    ]);
    let pickle = Pickle::new().op(&all.0).op(b".");
    let file = zip(&[("a/data.pkl", &pickle.0), ("a/data/0", &[0; 16])]);
    let checkpoint = Checkpoint::parse(file).unwrap();
    assert_eq!(checkpoint.architecture(), None);
}

/// Parts of a network, of which another dictionary has some, too.
#[test]
fn dictionaries_in_several_places_are_found_in_all() {
    let tensor = || Pickle::default().tensor("FloatStorage", 0, &[4], &[1]);
    let part = |name: &str, memo: u8| dictionary(&[(name, tensor())]).op(&[b'q', memo]);
    let again = |memo: u8| Pickle::default().op(&[b'h', memo]);
    let shared = [
        ("features", part("a", 0)),
        ("classifier", part("b", 1)),
        (
            "ema",
            dictionary(&[("features", again(0)), ("classifier", again(1))]),
        ),
    ];
    let list = Pickle::default()
        .op(b"](")
        .op(&part("a", 2).0)
        .op(&part("b", 3).0)
        .op(b"e");
    for (items, expected) in [
        (
            &shared[..],
            &["", "ema", "ema.classifier", "ema.features"][..],
        ),
        (&[("model", list)], &["model", "model.0", "model.1"]),
    ] {
        let pickle = Pickle::new().op(&dictionary(items).0).op(b".");
        let file = zip(&[("a/data.pkl", &pickle.0), ("a/data/0", &[0; 16])]);
        let checkpoint = Checkpoint::parse(file).unwrap();
        let keys: Vec<&str> = checkpoint.sets().iter().map(TensorSet::key).collect();
        for key in expected {
            assert!(keys.contains(key), "{key}: {keys:?}");
        }
        let joined = checkpoint.sets().iter().find(|set| set.is_joined());
        assert_eq!(joined.map(TensorSet::len), Some(2));
    }
}

#[test]
fn the_name_of_the_network_is_found_among_options() {
    let text = |text: &str| Pickle::default().text(text);
    let namespace = |items: &[(&str, Pickle)]| object("argparse", "Namespace", dictionary(items));
    let of = |items: &[(&str, Pickle)]| {
        let tensor = Pickle::default().tensor("FloatStorage", 0, &[4], &[1]);
        let weights = dictionary(&[("x", tensor)]);
        let all = [&[("state_dict", weights)], items].concat();
        let pickle = Pickle::new().op(&dictionary(&all).0).op(b".");
        let file = zip(&[("a/data.pkl", &pickle.0), ("a/data/0", &[0; 16])]);
        let checkpoint = Checkpoint::parse(file).unwrap();
        let all: Vec<String> = checkpoint.architectures().map(str::to_owned).collect();
        assert_eq!(checkpoint.architecture(), all.first().map(|name| &name[..]));
        all
    };
    let name = || text("resnet18");
    // Options within options.
    let deep = |levels| {
        let inner = dictionary(&[("arch", name())]);
        (0..levels).fold(inner, |inner, _| dictionary(&[("args", inner)]))
    };
    let both = [
        ("args", namespace(&[("model", text("resnetblur18"))])),
        ("arch", name()),
    ];
    assert_eq!(of(&both), ["resnet18", "resnetblur18"]);
    for items in [
        &[("arch", name())][..],
        &[("architecture", name())],
        &[("model_name", name())],
        &[("model", name())],
        &[("hyper_parameters", dictionary(&[("model_name", name())]))],
        &[("hyper_parameters", dictionary(&[("arch", name())]))],
        &[("hyper_parameters", dictionary(&[("model", name())]))],
        &[("hyper_parameters", dictionary(&[("backbone", name())]))],
        &[("args", namespace(&[("model", name())]))],
        &[("args", namespace(&[("arch", name())]))],
        &[("args", dictionary(&[("model", name())]))],
        &[(
            "config",
            object("types", "SimpleNamespace", dictionary(&[("arch", name())])),
        )],
        &[(
            "hyper_parameters",
            dictionary(&[("args", namespace(&[("arch", name())]))]),
        )],
        &[(
            "hyper_parameters",
            dictionary(&[("model", dictionary(&[("name", name())]))]),
        )],
        // As yacs writes options.
        &[(
            "cfg",
            dictionary(&[("MODEL", dictionary(&[("NAME", name())]))]),
        )],
        &[(
            "options",
            dictionary(&[("network", dictionary(&[("name", name())]))]),
        )],
        &[("config", deep(4))],
        // As text.
        &[("cfg", text("MODEL:\n  NAME: resnet18\n"))],
        &[(
            "args",
            namespace(&[("config", text("{\"arch\": \"resnet18\"}"))]),
        )],
        // As a string of NumPy, in both byte orders and as protocol 2 writes bytes.
        &[("arch", numpy_text("resnet18", "<"))],
        &[("arch", numpy_text("resnet18", ">"))],
        &[("args", namespace(&[("model", numpy_text("resnet18", "<"))]))],
        // The more specific one.
        &[(
            "args",
            namespace(&[("model", text("mine")), ("arch", name())]),
        )],
        &[
            ("epoch", Pickle::default().int(3)),
            ("args", namespace(&[("model", name())])),
            ("arch", name()),
        ],
    ] {
        assert_eq!(of(items).first().map(|name| &name[..]), Some("resnet18"));
    }
    for items in [
        &[][..],
        &[("name", name())],
        &[("arch", Pickle::default().int(18))],
        &[("arch", text("a network of mine"))],
        &[("arch", text(&"x".repeat(101)))],
        &[("optimizer", dictionary(&[("arch", name())]))],
        &[("config", deep(5))],
        &[("cfg", text("DATA:\n  NAME: resnet18\n"))],
        &[("arch", numpy_text(&"x".repeat(101), "<"))],
    ] {
        assert_eq!(of(items), Vec::<String>::new());
    }
}
