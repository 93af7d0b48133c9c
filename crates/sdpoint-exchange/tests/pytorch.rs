//! What is written for PyTorch. `tests/peers/` runs it there.

mod support;

use safetensors::SafeTensors;
use sdpoint_core::seal::is_sealed;
use sdpoint_core::{
    Conv, EvalTransform, ExifOrientation, Instance, Interpolation, Model, NetworkBuilder, Norm,
};
use sdpoint_exchange::{Checkpoint, ExportError, StatisticsOf, import, python, state_dict};
use support::oracle::networks::NAMES;
use support::oracle::{Oracle, replaced, tuned};

#[test]
fn a_state_dict_comes_back_to_the_bit() {
    for name in NAMES {
        let model = Oracle::open(name).model(true);
        for record in &model.instances {
            let file = state_dict(&model, StatisticsOf::One(record.instance)).unwrap();
            let again = state_dict(&model, StatisticsOf::One(record.instance)).unwrap();
            assert!(file == again, "{name}: two exports differ");
            assert!(is_sealed(&file));
            let back = import(&Checkpoint::parse(file).unwrap(), &model.network).unwrap();
            assert_eq!(back.left_over, Vec::<String>::new());
            assert_eq!(back.weights, model.weights);
            for norm in 0..model.network.norms().len() {
                assert_eq!(
                    back.statistics.get(Instance::Full, norm),
                    model.statistics.get(record.instance, norm),
                    "{name} {} norm {norm}",
                    record.instance
                );
            }
        }
    }
}

#[test]
fn all_statistics_are_rows_in_the_order_of_the_points() {
    let model = Oracle::open("preresnet8").model(false);
    let file = state_dict(&model, StatisticsOf::All).unwrap();
    let file = SafeTensors::deserialize(&file).unwrap();
    let rows = |norm: &Norm| {
        let tensor = file.tensor(&format!("{}.instance_var", norm.name));
        tensor.map_or(0, |tensor| tensor.shape()[0])
    };
    // Three blocks with two points' worth of instances each; norms within the
    // first block see none of them.
    let rows: Vec<usize> = model.network.norms().iter().map(rows).collect();
    assert_eq!(rows, [0, 0, 2, 2, 4, 4, 6]);
    let counter = file.tensor("bn.num_batches_tracked").unwrap();
    assert_eq!((counter.shape().len(), counter.data()), (0, &[0; 8][..]));
}

#[test]
fn parameters_of_an_instances_own_are_exported() {
    let shared = Oracle::open("preresnet8").model(false);
    let instances = ["0@0.5", "1@0.75"].map(|name| name.parse().unwrap());
    let model = tuned(&shared, &instances, |v| 0.5 * v + 0.25);
    for record in &model.instances {
        let one = |model: &Model| state_dict(model, StatisticsOf::One(record.instance)).unwrap();
        assert!(one(&model) == one(&replaced(&model, record.instance)));
        let is_tuned = instances.contains(&record.instance);
        assert_eq!(one(&model) != one(&shared), is_tuned, "{}", record.instance);
    }
    let file = state_dict(&model, StatisticsOf::All).unwrap();
    let file = SafeTensors::deserialize(&file).unwrap();
    let row = |name: &str, row: usize| -> Vec<f32> {
        let tensor = file.tensor(name).unwrap();
        let (values, _) = tensor.data().as_chunks::<4>();
        let values: Vec<f32> = values.iter().map(|&x| f32::from_le_bytes(x)).collect();
        let width = tensor.shape()[1];
        values[row * width..(row + 1) * width].to_vec()
    };
    let rows = ["0@0.5", "0@0.75", "1@0.5", "1@0.75", "2@0.5", "2@0.75"];
    let parameters = model.network.parameters();
    for (name, own) in [
        ("bn.weight", "bn.instance_weight"),
        ("fc.bias", "fc.instance_bias"),
    ] {
        let index = parameters.iter().position(|p| p.name == name).unwrap();
        for (place, instance) in rows.iter().enumerate() {
            let instance = instance.parse().unwrap();
            let expected = model.statistics.parameter(&model.weights, instance, index);
            assert_eq!(row(own, place), expected, "{own} {instance}");
        }
    }
    let shared_file = state_dict(&shared, StatisticsOf::All).unwrap();
    let shared_file = SafeTensors::deserialize(&shared_file).unwrap();
    assert!(shared_file.tensor("fc.instance_bias").is_err());
    let source = python(&model).unwrap();
    assert!(source.contains("self.fc = Classifier("), "{source}");
    assert!(source.contains("self.arrange(instances, tuned=True)"));
    let source = python(&shared).unwrap();
    assert!(source.contains("self.fc = nn.Linear(") && source.contains("arrange(instances)\n"));
}

#[test]
fn the_module_has_a_class_for_each_kind_of_block() {
    for name in NAMES {
        let model = Oracle::open(name).model(false);
        let source = python(&model).unwrap();
        assert!(is_sealed(source.as_bytes()), "{name}");
        assert!(source.lines().count() < 290, "{name}: {source}");
        assert!(
            source.lines().all(|line| line.len() <= 120),
            "{name}: {source}"
        );
        assert!(source.contains("def load(path"), "{name}");
        for layer in model
            .network
            .layers()
            .iter()
            .filter(|layer| !layer.name.contains('.'))
        {
            let is_member = model
                .network
                .parameters()
                .iter()
                .any(|p| model.network.layer(p.layer).name == layer.name);
            assert_eq!(
                source.contains(&format!("self.{} = ", layer.name)),
                is_member || layer.name == "maxpool",
                "{name} {}",
                layer.name
            );
        }
    }
    let model = Oracle::open("preresnet8").model(false);
    let source = python(&model).unwrap();
    for line in [
        "class Block2(nn.Module):",
        "        self.conv1 = nn.Conv2d(channels, out, 3, stride=2, padding=1, bias=False)",
        "            Block2(16, 32, 1),",
        "        return self.sdpoint(y + x)",
    ] {
        assert!(source.contains(&format!("{line}\n")), "{line}\n{source}");
    }
}

/// What is done to an image before it is normalised, in the module and in the
/// metadata of the weights.
#[test]
fn preprocessing_is_said_in_full() {
    let mut model = Oracle::open("preresnet8").model(false);
    let lines = |model: &Model| {
        let source = python(model).unwrap();
        let comments = source
            .lines()
            .skip_while(|line| !line.starts_with("# Inputs"));
        let comments = comments.take_while(|line| line.starts_with("# "));
        comments.skip(1).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(
        lines(&model),
        "# Pixels are taken as stored: EXIF orientation is ignored.\n\
         # They are resized to 32x32, whatever their shape.\n\
         # The filter is bilinear with antialiasing, as in Pillow."
    );
    model.preprocessing.evaluate = EvalTransform::CenterCrop { resize: 36 };
    model.preprocessing.interpolation = Interpolation::Bicubic;
    model.preprocessing.exif_orientation = ExifOrientation::Apply;
    assert_eq!(
        lines(&model),
        "# Images are turned upright as their EXIF orientation says.\n\
         # Their shorter side is resized to 36, then the middle 32x32 cut out.\n\
         # The filter is bicubic with antialiasing, as in Pillow."
    );
    model.preprocessing.evaluate = EvalTransform::SquashCrop { resize: [36, 40] };
    model.preprocessing.interpolation = Interpolation::Nearest;
    let text = lines(&model);
    assert!(text.contains("resized to 36x40, whatever their shape, then the middle 32x32"));
    assert!(
        text.ends_with("# The filter is nearest, as in Pillow."),
        "{text}"
    );

    let file = state_dict(&model, StatisticsOf::All).unwrap();
    let (_, metadata) = SafeTensors::read_metadata(&file).unwrap();
    let metadata = metadata.metadata().as_ref().unwrap();
    let how: serde_json::Value = serde_json::from_str(&metadata["preprocessing"]).unwrap();
    assert_eq!(how["interpolation"], "nearest");
    assert_eq!(how["exif_orientation"], "apply");
    assert_eq!(how["evaluate"]["squash_crop"]["resize"][1], 40);
}

#[test]
fn names_that_could_be_code_are_refused() {
    for name in [
        "a\nimport os\nb",
        "x; y",
        "class",
        "forward",
        "a..b",
        "",
        "a.b.c",
        "a.1.b",
        "é",
    ] {
        let mut b = NetworkBuilder::new("net\"\"\"\nimport os", 3);
        b.conv(name, b.input(), Conv::square(3, 2, 3, 1));
        let mut model = Oracle::open("preresnet8").model(false);
        model.network = b.finish().unwrap();
        let error = python(&model).unwrap_err();
        assert!(matches!(error, ExportError::Python { .. }), "{error}");
    }
    let mut b = NetworkBuilder::new("net\"\"\"\nimport os", 3);
    b.conv("conv", b.input(), Conv::square(3, 2, 3, 1));
    let mut model = Oracle::open("preresnet8").model(false);
    model.network = b.finish().unwrap();
    assert!(
        python(&model)
            .unwrap()
            .starts_with("\"\"\"netimportos with")
    );
}
