//! Checkpoints that PyTorch wrote, in all of its formats.

mod support;

use sdpoint_core::{Conv, Instance, NetworkBuilder, zoo};
use sdpoint_exchange::{
    Checkpoint, CheckpointError, ImportError, ImportOptions, Imported, import, import_chosen,
};
use support::{CHECKPOINTS, fixture, tiny};

fn imported(name: &str) -> Imported {
    import(&Checkpoint::open(fixture(name)).unwrap(), &tiny()).unwrap()
}

/// All values of parameters and statistics.
fn values(imported: &Imported) -> Vec<f32> {
    let (_, moments) = imported.statistics.own(Instance::Full).unwrap();
    let moments = moments.iter().flat_map(|m| m.mean.iter().chain(&m.var));
    imported
        .weights
        .0
        .iter()
        .flatten()
        .chain(moments)
        .copied()
        .collect()
}

#[test]
fn every_format_gives_the_same_values() {
    let expected = imported("expected.safetensors");
    assert_eq!(expected.network.classes(), 7);
    assert_eq!(expected.network.name(), "tiny");
    for name in CHECKPOINTS {
        let found = imported(name);
        assert_eq!(found.network, expected.network, "{name}");
        assert_eq!(found.left_over, Vec::<String>::new(), "{name}");
        // Eleven bits of fraction, or eight; rounding takes half of the last.
        let error = match name {
            "float16.safetensors" => 2f32.powi(-11),
            "bfloat16.pt" => 2f32.powi(-8),
            _ => 0.0,
        };
        let (found, expected) = (values(&found), values(&expected));
        assert_eq!(found.len(), expected.len());
        for (found, expected) in std::iter::zip(found, expected) {
            let allowed = error * expected.abs() + error * 2f32.powi(-14);
            assert!(
                (found - expected).abs() <= allowed,
                "{name}: {found} for {expected}"
            );
        }
    }
}

#[test]
fn what_does_not_fit_is_listed_by_name() {
    let checkpoint = Checkpoint::open(fixture("expected.safetensors")).unwrap();
    let error = import(&checkpoint, &zoo::build("resnet18", 10).unwrap()).unwrap_err();
    let ImportError::Misfit(misfit) = &error else {
        panic!("{error}");
    };
    let (missing, misshapen, left_over) = (&misfit.missing, &misfit.misshapen, &misfit.left_over);
    // Of two blocks a stage, the file has the first.
    assert!(
        missing.contains(&"layer4.1.bn2.running_var".to_owned()),
        "{missing:?}"
    );
    assert!(
        missing.iter().all(|name| name.contains(".1.")),
        "{missing:?}"
    );
    let conv1 = misshapen
        .iter()
        .find(|tensor| tensor.name == "conv1.weight")
        .unwrap();
    assert_eq!(
        (&conv1.found[..], &conv1.expected[..]),
        (&[2, 3, 7, 7][..], &[64, 3, 7, 7][..])
    );
    assert!(left_over.is_empty(), "{left_over:?}");
    let message = error.to_string();
    for name in &missing[..5] {
        assert!(message.contains(name.as_str()), "{name}: {message}");
    }
    let others = format!("and {} others", missing.len() - 5);
    assert!(message.contains(&others), "{message}");
    assert!(message.len() < 1500, "{message}");
    assert!(
        message.contains("conv1.weight [2, 3, 7, 7] for [64, 3, 7, 7]"),
        "{message}"
    );

    let mut b = NetworkBuilder::new("less", 3);
    b.conv("conv1", b.input(), Conv::square(3, 2, 7, 2));
    let less = b.finish().unwrap();
    let error = import(&checkpoint, &less).unwrap_err();
    assert!(
        matches!(&error, ImportError::LeftOver { names, .. } if names.contains(&"fc.bias".into())),
        "{error}"
    );
    let mut choice = ImportOptions::default();
    choice.allow_left_over = true;
    let Imported { left_over, .. } = import_chosen(&checkpoint, &less, &choice).unwrap();
    assert_eq!(left_over.len(), checkpoint.sets()[0].len() - 1);
}

#[test]
fn a_missing_file_and_a_folder_are_named() {
    for name in ["none.pth", ""] {
        let error = Checkpoint::open(fixture(name)).unwrap_err();
        assert!(matches!(error, CheckpointError::Read { .. }), "{error}");
        assert!(error.to_string().contains("fixtures"), "{error}");
    }
}
