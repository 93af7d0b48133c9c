//! The JSON document in the metadata of a model file.

use serde::{Deserialize, Serialize};

use super::{FORMAT_VERSION, Feature, KeptImage};
use crate::combination::CombinedRecord;
use crate::held_out::HeldOut;
use crate::instance::Instance;
use crate::network::Network;
use crate::preprocessing::Preprocessing;
use crate::record::Record;

/// The longest header that the safetensors format allows, in bytes.
pub(super) const MAX_HEADER: u64 = 100_000_000;

/// The metadata key of the document.
pub(super) const KEY: &str = "sdpoint";

/// The value in place of the digest while it is computed.
pub(super) const BLANK_DIGEST: &str =
    "0000000000000000000000000000000000000000000000000000000000000000";

/// The document. The digest precedes all free text, so that its position in the
/// file can be found by searching.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    pub version: u32,
    pub sha256: String,
    /// Since version 3.
    #[serde(default)]
    pub features: Vec<Feature>,
    pub network: Network,
    pub classes: Vec<String>,
    pub preprocessing: Preprocessing,
    pub instances: Vec<Record>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub combinations: Vec<CombinedRecord>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_out: Option<HeldOut>,
    /// The instances that have parameters of their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub own_parameters: Vec<Instance>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub samples: Vec<KeptImage>,
    pub training: serde_json::Value,
}

/// The fields of every version of the document, including future ones. `features` may have another
/// form in a later one.
#[derive(Deserialize)]
pub(super) struct Envelope {
    pub version: u64,
    pub sha256: String,
    #[serde(default)]
    pub features: serde_json::Value,
}

impl Document {
    pub(super) fn of(model: &super::Model) -> Self {
        Self {
            version: FORMAT_VERSION,
            sha256: BLANK_DIGEST.into(),
            features: Feature::of(model),
            network: model.network.clone(),
            classes: model.classes.clone(),
            preprocessing: model.preprocessing.clone(),
            instances: model.instances.clone(),
            combinations: model.combinations.clone(),
            held_out: model.held_out,
            own_parameters: model.statistics.tuned().collect(),
            samples: model.samples.clone(),
            training: model.training.clone(),
        }
    }
}

/// The position of the digest in a header: its first occurrence as a string in
/// the document, which is itself a string of the header's JSON.
pub(super) fn digest_place(header: &[u8], digest: &str) -> Option<std::ops::Range<usize>> {
    let quoted = format!("\\\"{digest}\\\"");
    let start = header
        .windows(quoted.len())
        .position(|window| window == quoted.as_bytes())?;
    Some(start + 2..start + 2 + digest.len())
}
