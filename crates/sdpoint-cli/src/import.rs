//! `sdpoint import`: converts weights from PyTorch.

mod config;
mod locate;
mod preprocessing;
mod presets;
mod report;

use std::path::{Path, PathBuf};

use sdpoint::data::{OpenOptions, Source, Split, expand_home, open};
use sdpoint::exchange::{
    Checkpoint, ImportError, ImportOptions, Imported, import_chosen, recognise,
};
use sdpoint::{DataError, Instance, Model, Network, zoo};

use crate::failure::{Class, Failure, Outcome};
use crate::output::{name, plural, print, print_json};
use crate::output_file::{Kind, Outputs, OverwriteArgs};
use crate::{classes, model, path};
use config::Config;
use report::{Report, Taken};

const EXAMPLES: &str = "\
Examples:
  sdpoint import resnet18.pth --network resnet18 -o resnet18.safetensors
  sdpoint import timm-resnet50/ -o resnet50.safetensors
  sdpoint import last.ckpt --network resnet18 --key state_dict --prefix model. -o m.safetensors
  sdpoint import resnet50.pth --network resnet50 --preset torchvision-v2 -o resnet50.safetensors
  sdpoint import checkpoint.pth.tar --network preresnet101-imagenet --classes folder:DIR -o m.safetensors

CHECKPOINT is a safetensors file, a file written by torch.save, or a folder saved by timm. The dictionary of \
tensors and the prefix of their names are found automatically; the output says which were used, and --key \
and --prefix override them. Averaged weights are preferred. No code in the file is run. Tensor names are those \
of torchvision, timm and the authors of stochastic downsampling, which agree. Values in float16, bfloat16 and \
float64 are converted to float32. See docs/import.md.";

/// Convert weights saved by PyTorch to a model
///
/// The number of classes is that of the weights. Missing tensors, unused ones and those of another
/// shape are listed. The model has the single instance full; `calibrate --ratios` adds cheaper ones,
/// and `train --init` fine-tunes it.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// A .safetensors, .pth, .pt or .ckpt file, the index of several .safetensors files, or a folder
    /// saved by timm
    #[arg(value_name = "CHECKPOINT", value_parser = path::parser())]
    checkpoint: PathBuf,
    /// Network of the weights; `sdpoint networks` lists all [default: that of config.json]
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
    /// Output file
    #[arg(short, long, value_name = "MODEL", value_parser = path::parser())]
    output: PathBuf,
    /// Use the tensors under these keys of the file, such as model.state_dict; '.' for the top level
    /// [default: those that fit]
    #[arg(long, value_name = "KEYS")]
    key: Option<String>,
    /// Use the tensors with this name prefix, such as backbone. [default: the prefix that fits]
    #[arg(long, value_name = "PREFIX")]
    prefix: Option<String>,
    /// Use the plain weights, not those averaged during training
    #[arg(long)]
    no_ema: bool,
    /// Class names in the order of the logits: a text file with one per line, a JSON list, or a data
    /// source with these classes, such as folder:DIR [default: 0, 1, 2 and so on]
    #[arg(long, value_name = "FILE|SRC")]
    classes: Option<String>,
    #[command(flatten)]
    images: preprocessing::Options,
    /// Ignore config.json next to the weights, and the name of the network in the file
    #[arg(long)]
    no_config: bool,
    /// Import even if the network does not use all tensors
    #[arg(long)]
    allow_left_over: bool,
    #[command(flatten)]
    replacing: OverwriteArgs,
    /// Print an array of one JSON object instead of text
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Outcome {
    // Reports a misspelt network before reading a large file.
    if let Some(name) = &args.network {
        zoo::input_size(name)?;
    }
    let found = locate::find(&args.checkpoint, !args.no_config)?;
    let config = found.config.as_ref();
    let output = outputs(args, &found)?.file("-o", &args.output, Kind::ImportedModel)?;
    let name = network(args, &found)?;
    let side = zoo::input_size(name)?;
    let preprocessing = args.images.preprocessing(side, config)?;

    let checkpoint = Checkpoint::open(&found.weights)?;
    let said = checkpoint.architecture().filter(|_| !args.no_config);
    check_names(args, &found.weights, &checkpoint, Some(name))?;
    let mut choice = choice(args);
    choice.size = Some(preprocessing.size);
    let network = zoo::build(name, 2)?;
    let imported = imported(&choice, &found.weights, &checkpoint, &network, said)?;
    let classes = named_classes(args, config, &imported)?;
    let Imported {
        network,
        weights,
        statistics,
        left_over,
        origin,
        ..
    } = imported;
    let mut model = Model::new(network, weights, preprocessing, &[Instance::Full])?;
    model.statistics = statistics;
    model.classes = classes;
    model.training = serde_json::json!({
        "program": concat!("sdpoint ", env!("CARGO_PKG_VERSION")),
        "imported": found.weights.file_name().map(|name| name.to_string_lossy()),
    });
    model.save(output.path())?;
    let report = Report {
        model: &args.output,
        network: name,
        structure: &model.network,
        classes: model.classes.len(),
        parameters: model.weights.count(),
        tensors: model.weights.0.len() + 2 * model.network.norms().len(),
        architecture: checkpoint.architecture(),
        from: Taken::new(&origin),
        left_over: &left_over,
        config: config.map(Config::path),
        preprocessing: &model.preprocessing,
        macs: model.instances[0].macs,
    };
    if args.json {
        return print_json(&[report]);
    }
    print(&report.text())
}

/// The name of the network, from the user or the configuration.
fn network<'a>(args: &'a Args, found: &'a locate::Found) -> Result<&'a str, Failure> {
    match (&args.network, &found.config) {
        (Some(name), Some(config)) if name != config.network => Err(Failure::new(
            Class::Model,
            format!(
                "'{}' says that the weights are of {}, not {name}",
                config.path().display(),
                config.network
            ),
        )
        .hint(format!(
            "give --network {}, or --no-config to ignore that file",
            config.network
        ))),
        (Some(name), _) => Ok(name),
        (None, Some(config)) => Ok(config.network),
        (None, None) => Err(unknown_network(args, &found.weights)?),
    }
}

/// The failure of weights whose network the user must give, with a hint at the one
/// that it probably is: by its tensors or, if no network has these, by its name in
/// the file.
fn unknown_network(args: &Args, path: &Path) -> Result<Failure, Failure> {
    let checkpoint = Checkpoint::open(path)?;
    let recognised = recognise(&checkpoint, &choice(args));
    check_names(args, path, &checkpoint, recognised.as_deref())?;
    let said = checkpoint.architecture().filter(|_| !args.no_config);
    let hint = match recognised {
        Some(name) => Some(by_tensors(&name)),
        None => said.and_then(by_name),
    };
    let mut message = format!(
        "the network of the weights in '{}' is unknown: there is no config.json of timm next to \
         them",
        path.display()
    );
    if let Some(said) = said.filter(|said| config::listed(said).is_none()) {
        message += &format!(
            ", and the file calls the network '{}', which sdpoint does not list",
            name(said)
        );
    }
    Ok(Failure::new(Class::Usage, message).hint(
        hint.unwrap_or_else(|| "give --network NAME; `sdpoint networks` lists all networks".into()),
    ))
}

/// Refuses a checkpoint if one of the names that it has for its network is of one that
/// computes something else than a listed network with the same tensors.
fn check_names(
    args: &Args,
    path: &Path,
    checkpoint: &Checkpoint,
    network: Option<&str>,
) -> Result<(), Failure> {
    if args.no_config {
        return Ok(());
    }
    checkpoint
        .architectures()
        .try_for_each(|said| config::check_architecture(path, said, network))
}

fn by_tensors(name: &str) -> String {
    format!("its tensors are those of {name}: --network {name}")
}

/// A hint at the network that the file says to be its own, if it is a listed one.
fn by_name(said: &str) -> Option<String> {
    let name = config::listed(said)?;
    Some(format!(
        "the file calls its network '{said}': --network {name}"
    ))
}

/// The part of the checkpoint that the user chose.
fn choice(args: &Args) -> ImportOptions {
    let mut choice = ImportOptions::default();
    let key = args.key.as_deref();
    choice.key = key.map(|key| key.trim_matches('.').to_owned());
    choice.prefix.clone_from(&args.prefix);
    choice.plain = args.no_ema;
    choice.allow_left_over = args.allow_left_over;
    choice
}

fn imported(
    choice: &ImportOptions,
    path: &Path,
    checkpoint: &Checkpoint,
    network: &Network,
    said: Option<&str>,
) -> Result<Imported, Failure> {
    import_chosen(checkpoint, network, choice)
        .and_then(|imported| {
            // The unused tensors belong to another listed network.
            if imported.left_over.is_empty() || recognise(checkpoint, choice).is_none() {
                return Ok(imported);
            }
            let mut strict = choice.clone();
            strict.allow_left_over = false;
            import_chosen(checkpoint, network, &strict)
        })
        .map_err(|error| {
            let other =
                said.filter(|said| config::listed(said).is_some_and(|n| n != network.name()));
            unusable(path, checkpoint, choice, other, error)
        })
}

/// The failure of a checkpoint that cannot be imported, with a hint. `other` is the
/// network that the file says it is of, if not the requested one.
fn unusable(
    path: &Path,
    checkpoint: &Checkpoint,
    choice: &ImportOptions,
    other: Option<&str>,
    mut error: ImportError,
) -> Failure {
    let hint = match &error {
        ImportError::Misfit(_) | ImportError::LeftOver { .. } => {
            match recognise(checkpoint, choice) {
                Some(name) => {
                    forget_sign(&mut error);
                    Some(by_tensors(&name))
                }
                None => other.and_then(by_name).or_else(|| way_out(&error)),
            }
        }
        ImportError::Computation { .. } => Some(
            "sdpoint cannot compute it; if its forward() does not use these modules, save its \
             state_dict() and import that"
                .into(),
        ),
        ImportError::Prefixes { .. } => Some("--prefix selects one".into()),
        ImportError::AveragedOnly { .. } => Some("without --no-ema, they are used".into()),
        ImportError::NoKey { .. } => Some("without --key, the dictionary that fits is used".into()),
        _ => None,
    };
    let shard = matches!(&error, ImportError::Misfit(_))
        .then(|| locate::index_of_shard(path))
        .flatten();
    let hint = match shard {
        Some(index) => Some(format!(
            "it is one of several files of weights; give their index, {}",
            index.display()
        )),
        None => hint,
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

/// Removes the hint at an unlisted network from an error: the network is listed.
fn forget_sign(error: &mut ImportError) {
    match error {
        ImportError::Misfit(misfit) => misfit.sign = None,
        ImportError::LeftOver { sign, .. } => *sign = None,
        _ => {}
    }
}

/// A hint for tensors that belong to no listed network.
fn way_out(error: &ImportError) -> Option<String> {
    /// The most tensors that may be ignored.
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
        "they belong to a network that computes something else: without them, it would not be \
         the network that was trained"
            .into(),
    )
}

/// The names of the classes: from the user, from the configuration, or numbers.
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
                "'{}' says {}, but the weights have {has}",
                config.path().display(),
                plural(said as usize, "class", "classes"),
            ),
        )
        .hint("--no-config imports the weights without this file"));
    }
    let names = match config.and_then(|config| Some((config, config.labels.as_ref()?))) {
        Some((config, labels)) if args.classes.is_none() => {
            if labels.len() != count {
                return Err(Failure::new(
                    Class::Model,
                    format!(
                        "'{}' has {} (label_names), but the weights have {count} classes",
                        config.path().display(),
                        plural(labels.len(), "name of a class", "names of classes"),
                    ),
                )
                .hint("--classes FILE gives others, --no-config ignores the file"));
            }
            labels.clone()
        }
        _ => class_names(args.classes.as_deref(), count)?,
    };
    classes::note_repeated(&names);
    Ok(names)
}

/// The outputs, which must not replace these inputs.
fn outputs(args: &Args, found: &locate::Found) -> Result<Outputs, Failure> {
    let mut outputs = Outputs::new(&args.replacing)
        .reads(&args.checkpoint)
        .reads(&found.weights);
    if let Some(config) = &found.config {
        outputs = outputs.reads(config.path());
    }
    if let (true, Some(folder)) = (found.is_index(), found.weights.parent()) {
        // The shards are beside their index.
        let here = folder == Path::new("");
        outputs = outputs.reads(if here { Path::new(".") } else { folder });
    }
    Ok(match args.classes.as_deref().map(named).transpose()? {
        None => outputs,
        Some(Named::File(file)) => outputs.reads(&file),
        Some(Named::Source(source)) => outputs.reads_data(&source),
    })
}

/// A source of class names.
enum Named {
    File(PathBuf),
    Source(Source),
}

fn named(from: &str) -> Result<Named, Failure> {
    let path = expand_home(Path::new(from));
    if path.is_file() {
        return Ok(Named::File(path));
    }
    from.parse().map(Named::Source).map_err(|_| {
        let message =
            format!("'{from}' has no class names: it is neither a file nor a data source");
        Failure::new(Class::Usage, message).hint(
            "give a text file with one name per line, a JSON list, or a source such as folder:DIR",
        )
    })
}

/// The names of `count` classes.
fn class_names(from: Option<&str>, count: usize) -> Result<Vec<String>, Failure> {
    let Some(from) = from else {
        return Ok(model::numbered(count).collect());
    };
    let names = match named(from)? {
        Named::File(path) => classes::read(&path)?,
        Named::Source(source) => names_of(&source)?,
    };
    if names.len() == count {
        return Ok(names);
    }
    let failure = Failure::new(
        Class::Usage,
        format!(
            "'{from}' has {}, but the weights have {count}",
            plural(names.len(), "class", "classes")
        ),
    );
    Err(match classes::hint(&names, count) {
        Some(hint) => failure.hint(hint),
        None => failure,
    })
}

fn names_of(source: &Source) -> Result<Vec<String>, Failure> {
    let options = OpenOptions::default();
    let data = match open(source, Split::Train, &options) {
        Err(DataError::NoSplit { .. }) => open(source, Split::Test, &options)?,
        data => data?,
    };
    Ok(data.classes().to_vec())
}
