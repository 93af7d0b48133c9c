//! The recorded cost and accuracy of an instance.

use serde::{Deserialize, Serialize};

use crate::instance::Instance;

/// Accuracies on some images.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scores {
    /// Top-1 accuracy, from 0 to 1.
    pub top1: f64,
    /// Top-5 accuracy, from 0 to 1.
    pub top5: f64,
    /// Mean cross-entropy, in nats.
    pub loss: f64,
}

/// The cost and the measured accuracy of an instance of a trained network.
///
/// Budgets and servers choose instances by [`top1`](Self::top1), so that it must
/// not come from the images that the choice is judged by: if images were held
/// out of training ([`HeldOut`](crate::HeldOut)), it is their accuracy, and that
/// of the test images is in [`test`](Self::test).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The instance.
    pub instance: Instance,
    /// Multiply-accumulates for one image of the preprocessing's size.
    pub macs: u64,
    /// Top-1 accuracy on the images held out of training, or, if there are none, on
    /// the test images; from 0 to 1, if measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top1: Option<f64>,
    /// Top-5 accuracy on the same images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top5: Option<f64>,
    /// Mean cross-entropy on the same images, in nats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// Accuracies on the test images, for reports only, if the others are those
    /// of held-out images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<Scores>,
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
            test: None,
        }
    }

    /// The accuracies by which instances are chosen, if measured.
    pub fn scores(&self) -> Option<Scores> {
        Some(Scores {
            top1: self.top1?,
            top5: self.top5?,
            loss: self.loss?,
        })
    }

    /// The accuracies to report: those on the test images, unless only others
    /// are known.
    pub fn reported(&self) -> Option<Scores> {
        self.test.or_else(|| self.scores())
    }
}
