//! The zoo, compared with recorded results: multiply-accumulates of every
//! instance, and PyTorch's names and shapes of parameters.

#[path = "../../../fixtures/oracles/networks.rs"]
mod networks;

use std::collections::BTreeMap;
use std::path::PathBuf;

use safetensors::SafeTensors;
use sdpoint_core::{Instance, Op, PointId, Ratio, zoo};

use networks::{NAMES, network};

fn fixture(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "../../fixtures/oracles", name]
        .iter()
        .collect()
}

#[test]
fn every_instance_costs_what_was_recorded() {
    let table = std::fs::read_to_string(fixture("macs.csv")).unwrap();
    let mut recorded: BTreeMap<&str, Vec<(Instance, u64)>> = BTreeMap::new();
    let mut sides = BTreeMap::new();
    for line in table.lines().skip(1) {
        let [name, side, point, ratio, macs] = line.split(',').collect::<Vec<_>>()[..] else {
            panic!("{line}");
        };
        let instance = match point {
            "none" => Instance::Full,
            _ => format!("{point}@{ratio}").parse().unwrap(),
        };
        let macs = macs.parse().unwrap();
        recorded.entry(name).or_default().push((instance, macs));
        sides.insert(name, side.parse::<usize>().unwrap());
    }
    assert_eq!(recorded.len(), 6);
    for (name, mut instances) in recorded {
        let side = sides[name];
        assert_eq!(zoo::input_size(name).unwrap(), side, "{name}");
        let classes = if side == 32 { 10 } else { 1000 };
        let network = zoo::build(name, classes).unwrap();
        instances.sort();
        let computed: Vec<(Instance, u64)> = network
            .instances(&Ratio::DEFAULT)
            .into_iter()
            .map(|instance| {
                let cost = network.cost([side, side], instance).unwrap();
                (instance, cost.macs)
            })
            .collect();
        assert_eq!(computed, instances, "{name}");
    }
}

#[test]
fn parameters_and_statistics_have_pytorchs_names_and_shapes() {
    for name in NAMES {
        let network = network(name);
        let data = std::fs::read(fixture(&format!("{name}.safetensors"))).unwrap();
        let file = SafeTensors::deserialize(&data).unwrap();
        let recorded: BTreeMap<String, Vec<usize>> = file
            .tensors()
            .iter()
            .filter_map(|(name, tensor)| {
                let name = name.strip_prefix("weights/")?;
                Some((name.to_owned(), tensor.shape().to_vec()))
            })
            .collect();
        let parameters = network.parameters().iter();
        let parameters = parameters.map(|p| (p.name.clone(), p.shape.clone()));
        let statistics = network.norms().iter().flat_map(|norm| {
            ["running_mean", "running_var"]
                .map(|kind| (format!("{}.{kind}", norm.name), vec![norm.channels]))
        });
        let ours: BTreeMap<String, Vec<usize>> = parameters.chain(statistics).collect();
        assert_eq!(ours, recorded, "{name}");

        let mut instances: Vec<Instance> = file
            .names()
            .iter()
            .filter_map(|name| Some(name.strip_prefix("logits/")?.parse().unwrap()))
            .collect();
        instances.sort();
        assert_eq!(network.instances(&Ratio::DEFAULT), instances, "{name}");
    }
}

/// The counts that torchvision and the papers' code report.
#[test]
fn known_networks_have_their_number_of_parameters() {
    for (name, classes, parameters) in [
        ("resnet18", 1000, 11_689_512),
        ("resnet34", 1000, 21_797_672),
        ("resnet50", 1000, 25_557_032),
        ("resnet101", 1000, 44_549_160),
        ("resnet152", 1000, 60_192_808),
        ("resnext50_32x4d", 1000, 25_028_904),
        ("resnext101_32x4d", 1000, 44_177_704),
        ("wrn16-4", 10, 2_748_890),
        ("wrn28-10", 10, 36_479_194),
        ("resnext29_8x64d", 10, 34_426_698),
        ("mobilenet_v2", 1000, 3_504_872),
    ] {
        let network = zoo::build(name, classes).unwrap();
        let side = zoo::input_size(name).unwrap();
        let cost = network.cost([side, side], Instance::Full).unwrap();
        assert_eq!(cost.parameters, parameters, "{name}");
    }
}

#[test]
fn every_entry_builds_with_its_points() {
    for entry in zoo::entries() {
        let network = zoo::build(entry.name, entry.classes).unwrap();
        assert_eq!(network.name(), entry.name);
        assert_eq!(network.classes(), entry.classes);
        assert_eq!(zoo::input_size(entry.name).unwrap(), entry.input);
        let blocks = network.layers().iter().filter(|l| l.name.ends_with(".add"));
        let stem = network.point(PointId::Stem).is_some();
        let max_pool = network
            .layers()
            .iter()
            .any(|l| matches!(l.op, Op::MaxPool(_)));
        assert_eq!(stem, max_pool, "{}", entry.name);
        assert_eq!(
            network.points().len(),
            blocks.count() + usize::from(stem),
            "{}",
            entry.name
        );
        let shapes = network.shapes([entry.input + 5, entry.input], Instance::Full);
        assert!(shapes.is_ok(), "{shapes:?}");
    }
}

#[test]
fn grey_images_and_other_classes_are_built() {
    let network = zoo::build_with_channels("resnet18", 7, 1).unwrap();
    assert_eq!((network.input_channels(), network.classes()), (1, 7));
}

#[test]
fn a_narrower_network_is_the_same_with_fewer_channels() {
    let [usual, narrow] =
        ["preresnet20", "preresnet20-w8"].map(|name| zoo::build(name, 10).unwrap());
    assert_eq!(usual.layers().len(), narrow.layers().len());
    assert_eq!(usual.points().len(), narrow.points().len());
    for (a, b) in std::iter::zip(usual.parameters(), narrow.parameters()) {
        assert_eq!(a.name, b.name);
        // Input channels and classes do not change.
        for (&a, &b) in std::iter::zip(&a.shape, &b.shape) {
            assert!(a == 2 * b || (a == b && [1, 3, 10].contains(&a)), "{a} {b}");
        }
    }
    let macs = |network: &sdpoint_core::Network| {
        let full = network.cost([32, 32], Instance::Full);
        full.unwrap().macs
    };
    let share = macs(&narrow) as f64 / macs(&usual) as f64;
    assert!((0.25..0.27).contains(&share), "{share}");
}

#[test]
fn invalid_names_are_explained() {
    for (name, parts) in [
        ("resnet51", &["resnet50", "wrnD-K", "6n + 2"][..]),
        ("ResNet50", &["are resnet50"]),
        ("preresnet21", &["6n + 2", "preresnet20, preresnet26"]),
        ("preresnet50-imagnet", &["preresnet50-imagenet"]),
        (
            "preresnet18",
            &["preresnet14, preresnet20, preresnet18-imagenet"],
        ),
        ("preresnet2", &["preresnet8"]),
        ("preresnet21-w12", &["preresnet20-w12, preresnet26-w12"]),
        ("preresnet20-w0", &["width", "1 and 1000"]),
        ("preresnet20-w16", &["no network"]),
        ("wrn17-4", &["6n + 4", "wrn16-4, wrn22-4"]),
        ("wrn16-0", &["width factor", "1 and 1000"]),
        ("wrn999999999999-4", &["depth", "2000"]),
        ("resnext29_0x4d", &["groups"]),
        ("wrn16-04", &["no network"]),
        ("preresnet+20", &["no network"]),
        ("preresnet99999999999999999999999999", &["no network"]),
        ("", &["no network"]),
    ] {
        let error = zoo::build(name, 10).unwrap_err().to_string();
        for part in parts {
            assert!(error.contains(part), "{name}: {error}");
        }
        assert!(error.contains(name), "{name}: {error}");
    }
    let error = zoo::build("resnet18", 0).unwrap_err().to_string();
    assert!(
        error.contains("'fc'") && error.contains("0 channels"),
        "{error}"
    );
}

/// 300.8 million multiply-accumulates is what the paper and torchvision say.
#[test]
fn mobilenet_has_a_point_at_each_of_its_sums() {
    let network = zoo::build("mobilenet_v2", 1000).unwrap();
    let full = network.cost([224, 224], Instance::Full).unwrap();
    assert_eq!(full.macs, 300_774_272);
    let at: Vec<&str> = network
        .points()
        .iter()
        .map(|point| network.layer(point.layer()).name.as_str())
        .collect();
    let blocks = [3, 5, 6, 8, 9, 10, 12, 13, 15, 16];
    assert_eq!(at, blocks.map(|block| format!("features.{block}.add")));
    assert_eq!(network.parameters()[0].name, "features.0.0.weight");
}
