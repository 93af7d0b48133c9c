//! Triton's model configuration and statistics as messages.

use super::super::rest::triton::{batches, executions, type_name};
use super::super::signature::TensorMetadata;
use super::inference::{
    DataType, InferBatchStatistics, InferStatistics, ModelConfig, ModelInput, ModelOutput,
    ModelStatistics, StatisticDuration,
};
use crate::app::VERSION;
use crate::models::Model;
use crate::statistics::{Counts, Tally};

/// The configuration of a model. The maximum batch size is 0: shapes include the number of
/// images, and batching is up to the server.
pub fn config(model: &Model) -> ModelConfig {
    let input = |tensor: TensorMetadata| ModelInput {
        name: tensor.name.to_owned(),
        data_type: data_type(&tensor),
        dims: tensor.shape,
        // A request has exactly one of them.
        optional: true,
        ..ModelInput::default()
    };
    let output = |tensor: TensorMetadata| ModelOutput {
        name: tensor.name.to_owned(),
        data_type: data_type(&tensor),
        dims: tensor.shape,
        ..ModelOutput::default()
    };
    ModelConfig {
        name: model.name.clone(),
        platform: "sdpoint_safetensors".to_owned(),
        backend: "sdpoint".to_owned(),
        input: model.signature.inputs().map(input).into(),
        output: model.signature.outputs().map(output).into(),
        ..ModelConfig::default()
    }
}

fn data_type(tensor: &TensorMetadata) -> i32 {
    DataType::from_str_name(&type_name(tensor))
        .unwrap_or_default()
        .into()
}

/// The statistics of a model.
pub fn statistics(name: &str, counts: &Counts) -> ModelStatistics {
    let inference = InferStatistics {
        success: duration(counts.success),
        fail: duration(counts.fail),
        queue: duration(counts.queue),
        compute_input: duration(counts.input),
        compute_infer: duration(counts.compute),
        compute_output: duration(counts.output),
        cache_hit: duration(Tally::default()),
        cache_miss: duration(Tally::default()),
    };
    let batch = |(size, compute)| InferBatchStatistics {
        batch_size: size as u64,
        compute_input: duration(Tally::default()),
        compute_infer: duration(compute),
        compute_output: duration(Tally::default()),
    };
    ModelStatistics {
        name: name.to_owned(),
        version: VERSION.to_owned(),
        last_inference: counts.last_inference,
        inference_count: counts.inferences,
        execution_count: executions(counts.executions),
        inference_stats: Some(inference),
        batch_stats: batches(counts).map(batch).collect(),
        ..ModelStatistics::default()
    }
}

fn duration(tally: Tally) -> Option<StatisticDuration> {
    Some(StatisticDuration {
        count: tally.count,
        ns: tally.ns,
    })
}
