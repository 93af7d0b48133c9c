//! `sdpoint import`: weights from PyTorch.

use std::path::{Path, PathBuf};

use sdpoint::data::{DataError, OpenOptions, Source, Split, imagenet_preprocessing, open};
use sdpoint::exchange::{Checkpoint, ImportError, Imported, import};
use sdpoint::{
    EvalTransform, Instance, Model, Preprocessing, Record, TrainTransform, format_macs, zoo,
};
use serde::Serialize;

use crate::failure::{Class, Failure, Outcome};
use crate::output::{name, plural, print, print_json, program};
use crate::output_file::{Kind, Outputs, Replacing};
use crate::{classes, model, size};

const EXAMPLES: &str = "\
Examples:
  sdpoint import resnet18.pth --network resnet18 -o resnet18.safetensors
  sdpoint import model.safetensors --network resnext50_32x4d --classes labels.txt -o model.sdp.safetensors
  sdpoint import checkpoint.pth.tar --network preresnet101-imagenet --classes folder:DIR -o m.safetensors

CHECKPOINT is a safetensors file or what torch.save wrote, in its zip format or the one before: a \
dictionary of tensors, or one that has it under 'state_dict' or 'model'. A prefix 'module.' of all \
names is removed, an optimiser's state is not looked at, and nothing in the file is run. Names are \
torchvision's, timm's and those of the authors of stochastic downsampling, which agree. Values in \
float16, bfloat16 and float64 are converted to float32. See docs/import.md.";

/// Make a model of weights that PyTorch saved
///
/// The number of classes is read off the weights. Every tensor is accounted for: those missing, left
/// over or of another shape are named. The model has the one instance full; `calibrate --ratios`
/// adds cheaper ones, and `train --init` trains it on.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// A .safetensors, .pth or .pt file
    #[arg(value_name = "CHECKPOINT")]
    checkpoint: PathBuf,
    /// What the weights are of; `sdpoint networks` lists them
    #[arg(long, value_name = "NAME")]
    network: String,
    /// Where the model goes
    #[arg(short, long, value_name = "MODEL")]
    output: PathBuf,
    /// Names of the classes in the order of the logits: a text file with one a line, a JSON
    /// list, or a data source that has them, such as folder:DIR [default: 0, 1, 2 and so on]
    #[arg(long, value_name = "FILE|SRC")]
    classes: Option<String>,
    /// Input size: 224, or HxW [default: what the network was published for]
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    input: Option<[usize; 2]>,
    /// Resize the shorter side of images to this many pixels and use the middle [default: 256 for
    /// an input of 224, others in proportion; small networks take the whole image]
    #[arg(long, value_name = "PIXELS")]
    resize: Option<usize>,
    /// Mean of each colour, for values from 0 to 1 [default: ImageNet's]
    #[arg(long, value_name = "R,G,B", value_delimiter = ',')]
    mean: Vec<f32>,
    /// Standard deviation of each colour [default: ImageNet's]
    #[arg(long, value_name = "R,G,B", value_delimiter = ',')]
    std: Vec<f32>,
    /// Import although tensors are left over that the network has no place for
    #[arg(long)]
    allow_left_over: bool,
    #[command(flatten)]
    replacing: Replacing,
    /// Print an array of one JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// What was imported.
#[derive(Serialize)]
struct Report<'a> {
    model: &'a Path,
    network: &'a str,
    classes: usize,
    parameters: usize,
    /// Tensors that the network needs, all of which were there.
    tensors: usize,
    left_over: &'a [String],
    macs: u64,
}

pub fn run(args: &Args) -> Outcome {
    // A misspelt network shows before a large file is read.
    let side = zoo::input_size(&args.network)?;
    let network = zoo::build(&args.network, 1)?;
    let output = outputs(args)?.file("-o", &args.output, Kind::Model)?;
    let checkpoint = Checkpoint::open(&args.checkpoint)?;
    let unusable = |problem: String| {
        let path = args.checkpoint.display();
        Failure::new(
            Class::Model,
            format!("'{path}' cannot be imported: {problem}"),
        )
    };
    let Imported {
        network,
        weights,
        statistics,
        left_over,
    } = import(&checkpoint, &network).map_err(|error| {
        let failure = unusable(error.to_string());
        match fitting(&checkpoint, &error) {
            Some(name) => failure.hint(format!("its tensors are those of {name}")),
            None => failure,
        }
    })?;
    if !left_over.is_empty() && !args.allow_left_over {
        let problem = format!(
            "{} has no place for {} of its tensors: {}",
            args.network,
            left_over.len(),
            left_over.join(", ")
        );
        return Err(unusable(problem).hint("--allow-left-over imports the others"));
    }

    let preprocessing = preprocessing(args, side);
    preprocessing
        .check(network.input_channels())
        .map_err(|problem| {
            Failure::new(
                Class::Usage,
                format!("the preprocessing is wrong: {problem}"),
            )
        })?;
    let macs = network.cost(preprocessing.size, Instance::Full)?.macs;
    let classes = class_names(args.classes.as_deref(), network.classes())?;
    let parameters = weights.count();
    let tensors = weights.0.len() + 2 * network.norms().len();
    let model = Model {
        network,
        weights,
        statistics,
        classes,
        preprocessing,
        instances: vec![Record::unmeasured(Instance::Full, macs)],
        combinations: Vec::new(),
        training: serde_json::json!({
            "program": concat!("sdpoint ", env!("CARGO_PKG_VERSION")),
            "imported": args.checkpoint.file_name().map(|name| name.to_string_lossy()),
        }),
    };
    model.save(output.path())?;
    let report = Report {
        model: &args.output,
        network: &args.network,
        classes: model.classes.len(),
        parameters,
        tensors,
        left_over: &left_over,
        macs,
    };
    if args.json {
        return print_json(&[report]);
    }
    print(&text(&report))
}

/// The listed network that a checkpoint fits, if it misfits another.
fn fitting(checkpoint: &Checkpoint, error: &ImportError) -> Option<&'static str> {
    if !matches!(error, ImportError::Misfit { .. }) {
        return None;
    }
    let fits = |name: &&str| {
        let imported = zoo::build(name, 1).map(|network| import(checkpoint, &network));
        matches!(imported, Ok(Ok(Imported { left_over, .. })) if left_over.is_empty())
    };
    zoo::entries().iter().map(|entry| entry.name).find(fits)
}

/// ImageNet's preprocessing, with what the user set. Networks for small
/// images take the whole image.
fn preprocessing(args: &Args, side: usize) -> Preprocessing {
    let mut preprocessing = imagenet_preprocessing();
    if side < preprocessing.size[0] {
        preprocessing.size = [side; 2];
        preprocessing.evaluate = EvalTransform::Resize;
        preprocessing.train = TrainTransform::PadCrop {
            padding: side / 8,
            flip: true,
        };
    }
    if let Some(input) = args.input {
        preprocessing = preprocessing.with_size(input);
    }
    if let Some(resize) = args.resize {
        preprocessing.evaluate = EvalTransform::CenterCrop { resize };
    }
    for (ours, theirs) in [
        (&mut preprocessing.mean, &args.mean),
        (&mut preprocessing.std, &args.std),
    ] {
        if !theirs.is_empty() {
            ours.clone_from(theirs);
        }
    }
    preprocessing
}

/// What must not be written to.
fn outputs(args: &Args) -> Result<Outputs, Failure> {
    let outputs = Outputs::new(&args.replacing).reads(&args.checkpoint);
    Ok(match args.classes.as_deref().map(named).transpose()? {
        None => outputs,
        Some(Named::File(file)) => outputs.reads(file),
        Some(Named::Source(source)) => outputs.reads_data(&source),
    })
}

/// What has the names of classes.
enum Named<'a> {
    File(&'a Path),
    Source(Source),
}

fn named(from: &str) -> Result<Named<'_>, Failure> {
    let path = Path::new(from);
    if path.is_file() {
        return Ok(Named::File(path));
    }
    from.parse().map(Named::Source).map_err(|_| {
        let message =
            format!("'{from}' has no names of classes: it is neither a file nor a data source");
        Failure::new(Class::Usage, message).hint(
            "give a text file with a name a line, a JSON list, or a source such as folder:DIR",
        )
    })
}

/// The names of so many classes.
fn class_names(from: Option<&str>, count: usize) -> Result<Vec<String>, Failure> {
    let Some(from) = from else {
        return Ok(model::numbered(count).collect());
    };
    let names = match named(from)? {
        Named::File(path) => classes::read(path)?,
        Named::Source(source) => names_of(&source)?,
    };
    if names.len() == count {
        return Ok(names);
    }
    Err(Failure::new(
        Class::Usage,
        format!(
            "'{from}' names {}, but the weights tell {count} apart",
            plural(names.len(), "class", "classes")
        ),
    ))
}

fn names_of(source: &Source) -> Result<Vec<String>, Failure> {
    let options = OpenOptions::default();
    let data = match open(source, Split::Train, &options) {
        Err(DataError::NoSplit { .. }) => open(source, Split::Test, &options)?,
        data => data?,
    };
    Ok(data.classes().to_vec())
}

fn text(report: &Report) -> String {
    let program = program();
    let model = report.model.display();
    let left_over = match report.left_over {
        [] => String::new(),
        names => {
            let names: Vec<_> = names.iter().map(|tensor| name(tensor)).collect();
            format!("Left over: {}.\n", names.join(", "))
        }
    };
    format!(
        "{}: all of its {} tensors were there, {} parameters, {}; {} MACs an image.\n\
         {left_over}\
         The model is in {model}, with the one instance full.\n\
         Next:\n  \
         {program} predict {model} IMAGE\n  \
         {program} calibrate {model} --data folder:DIR --ratios 0.5,0.75\n  \
         {program} train --init {model} --data folder:DIR --rate 0.01\n",
        report.network,
        report.tensors,
        format_macs(report.parameters as u64),
        plural(report.classes, "class", "classes"),
        format_macs(report.macs),
    )
}
