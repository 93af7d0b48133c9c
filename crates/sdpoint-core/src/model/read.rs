//! Reading of model files, which may be damaged or malicious.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::io::{self, BufReader, Read};
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::TensorInfo;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use sha2::{Digest, Sha256};

use super::document::{BLANK_DIGEST, Document, Envelope, KEY, MAX_HEADER, digest_place};
use super::hashed::{HashedReader, PIECE, read_hashed};
use super::layout::{self, Slot};
use super::{FORMAT_VERSION, Feature, Misfit, Model, ModelError, check, feature};
use crate::file::{self, FileError};
use crate::instance::Instance;
use crate::network::Network;

/// A header of a safetensors file, in the order of its text.
struct Header {
    metadata: BTreeMap<String, String>,
    tensors: Vec<(String, TensorInfo)>,
}

/// A tensor of the file.
struct Stored {
    shape: Vec<usize>,
    values: Vec<f32>,
    /// Whether the values can be any of a model.
    checked: Result<(), Misfit>,
    used: bool,
}

/// Takes parameters as [`Model::load_passing`] passes them.
pub(super) type Take<'a> = &'a mut dyn FnMut(&Network, usize, &[f32]) -> bool;

pub(super) fn load(path: &Path, take: Take<'_>) -> Result<Model, ModelError> {
    let unreadable = |source| ModelError::Read {
        path: path.to_owned(),
        source,
    };
    let (file, len) = file::open(path).map_err(|error| match error {
        FileError::Io(error) => unreadable(error),
        error => ModelError::NotSafetensors {
            path: path.to_owned(),
            problem: format!("it {error}"),
        },
    })?;
    read(path, len, BufReader::new(file), take)
}

/// Reads a model from a file of `size` bytes.
pub(super) fn read(
    path: &Path,
    size: u64,
    mut file: impl Read,
    take: Take<'_>,
) -> Result<Model, ModelError> {
    let unreadable = |source| ModelError::Read {
        path: path.to_owned(),
        source,
    };
    let not_safetensors = |problem: String| ModelError::NotSafetensors {
        path: path.to_owned(),
        problem,
    };
    let malformed = |problem: String| ModelError::Malformed {
        path: path.to_owned(),
        problem,
    };
    let altered = || ModelError::Altered {
        path: path.to_owned(),
    };
    let truncated = |expected: u64| ModelError::Truncated {
        path: path.to_owned(),
        size,
        expected,
    };

    let mut start =
        read_header(&mut file, size)
            .map_err(unreadable)?
            .map_err(|fault| match fault {
                HeaderFault::Short(expected) => truncated(expected),
                HeaderFault::Foreign => not_safetensors("it does not start with a header".into()),
            })?;
    let header: Header = serde_json::from_slice(&start[8..])
        .map_err(|_| not_safetensors("its header is not one of safetensors".into()))?;
    let Some(document) = header.metadata.get(KEY) else {
        return Err(ModelError::Foreign {
            path: path.to_owned(),
        });
    };
    let envelope: Envelope =
        serde_json::from_str(document).map_err(|error| malformed(error.to_string()))?;
    if envelope.version > u64::from(FORMAT_VERSION) {
        return Err(ModelError::Newer {
            path: path.to_owned(),
            version: envelope.version,
        });
    }
    let listed: BTreeSet<String> = match envelope.features {
        serde_json::Value::Null => BTreeSet::new(),
        features => serde_json::from_value(features)
            .map_err(|error| malformed(format!("`features` is no list of names: {error}")))?,
    };
    let unknown: Vec<String> = listed
        .into_iter()
        .filter(|name| !Feature::ALL.iter().any(|known| known.name() == name))
        .collect();
    if !unknown.is_empty() {
        return Err(ModelError::Features {
            path: path.to_owned(),
            features: unknown,
        });
    }
    let tensors = in_file_order(header.tensors).map_err(not_safetensors)?;
    let data = tensors.last().map_or(0, |(_, info)| info.data_offsets.1) as u64;
    let expected = data.saturating_add(start.len() as u64);
    if size < expected {
        return Err(truncated(expected));
    }
    if size > expected {
        let more = size - expected;
        return Err(not_safetensors(format!("{more} bytes follow its end")));
    }
    file::check_memory(size).map_err(|error| unreadable(error.into()))?;

    let place = digest_place(&start, &envelope.sha256)
        .filter(|place| place.len() == BLANK_DIGEST.len())
        .ok_or_else(altered)?;
    start[place].copy_from_slice(BLANK_DIGEST.as_bytes());
    let mut hasher = Sha256::new();
    hasher.update(&start);
    // Its errors wait for the digest: an altered file is reported as such.
    let document: Result<Document, ModelError> = serde_json::from_str(document)
        .map_err(|error| malformed(error.to_string()))
        .and_then(|document| {
            features_are_named(&document).map_err(malformed)?;
            Ok(document)
        });
    let mut passing = Passing::new(document.as_ref().ok(), take);
    let mut stored = HashMap::with_capacity(tensors.len());
    let (twice, digest) = read_hashed(&mut file, data, hasher, |data| {
        // The memory of large parameters that were taken, for the next ones.
        let mut spare = Vec::new();
        for (name, info) in tensors {
            let large = info.data_offsets.1 - info.data_offsets.0 >= PIECE;
            let memory = if large {
                std::mem::take(&mut spare)
            } else {
                Vec::new()
            };
            let (mut values, checked) = read_values(data, &name, &info, memory)?;
            if checked.is_ok() && passing.pass(&name, &info.shape, &values) {
                let memory = std::mem::take(&mut values);
                if large {
                    spare = memory;
                }
            } else {
                values.shrink_to_fit();
            }
            let tensor = Stored {
                shape: info.shape,
                values,
                checked,
                used: false,
            };
            if stored.insert(name.clone(), tensor).is_some() {
                return Ok(Some(name));
            }
        }
        Ok(None)
    });
    if let Some(name) = twice.map_err(unreadable)? {
        return Err(not_safetensors(format!("it has two tensors '{name}'")));
    }
    if digest != envelope.sha256 {
        return Err(altered());
    }

    fit(document?, stored).map_err(|misfit| ModelError::Misfit {
        path: path.to_owned(),
        misfit,
    })
}

/// Passes the parameters of a network on, each when it is read.
struct Passing<'a> {
    /// The network and the indices of its parameters by name; `None` if it cannot be one.
    network: Option<(&'a Network, HashMap<&'a str, usize>)>,
    take: Take<'a>,
}

impl<'a> Passing<'a> {
    fn new(document: Option<&'a Document>, take: Take<'a>) -> Self {
        let network = document.map(|document| {
            let parameters = document.network.parameters().iter().enumerate();
            let named = parameters.map(|(index, parameter)| (parameter.name.as_str(), index));
            (&document.network, named.collect())
        });
        Passing { network, take }
    }

    /// Passes a tensor on if it is a parameter, and returns whether it was taken.
    fn pass(&mut self, name: &str, shape: &[usize], values: &[f32]) -> bool {
        let Some((network, indices)) = &self.network else {
            return false;
        };
        indices.get(name).is_some_and(|&index| {
            network.parameters()[index].shape == shape && (self.take)(network, index, values)
        })
    }
}

/// Checks that the document has only features that it lists or that its version
/// includes.
fn features_are_named(document: &Document) -> Result<(), String> {
    let version = document.version;
    if version == 0 {
        return Err(format!("there is no version {version}"));
    }
    if version < 3 && !document.features.is_empty() {
        return Err(format!("version {version} names no features"));
    }
    let used = feature::used(
        &document.network,
        &document.preprocessing,
        feature::Parts {
            combinations: &document.combinations,
            held_out: document.held_out.is_some(),
            own_parameters: !document.own_parameters.is_empty(),
            samples: !document.samples.is_empty(),
        },
    );
    let unnamed = used
        .iter()
        .find(|feature| !document.features.contains(feature) && !feature.is_part_of(version));
    match unnamed {
        None => features_are_used(&document.features, &used),
        Some(feature) if version < 3 => Err(format!("version {version} has no {}", feature.name())),
        Some(feature) => Err(format!("it does not name its feature {}", feature.name())),
    }
}

/// Checks that the features that a document lists are those that it uses, each once.
fn features_are_used(listed: &[Feature], used: &[Feature]) -> Result<(), String> {
    for (place, feature) in listed.iter().enumerate() {
        let name = feature.name();
        if listed[..place].contains(feature) {
            return Err(format!("it names the feature {name} twice"));
        }
        if !used.contains(feature) {
            return Err(format!(
                "it names the feature {name}, which it does not have"
            ));
        }
    }
    Ok(())
}

/// Why the header cannot be read.
enum HeaderFault {
    /// The file ends within the header; the size that it should have at least.
    Short(u64),
    /// The file does not start with a header.
    Foreign,
}

/// The file up to the tensors' data: the header's length and the header.
fn read_header(file: &mut impl Read, size: u64) -> io::Result<Result<Vec<u8>, HeaderFault>> {
    if size < 8 {
        return Ok(Err(HeaderFault::Short(8)));
    }
    let mut length = [0; 8];
    file.read_exact(&mut length)?;
    let header = u64::from_le_bytes(length);
    let mut first = [b'{'];
    if size > 8 {
        file.read_exact(&mut first)?;
    }
    if header == 0 || header > MAX_HEADER || first != [b'{'] {
        return Ok(Err(HeaderFault::Foreign));
    }
    if size < 8 + header {
        return Ok(Err(HeaderFault::Short(8 + header)));
    }
    let mut start = vec![0; 8 + header as usize];
    start[..8].copy_from_slice(&length);
    start[8] = first[0];
    file.read_exact(&mut start[9..])?;
    Ok(Ok(start))
}

/// Sorts the tensors by their offset in the file, and checks that they fill it
/// without gaps and overlaps and have the bytes that their shapes need.
fn in_file_order(
    mut tensors: Vec<(String, TensorInfo)>,
) -> Result<Vec<(String, TensorInfo)>, String> {
    tensors.sort_by_key(|(_, info)| info.data_offsets);
    let mut end = 0usize;
    for (name, info) in &tensors {
        if info.dtype != Dtype::F32 {
            return Err(format!(
                "tensor '{name}' holds {}, but models hold F32",
                info.dtype
            ));
        }
        let bytes = info
            .shape
            .iter()
            .try_fold(size_of::<f32>(), |bytes, &side| bytes.checked_mul(side));
        let (from, to) = info.data_offsets;
        if from != end || to.checked_sub(from) != bytes {
            return Err(format!(
                "tensor '{name}' has shape {:?} but lies at bytes {from} to {to}",
                info.shape
            ));
        }
        end = to;
    }
    Ok(tensors)
}

/// Reads a tensor into the memory of `values`, piece by piece, so that its bytes are never in
/// memory as a whole besides. Checks the values while they are in the cache.
fn read_values(
    data: &mut HashedReader<'_>,
    name: &str,
    info: &TensorInfo,
    mut values: Vec<f32>,
) -> io::Result<(Vec<f32>, Result<(), Misfit>)> {
    let (from, to) = info.data_offsets;
    values.clear();
    values.reserve_exact((to - from) / size_of::<f32>());
    let mut checked = Ok(());
    let mut left = to - from;
    while left > 0 {
        let piece = data.read(left)?;
        left -= piece.len();
        let (floats, _) = piece.as_chunks::<4>();
        let read = values.len();
        values.extend(floats.iter().map(|&value| f32::from_le_bytes(value)));
        checked = checked.and_then(|()| check::values(name, &values[read..]));
    }
    Ok((values, checked))
}

/// Assembles a model from a description and tensors, if they are consistent.
fn fit(document: Document, mut stored: HashMap<String, Stored>) -> Result<Model, Misfit> {
    let Document {
        network,
        classes,
        preprocessing,
        instances,
        combinations,
        held_out,
        own_parameters: tuned,
        samples,
        training,
        ..
    } = document;
    check::description(&network, &classes, &preprocessing, &instances)?;
    check::combinations(&instances, &combinations)?;
    check::held_out(held_out, &instances, &combinations)?;
    check::own_parameters(&instances, &tuned)?;
    check::samples(&classes, &samples)?;
    let listed: Vec<Instance> = instances.iter().map(|record| record.instance).collect();
    let mut values = Vec::new();
    for Slot { name, shape } in layout::slots(&network, &listed, &tuned) {
        let Some(tensor) = stored.get_mut(&name) else {
            return Err(missing(name, &stored, &listed));
        };
        if tensor.shape != shape {
            return Err(Misfit::TensorShape {
                tensor: name,
                found: tensor.shape.clone(),
                expected: shape,
            });
        }
        std::mem::replace(&mut tensor.checked, Ok(()))?;
        tensor.used = true;
        values.push(std::mem::take(&mut tensor.values));
    }
    stored.retain(|_, tensor| !tensor.used);
    let count = stored.len();
    if let Some(tensor) = stored.into_keys().min() {
        return Err(Misfit::LeftOver { tensor, count });
    }
    let (weights, statistics) = layout::assemble(&network, &listed, &tuned, values);
    Ok(Model {
        network,
        weights,
        statistics,
        classes,
        preprocessing,
        instances,
        combinations,
        held_out,
        samples,
        training,
    })
}

/// The error for a missing tensor: whether it is the only one, or all statistics
/// of its instance are missing.
fn missing(name: String, stored: &HashMap<String, Stored>, listed: &[Instance]) -> Misfit {
    let without = listed.iter().find(|&&instance| {
        let prefix = layout::prefix(instance);
        instance != Instance::Full
            && name.starts_with(&prefix)
            && !stored.keys().any(|other| other.starts_with(&prefix))
    });
    match without {
        Some(&instance) => Misfit::NoStatistics(instance),
        None => Misfit::Missing(name),
    }
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a header of named tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let mut header = Header {
                    metadata: BTreeMap::new(),
                    tensors: Vec::new(),
                };
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        header.metadata = map.next_value()?;
                    } else {
                        header.tensors.push((name, map.next_value()?));
                    }
                }
                Ok(header)
            }
        }

        deserializer.deserialize_map(Entries)
    }
}
