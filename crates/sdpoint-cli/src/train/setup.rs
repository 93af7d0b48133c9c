//! The data and the plan of a run, from the command line.

use std::path::{Path, PathBuf};

use sdpoint::core::file::{self, FileError};
use sdpoint::core::{TrainTransform, Weights};
use sdpoint::data::{Dataset, OpenOptions, Source, default_preprocessing, open_pair};
use sdpoint::train::folder::{CHECKPOINT, MODEL, check_free, check_idle};
use sdpoint::train::{Checkpoint, Init, TrainError, TrainPlan, fine_tune};
use sdpoint::{Model, Network, zoo};

use super::optimiser::OptimiserArgs;
use super::{Args, TrainingArgs};
use crate::data::{
    SMALL, note_enlarged, note_left_out, note_look_alikes, note_sizes, note_squashed,
};
use crate::failure::{Class, Failure};
use crate::model;
use crate::output_file::Outputs;
use crate::preprocessing::usual_resize;

/// The inputs of a run.
pub struct Setup {
    pub folder: PathBuf,
    pub train: Dataset,
    pub test: Dataset,
    pub start: Start,
}

/// Where a run starts.
pub enum Start {
    /// A new run, with its initial weights unless they are random.
    New(Box<TrainPlan>, Option<Weights>),
    /// From a checkpoint.
    Resume(Box<Checkpoint>),
}

/// The default network for the built-in images.
const SHAPES_NETWORK: &str = "preresnet8";

/// Sets up a new run.
pub fn start(args: &Args) -> Result<Setup, Failure> {
    let source = args.data.clone().unwrap_or(Source::Shapes);
    let settings = &args.training;
    if let Some(name) = &settings.network {
        // Reports a misspelt name before the data is scanned.
        zoo::input_size(name)?;
    }
    let folder = match &args.out {
        Some(folder) => folder.clone(),
        None => free_folder(&source, settings.network.as_deref(), args.overwrite),
    };
    let mut outputs = Outputs::without_force().reads_data(&source);
    if let Some(path) = &settings.init {
        outputs = outputs.reads(&model::file(path));
    }
    outputs.run_folder(&folder, args.overwrite)?;
    // `Run` checks this too, but only after images were read.
    check_idle(&folder)?;
    if !args.overwrite {
        check_free(&folder)?;
    }
    let init = match &settings.init {
        Some(path) => Some((path, initial_model(path)?)),
        None => None,
    };
    let options = args.reading.options();
    let (train, test) = open_data(&source, options, settings.seed, settings.train_images)?;
    let mut preprocessing = match &init {
        Some((_, model)) => model.preprocessing.clone(),
        None => default_preprocessing(&train)?,
    };
    args.preprocessing.set(&mut preprocessing);
    if let Some(size) = settings.input {
        preprocessing = preprocessing.with_size(size);
    } else if init.is_none() && preprocessing.size.iter().all(|&side| side <= SMALL) {
        note_sizes(&train, &test)?;
    } else if init.is_none() {
        note_enlarged(&train, preprocessing.size)?;
    }
    if let Some((_, model)) = &init {
        note_squashed(model, &train)?;
    }
    preprocessing.check_crop().map_err(|error| {
        Failure::new(
            Class::Usage,
            format!("the preprocessing is invalid: {error}"),
        )
        .hint(format!(
            "probably meant: {}; `sdpoint import --resize` sets it",
            usual_resize(error)
        ))
    })?;
    if let Some(augment) = &settings.augment {
        augment.prepare(&mut preprocessing);
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
    let mut plan = TrainPlan::with_preprocessing(network, &train, preprocessing);
    if let Some(how) = init.as_ref().and_then(|(_, model)| model.held_out) {
        // Other images have been trained on.
        (plan.val_share, plan.val_seed) = (how.share, Some(how.seed));
    }
    settings.apply(&mut plan, &args.optimiser)?;
    args.sharing.apply(&mut plan);
    plan.init = init.map(|(path, model)| Init::new(path.display().to_string(), &model));
    plan.image_key = args.reading.image_key.clone();
    plan.label_key = args.reading.label_key.clone();
    Ok(Setup {
        folder,
        train,
        test,
        start: Start::New(Box::new(plan), weights),
    })
}

/// The model to start from, or the network of a run's checkpoint.
fn initial_model(path: &Path) -> Result<Model, Failure> {
    let model = model::load(path);
    if model.is_err()
        && let Ok(checkpoint) = Checkpoint::read_file(path)
    {
        return Ok(checkpoint.into_model()?);
    }
    model
}

/// Removes mirroring from the augmentation.
fn without_flip(transform: &mut TrainTransform) {
    match transform {
        TrainTransform::PadCrop { flip, .. } | TrainTransform::RandomResizedCrop { flip, .. } => {
            *flip = false;
        }
        TrainTransform::None => {}
    }
}

/// A model's network and weights for a number of classes.
fn start_from(model: &Model, classes: usize, seed: u64) -> Result<(Network, Weights), Failure> {
    fine_tune(model, classes, seed).map_err(|error| Failure::from_error(Class::Usage, &error))
}

/// Sets up the resumption of a run.
pub fn resume(args: &Args, folder: &Path) -> Result<Setup, Failure> {
    check_is_run(folder)?;
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
    check_idle(folder)?;
    keep_calibrated(folder, plan)?;
    let mut options = args.reading.options();
    options.image_key = options.image_key.or_else(|| plan.image_key.clone());
    options.label_key = options.label_key.or_else(|| plan.label_key.clone());
    let opened = open_data(&source, options, plan.seed, plan.train_images);
    let (train, test) = opened.map_err(|failure| match &args.data {
        Some(_) => failure,
        None => failure.or_hint(format!(
            "the run began with these images, {source}; if they were moved, --data gives their new \
             location"
        )),
    })?;
    Ok(Setup {
        folder: folder.to_owned(),
        train,
        test,
        start: Start::Resume(Box::new(checkpoint)),
    })
}

/// Refuses what is not the folder of a run, but is in one, with the folder's name.
fn check_is_run(path: &Path) -> Result<(), Failure> {
    if path.join(CHECKPOINT).exists() {
        return Ok(());
    }
    // A link may be elsewhere than the file that it leads to.
    let real = path.canonicalize().ok();
    let run = [Some(path), real.as_deref()]
        .into_iter()
        .flatten()
        .flat_map(|path| path.ancestors().skip(1))
        .find(|folder| folder.join(CHECKPOINT).is_file());
    let what = match run {
        _ if path.exists() && !path.is_dir() => match file::open(path) {
            Err(FileError::NotAFile(kind)) => format!("is {kind}"),
            _ => "is a file".to_owned(),
        },
        Some(_) if path.is_dir() => "is a folder inside a run".to_owned(),
        Some(_) => "does not exist".to_owned(),
        None => return Ok(()),
    };
    let message = format!(
        "'{}' {what}; --resume needs the folder of a run",
        path.display()
    );
    let hint = match run {
        Some(folder) if folder == Path::new("") => "the run is here: --resume .".into(),
        Some(folder) => format!(
            "the folder of the run is {0}: --resume {0}",
            folder.display()
        ),
        None => format!("a run's folder has a {CHECKPOINT}"),
    };
    Err(Failure::new(Class::Usage, message).hint(hint))
}

/// Refuses to resume a finished run whose model was changed since: instances
/// that `calibrate` added would be lost.
fn keep_calibrated(folder: &Path, plan: &TrainPlan) -> Result<(), Failure> {
    let path = folder.join(MODEL);
    let Ok(model) = Model::load(&path) else {
        return Ok(());
    };
    let instances = model.instances.iter().map(|record| record.instance);
    let of_the_run = model.network == plan.network
        && model.preprocessing == plan.preprocessing
        && model.combinations.is_empty()
        && model.statistics.tuned().next().is_none()
        && instances.eq(plan.network.instances(&plan.ratios));
    if of_the_run {
        return Ok(());
    }
    let message = format!(
        "'{}' was changed after the run finished, perhaps by `calibrate`: resuming would replace it",
        path.display()
    );
    Err(Failure::new(Class::Usage, message)
        .hint("to resume the run anyway, move that file away first"))
}

/// Opens both splits; the training split with at most `images` images.
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
    // The program draws any number of built-in images.
    if *source == Source::Shapes {
        options.shapes_train = images.unwrap_or(options.shapes_train);
    }
    let (mut train, test) = open_pair(source, &options)?;
    note_left_out(&train);
    note_left_out(&test);
    note_look_alikes(train.classes());
    if let Some(images) = images {
        train = train.balanced(images, seed)?;
    }
    Ok((train, test))
}

impl TrainingArgs {
    /// Changes the settings of a plan to those that were given.
    fn apply(&self, plan: &mut TrainPlan, optimiser: &OptimiserArgs) -> Result<(), Failure> {
        if let Some(recipe) = self.recipe {
            let preset = recipe.preset(plan.preprocessing.size);
            *plan = plan.clone().with_preset(preset);
        }
        if let Some(augment) = &self.augment {
            augment.apply(plan);
        }
        let method = self.method.apply(plan.clone(), &self.ratios);
        *plan = method.map_err(TrainError::from)?;
        if let Some(epochs) = self.epochs {
            plan.recipe = plan.recipe.clone().with_epochs(epochs);
        }
        let recipe = &mut plan.recipe;
        optimiser.apply(recipe);
        set(&mut recipe.batch_size, self.batch);
        set(&mut recipe.rate, self.rate);
        set(&mut recipe.warm_up, self.warm_up);
        set(&mut recipe.weight_decay, self.weight_decay);
        set(&mut recipe.label_smoothing, self.label_smoothing);
        recipe.decay_norms &= !self.no_norm_decay;
        set(&mut plan.distill, self.distill);
        if let Some(draw) = &self.draw {
            plan.draw = draw.clone();
        }
        plan.train_images = self.train_images;
        set(&mut plan.val_share, self.val_share);
        plan.dropout = self.dropout;
        plan.stochastic_depth = self.stochastic_depth;
        plan.scales.clone_from(&self.scales);
        plan.exits = self.exits;
        plan.measure_every = self.measure_every;
        plan.seed = self.seed;
        plan.calibration_images = self.calibration_images;
        set(&mut plan.statistics_from, self.statistics_from);
        plan.samples = self.samples;
        Ok(())
    }
}

fn set<T>(setting: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *setting = value;
    }
}

/// The default folder: `runs/shapes` or `runs/photos-wrn16-4`, with a number if
/// it already holds a run.
fn free_folder(source: &Source, network: Option<&str>, overwrite: bool) -> PathBuf {
    let data = source.name();
    let name = network.map_or(data.clone(), |network| format!("{data}-{network}"));
    let taken = |folder: &Path| folder.join(CHECKPOINT).exists();
    let first = Path::new("runs").join(&name);
    if overwrite || !taken(&first) {
        return first;
    }
    (2..)
        .map(|number| Path::new("runs").join(format!("{name}-{number}")))
        .find(|folder| !taken(folder))
        .expect("there are infinitely many numbers")
}
