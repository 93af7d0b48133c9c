//! `sdpoint export`: writes a model for other programs.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use sdpoint::core::Record;
use sdpoint::core::seal::{BLANK, seal};
use sdpoint::exchange::{ExportedPreprocessing, StatisticsOf, onnx, python, state_dict};
use sdpoint::{Budget, Instance, Model};
use serde::Serialize;

use crate::failure::{Class, Failure, Outcome};
use crate::instances::{Selection, parse_selection};
use crate::output::{Table, bytes, plural, print, print_json};
use crate::output_file::{Kind, Output, Outputs, OverwriteArgs};
use crate::{model, path};

const EXAMPLES: &str = "\
Examples:
  sdpoint export model.safetensors --instance 3@0.5 -o half.onnx
  sdpoint export model.safetensors --instances all -o onnx/           one file each, and manifest.json
  sdpoint export model.safetensors --format safetensors --instance full -o full.safetensors
  sdpoint export model.safetensors --format safetensors --instances all -o weights.safetensors
  sdpoint export model.safetensors --python -o net.py

ONNX files use opset 17, with batch norms folded into convolutions, for the model's image size and \
any batch size. Their metadata has network, instance, MACs, classes and preprocessing. safetensors \
files are for load_state_dict; with --instances all, for the module that --python writes. See \
docs/export.md.";

/// Write a model for other runtimes and for PyTorch
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(false))]
pub struct Args {
    /// Model file, or folder of a run
    #[arg(value_name = "MODEL", value_parser = path::parser())]
    model: PathBuf,
    /// Export this instance to a file: full, or POINT@RATIO
    #[arg(long, value_name = "INSTANCE", group = "what")]
    instance: Option<Instance>,
    /// Export these instances, separated by commas, or all: as ONNX to a folder, as safetensors to
    /// one file (all only)
    #[arg(long, value_name = "A,B|all", group = "what", value_parser = parse_selection)]
    instances: Option<Selection>,
    /// Export a PyTorch module for the weights of --format safetensors --instances all
    #[arg(long, group = "what", conflicts_with = "format")]
    python: bool,
    /// File format
    #[arg(long, value_enum, default_value_t = Format::Onnx)]
    format: Format,
    /// Output file, or folder for several files
    #[arg(short, long, value_name = "OUT", value_parser = path::parser())]
    output: PathBuf,
    #[command(flatten)]
    replacing: OverwriteArgs,
    /// Print a JSON object per file instead of text
    #[arg(long)]
    json: bool,
}

/// The format of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A graph for other runtimes
    Onnx,
    /// A state dict for PyTorch
    Safetensors,
}

impl Format {
    fn kind(self) -> Kind {
        match self {
            Self::Onnx => Kind::Onnx,
            Self::Safetensors => Kind::StateDict,
        }
    }
}

/// A written file.
#[derive(Serialize)]
struct Written<'a> {
    /// The name of the file.
    file: String,
    bytes: usize,
    #[serde(flatten)]
    record: Option<&'a Record>,
}

/// The contents of `manifest.json`.
#[derive(Serialize)]
struct Manifest<'a> {
    network: &'a str,
    /// Names of the classes in the order of the logits.
    classes: &'a [String],
    preprocessing: ExportedPreprocessing<'a>,
    instances: &'a [Written<'a>],
    /// A digest of the file, by which edits are noticed; named as
    /// `sdpoint::core::seal::SEAL`.
    sdpoint_sha256: &'static str,
}

/// The file name of the manifest.
const MANIFEST: &str = "manifest.json";

pub fn run(args: &Args) -> Outcome {
    let model = model::load(&args.model)?;
    let out = &args.output;
    let mut outputs = Outputs::new(&args.replacing).reads_model(&args.model);
    let mut file = |kind| outputs.file("-o", out, kind);
    let written = match (&args.instances, args.instance, args.format) {
        (Some(several), _, Format::Onnx) => folder(&model, several, out, outputs)?,
        (Some(several), _, Format::Safetensors) if several.names().is_empty() => {
            let file = file(Kind::StateDict)?;
            let bytes = state_dict(&model, StatisticsOf::All)?;
            vec![write(&file, &bytes, None)?]
        }
        (Some(_), _, Format::Safetensors) => {
            return Err(Failure::new(
                Class::Usage,
                "a safetensors file can hold the statistics of one instance or of all",
            )
            .hint("give --instance INSTANCE or --instances all"));
        }
        (None, Some(instance), format) => {
            let record = record(&model, instance)?;
            let file = file(format.kind())?;
            let bytes = match format {
                Format::Onnx => onnx(&model, instance)?,
                Format::Safetensors => state_dict(&model, StatisticsOf::One(instance))?,
            };
            vec![write(&file, &bytes, Some(record))?]
        }
        (None, None, _) => {
            let file = file(Kind::Module)?;
            vec![write(&file, python(&model)?.as_bytes(), None)?]
        }
    };
    if args.json {
        return print_json(&written);
    }
    print(&text(&written, out, args.python))
}

/// The model's record of an instance.
fn record(model: &Model, instance: Instance) -> Result<&Record, Failure> {
    let choice = sdpoint::core::select(&model.instances, Budget::Instance(instance))?;
    model
        .record(choice.instance)
        .ok_or_else(|| Failure::new(Class::Instance, format!("there is no instance {instance}")))
}

/// Writes an ONNX file for each instance, and a manifest.
fn folder<'a>(
    model: &'a Model,
    several: &Selection,
    out: &Path,
    mut outputs: Outputs,
) -> Result<Vec<Written<'a>>, Failure> {
    let mut instances = model::listed(model, several.names())?;
    // An instance listed twice is one file.
    let mut seen = HashSet::new();
    instances.retain(|instance| seen.insert(*instance));
    outputs.folder(out)?;
    let mut file = |name: &str, kind| outputs.file_in(out, name, kind);
    let prepared: Vec<(Instance, &Record, Output)> = instances
        .into_iter()
        .map(|instance| {
            let output = file(&format!("{instance}.onnx"), Kind::Onnx)?;
            Ok((instance, record(model, instance)?, output))
        })
        .collect::<Result<_, Failure>>()?;
    let manifest_file = file(MANIFEST, Kind::Manifest)?;
    fs::create_dir_all(out).map_err(|error| {
        let message = format!("cannot create the folder '{}': {error}", out.display());
        Failure::io(message, error.kind())
    })?;
    let mut written = Vec::new();
    for (instance, record, output) in prepared {
        written.push(write(&output, &onnx(model, instance)?, Some(record))?);
    }
    let manifest = Manifest {
        network: model.network.name(),
        classes: &model.classes,
        preprocessing: ExportedPreprocessing::from(&model.preprocessing),
        instances: &written,
        sdpoint_sha256: BLANK,
    };
    let mut manifest = serde_json::to_vec_pretty(&manifest)
        .map_err(|error| Failure::new(Class::Files, error.to_string()))?;
    seal(&mut manifest);
    write(&manifest_file, &manifest, None)?;
    Ok(written)
}

fn write<'a>(
    output: &Output,
    content: &[u8],
    record: Option<&'a Record>,
) -> Result<Written<'a>, Failure> {
    output.write(content)?;
    let name = output.path().file_name().unwrap_or_default();
    Ok(Written {
        file: name.to_string_lossy().into_owned(),
        bytes: content.len(),
        record,
    })
}

fn text(written: &[Written], out: &Path, python: bool) -> String {
    let out = out.display();
    if python {
        return format!("The module is in {out}; its docstring says how to use it.\n");
    }
    if let [one] = written {
        return format!("Wrote {} to {out}.\n", bytes(one.bytes as u64));
    }
    let mut table = Table::new(["file", "MACs", "size"]);
    for file in written {
        let macs = file.record.map_or(0, |record| record.macs);
        table.row([
            file.file.clone(),
            sdpoint::core::format_macs(macs),
            bytes(file.bytes as u64),
        ]);
    }
    format!(
        "{}{} in {out}, listed in {MANIFEST}.\n",
        table.text(),
        plural(written.len(), "file", "files")
    )
}
