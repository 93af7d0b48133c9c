//! Which of a file's tensors become the network.

mod support;

use std::collections::HashMap;

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use sdpoint_core::{Instance, zoo};
use sdpoint_exchange::{
    Checkpoint, ImportError, ImportOptions, Imported, import, import_chosen, recognise,
};
use support::{fixture, tiny};

/// Floats by name, as a file of safetensors.
#[derive(Clone, Default)]
struct Tensors(HashMap<String, (Vec<usize>, Vec<f32>)>);

impl Tensors {
    /// The recorded network's.
    fn recorded() -> Self {
        let bytes = std::fs::read(fixture("expected.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let tensors = file.tensors().into_iter().map(|(name, tensor)| {
            let (values, _) = tensor.data().as_chunks::<4>();
            let values = values.iter().map(|&x| f32::from_le_bytes(x)).collect();
            (name, (tensor.shape().to_vec(), values))
        });
        Self(tensors.collect())
    }

    /// The same under other names; a name that becomes empty is left out.
    fn named(self, name: impl Fn(&str) -> String) -> Self {
        let named = self
            .0
            .into_iter()
            .map(|(old, tensor)| (name(&old), tensor))
            .filter(|(name, _)| !name.is_empty());
        Self(named.collect())
    }

    fn behind(self, prefix: &str) -> Self {
        self.named(|name| format!("{prefix}{name}"))
    }

    /// With another tensor of ones.
    fn with(mut self, name: &str, shape: &[usize]) -> Self {
        let values = vec![1.0; shape.iter().product()];
        self.0.insert(name.into(), (shape.to_vec(), values));
        self
    }

    fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    fn checkpoint(&self) -> Checkpoint {
        let bytes: HashMap<&String, (Vec<usize>, Vec<u8>)> = self
            .0
            .iter()
            .map(|(name, (shape, values))| {
                let bytes = values.iter().flat_map(|value| value.to_le_bytes());
                (name, (shape.clone(), bytes.collect()))
            })
            .collect();
        let views = bytes.iter().map(|(name, (shape, bytes))| {
            let view = TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap();
            (name.to_string(), view)
        });
        let file = safetensors::serialize(views, None).unwrap();
        Checkpoint::parse(file).unwrap()
    }

    fn import(&self) -> Result<Imported, ImportError> {
        import(&self.checkpoint(), &tiny())
    }
}

/// All values of parameters and statistics.
fn values(imported: &Imported) -> Vec<f32> {
    let (_, moments) = imported.statistics.own(Instance::Full).unwrap();
    let moments = moments.iter().flat_map(|m| m.mean.iter().chain(&m.var));
    let weights = imported.weights.0.iter().flatten();
    weights.chain(moments).copied().collect()
}

/// A file gives the recorded network.
#[track_caller]
fn is_recorded(imported: &Imported) {
    let expected = Tensors::recorded().import().unwrap();
    assert_eq!(imported.network, expected.network);
    assert!(values(imported) == values(&expected));
}

fn opened(name: &str) -> Checkpoint {
    Checkpoint::open(fixture(name)).unwrap()
}

#[test]
fn anything_may_lie_beside_the_weights() {
    let imported = import(&opened("lightning.ckpt"), &tiny()).unwrap();
    is_recorded(&imported);
    let origin = &imported.origin;
    assert_eq!(
        (&origin.key[..], &origin.prefix[..]),
        ("state_dict", "model.")
    );
    assert_eq!(origin.outside, ["criterion.weight"]);
    assert_eq!(origin.others, []);
}

#[test]
fn whole_modules_give_their_tensors() {
    for (name, key, prefix, class) in [
        ("module.pth", "model", "module.", "DataParallel"),
        ("script.pt", "", "", "Tiny"),
    ] {
        let imported = import(&opened(name), &tiny()).unwrap();
        is_recorded(&imported);
        let origin = &imported.origin;
        assert_eq!(
            (&origin.key[..], &origin.prefix[..]),
            (key, prefix),
            "{name}"
        );
        let module = origin.module.as_ref().unwrap();
        assert!(module.contains(class), "{module}");
        // The constant that a state dict leaves out is no tensor that is left;
        // TorchScript does not say which those are.
        assert_eq!(imported.left_over, Vec::<String>::new());
    }
}

#[test]
fn what_pickle_wrote_is_read() {
    for name in [
        "state.pkl",
        "arrays.pkl",
        "arrays.pth",
        "attributes.pth",
        "big_endian.pkl",
        "big_endian.pth",
        "protocol0.pth",
        "protocol0.legacy.pth",
    ] {
        is_recorded(&import(&opened(name), &tiny()).unwrap());
    }
    let error = import(&opened("sparse.pth"), &tiny())
        .unwrap_err()
        .to_string();
    assert!(error.contains("'fc.weight' is a sparse tensor"), "{error}");
}

/// Imports the module of this name in the file of modules.
fn variant(key: &str) -> Result<Imported, ImportError> {
    let mut choice = ImportOptions::default();
    choice.key = Some(key.into());
    import_chosen(&opened("variants.pth"), &tiny(), &choice)
}

#[test]
fn modules_that_compute_the_same_are_imported() {
    for name in [
        "modules",
        "softmax",
        "trainer",
        "synchronised",
        "averagepool",
        "rectified",
    ] {
        let imported = variant(&format!("same.{name}"));
        is_recorded(&imported.unwrap_or_else(|error| panic!("{name}: {error}")));
    }
}

#[test]
fn modules_that_compute_something_else_are_refused() {
    for (name, module, what) in [
        ("silu", "layer1.0.act", "SiLU"),
        ("leaky", "layer1.0.act", "LeakyReLU"),
        ("clipped", "layer1.0.act", "ReLU6, not ReLU"),
        ("linear", "layer1.0.act", "Identity, not ReLU"),
        ("blur", "blur", "BlurPool2d"),
        ("epsilon", "layer1.0.bn2", "epsilon of 0.001, not 0.00001"),
        ("stride", "layer2.0.conv1", "stride 1, not 2"),
        ("dilation", "layer4.0.conv2", "dilation 2, not 1"),
        ("padding", "conv1", "padding 2, not 3"),
        ("reflection", "conv1", "'reflect'"),
        ("unpooled", "maxpool", "Identity, not a max pool"),
        ("ceil", "maxpool", "ceil_mode"),
        ("narrow", "maxpool", "kernel size 2, not 3"),
        ("maximum", "global_pool", "'max'"),
        ("standardised", "layer3.0.conv1", "StdConv2d"),
        ("sigmoid", "1", "Sigmoid"),
        ("normalised", "0", "Normalize"),
        ("rectified", "fc.1", "ReLU, after the classifier"),
        ("rectifier", "1", "ReLU, before or after"),
        ("rectifying", "0", "ReLU, before or after"),
    ] {
        let error = variant(&format!("others.{name}")).unwrap_err();
        let ImportError::Computation { modules, .. } = &error else {
            panic!("{name}: {error}");
        };
        let found = modules.iter().any(|text| {
            let rest = text.strip_prefix(&format!("'{module}' "));
            rest.is_some_and(|rest| rest.contains(what))
        });
        assert!(found, "{name}: {error}");
    }
}

/// A window of 7x7 is the whole feature map of images of 224x224 alone.
#[test]
fn a_pool_of_a_fixed_size_is_the_mean_at_one_input_size() {
    let imported = |size| {
        let mut choice = ImportOptions::default();
        choice.key = Some("same.averagepool".into());
        choice.size = Some(size);
        import_chosen(&opened("variants.pth"), &tiny(), &choice)
    };
    is_recorded(&imported([224, 224]).unwrap());
    for (size, map) in [([288, 288], "9x9"), ([224, 160], "7x5"), ([64, 64], "2x2")] {
        let error = imported(size).unwrap_err().to_string();
        let words = format!("'pool' averages windows of 7x7, not the whole feature map of {map}");
        assert!(error.contains(&words), "{error}");
    }
}

#[test]
fn negative_variances_are_named() {
    let mut tensors = Tensors::recorded();
    let (_, values) = tensors.0.get_mut("layer2.0.bn1.running_var").unwrap();
    values[1] = -0.5;
    let error = import(&tensors.checkpoint(), &tiny()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "tensor 'layer2.0.bn1.running_var' holds negative variances"
    );
}

#[test]
fn averages_come_first_unless_they_are_passed_over() {
    let checkpoint = opened("ema.pth");
    let imported = import(&checkpoint, &tiny()).unwrap();
    is_recorded(&imported);
    let origin = &imported.origin;
    assert!(origin.averaged);
    assert_eq!(
        (&origin.key[..], &origin.prefix[..]),
        ("model_ema", "module.")
    );
    assert_eq!(origin.outside, Vec::<String>::new());
    let [other] = &origin.others[..] else {
        panic!("{:?}", origin.others);
    };
    assert!(other.key == "model" && other.fits && !other.averaged);

    let mut plain = ImportOptions::default();
    plain.plain = true;
    let imported = import_chosen(&checkpoint, &tiny(), &plain).unwrap();
    assert_eq!(imported.origin.key, "model");
    assert!(values(&imported).iter().all(|&value| value == 0.0));
    let mut by_key = ImportOptions::default();
    by_key.key = Some("model".into());
    let imported = import_chosen(&checkpoint, &tiny(), &by_key).unwrap();
    assert_eq!(imported.origin.key, "model");
    let mut none = ImportOptions::default();
    none.key = Some("ema".into());
    let error = import_chosen(&checkpoint, &tiny(), &none)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("model, model_ema") || error.contains("model_ema, model"),
        "{error}"
    );
}

/// The parts are used, so that none is listed as an alternative.
#[test]
fn a_network_in_parts_is_put_together() {
    let imported = import(&opened("parts.pth"), &tiny()).unwrap();
    is_recorded(&imported);
    let origin = &imported.origin;
    assert_eq!(
        (&origin.key[..], &origin.prefix[..]),
        ("model", "features.")
    );
    assert_eq!(origin.others, []);
    assert_eq!(origin.outside, Vec::<String>::new());
}

#[test]
fn any_prefix_is_dropped_and_named() {
    for prefix in ["model.", "backbone.", "module.model.", "a.b.c."] {
        let imported = Tensors::recorded().behind(prefix).import().unwrap();
        is_recorded(&imported);
        assert_eq!(imported.origin.prefix, prefix);
    }
    // What torch.compile adds may be anywhere.
    for wrapped in [
        Tensors::recorded().behind("_orig_mod."),
        Tensors::recorded().behind("module._orig_mod."),
        Tensors::recorded().named(|name| name.replace("layer2.", "layer2._orig_mod.")),
    ] {
        is_recorded(&wrapped.import().unwrap());
    }
    // Counters stand outside of any prefix.
    let counted = Tensors::recorded()
        .behind("module.")
        .with("bn1.num_batches_tracked", &[]);
    let imported = counted.import().unwrap();
    assert_eq!(imported.origin.outside, Vec::<String>::new());
}

#[test]
fn outside_of_the_prefix_is_counted_and_inside_is_exact() {
    let tensors = Tensors::recorded()
        .behind("model.")
        .with("criterion.weight", &[7]);
    let imported = tensors.import().unwrap();
    assert_eq!(imported.origin.outside, ["criterion.weight"]);
    let tensors = Tensors::recorded()
        .behind("model.")
        .with("model.layer1.1.conv1.weight", &[1]);
    let error = tensors.import().unwrap_err();
    assert!(
        matches!(error, ImportError::LeftOver { related: true, .. }),
        "{error}"
    );
    let error = Tensors::recorded()
        .with("criterion.weight", &[7])
        .import()
        .unwrap_err();
    assert!(
        matches!(error, ImportError::LeftOver { related: false, .. }),
        "{error}"
    );
}

#[test]
fn two_networks_in_one_dictionary_are_not_guessed_between() {
    let two = Tensors::recorded()
        .behind("encoder_q.")
        .and(Tensors::recorded().behind("encoder_k."));
    let error = two.import().unwrap_err();
    assert!(matches!(error, ImportError::Prefixes { .. }), "{error}");
    let mut choice = ImportOptions::default();
    choice.prefix = Some("encoder_k".into());
    let imported = import_chosen(&two.checkpoint(), &tiny(), &choice).unwrap();
    is_recorded(&imported);
    // Averages among them are no riddle.
    let two = Tensors::recorded()
        .behind("model_ema.")
        .and(Tensors::recorded().behind("model."));
    let imported = two.import().unwrap();
    assert!(imported.origin.averaged);
    assert_eq!(imported.origin.prefix, "model_ema.");
}

#[test]
fn the_classifier_may_be_called_anything() {
    for name in [
        "fc.1",
        "fc.0",
        "classifier",
        "head.fc",
        "last_linear",
        "my.own",
    ] {
        let renamed = Tensors::recorded().named(|old| old.replace("fc.", &format!("{name}.")));
        let imported = renamed.import().unwrap();
        is_recorded(&imported);
        let classifier = imported.origin.classifier.unwrap();
        assert_eq!((&classifier.name[..], classifier.renamed), (name, true));
    }
    // As mmpretrain has it: beside the network, not in it.
    let apart = Tensors::recorded().named(|name| match name.strip_prefix("fc.") {
        Some(rest) => format!("head.fc.{rest}"),
        None => format!("backbone.{name}"),
    });
    let imported = apart.import().unwrap();
    is_recorded(&imported);
    assert_eq!(imported.origin.prefix, "backbone.");
}

fn without_classifier() -> Tensors {
    Tensors::recorded().named(|name| match name.starts_with("fc.") {
        true => String::new(),
        false => name.into(),
    })
}

#[test]
fn a_classifier_of_several_layers_or_several_classifiers_are_refused() {
    let unclear = |tensors: Tensors| {
        let error = tensors.import().unwrap_err();
        assert!(matches!(error, ImportError::Classifier { .. }), "{error}");
    };
    let body = without_classifier;
    unclear(
        body()
            .with("fc.0.weight", &[8, 8])
            .with("fc.2.weight", &[7, 8]),
    );
    unclear(
        body()
            .with("fc.0.weight", &[5, 8])
            .with("fc.2.weight", &[7, 5]),
    );
    unclear(
        body()
            .with("fc.0.weight", &[8])
            .with("fc.1.weight", &[7, 8]),
    );
    unclear(
        body()
            .behind("body.")
            .with("fc1.weight", &[5, 8])
            .with("fc2.weight", &[7, 5]),
    );
    unclear(
        body()
            .with("age.weight", &[3, 8])
            .with("sex.weight", &[2, 8]),
    );
    let error = body().import().unwrap_err().to_string();
    assert!(error.contains("missing: fc.weight"), "{error}");
}

#[test]
fn a_bias_may_be_missing_and_one_output_becomes_two() {
    let imported = without_classifier()
        .with("fc.weight", &[7, 8])
        .import()
        .unwrap();
    assert_eq!(imported.weights.0.last().unwrap(), &[0.0; 7]);
    assert!(!imported.origin.classifier.unwrap().bias);

    let one = without_classifier()
        .with("fc.weight", &[1, 8])
        .with("fc.bias", &[1]);
    let imported = one.import().unwrap();
    assert_eq!(imported.network.classes(), 2);
    let [.., weight, bias] = &imported.weights.0[..] else {
        panic!("a weight and a bias");
    };
    // softmax([0, z]) is [1 - sigmoid(z), sigmoid(z)].
    assert_eq!(weight, &[[0.0; 8], [1.0; 8]].concat());
    assert_eq!(bias, &[0.0, 1.0]);
    assert_eq!(imported.origin.classifier.unwrap().outputs, 1);

    // A convolution of 1×1 is a linear layer.
    let conv = without_classifier()
        .with("head.weight", &[7, 8, 1, 1])
        .with("head.bias", &[7]);
    assert_eq!(conv.import().unwrap().network.classes(), 7);
}

/// All tensors of a listed network.
fn listed(name: &str) -> Tensors {
    let network = zoo::build(name, 3).unwrap();
    let mut tensors = Tensors::default();
    for parameter in network.parameters() {
        tensors = tensors.with(&parameter.name, &parameter.shape);
    }
    for norm in network.norms() {
        for kind in ["mean", "var"] {
            tensors = tensors.with(&format!("{}.running_{kind}", norm.name), &[norm.channels]);
        }
    }
    tensors
}

#[test]
fn the_network_that_fits_is_named() {
    // Members of families, too, which are not listed themselves.
    for name in [
        "resnet34",
        "preresnet26",
        "preresnet20-w8",
        "wrn22-3",
        "resnext29_2x4d",
    ] {
        let checkpoint = listed(name).behind("module.").checkpoint();
        let found = recognise(&checkpoint, &ImportOptions::default());
        assert_eq!(found.as_deref(), Some(name));
    }
    let error = import(
        &listed("resnet34").checkpoint(),
        &zoo::build("resnet18", 3).unwrap(),
    );
    let error = error.unwrap_err();
    assert!(
        matches!(error, ImportError::LeftOver { related: true, .. }),
        "{error}"
    );
    assert_eq!(
        recognise(
            &without_classifier().checkpoint(),
            &ImportOptions::default()
        ),
        None
    );
}

#[test]
fn names_that_reveal_another_computation_say_which() {
    for (name, part) in [
        ("layer1.0.se.fc1.weight", "squeeze-and-excitation"),
        ("layer1.0.conv2.aa.filt", "blur pooling"),
        ("maxpool.0.weight", "in place of the max pool"),
        ("layer2.0.downsample.2.weight", "average pooling"),
        ("fc.lora_A", "LoRA"),
    ] {
        let error = Tensors::recorded()
            .with(name, &[1])
            .import()
            .unwrap_err()
            .to_string();
        assert!(error.contains(part), "{error}");
    }
    let stem = Tensors::recorded().named(|name| name.replace("conv1.weight", "conv1.0.weight"));
    let error = stem.import().unwrap_err().to_string();
    assert!(error.contains("a stem of several convolutions"), "{error}");
    let norms = Tensors::recorded().named(|name| match name.contains("running") {
        true => String::new(),
        false => name.into(),
    });
    let error = norms.import().unwrap_err().to_string();
    assert!(error.contains("group norms"), "{error}");
}

#[test]
fn images_of_other_channels_are_named() {
    for (channels, words) in [(1, "1 channel (grey)"), (4, "4 channels")] {
        let mut tensors = Tensors::recorded();
        for (shape, values) in tensors.0.values_mut() {
            if shape.len() == 4 && shape[1] == 3 {
                shape[1] = channels;
                values.resize(shape.iter().product(), 0.5);
            }
        }
        let error = tensors.import().unwrap_err().to_string();
        assert!(error.contains(words) && error.contains("RGB"), "{error}");
    }
}

#[test]
fn messages_stay_short_whatever_the_names_are() {
    let long = "a".repeat(300);
    let mut tensors = Tensors::default();
    for number in 0..200 {
        tensors = tensors.with(&format!("{long}{number}"), &[1]);
    }
    let error = tensors.import().unwrap_err().to_string();
    assert!(error.len() < 1500, "{}", error.len());
    assert!(error.contains("and 195 others"), "{error}");
}

#[test]
fn what_a_file_calls_its_network_is_known() {
    assert_eq!(opened("checkpoint.pth.tar").architecture(), Some("tiny"));
    assert_eq!(opened("state.pkl").architecture(), None);
}
