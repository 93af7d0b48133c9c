//! Export of weights and statistics for PyTorch's `load_state_dict`.

use std::collections::BTreeMap;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, serialize};
use sdpoint_core::seal::{BLANK, SEAL, seal};
use sdpoint_core::{Instance, LayerId, Model, Moments, Role};

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
    /// whose point precedes it, in the order of points and ratios. If an instance
    /// has parameters of its own, each such batch norm also has `X.instance_weight`
    /// and `X.instance_bias`, and the classifier `X.instance_bias`, with the same
    /// rows; those of other instances repeat the shared ones.
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

/// The parameter of a layer with this role, as an index into
/// [`Network::parameters`](sdpoint_core::Network::parameters).
fn parameter(model: &Model, layer: LayerId, role: Role) -> Option<usize> {
    let mut parameters = model.network.parameters().iter();
    parameters.position(|parameter| parameter.layer == layer && parameter.role == role)
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
    // The values of a parameter in some instances, one row each.
    let in_rows = |index: usize, rows: &[Instance]| {
        let values = rows.iter();
        bytes(values.map(|&row| model.statistics.parameter(&model.weights, row, index)))
    };
    let tuned = rows
        .iter()
        .any(|&row| model.statistics.parameters(row).is_some());
    for (index, parameter) in network.parameters().iter().enumerate() {
        tensors.push((
            parameter.name.clone(),
            Dtype::F32,
            parameter.shape.clone(),
            in_rows(index, &[first]),
        ));
    }
    let classifier = LayerId(network.layers().len() - 1);
    if let Some(bias) = parameter(model, classifier, Role::Bias).filter(|_| tuned) {
        tensors.push((
            format!("{}.instance_bias", network.layer(classifier).name),
            Dtype::F32,
            vec![rows.len(), network.classes()],
            in_rows(bias, &rows),
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
        let behind = rows.iter().copied();
        let behind: Vec<Instance> = behind
            .filter(|&row| network.own_norms(row).contains(&index))
            .collect();
        let own = behind.iter().map(|&row| moments(row));
        let own: Vec<&Moments> = own.collect::<Result<_, _>>()?;
        if !own.is_empty() {
            let shape = vec![own.len(), norm.channels];
            let mean = bytes(own.iter().map(|moments| moments.mean.as_slice()));
            push("instance_mean", shape.clone(), mean);
            push(
                "instance_var",
                shape.clone(),
                bytes(own.iter().map(|moments| moments.var.as_slice())),
            );
            let parameters = [
                ("instance_weight", Role::NormScale),
                ("instance_bias", Role::NormShift),
            ];
            for (kind, role) in parameters.into_iter().filter(|_| tuned) {
                let index = parameter(model, norm.layer, role).expect("a norm has both");
                push(kind, shape.clone(), in_rows(index, &behind));
            }
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
