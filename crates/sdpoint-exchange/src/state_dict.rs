//! Export of weights and statistics for PyTorch's `load_state_dict`.

use std::collections::BTreeMap;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, serialize};
use sdpoint_core::seal::{BLANK, SEAL, seal};
use sdpoint_core::{Instance, Model, Moments};

use crate::error::ExportError;
use crate::preprocessing::ExportedPreprocessing;

/// The batch-norm statistics in a state dict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StatisticsOf {
    /// Those of one instance, as in an ordinary network.
    One(Instance),
    /// Those of all instances, for the module that [`python`](crate::python())
    /// writes: in addition to those of `full`, each batch norm `X` has
    /// `X.instance_mean` and `X.instance_var` with one row for each instance
    /// whose point precedes it, in the order of points and ratios.
    All,
}

/// The instances that have statistics of their own, in the order of their
/// points and ratios.
pub(crate) fn instances(model: &Model) -> Vec<Instance> {
    let records = model.instances.iter().map(|record| record.instance);
    let mut instances: Vec<Instance> = records.filter(|i| *i != Instance::Full).collect();
    instances.sort();
    instances
}

/// A model's parameters and statistics as a safetensors file with PyTorch's
/// names and shapes.
///
/// The metadata has, as JSON unless it is plain text: `network`, the `instances`
/// whose statistics are included, `classes`, `preprocessing`, and a
/// [seal](sdpoint_core::seal). The same model gives the same bytes.
///
/// # Errors
/// If the model does not have the instance.
pub fn state_dict(model: &Model, of: StatisticsOf) -> Result<Vec<u8>, ExportError> {
    let network = &model.network;
    let (first, rows) = match of {
        StatisticsOf::One(instance) => (instance, Vec::new()),
        StatisticsOf::All => (Instance::Full, instances(model)),
    };
    let mut tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
    for (parameter, values) in std::iter::zip(network.parameters(), &model.weights.0) {
        tensors.push((
            parameter.name.clone(),
            Dtype::F32,
            parameter.shape.clone(),
            bytes([values.as_slice()]),
        ));
    }
    for (index, norm) in network.norms().iter().enumerate() {
        let moments = |instance| {
            let moments = model.statistics.get(instance, index);
            moments.ok_or(ExportError::NoInstance(instance))
        };
        let mut push = |kind: &str, shape: Vec<usize>, bytes: Vec<u8>| {
            tensors.push((format!("{}.{kind}", norm.name), Dtype::F32, shape, bytes));
        };
        let one = moments(first)?;
        push(
            "running_mean",
            vec![norm.channels],
            bytes([one.mean.as_slice()]),
        );
        push(
            "running_var",
            vec![norm.channels],
            bytes([one.var.as_slice()]),
        );
        let own = rows
            .iter()
            .filter(|&&row| network.own_norms(row).contains(&index));
        let own: Vec<&Moments> = own.map(|&row| moments(row)).collect::<Result<_, _>>()?;
        if !own.is_empty() {
            let shape = vec![own.len(), norm.channels];
            let mean = bytes(own.iter().map(|moments| moments.mean.as_slice()));
            push("instance_mean", shape.clone(), mean);
            push(
                "instance_var",
                shape,
                bytes(own.iter().map(|moments| moments.var.as_slice())),
            );
        }
        let counter = format!("{}.num_batches_tracked", norm.name);
        tensors.push((counter, Dtype::I64, Vec::new(), vec![0; 8]));
    }
    let views = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| {
            Ok((name, TensorView::new(*dtype, shape.clone(), bytes)?))
        })
        .collect::<Result<Vec<_>, ExportError>>()?;
    let mut named = vec![first.to_string()];
    named.extend(rows.iter().map(Instance::to_string));
    let metadata = BTreeMap::from([
        (SEAL, BLANK.into()),
        ("format", "pt".into()),
        ("network", network.name().to_owned()),
        ("instances", serde_json::to_string(&named)?),
        ("classes", serde_json::to_string(&model.classes)?),
        (
            "preprocessing",
            serde_json::to_string(&ExportedPreprocessing::from(&model.preprocessing))?,
        ),
    ]);
    let mut file = with_metadata(&serialize(views, None)?, &metadata)?;
    seal(&mut file);
    Ok(file)
}

/// A safetensors file without metadata, with these. The crate writes them in
/// another order each time.
fn with_metadata(file: &[u8], metadata: &BTreeMap<&str, String>) -> Result<Vec<u8>, ExportError> {
    let (length, rest) = file.split_first_chunk::<8>().unwrap_or((&[0; 8], &[]));
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    // The header is an object of tensors, followed by spaces.
    let tensors = header.trim_ascii().strip_prefix(b"{").unwrap_or_default();
    let comma: &[u8] = if tensors == b"}" { b"" } else { b"," };
    let metadata = serde_json::to_vec(metadata)?;
    let mut header = [b"{\"__metadata__\":", &metadata[..], comma, tensors].concat();
    header.resize(header.len().next_multiple_of(8), b' ');
    let length = (header.len() as u64).to_le_bytes();
    Ok([&length[..], &header, data].concat())
}

fn bytes<'a>(rows: impl IntoIterator<Item = &'a [f32]>) -> Vec<u8> {
    let values = rows.into_iter().flatten();
    values.flat_map(|value| value.to_le_bytes()).collect()
}
