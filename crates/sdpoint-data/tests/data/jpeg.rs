//! JPEG files of every kind, sound, odd, cut short and of kinds that are refused.

use crate::common::{is_colour, jpeg};
use crate::jpegs::{Jpeg, adobe, segment};
use sdpoint_data::{Image, ImageError, ImageKind, Orientation, decode};

/// Luma and chroma of a red.
const RED: [u8; 3] = [96, 104, 200];

fn rgb(values: &[u8]) -> [u8; 3] {
    let [y, cb, cr] = [0, 1, 2].map(|i| f32::from(values[i]));
    let (cb, cr) = (cb - 128.0, cr - 128.0);
    [y + 1.402 * cr, y - 0.344 * cb - 0.714 * cr, y + 1.772 * cb].map(|v| v.round() as u8)
}

/// A picture with detail everywhere.
fn scene(width: u16, height: u16, progressive: bool, restart: u16) -> Vec<u8> {
    let pixel = |i: usize| {
        let (x, y) = (i % usize::from(width), i / usize::from(width));
        [(7 * x) as u8, (5 * y) as u8, (x * y) as u8]
    };
    let count = usize::from(width) * usize::from(height);
    let pixels: Vec<u8> = (0..count).flat_map(pixel).collect();
    let mut bytes = Vec::new();
    let mut encoder = jpeg_encoder::Encoder::new(&mut bytes, 90);
    encoder.set_progressive(progressive);
    if restart > 0 {
        encoder.set_restart_interval(restart);
    }
    encoder
        .encode(&pixels, width, height, jpeg_encoder::ColorType::Rgb)
        .unwrap();
    bytes
}

fn exif(orientation: u8, thumbnail: &[u8]) -> Vec<u8> {
    let mut body = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
    body.extend([orientation, 0, 0, 0, 0, 0, 0, 0]);
    body.extend(thumbnail);
    segment(0xe1, &body)
}

fn with_header(jpeg: &[u8], header: &[u8]) -> Vec<u8> {
    [&jpeg[..2], header, &jpeg[2..]].concat()
}

#[test]
fn colour_grey_and_cmyk_become_rgb() {
    let image = decode(&jpeg(20, 10, [200, 100, 50])).unwrap();
    assert_eq!((image.width(), image.height()), (20, 10));
    assert!(is_colour(&image, [200, 100, 50]), "{:?}", image.pixel(3, 3));

    let encode = |colour, data: &[u8]| {
        let mut bytes = Vec::new();
        jpeg_encoder::Encoder::new(&mut bytes, 95)
            .encode(data, 16, 16, colour)
            .unwrap();
        bytes
    };
    let grey = decode(&encode(jpeg_encoder::ColorType::Luma, &[77; 256])).unwrap();
    assert!(is_colour(&grey, [77; 3]), "{:?}", grey.pixel(0, 0));

    let inks = [0, 128, 255, 0].repeat(256);
    for colour in [
        jpeg_encoder::ColorType::Cmyk,
        jpeg_encoder::ColorType::CmykAsYcck,
    ] {
        let image = decode(&encode(colour, &inks)).unwrap();
        assert!(
            is_colour(&image, [255, 127, 0]),
            "{colour:?}: {:?}",
            image.pixel(0, 0)
        );
    }
}

/// Every sampling of luma and chroma that an interleaved scan may have, in
/// one scan, in one a component and progressive, with restarts and without:
/// the right colour everywhere, or refused by name.
#[test]
fn every_sampling_and_order_of_scans_is_right_or_refused() {
    let sides = [1, 2, 4];
    let all: Vec<[u8; 2]> = sides.iter().flat_map(|&h| sides.map(|v| [h, v])).collect();
    let (mut right, mut refused) = (0, 0);
    for &luma in &all {
        for &cb in &all {
            for cr in [cb, [1, 1]] {
                let sampling = [luma, cb, cr];
                let blocks = sampling.iter().map(|[h, v]| h * v).sum::<u8>();
                if blocks > 10 {
                    continue;
                }
                for scans in [
                    vec![vec![0, 1, 2]],
                    vec![vec![0], vec![1], vec![2]],
                    vec![vec![0], vec![1, 2]],
                    vec![vec![2], vec![0], vec![1]],
                ] {
                    for (progressive, restart) in [(false, 0), (false, 5), (true, 0), (true, 5)] {
                        let file = Jpeg {
                            scans: scans.clone(),
                            progressive,
                            restart,
                            ..Jpeg::new(&sampling, &RED)
                        };
                        match decode(&file.write()) {
                            Ok(image) => {
                                let found = is_colour(&image, rgb(&RED));
                                assert!(found, "{sampling:?} {scans:?} {progressive} {restart}");
                                right += 1;
                            }
                            Err(error) => {
                                assert!(error.to_string().contains("sampling"), "{error}");
                                refused += 1;
                            }
                        }
                    }
                }
            }
        }
    }
    assert!(right > 5 * refused, "{right} right, {refused} refused");
}

#[test]
fn usual_samplings_are_all_read() {
    for luma in [[1, 1], [2, 1], [1, 2], [2, 2], [4, 1], [1, 4], [4, 2]] {
        for scans in [vec![vec![0, 1, 2]], vec![vec![0], vec![1], vec![2]]] {
            for progressive in [false, true] {
                let file = Jpeg {
                    scans: scans.clone(),
                    progressive,
                    ..Jpeg::new(&[luma, [1, 1], [1, 1]], &RED)
                };
                let image = decode(&file.write()).unwrap();
                assert!(is_colour(&image, rgb(&RED)), "{luma:?} {scans:?}");
            }
        }
    }
    // Of a single component the sampling means nothing.
    for sampling in [[1, 1], [2, 2], [3, 1], [4, 4]] {
        let image = decode(&Jpeg::new(&[sampling], &[90]).write()).unwrap();
        assert!(is_colour(&image, [90; 3]), "{sampling:?}");
    }
}

/// By the rules of libjpeg: JFIF's marker before Adobe's, that before names.
#[test]
fn colours_are_taken_as_their_markers_say() {
    let jfif = segment(0xe0, b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0");
    let one = [[1, 1]; 3];
    let read = |header: &[u8], ids: &[u8], scans: usize| {
        let mut file = Jpeg::new(&one, &RED);
        file.header = header.to_vec();
        file.ids = ids.to_vec();
        if scans > 1 {
            file.scans = vec![vec![0], vec![1], vec![2]];
        }
        decode(&file.write()).unwrap()
    };
    for scans in [1, 3] {
        for (header, ids, expected) in [
            (vec![], *b"\x01\x02\x03", rgb(&RED)),
            (vec![], *b"\0\x01\x02", rgb(&RED)),
            (vec![], *b"RGB", RED),
            (jfif.clone(), *b"RGB", rgb(&RED)),
            (adobe(0), *b"\x01\x02\x03", RED),
            (adobe(1), *b"RGB", rgb(&RED)),
            (
                [jfif.clone(), adobe(0)].concat(),
                *b"\x01\x02\x03",
                rgb(&RED),
            ),
        ] {
            let image = read(&header, &ids, scans);
            assert!(
                is_colour(&image, expected),
                "{ids:?} {:?}",
                image.pixel(0, 0)
            );
        }
    }
    // Inks are stored inverted: these are light cyan, and 20 % of black.
    let values = [155, 255, 255, 204];
    for sampling in [
        [[1, 1]; 4],
        [[2, 2], [1, 1], [1, 1], [2, 2]],
        [[1, 1], [1, 1], [1, 1], [2, 2]],
    ] {
        for scans in [
            vec![vec![0, 1, 2, 3]],
            vec![vec![0], vec![1], vec![2], vec![3]],
        ] {
            for header in [vec![], adobe(0)] {
                let file = Jpeg {
                    header,
                    scans: scans.clone(),
                    ..Jpeg::new(&sampling, &values)
                };
                let image = decode(&file.write()).unwrap();
                assert!(
                    is_colour(&image, [124, 204, 204]),
                    "{:?}",
                    image.pixel(0, 0)
                );
            }
        }
    }
}

#[test]
fn kinds_that_are_not_read_are_named() {
    let sound = Jpeg::new(&[[1, 1]; 3], &RED).write();
    let frame = sound.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
    let with = |at: usize, bytes: &[u8]| {
        let mut file = sound.clone();
        file[frame + at..][..bytes.len()].copy_from_slice(bytes);
        decode(&file).unwrap_err().to_string()
    };
    assert!(with(1, &[0xc3]).contains("lossless"));
    assert!(with(1, &[0xc9]).contains("arithmetic"));
    assert!(with(1, &[0xca]).contains("arithmetic"));
    assert!(with(1, &[0xc5]).contains("hierarchical"));
    assert!(with(4, &[12]).contains("more than 8 bits"));
    assert!(with(5, &[0, 0]).contains("height"));
    let two = decode(&Jpeg::new(&[[1, 1]; 2], &RED).write()).unwrap_err();
    assert!(
        two.to_string().contains("neither one, three nor four"),
        "{two}"
    );
    let thirds = decode(&Jpeg::new(&[[3, 1], [2, 1], [1, 1]], &RED).write()).unwrap_err();
    assert!(thirds.to_string().contains("unusual sampling"), "{thirds}");
}

#[test]
fn motion_jpeg_without_tables_is_read() {
    for sampling in [[1, 1], [2, 2]] {
        let file = Jpeg {
            tables: false,
            ..Jpeg::new(&[sampling, [1, 1], [1, 1]], &RED)
        };
        let image = decode(&file.write()).unwrap();
        assert!(is_colour(&image, rgb(&RED)), "{:?}", image.pixel(0, 0));
    }
}

/// Wherever a file is cut, it is refused as truncated, or nothing is missing
/// but the end marker.
#[test]
fn a_cut_file_is_refused_and_a_complete_one_without_end_is_read() {
    for (progressive, restart) in [(false, 0), (false, 4), (true, 0)] {
        let whole = scene(50, 35, progressive, restart);
        let expected = decode(&whole).unwrap();
        assert!(decode(&whole[..whole.len() - 2]).unwrap() == expected);
        assert!(decode(&whole[..whole.len() - 1]).unwrap() == expected);
        for len in 3..whole.len() - 3 {
            let cut = &whole[..len];
            let zeros = [cut, &[0; 3000]].concat();
            for file in [cut, &zeros] {
                match decode(file) {
                    Ok(image) => {
                        assert!(image == expected, "{progressive} {restart} {len}");
                        // The last bits of refinement may not matter to any pixel.
                        assert!(len + 12 > whole.len(), "{len} of {}", whole.len());
                    }
                    Err(ImageError::Truncated(ImageKind::Jpeg)) => {}
                    // A header may be cut where zeros then make it wrong.
                    Err(error) => assert!(file.len() > cut.len(), "{len}: {error}"),
                }
            }
        }
    }
}

#[test]
fn a_component_or_scan_that_is_missing_is_noticed() {
    let file = Jpeg {
        scans: vec![vec![0], vec![1]],
        ..Jpeg::new(&[[1, 1]; 3], &RED)
    };
    let error = decode(&file.write()).unwrap_err();
    assert!(matches!(error, ImageError::Truncated(_)), "{error}");
    let whole = Jpeg {
        scans: vec![vec![0], vec![1], vec![2]],
        ..file
    };
    let whole = whole.write();
    let third = whole.windows(2).rposition(|w| w == [0xff, 0xda]).unwrap();
    let error = decode(&whole[..third]).unwrap_err();
    assert!(matches!(error, ImageError::Truncated(_)), "{error}");
}

#[test]
fn the_end_of_a_thumbnail_is_not_the_end() {
    let thumbnail = jpeg(16, 16, [0, 0, 255]);
    let whole = with_header(&scene(50, 35, false, 0), &exif(1, &thumbnail));
    let expected = decode(&whole).unwrap();
    assert!(expected == decode(&scene(50, 35, false, 0)).unwrap());
    for share in [20, 40, 60, 80, 95] {
        let error = decode(&whole[..whole.len() * share / 100]).unwrap_err();
        assert!(matches!(error, ImageError::Truncated(_)), "{error}");
    }
}

#[test]
fn what_follows_and_what_fills_does_not_matter() {
    let plain = scene(50, 35, false, 0);
    let expected = decode(&plain).unwrap();
    let same = |file: Vec<u8>| assert!(decode(&file).unwrap() == expected);
    same([&plain[..], b"\0\0\r\n some text"].concat());
    same([&plain[..], &[0xff; 9]].concat());
    // Several pictures in a file, as cameras write them: the first counts.
    same([&plain[..], &jpeg(16, 16, [0, 0, 255])].concat());
    // Bytes that fill up before markers, and comments.
    same(with_header(&plain, &[0xff; 5]));
    same(with_header(
        &plain,
        &segment(0xfe, b"\xff\xd9 a comment \xff\xda"),
    ));
    let end = plain.len() - 2;
    same([&plain[..end], &[0xff; 4], &plain[end..]].concat());
}

#[test]
fn all_orientations_are_known_and_turned() {
    let plain = scene(50, 35, false, 0);
    let stored = decode(&plain).unwrap();
    for number in 1..=8 {
        let file = with_header(&plain, &exif(number, b""));
        let image = decode(&file).unwrap();
        let orientation = Orientation::from_exif(number.into()).unwrap();
        assert_eq!(image, stored.clone().with_orientation(orientation));
        let upright = image.upright();
        let size = (upright.width(), upright.height());
        assert_eq!(size, if number < 5 { (50, 35) } else { (35, 50) });
        let corner =
            |image: &Image, x, y| image.pixel(x * (image.width() - 1), y * (image.height() - 1));
        let (x, y) = [
            (0, 0),
            (1, 0),
            (1, 1),
            (0, 1),
            (0, 0),
            (0, 1),
            (1, 1),
            (1, 0),
        ][usize::from(number) - 1];
        assert_eq!(corner(&upright, 0, 0), corner(&stored, x, y), "{number}");
    }
}

/// Each scan takes time, whether it has data or not.
#[test]
fn endless_scans_are_refused() {
    let mut file = Jpeg::new(&[[1, 1]], &[90]);
    file.progressive = true;
    file.scans = vec![vec![0]; 5000];
    let error = decode(&file.write()).unwrap_err();
    assert!(error.to_string().contains("100 scans"), "{error}");
}

/// As libjpeg has it: of four components, any transform but 0 is YCCK.
#[test]
fn unusual_transforms_of_four_components_are_ycck() {
    let read = |header: Vec<u8>| {
        let file = Jpeg {
            header,
            ..Jpeg::new(&[[1, 1]; 4], &[96, 104, 200, 180])
        };
        decode(&file.write()).unwrap()
    };
    for transform in [1, 3, 255] {
        assert!(read(adobe(transform)) == read(adobe(2)), "{transform}");
    }
    assert!(read(adobe(2)) != read(adobe(0)));
}

#[test]
fn progressive_files_need_their_tables() {
    let file = Jpeg {
        tables: false,
        progressive: true,
        ..Jpeg::new(&[[1, 1]; 3], &RED)
    };
    let error = decode(&file.write()).unwrap_err();
    assert!(matches!(error, ImageError::Damaged(_)), "{error}");
}

/// A sequential file with an end marker, but fewer units than its size needs.
#[test]
fn an_end_marker_does_not_make_a_file_complete() {
    for (sampling, scans) in [
        (vec![[1, 1]; 3], vec![vec![0, 1, 2]]),
        (vec![[2, 2], [1, 1], [1, 1]], vec![vec![0, 1, 2]]),
        (
            vec![[2, 1], [1, 1], [1, 1]],
            vec![vec![0], vec![1], vec![2]],
        ),
        (vec![[1, 1]], vec![vec![0]]),
    ] {
        for restart in [0, 3] {
            let file = Jpeg {
                scans: scans.clone(),
                restart,
                ..Jpeg::new(&sampling, &RED[..sampling.len()])
            };
            let whole = file.write();
            decode(&whole).unwrap();
            let frame = whole.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
            for height in [file.height + 16, 2 * file.height, 500] {
                let mut taller = whole.clone();
                taller[frame + 5..][..2].copy_from_slice(&height.to_be_bytes());
                let error = decode(&taller).unwrap_err();
                let expected = match scans.len() {
                    1 => matches!(error, ImageError::Truncated(_)),
                    _ => matches!(error, ImageError::Truncated(_) | ImageError::Damaged(_)),
                };
                assert!(expected, "{sampling:?} {restart} {height}: {error}");
            }
        }
    }
    for restart in [0, 4] {
        let whole = scene(50, 35, false, restart);
        let expected = decode(&whole).unwrap();
        let scan = whole.windows(2).position(|w| w == [0xff, 0xda]).unwrap();
        for len in scan + 14..whole.len() - 2 {
            let file = [&whole[..len], &[0xff, 0xd9]].concat();
            match decode(&file) {
                Ok(image) => assert!(image == expected && len + 4 > whole.len(), "{len}"),
                Err(error) => assert!(matches!(error, ImageError::Truncated(_)), "{error}"),
            }
        }
    }
}

#[test]
fn a_length_or_a_frame_that_cannot_be_is_damage() {
    let plain = scene(50, 35, false, 0);
    for length in [[0, 0], [0, 1]] {
        let header = [&[0xff, 0xe1][..], &length].concat();
        let error = decode(&with_header(&plain, &header)).unwrap_err();
        assert!(matches!(error, ImageError::Damaged(_)), "{error}");
    }
    let frame = plain.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
    let length = 2 + usize::from(plain[frame + 3]);
    let twice = [&plain[..frame + length], &plain[frame..]].concat();
    let error = decode(&twice).unwrap_err();
    assert!(matches!(error, ImageError::Damaged(_)), "{error}");
}
