//! `sdpoint import`: weights from PyTorch.

mod config;
mod locate;
mod preprocessing;
mod presets;
mod report;

use std::path::{Path, PathBuf};

use sdpoint::core::Record;
use sdpoint::data::{OpenOptions, Source, Split, open};
use sdpoint::exchange::{Checkpoint, Choice, ImportError, Imported, import_chosen, recognise};
use sdpoint::{DataError, Instance, Model, Network, zoo};

use crate::failure::{Class, Failure, Outcome};
use crate::output::{plural, print, print_json};
use crate::output_file::{Kind, Outputs, OverwriteArgs};
use crate::{classes, model};
use config::Config;
use report::{Report, Taken};

const EXAMPLES: &str = "\
Examples:
  sdpoint import resnet18.pth --network resnet18 -o resnet18.safetensors
  sdpoint import timm-resnet50/ -o resnet50.safetensors
  sdpoint import last.ckpt --network resnet18 --key state_dict --prefix model. -o m.safetensors
  sdpoint import resnet50.pth --network resnet50 --preset torchvision-v2 -o resnet50.safetensors
  sdpoint import checkpoint.pth.tar --network preresnet101-imagenet --classes folder:DIR -o m.safetensors

CHECKPOINT is a safetensors file, what torch.save wrote, or a folder of timm. The dictionary of tensors is \
found wherever it is, and so is the prefix before their names; the text says which were taken, --key and \
--prefix choose others. Averaged weights are taken where there are some. Nothing in the file is run. Names \
are torchvision's, timm's and those of the authors of stochastic downsampling, which agree. Values in \
float16, bfloat16 and float64 are converted to float32. See docs/import.md.";

/// Make a model of weights that PyTorch saved
///
/// The number of classes is read off the weights. Every tensor of the network is accounted for: those
/// missing, left over or of another shape are named. The model has the one instance full; `calibrate
/// --ratios` adds cheaper ones, and `train --init` trains it on.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// A .safetensors, .pth, .pt or .ckpt file, or the folder that timm saved
    #[arg(value_name = "CHECKPOINT")]
    checkpoint: PathBuf,
    /// What the weights are of; `sdpoint networks` lists them [default: what config.json says]
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
    /// Where the model goes
    #[arg(short, long, value_name = "MODEL")]
    output: PathBuf,
    /// Take the tensors under these keys of the file, such as model.state_dict; '.' is the file's top
    /// [default: those that fit]
    #[arg(long, value_name = "KEYS")]
    key: Option<String>,
    /// Take the tensors whose names begin so, such as backbone. [default: any under which they fit]
    #[arg(long, value_name = "PREFIX")]
    prefix: Option<String>,
    /// Skip weights that were averaged during training, and take the plain ones
    #[arg(long)]
    no_ema: bool,
    /// Names of the classes in the order of the logits: a text file with one a line, a JSON
    /// list, or a data source that has them, such as folder:DIR [default: 0, 1, 2 and so on]
    #[arg(long, value_name = "FILE|SRC")]
    classes: Option<String>,
    #[command(flatten)]
    images: preprocessing::Options,
    /// Pass over a config.json beside the weights, and over what the file calls its network
    #[arg(long)]
    no_config: bool,
    /// Import although tensors are left over that the network has no place for
    #[arg(long)]
    allow_left_over: bool,
    #[command(flatten)]
    replacing: OverwriteArgs,
    /// Print an array of one JSON object instead of text
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Outcome {
    // A misspelt network shows before a large file is read.
    if let Some(name) = &args.network {
        zoo::input_size(name)?;
    }
    let found = locate::find(&args.checkpoint, !args.no_config)?;
    let config = found.config.as_ref();
    let output = outputs(args, &found)?.file("-o", &args.output, Kind::Model)?;
    let name = network(args, config)?;
    let side = zoo::input_size(name)?;
    let configured = match config {
        Some(config) if !args.images.has_preset() => {
            Some(config.preprocessing(args.images.has_resize())?)
        }
        _ => None,
    };
    let preprocessing = args.images.preprocessing(side, configured)?;

    let checkpoint = Checkpoint::open(&found.weights)?;
    if let Some(said) = checkpoint.architecture().filter(|_| !args.no_config) {
        config::check_architecture(&found.weights, said, name)?;
    }
    let imported = imported(args, &found.weights, &checkpoint, &zoo::build(name, 2)?)?;
    let macs = imported
        .network
        .cost(preprocessing.size, Instance::Full)?
        .macs;
    let classes = named_classes(args, config, &imported)?;
    let Imported {
        network,
        weights,
        statistics,
        left_over,
        origin,
    } = imported;
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
            "imported": found.weights.file_name().map(|name| name.to_string_lossy()),
        }),
    };
    model.save(output.path())?;
    let report = Report {
        model: &args.output,
        network: name,
        classes: model.classes.len(),
        parameters: model.weights.count(),
        tensors: model.weights.0.len() + 2 * model.network.norms().len(),
        architecture: checkpoint.architecture(),
        from: Taken::new(&origin),
        left_over: &left_over,
        config: config.map(Config::path),
        preprocessing: &model.preprocessing,
        macs,
    };
    if args.json {
        return print_json(&[report]);
    }
    print(&report.text())
}

/// The network's name: what the user says, and what the configuration says.
fn network<'a>(args: &'a Args, config: Option<&'a Config>) -> Result<&'a str, Failure> {
    match (&args.network, config) {
        (Some(name), Some(config)) if name != config.network => Err(Failure::new(
            Class::Model,
            format!(
                "'{}' says that the weights are of {}, not {name}",
                config.path().display(),
                config.network
            ),
        )
        .hint(format!(
            "--network {}, or --no-config to pass over that file",
            config.network
        ))),
        (Some(name), _) => Ok(name),
        (None, Some(config)) => Ok(config.network),
        (None, None) => Err(Failure::new(
            Class::Usage,
            "--network is missing, and no config.json of timm beside the weights says it",
        )
        .hint("`sdpoint networks` lists them all")),
    }
}

fn imported(
    args: &Args,
    path: &Path,
    checkpoint: &Checkpoint,
    network: &Network,
) -> Result<Imported, Failure> {
    let choice = Choice {
        key: args
            .key
            .as_deref()
            .map(|key| key.trim_matches('.').to_owned()),
        prefix: args.prefix.clone(),
        plain: args.no_ema,
        allow_left_over: args.allow_left_over,
    };
    import_chosen(checkpoint, network, &choice)
        .and_then(|imported| {
            // A part of another listed network is no network by itself.
            if imported.left_over.is_empty() || recognise(checkpoint, &choice).is_none() {
                return Ok(imported);
            }
            let strict = Choice {
                allow_left_over: false,
                ..choice.clone()
            };
            import_chosen(checkpoint, network, &strict)
        })
        .map_err(|error| unusable(path, checkpoint, &choice, error))
}

/// What is wrong with a checkpoint, and what to do.
fn unusable(
    path: &Path,
    checkpoint: &Checkpoint,
    choice: &Choice,
    mut error: ImportError,
) -> Failure {
    let hint = match &error {
        ImportError::Misfit(_) | ImportError::LeftOver { .. } => {
            match recognise(checkpoint, choice) {
                Some(name) => {
                    forget_sign(&mut error);
                    Some(format!("its tensors are those of {name}: --network {name}"))
                }
                None => way_out(&error),
            }
        }
        ImportError::Prefixes { .. } => Some("--prefix chooses one".into()),
        ImportError::AveragedOnly { .. } => Some("without --no-ema they are taken".into()),
        ImportError::NoKey { .. } => Some("without --key, what fits is taken".into()),
        _ => None,
    };
    let failure = Failure::new(
        Class::Model,
        format!("'{}' cannot be imported: {error}", path.display()),
    );
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// What names say of a network matters where it is none that is listed.
fn forget_sign(error: &mut ImportError) {
    match error {
        ImportError::Misfit(misfit) => misfit.sign = None,
        ImportError::LeftOver { sign, .. } => *sign = None,
        _ => {}
    }
}

/// What to do about tensors that are of no listed network.
fn way_out(error: &ImportError) -> Option<String> {
    /// More than a few.
    const FEW: usize = 16;
    let ImportError::LeftOver {
        names,
        related,
        sign,
        ..
    } = error
    else {
        return None;
    };
    if sign.is_none() && !related && names.len() <= FEW {
        return Some("--allow-left-over imports the others".into());
    }
    Some(
        "they belong to a network that computes something else: without them it would not be \
         the one that was trained"
            .into(),
    )
}

/// The names of the classes: what the user says, what the configuration says,
/// or numbers.
fn named_classes(
    args: &Args,
    config: Option<&Config>,
    imported: &Imported,
) -> Result<Vec<String>, Failure> {
    let count = imported.network.classes();
    let outputs = imported.origin.classifier.as_ref().map(|c| c.outputs);
    if let Some(config) = config
        && let Some((said, has)) = config.classes.zip(outputs)
        && said != has as u64
    {
        return Err(Failure::new(
            Class::Model,
            format!(
                "'{}' says {said} classes, but the weights have {has}",
                config.path().display()
            ),
        )
        .hint("--no-config imports the weights without what this file says"));
    }
    match config {
        Some(config) if args.classes.is_none() && config.labels.len() == count => {
            Ok(config.labels.clone())
        }
        _ => class_names(args.classes.as_deref(), count),
    }
}

/// What must not be written to.
fn outputs(args: &Args, found: &locate::Found) -> Result<Outputs, Failure> {
    let mut outputs = Outputs::new(&args.replacing)
        .reads(&args.checkpoint)
        .reads(&found.weights);
    if let Some(config) = &found.config {
        outputs = outputs.reads(config.path());
    }
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
