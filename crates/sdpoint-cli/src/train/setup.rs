//! From the command line to data and a plan.

use std::path::{Path, PathBuf};

use sdpoint::core::{TrainTransform, Weights};
use sdpoint::data::{Dataset, OpenOptions, Source, default_preprocessing, open_pair};
use sdpoint::train::folder::MODEL;
use sdpoint::train::{Checkpoint, Init, Method, Plan, Preset, Recipe, checkpoint, fine_tune};
use sdpoint::{Model, Network, zoo};

use super::method::Named;
use super::{Args, Settings};
use crate::data::{note_left_out, note_sizes};
use crate::failure::{Class, Failure};
use crate::model;
use crate::output_file::Outputs;

/// All that a run needs.
pub struct Setup {
    pub folder: PathBuf,
    pub train: Dataset,
    pub test: Dataset,
    pub start: Start,
}

/// Whether the run is new.
pub enum Start {
    /// With weights, where it does not start from random ones.
    New(Box<Plan>, Option<Weights>),
    Resume(Box<Checkpoint>),
}

/// The built-in images are trained on long enough to show the method and
/// short enough to wait for.
const SHAPES_NETWORK: &str = "preresnet8";
const SHAPES_EPOCHS: usize = 12;

/// The longest side of images that the networks for small images take by
/// default.
const SMALL: usize = 64;

/// A new run.
pub fn start(args: &Args) -> Result<Setup, Failure> {
    let source = args.data.clone().unwrap_or(Source::Shapes);
    let settings = &args.settings;
    if let Some(name) = &settings.network {
        // A misspelt network shows before the data is looked through.
        zoo::input_size(name)?;
    }
    let init = match &settings.init {
        Some(path) => Some((path, model::load(path)?)),
        None => None,
    };
    let folder = match &args.out {
        Some(folder) => folder.clone(),
        None => free_folder(&source, settings.network.as_deref(), args.overwrite),
    };
    let mut outputs = Outputs::without_force().reads_data(&source);
    if let Some((path, _)) = &init {
        outputs = outputs.reads(&model::file(path));
    }
    outputs.run_folder(&folder, args.overwrite)?;
    let options = args.reading.options();
    let (train, test) = open_data(&source, options, settings.seed, settings.train_images)?;
    let mut preprocessing = match &init {
        Some((_, model)) => model.preprocessing.clone(),
        None => default_preprocessing(&train)?,
    };
    args.preparation.set(&mut preprocessing);
    if let Some(size) = settings.input {
        preprocessing = preprocessing.with_size(size);
    } else if init.is_none() && preprocessing.size.iter().all(|&side| side <= SMALL) {
        note_sizes(&train)?;
    }
    if settings.no_flip {
        without_flip(&mut preprocessing.train);
    }
    let small = preprocessing.size.iter().all(|&side| side <= SMALL);
    let name = settings.network.as_deref().unwrap_or(match source {
        Source::Shapes => SHAPES_NETWORK,
        _ if small => "preresnet20",
        _ => "resnet18",
    });
    let classes = train.classes().to_vec();
    let (network, weights) = match &init {
        Some((_, model)) => {
            let (network, weights) = start_from(model, classes.len(), settings.seed)?;
            (network, Some(weights))
        }
        None => (zoo::build(name, classes.len())?, None),
    };
    let Named { method, draw } = settings.method;
    let plan = Plan {
        data: source.to_string(),
        train_images: settings.train_images,
        image_key: args.reading.image_key.clone(),
        label_key: args.reading.label_key.clone(),
        network,
        init: init.map(|(path, model)| Init::new(path.display().to_string(), &model)),
        classes,
        preprocessing,
        recipe: recipe(settings, &source, small),
        method,
        draw: settings.draw.unwrap_or(draw),
        distill: settings.distill.unwrap_or(match method {
            Method::Sandwich => 1.0,
            Method::SdPoint | Method::Plain => 0.0,
        }),
        dropout: settings.dropout,
        stochastic_depth: settings.stochastic_depth,
        scales: settings.scales.clone(),
        exits: settings.exits,
        measure_every: settings.measure_every,
        ratios: settings.ratios.clone(),
        seed: settings.seed,
        calibration_images: settings.calibration_images,
    };
    Ok(Setup {
        folder,
        train,
        test,
        start: Start::New(Box::new(plan), weights),
    })
}

/// The same augmentation, but for mirroring.
fn without_flip(transform: &mut TrainTransform) {
    match transform {
        TrainTransform::PadCrop { flip, .. } | TrainTransform::RandomResizedCrop { flip, .. } => {
            *flip = false;
        }
        TrainTransform::None => {}
    }
}

/// A model's network and weights for this many classes.
fn start_from(model: &Model, classes: usize, seed: u64) -> Result<(Network, Weights), Failure> {
    fine_tune(model, classes, seed).map_err(|error| Failure::from_error(Class::Usage, &error))
}

/// A run that goes on.
pub fn resume(args: &Args, folder: &Path) -> Result<Setup, Failure> {
    let mut checkpoint = Checkpoint::read(folder)?;
    if args.accept_changed_data {
        checkpoint.counters.data = None;
    }
    let plan = &checkpoint.plan;
    let source = match &args.data {
        Some(source) => source.clone(),
        None => plan.data.parse()?,
    };
    Outputs::without_force()
        .reads_data(&source)
        .run_folder(folder, true)?;
    keep_calibrated(folder, plan)?;
    let mut options = args.reading.options();
    options.image_key = options.image_key.or_else(|| plan.image_key.clone());
    options.label_key = options.label_key.or_else(|| plan.label_key.clone());
    let (train, test) = open_data(&source, options, plan.seed, plan.train_images)?;
    Ok(Setup {
        folder: folder.to_owned(),
        train,
        test,
        start: Start::Resume(Box::new(checkpoint)),
    })
}

/// Refuses to finish a run once more whose model has become another since:
/// what `calibrate` has added would be lost.
fn keep_calibrated(folder: &Path, plan: &Plan) -> Result<(), Failure> {
    let path = folder.join(MODEL);
    let Ok(model) = Model::load(&path) else {
        return Ok(());
    };
    let instances = model.instances.iter().map(|record| record.instance);
    let of_the_run = model.network == plan.network
        && model.preprocessing == plan.preprocessing
        && model.combinations.is_empty()
        && instances.eq(plan.network.instances(&plan.ratios));
    if of_the_run {
        return Ok(());
    }
    let message = format!(
        "'{}' was changed after the run was finished, by `calibrate` perhaps: resuming would \
         replace it",
        path.display()
    );
    Err(Failure::new(Class::Usage, message).hint("move it away first, if the run is to go on"))
}

/// Opens both splits, the training split with as many images as are wanted.
fn open_data(
    source: &Source,
    mut options: OpenOptions,
    seed: u64,
    images: Option<usize>,
) -> Result<(Dataset, Dataset), Failure> {
    if images == Some(0) {
        return Err(Failure::new(
            Class::Usage,
            "training needs at least one image",
        ));
    }
    // The built-in images are drawn, so that there are as many as one likes.
    if *source == Source::Shapes {
        options.shapes_train = images.unwrap_or(options.shapes_train);
    }
    let (mut train, test) = open_pair(source, &options)?;
    note_left_out(&train);
    note_left_out(&test);
    if let Some(images) = images {
        train = train.balanced(images, seed)?;
    }
    Ok((train, test))
}

fn recipe(settings: &Settings, source: &Source, small: bool) -> Recipe {
    let usual = if small {
        Preset::CifarCosine
    } else {
        Preset::Imagenet
    };
    let mut recipe = settings.recipe.unwrap_or(usual).recipe();
    let few = (*source == Source::Shapes && settings.recipe.is_none()).then_some(SHAPES_EPOCHS);
    if let Some(epochs) = settings.epochs.or(few) {
        recipe = recipe.with_epochs(epochs);
    }
    let set = |to: &mut f64, value: Option<f64>| *to = value.unwrap_or(*to);
    recipe.batch_size = settings.batch.unwrap_or(recipe.batch_size);
    set(&mut recipe.rate, settings.rate);
    set(&mut recipe.warm_up, settings.warm_up);
    set(&mut recipe.weight_decay, settings.weight_decay);
    set(&mut recipe.label_smoothing, settings.label_smoothing);
    recipe.decay_norms = !settings.no_norm_decay;
    recipe
}

/// `runs/shapes`, `runs/photos-wrn16-4`; numbered where a run is there.
fn free_folder(source: &Source, network: Option<&str>, overwrite: bool) -> PathBuf {
    let data = source.name();
    let name = network.map_or(data.clone(), |network| format!("{data}-{network}"));
    let taken = |folder: &Path| folder.join(checkpoint::FILE).exists();
    let first = Path::new("runs").join(&name);
    if overwrite || !taken(&first) {
        return first;
    }
    (2..)
        .map(|number| Path::new("runs").join(format!("{name}-{number}")))
        .find(|folder| !taken(folder))
        .expect("numbers do not end")
}
