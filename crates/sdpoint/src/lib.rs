//! One convolutional network, trained once, whose inference cost is chosen at
//! run time.
//!
//! A network trained by stochastic downsampling (Kuen et al., CVPR 2018,
//! arXiv 1801.09335) is many networks that share all weights: each
//! [`Instance`] downsamples its feature map once, at one point, and costs
//! accordingly less.
//!
//! What most programs need is at the top level: an [`Engine`] runs a [`Model`]
//! in any instance, under a [`Budget`] or by a deadline, and returns an
//! [`Answer`]; a [`Network`] comes from the [`zoo`]. Everything else is in a
//! module:
//!
//! - [`core`]: networks as data, their cost, and what a model file holds;
//! - [`data`]: image sources, decoding, augmentation, loading;
//! - [`engine`]: inference, training steps and calibration, without budgets;
//! - [`exchange`]: weights from PyTorch, networks for other runtimes;
//! - [`profile`]: measured latencies of a model's instances;
//! - [`train`]: training runs, checkpoints, evaluation, the cost–accuracy curve.
//!
//! # Inference
//!
//! ```no_run
//! use std::time::{Duration, Instant};
//!
//! use sdpoint::{Budget, Engine};
//!
//! let engine = Engine::load("model.safetensors")?;
//! let photo = engine.decode([std::fs::read("photo.jpg")?])?;
//!
//! // At most half of the cost of the full network,
//! let half: Budget = "50%".parse()?;
//! let answer = engine.run(&photo, half)?;
//! for guess in answer.predictions.top(0, 5) {
//!     println!("{:5.1}% {}", 100.0 * guess.probability, guess.class);
//! }
//! println!("by {}, {} MACs, {:?}", answer.instances, answer.macs, answer.time);
//!
//! // or whatever the network can do within 8 ms from now.
//! let answer = engine.run_by(&photo, Instant::now() + Duration::from_millis(8))?;
//! println!("{}", answer.instances);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Cost
//!
//! The cost of an instance is known without weights.
//!
//! ```
//! use sdpoint::core::Ratio;
//! use sdpoint::{Instance, zoo};
//!
//! let network = zoo::build("resnet50", 1000)?;
//! let full = network.cost([224, 224], Instance::Full)?;
//! assert_eq!(full.macs, 4_089_184_256);
//!
//! // 17 points and 2 ratios make 34 cheaper instances of the same weights.
//! for instance in network.instances(&Ratio::DEFAULT) {
//!     assert!(network.cost([224, 224], instance)?.share(&full) <= 1.0);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Training
//!
//! A [`TrainPlan`](train::TrainPlan) has a default for every setting. The run
//! can be resumed from its folder, which also gets the model file.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use sdpoint::data::{OpenOptions, Source, open_pair};
//! use sdpoint::train::{Run, Silent, TrainPlan};
//! use sdpoint::{Context, zoo};
//!
//! let photos = Source::Folder("photos".into());
//! let (train, test) = open_pair(&photos, &OpenOptions::default())?;
//! let network = zoo::build("wrn16-4", train.classes().len())?;
//! let plan = TrainPlan::new(network, &train)?.with_epochs(60).with_seed(1);
//!
//! let ctx = Arc::new(Context::new(None)?);
//! let run = Run::new(&ctx, &train, &test, "runs/photos".as_ref());
//! let finished = run.start(plan, &mut Silent)?.finished();
//! for record in finished.expect("nothing stops it").model.instances {
//!     println!("{}: {} MACs, top-1 {:?}", record.instance, record.macs, record.top1);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Calibration
//!
//! A trained model gets instances for other ratios without training: each needs
//! batch-norm statistics from some training images.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use sdpoint::core::Ratio;
//! use sdpoint::data::{OpenOptions, Source, Split, open};
//! use sdpoint::train::{CalibrateOptions, Silent, calibrate_model};
//! use sdpoint::{Context, Model};
//!
//! let mut model = Model::load("model.safetensors")?;
//! let photos = Source::Folder("photos".into());
//! let images = open(&photos, Split::Train, &OpenOptions::default())?;
//!
//! let mut instances = model.network.instances(&[Ratio::new(0.35)?, Ratio::new(0.6)?]);
//! instances.retain(|&instance| model.record(instance).is_none());
//! let ctx = Arc::new(Context::new(None)?);
//! let options = CalibrateOptions::new(&instances);
//! calibrate_model(&ctx, &mut model, &images, options, &mut Silent)?;
//! model.save("model.safetensors")?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Weights from PyTorch, and back
//!
//! [`exchange`] reads a checkpoint without running any code in it. The imported
//! network has the single instance `full`; calibration adds others.
//!
//! ```no_run
//! use sdpoint::data::imagenet_preprocessing;
//! use sdpoint::exchange::{Checkpoint, import, onnx};
//! use sdpoint::{Instance, Model, zoo};
//!
//! // torch.save(torchvision.models.resnet18(weights="DEFAULT").state_dict(), "resnet18.pth")
//! let checkpoint = Checkpoint::open("resnet18.pth")?;
//! let imported = import(&checkpoint, &zoo::build("resnet18", 1000)?)?;
//!
//! let (network, weights) = (imported.network, imported.weights);
//! let mut model = Model::new(network, weights, imagenet_preprocessing(), &[Instance::Full])?;
//! model.statistics = imported.statistics;
//! model.training = serde_json::json!({"imported": "resnet18.pth"});
//! model.save("resnet18.safetensors")?;
//! std::fs::write("resnet18.onnx", onnx(&model, Instance::Full)?)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Cascades
//!
//! A cascade runs a cheap instance on all images, and a costlier one on those
//! that the first is unsure of. [`train::fit_combinations`] and
//! `sdpoint calibrate --cascade` fit cascades and store them in the model.
//!
//! ```no_run
//! use sdpoint::Engine;
//! use sdpoint::core::Cascade;
//!
//! let engine = Engine::load("model.safetensors")?;
//! let photos = ["a.jpg", "b.jpg"].map(std::fs::read);
//! let photos = engine.decode(photos.into_iter().collect::<Result<Vec<_>, _>>()?)?;
//!
//! // The fitted cascade for a mean cost of 40 % of the full network,
//! let fitted = engine.choose_cascade(0.4)?;
//! let answer = engine.run_combination(&photos, &fitted.combination)?;
//! for image in 0..answer.predictions.len() {
//!     let best = &answer.predictions.top(image, 1)[0];
//!     println!("{} by {}", best.class, answer.instances.image(image)[0]);
//! }
//! println!("{:.0} MACs per image in {:?}", answer.macs, answer.time);
//!
//! // or one of your own.
//! let cascade = Cascade {
//!     first: "0@0.5".parse()?,
//!     second: "full".parse()?,
//!     threshold: 0.8,
//! };
//! println!("{}", engine.run_cascade(&photos, &cascade)?.instances);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # A network of your own
//!
//! A network is a list of layers with PyTorch's parameter names. A point may be
//! at any layer through whose output alone later layers see earlier ones.
//!
//! ```
//! use sdpoint::core::{Conv, NetworkBuilder, Op, PointId, Ratio};
//! use sdpoint::Instance;
//!
//! let mut b = NetworkBuilder::new("tiny", 3);
//! let x = b.conv("conv1", b.input(), Conv::square(3, 16, 3, 1));
//! let x = b.batch_norm("bn1", x, 16);
//! let mut x = b.relu("relu1", x);
//! for block in 0..2 {
//!     let name = |layer: &str| format!("blocks.{block}.{layer}");
//!     let y = b.conv(name("conv"), x, Conv::square(16, 16, 3, 1));
//!     let y = b.batch_norm(name("bn"), y, 16);
//!     x = b.add(name("add"), x, y);
//!     b.point(PointId::Block(block), x);
//!     x = b.relu(name("relu"), x);
//! }
//! let x = b.layer("pool", Op::GlobalAvgPool, &[x]);
//! let linear = Op::Linear { in_features: 16, out_features: 10, bias: true };
//! b.layer("fc", linear, &[x]);
//! let network = b.finish()?;
//!
//! let half = "0@0.5".parse()?;
//! assert!(network.instances(&Ratio::DEFAULT).contains(&half));
//! let [full, half] = [Instance::Full, half].map(|i| network.cost([32, 32], i).unwrap());
//! assert!(half.macs < full.macs);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Tensors of your own
//!
//! [`Images`] borrows a batch of f32 values in NHWC order, normalised as the
//! model's preprocessing says. The height and the width need not be those of
//! the preprocessing.
//!
//! ```no_run
//! use sdpoint::{Engine, Images, Instance};
//!
//! let engine = Engine::load("model.safetensors")?;
//! let (batch, size) = (2, [48, 64]);
//! let pixels = vec![0.0; batch * size[0] * size[1] * engine.network().input_channels()];
//! let images = Images { data: &pixels, batch, size };
//! let answer = engine.run(images, Instance::Full)?;
//! assert_eq!(answer.predictions.logits(1).len(), engine.classes().len());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod runtime;

pub use runtime::{
    Answer, AnsweredBy, Crossing, Decision, Engine, Guess, Inputs, LoadError, Pace, Predictions,
    Progress, RunError, Timetable, Way, profile,
};
pub use sdpoint_core::{
    Budget, BudgetError, Choice, Instance, InstanceError, Model, ModelError, Network, NetworkError,
    SelectError, ShapeError, zoo,
};
pub use sdpoint_data::{DataError, Image, ImageError};
pub use sdpoint_engine::{Context, ContextError, EngineError, Images};

/// Networks as data, their cost, the choice of an instance, and what a model
/// file holds; see also the top level and [`zoo`].
pub mod core {
    pub use sdpoint_core::{
        BlendedCascade, Cascade, Combination, CombinedRecord, Conv, Cost, CropError, EvalTransform,
        ExifOrientation, FORMAT_VERSION, Feature, HeldOut, Interpolation, KeptImage, Layer,
        LayerId, MAX_SIDE, Misfit, Moments, NetworkBuilder, Norm, Op, OwnParameters, Parameter,
        Point, PointId, Preprocessing, Ratio, RatioError, Reason, Record, Role, Scores, Shape,
        Shapes, Stage, Statistics, Times, TrainTransform, Weights, Window, atomic, digest, file,
        format_duration, format_macs, pareto, parse_accuracy, parse_duration, parse_macs, seal,
        select, select_combined, select_timed, words,
    };
}

/// Sources of images, decoding, augmentation, and loading ahead of the trainer.
pub mod data {
    pub use sdpoint_data::{
        Augmentation, AugmentationError, Batch, CHANNELS, CifarKind, Count, Dataset, Epoch,
        Fetched, HoldOut, ImageKind, LeftOut, Loader, MAX_FILE, MAX_PIXELS, MAX_SIDE, Mixed,
        OFFICIAL_ADDRESS, OpenOptions, Orientation, Places, Preparer, Sample, Sizes, Source, Split,
        decode, default_preprocessing, epoch_order, expand_home, fetch, image_size,
        imagenet_preprocessing, look_alike, open, open_pair, prepare, read_file, small_png,
        visible_name,
    };
}

/// The layer below [`Engine`]: inference, training steps and
/// calibration of batch-norm statistics for any instance of a network.
pub mod engine {
    pub use sdpoint_engine::{
        AlgorithmChoice, Branch, BranchedInput, BranchedOutcome, Calibrator, ConvAlgorithm,
        Distillation, InferenceEngine, InstanceMacs, Isa, Noise, NormSource, Packing, PartialRun,
        Pass, Sgd, SgdOptions, SgdStep, SharedMacs, StepInput, StepOutcome, StepTime, Target,
        TrainingEngine, TuningInput, WinogradTile, blend, confidences, cross_entropy,
        initial_weights, log_mean_probabilities, log_softmax, margins, peak_gflops,
        release_freed_memory, return_freed_blocks_from, softmax, top_k,
    };
}

#[doc(inline)]
pub use sdpoint_exchange as exchange;
#[doc(inline)]
pub use sdpoint_train as train;

/// Compiles the examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

/// Compiles the examples of `docs/runtime.md`.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/runtime.md")]
struct Runtime;
