//! The network to measure, with weights and statistics.

use std::sync::Arc;

use sdpoint::core::{Ratio, Statistics, Weights};
use sdpoint::engine::initial_weights;
use sdpoint::{Instance, Network, zoo};

use super::Args;
use crate::failure::Failure;
use crate::instances::usual_classes;
use crate::model;

pub struct Subject {
    pub network: Arc<Network>,
    pub weights: Weights,
    /// The batch-norm statistics of the instances to measure, and of `full`.
    pub statistics: Statistics,
    pub input: [usize; 2],
    pub instances: Vec<Instance>,
}

impl Subject {
    pub fn new(args: &Args) -> Result<Self, Failure> {
        match (&args.which.model, &args.which.network) {
            (Some(path), _) => {
                let model = model::load(path)?;
                Ok(Self {
                    instances: model::listed(&model, args.instances.names())?,
                    input: args.input.unwrap_or(model.preprocessing.size),
                    network: Arc::new(model.network),
                    weights: model.weights,
                    statistics: model.statistics,
                })
            }
            (None, Some(name)) => by_name(args, name),
            (None, None) => unreachable!("one of the group is required"),
        }
    }
}

fn by_name(args: &Args, name: &str) -> Result<Subject, Failure> {
    let side = zoo::input_size(name)?;
    let network = zoo::build(name, args.classes.unwrap_or(usual_classes(side)))?;
    let instances = match args.instances.names() {
        [] => network.instances(&Ratio::DEFAULT),
        names => names.to_vec(),
    };
    Ok(Subject {
        input: args.input.unwrap_or([side; 2]),
        weights: initial_weights(&network, 0),
        statistics: Statistics::identity_for(&network, &instances),
        network: Arc::new(network),
        instances,
    })
}
