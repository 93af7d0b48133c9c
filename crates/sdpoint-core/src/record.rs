//! What is known of an instance once it has been evaluated.

use serde::{Deserialize, Serialize};

use crate::instance::Instance;

/// An instance of a trained network: what it costs and how well it does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Which instance.
    pub instance: Instance,
    /// Its multiply-accumulates for an image of the preprocessing's size.
    pub macs: u64,
    /// Share (0 to 1) of test images whose first guess is right, if measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top1: Option<f64>,
    /// Share of test images with the right class among the first five.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top5: Option<f64>,
    /// Mean cross-entropy on the test images, in nats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
}

impl Record {
    /// An instance that has not been evaluated.
    pub fn unmeasured(instance: Instance, macs: u64) -> Self {
        Self {
            instance,
            macs,
            top1: None,
            top5: None,
            loss: None,
        }
    }
}
