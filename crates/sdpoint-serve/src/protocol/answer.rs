//! The answer to an inference request, independent of the transport.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use sdpoint::engine::top_k;

use super::datatype::DataType;
use super::error::{ApiError, quoted, shared_memory};
use super::parameters::{Parameter, Parameters};
use super::request::RequestedOutput;
use super::signature::{LOGITS, PROBABILITIES};
use crate::Reply;
use crate::models::Model;

/// A requested output and its form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputPlan {
    /// The output.
    pub name: &'static str,
    /// Return only this many of the highest values, with their classes.
    pub classification: Option<usize>,
    /// Whether REST returns it as binary data after the JSON.
    pub binary: bool,
}

impl OutputPlan {
    /// The outputs that a request names, or else all.
    ///
    /// # Errors
    /// If there is no such output, or it cannot be returned in the requested form.
    pub fn read(requested: &[RequestedOutput], binary: bool) -> Result<Vec<Self>, ApiError> {
        if requested.is_empty() {
            let all = [LOGITS, PROBABILITIES].map(|name| Self {
                name,
                classification: None,
                binary,
            });
            return Ok(all.into());
        }
        let mut plans: Vec<Self> = Vec::with_capacity(2);
        for output in requested {
            let plan = Self::one(output, binary)?;
            if plans.iter().any(|other| other.name == plan.name) {
                return Err(ApiError::invalid(format!(
                    "output '{}' is requested twice",
                    plan.name
                )));
            }
            plans.push(plan);
        }
        Ok(plans)
    }

    fn one(requested: &RequestedOutput, binary: bool) -> Result<Self, ApiError> {
        let known = [LOGITS, PROBABILITIES];
        let Some(name) = known.into_iter().find(|name| *name == requested.name) else {
            return Err(ApiError::invalid(format!(
                "the model has no output {}; it has {LOGITS} and {PROBABILITIES}",
                quoted(&requested.name)
            )));
        };
        let mut plan = Self {
            name,
            classification: None,
            binary,
        };
        for (key, value) in &requested.parameters {
            match key.as_str() {
                "binary_data" => plan.binary = value.truth(key)?,
                "classification" => {
                    let k = value.count(key, 1)?;
                    plan.classification = Some(usize::try_from(k).unwrap_or(usize::MAX));
                }
                "content_type" => {}
                key if key.starts_with("shared_memory_") => return Err(shared_memory()),
                key => {
                    return Err(ApiError::invalid(format!(
                        "unknown parameter {} of an output; known ones are classification and \
                         binary_data",
                        quoted(key)
                    )));
                }
            }
        }
        Ok(plan)
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The model that answered.
    pub model: Arc<Model>,
    /// The request's id.
    pub id: Option<String>,
    /// The outputs to return.
    pub plans: Vec<OutputPlan>,
    /// What the executor computed.
    pub reply: Reply,
}

/// An output tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Output<'a> {
    /// The name.
    pub name: &'static str,
    /// The number of images, and of values or classes for each.
    pub shape: [usize; 2],
    /// The elements, image by image.
    pub values: Values<'a>,
    /// Whether REST returns it as binary data after the JSON.
    pub binary: bool,
}

/// The elements of an output tensor.
#[derive(Clone, Debug, PartialEq)]
pub enum Values<'a> {
    /// FP32.
    Floats(&'a [f32]),
    /// BYTES: `value:index:class`.
    Classes(Vec<String>),
}

impl Values<'_> {
    /// The data type.
    pub fn datatype(&self) -> DataType {
        match self {
            Self::Floats(_) => DataType::FP32,
            Self::Classes(_) => DataType::Bytes,
        }
    }

    /// Appends the elements in the protocol's binary format.
    pub fn write_raw(&self, raw: &mut Vec<u8>) {
        match self {
            Self::Floats(values) => {
                raw.reserve(4 * values.len());
                values
                    .iter()
                    .for_each(|value| raw.extend(value.to_le_bytes()));
            }
            Self::Classes(texts) => {
                for text in texts {
                    let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
                    raw.extend(length.to_le_bytes());
                    raw.extend(&text.as_bytes()[..length as usize]);
                }
            }
        }
    }
}

impl Answer {
    /// The number of images.
    pub fn images(&self) -> usize {
        self.reply.instances.len()
    }

    /// The output tensors.
    pub fn outputs(&self) -> impl Iterator<Item = Output<'_>> {
        self.plans.iter().map(|plan| {
            let values = match plan.name {
                LOGITS => &self.reply.logits,
                _ => &self.reply.probabilities,
            };
            let classes = self.model.engine.classes();
            let (width, values) = match plan.classification {
                None => (classes.len(), Values::Floats(values)),
                Some(k) => {
                    let k = k.min(classes.len());
                    (k, Values::Classes(classification(values, classes, k)))
                }
            };
            Output {
                name: plan.name,
                shape: [self.images(), width],
                values,
                binary: plan.binary,
            }
        })
    }

    /// The instance or ensemble that answered; after a cascade with several instances, a list
    /// with one per image.
    pub fn instance(&self) -> String {
        let mut groups: Vec<(String, usize)> = self.reply.answered_by().collect();
        if let [(name, _)] = &mut groups[..] {
            return std::mem::take(name);
        }
        let names = groups
            .iter()
            .flat_map(|(name, images)| std::iter::repeat_n(&**name, *images));
        names.collect::<Vec<&str>>().join(",")
    }

    /// The parameters of the answer.
    pub fn parameters(&self) -> Parameters {
        let reply = &self.reply;
        let mut parameters = Parameters::from([
            ("instance".to_owned(), Parameter::Text(self.instance())),
            ("macs".to_owned(), reply.macs.into()),
            ("queue_us".to_owned(), microseconds(reply.queued).into()),
            ("compute_us".to_owned(), microseconds(reply.computed).into()),
            ("batch".to_owned(), (reply.batch as u64).into()),
        ]);
        if let Some(accuracy) = reply.accuracy {
            parameters.insert("accuracy".to_owned(), Parameter::Double(accuracy));
        }
        parameters
    }
}

fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// The `k` highest values of each image, with their classes.
fn classification(values: &[f32], classes: &[String], k: usize) -> Vec<String> {
    let rows = values.chunks_exact(classes.len());
    rows.flat_map(|row| {
        top_k(row, k)
            .into_iter()
            .map(|label| format!("{:.6}:{label}:{}", row[label], one_line(&classes[label])))
    })
    .collect()
}

/// The name of a class without control characters; model files are not trusted.
fn one_line(name: &str) -> Cow<'_, str> {
    if name.contains(char::is_control) {
        name.replace(char::is_control, " ").into()
    } else {
        name.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requested(name: &str, parameters: &[(&str, Parameter)]) -> RequestedOutput {
        let named = parameters
            .iter()
            .map(|(key, value)| ((*key).into(), value.clone()));
        RequestedOutput {
            name: name.into(),
            parameters: named.collect(),
        }
    }

    #[test]
    fn all_outputs_are_the_default() {
        let plans = OutputPlan::read(&[], true).unwrap();
        let names: Vec<&str> = plans.iter().map(|plan| plan.name).collect();
        assert_eq!(names, [LOGITS, PROBABILITIES]);
        assert!(
            plans
                .iter()
                .all(|plan| plan.binary && plan.classification.is_none())
        );
    }

    #[test]
    fn each_output_has_its_own_form() {
        let outputs = [
            requested(PROBABILITIES, &[("classification", Parameter::Int(3))]),
            requested(LOGITS, &[("binary_data", Parameter::Bool(false))]),
        ];
        let plans = OutputPlan::read(&outputs, true).unwrap();
        assert_eq!((plans[0].classification, plans[0].binary), (Some(3), true));
        assert_eq!((plans[1].classification, plans[1].binary), (None, false));
    }

    #[test]
    fn invalid_outputs_are_refused() {
        for (output, text) in [
            (requested("softmax", &[]), "logits and probabilities"),
            (
                requested(LOGITS, &[("classification", Parameter::Int(0))]),
                "at least 1",
            ),
            (
                requested(LOGITS, &[("classification", Parameter::Int(-3))]),
                "at least 1",
            ),
            (requested(LOGITS, &[("top", Parameter::Int(3))]), "'top'"),
            (
                requested(LOGITS, &[("shared_memory_region", "a".into())]),
                "shared memory",
            ),
        ] {
            let error = OutputPlan::read(&[output], false).unwrap_err().message;
            assert!(error.contains(text), "{error}");
        }
        let twice = [requested(LOGITS, &[]), requested(LOGITS, &[])];
        assert!(OutputPlan::read(&twice, false).is_err());
    }

    #[test]
    fn classes_are_value_index_and_name() {
        let classes = ["cat", "a\ndog", "eel"].map(str::to_owned);
        let texts = classification(&[0.25, 0.5, 0.125, 3.0, -1.0, 2.0], &classes, 2);
        assert_eq!(
            texts,
            [
                "0.500000:1:a dog",
                "0.250000:0:cat",
                "3.000000:0:cat",
                "2.000000:2:eel"
            ]
        );
        let mut raw = Vec::new();
        Values::Classes(vec!["ab".into(), String::new()]).write_raw(&mut raw);
        assert_eq!(raw, b"\x02\0\0\0ab\0\0\0\0");
    }
}
