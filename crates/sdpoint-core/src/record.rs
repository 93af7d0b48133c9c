//! The recorded cost and accuracy of an instance.

use serde::{Deserialize, Serialize};

use crate::instance::Instance;

/// The cost and the measured accuracy of an instance of a trained network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The instance.
    pub instance: Instance,
    /// Multiply-accumulates for one image of the preprocessing's size.
    pub macs: u64,
    /// Top-1 accuracy on the test images, from 0 to 1, if measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top1: Option<f64>,
    /// Top-5 accuracy on the test images, from 0 to 1, if measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top5: Option<f64>,
    /// Mean cross-entropy on the test images, in nats, if measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
}

impl Record {
    /// A record of an instance that has not been evaluated.
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
