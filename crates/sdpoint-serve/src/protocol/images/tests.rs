use proptest::prelude::*;

use super::*;
use crate::protocol::datatype::DataType;

const SIGNATURE: Signature = Signature {
    size: [2, 3],
    channels: 3,
    classes: 4,
};

fn tensor(name: &str, datatype: DataType, shape: &[u64], data: Data) -> Tensor {
    Tensor {
        name: name.into(),
        datatype,
        shape: shape.into(),
        data,
    }
}

fn read(tensor: Tensor) -> Result<(RequestImages, usize), ApiError> {
    images(vec![tensor], &SIGNATURE, 8)
}

#[track_caller]
fn refused(tensor: Tensor, texts: &[&str]) {
    let error = read(tensor).unwrap_err().message;
    for text in texts {
        assert!(error.contains(text), "'{text}' is not in: {error}");
    }
}

#[test]
fn each_input_arrives_as_it_was_sent() {
    let values: Vec<f32> = (0..36).map(|v| v as f32 - 7.5).collect();
    let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let raw = Bytes::from(raw);
    for data in [Data::Raw(raw.clone()), Data::Floats(values)] {
        let (images, count) = read(tensor(IMAGES, DataType::FP32, &[2, 3, 2, 3], data)).unwrap();
        assert_eq!((images, count), (RequestImages::Planes(raw.clone()), 2));
    }
    let pixels: Vec<u8> = (0..18).map(|v| 14 * v).collect();
    let floats = pixels.iter().map(|&v| f32::from(v)).collect();
    for data in [
        Data::Raw(pixels.clone().into()),
        Data::Octets(pixels.clone()),
        Data::Floats(floats),
    ] {
        let (images, count) = read(tensor(PIXELS, DataType::UINT8, &[1, 2, 3, 3], data)).unwrap();
        let expected = RequestImages::Pixels(pixels.clone().into());
        assert_eq!((images, count), (expected, 1));
    }
    let files = [Bytes::from_static(b"one"), Bytes::new()];
    let raw = b"\x03\0\0\0one\0\0\0\0".as_slice();
    for data in [Data::Raw(raw.into()), Data::Strings(files.to_vec())] {
        let (images, count) = read(tensor(ENCODED, DataType::Bytes, &[2], data)).unwrap();
        assert_eq!((images, count), (RequestImages::Encoded(files.to_vec()), 2));
    }
}

#[test]
fn a_tensor_must_be_as_the_metadata_says() {
    let none = || Data::Raw(Bytes::new());
    refused(
        tensor("image", DataType::FP32, &[1, 3, 2, 3], none()),
        &["no input 'image'", "images, pixels and encoded"],
    );
    refused(
        tensor(IMAGES, DataType::UINT8, &[1, 3, 2, 3], none()),
        &["UINT8", "must be FP32"],
    );
    for shape in [&[3, 2, 3][..], &[1, 2, 3, 3], &[1, 3, 2, 3, 1], &[]] {
        refused(
            tensor(IMAGES, DataType::FP32, shape, none()),
            &["must be [-1,3,2,3]"],
        );
    }
    refused(
        tensor(IMAGES, DataType::FP32, &[0, 3, 2, 3], none()),
        &["no images"],
    );
    for huge in [9, 1 << 31, 1 << 59, 1 << 63, u64::MAX] {
        refused(
            tensor(IMAGES, DataType::FP32, &[huge, 3, 2, 3], none()),
            &["the limit is 8"],
        );
        refused(
            tensor(ENCODED, DataType::Bytes, &[huge], none()),
            &["the limit is 8"],
        );
    }
    let two = || tensor(ENCODED, DataType::Bytes, &[1], none());
    for inputs in [vec![], vec![two(), two()]] {
        let error = images(inputs, &SIGNATURE, 8).unwrap_err().message;
        assert!(error.contains("exactly one of"), "{error}");
    }
}

#[test]
fn lengths_must_fit_the_shape() {
    let image = |data| tensor(IMAGES, DataType::FP32, &[1, 3, 2, 3], data);
    refused(image(Data::Raw(vec![0; 71].into())), &["71 bytes", "72"]);
    refused(image(Data::Floats(vec![0.0; 19])), &["19 elements", "18"]);
    refused(image(Data::Strings(vec![])), &["numbers"]);
    let pixels = |data| tensor(PIXELS, DataType::UINT8, &[1, 2, 3, 3], data);
    refused(pixels(Data::Raw(vec![0; 19].into())), &["19 bytes", "18"]);
    for bad in [-1.0, 256.0, 0.5, f32::NAN] {
        refused(pixels(Data::Floats(vec![bad; 18])), &["from 0 to 255"]);
    }
    let encoded =
        |raw: &'static [u8]| tensor(ENCODED, DataType::Bytes, &[1], Data::Raw(raw.into()));
    refused(encoded(b"\x04\0\0\0one"), &["element 1", "beyond"]);
    refused(encoded(b"\xff\xff\xff\xffone"), &["element 1", "beyond"]);
    refused(encoded(b"\0\0\0"), &["element 1", "beyond"]);
    refused(encoded(b"\x01\0\0\0a\x01\0\0\0b"), &["5 bytes after its 1"]);
    refused(encoded(b""), &["0 elements", "1"]);
}

#[test]
fn values_must_be_finite() {
    let values = |at: usize, value: f32| {
        let mut values = vec![0.5; 36];
        values[at] = value;
        values
    };
    for (at, value, text) in [
        (0, f32::NAN, "NaN at index [0,0,0,0]"),
        (17, f32::INFINITY, "inf at index [0,2,1,2]"),
        (22, f32::NEG_INFINITY, "-inf at index [1,0,1,1]"),
    ] {
        let values = values(at, value);
        let raw: Vec<u8> = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        for data in [Data::Raw(raw.into()), Data::Floats(values)] {
            refused(
                tensor(IMAGES, DataType::FP32, &[2, 3, 2, 3], data),
                &["'images'", text],
            );
        }
    }
    let largest = Data::Floats(values(3, f32::MAX));
    read(tensor(IMAGES, DataType::FP32, &[2, 3, 2, 3], largest)).unwrap();
}

/// The first of several, beyond the first block of those tested together.
#[test]
fn the_first_value_that_is_not_finite_is_named() {
    let mut raw = vec![0; 4 * 4096];
    for at in [4000, 2500, 3000] {
        raw[4 * at..4 * at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    }
    let error = check_finite(&raw, &[1, 1, 64, 64]).unwrap_err();
    assert!(error.message.contains("[0,0,39,4]"), "{}", error.message);
}

proptest! {
    /// Any lengths and bytes give an error or as many images as the shape says.
    #[test]
    fn anything_is_read_or_refused(
        name in prop::sample::select(vec![IMAGES, PIXELS, ENCODED, ""]),
        shape in prop::collection::vec(prop_oneof![0u64..5, any::<u64>()], 0..5),
        raw in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        for datatype in [DataType::FP32, DataType::UINT8, DataType::Bytes] {
            let data = Data::Raw(raw.clone().into());
            if let Ok((images, count)) = read(tensor(name, datatype, &shape, data)) {
                prop_assert_eq!(count as u64, shape[0]);
                let len = match images {
                    RequestImages::Planes(values) => values.len() / 4 / SIGNATURE.image_len(),
                    RequestImages::Pixels(values) => values.len() / SIGNATURE.image_len(),
                    RequestImages::Encoded(files) => files.len(),
                };
                prop_assert_eq!(len, count);
            }
        }
    }
}
