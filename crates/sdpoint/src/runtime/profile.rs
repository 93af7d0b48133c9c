//! Measured latencies of a model's instances, stored next to the model.
//!
//! [`Engine::measure`] makes a [`BatchProfile`], [`Profile::save_beside`] keeps
//! it, and [`Engine::load`] uses it; `sdpoint profile MODEL --save` does the
//! first two.

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use sdpoint_core::atomic::write_atomically;
use sdpoint_core::file::{self, FileError};
use sdpoint_core::{Instance, Network, PointId, Record};
use serde::{Deserialize, Serialize};

pub use super::machine::Machine;

use super::Engine;

/// The version of the file format.
const VERSION: u32 = 1;

/// The largest profile that is read, 64 MiB: enough for thousands of instances
/// on dozens of machines.
const MAX_BYTES: u64 = 64 << 20;

/// A lower bound on measured times, in seconds, so that none is zero.
pub(super) const LEAST_TIME: f64 = 1e-9;

/// Measured latencies of a model's instances, for each machine that measured
/// them. `docs/runtime.md` describes the file format.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    version: u32,
    /// The network's name.
    network: String,
    /// Height and width of the images.
    input: [usize; 2],
    machines: Vec<Measured>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Measured {
    machine: Machine,
    batches: Vec<BatchProfile>,
}

/// The latencies of all instances at one batch size, on an otherwise idle
/// machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct BatchProfile {
    /// The number of images in a batch.
    pub batch: usize,
    /// The times of `full` from each point to the next; the last stretch ends at
    /// the logits.
    pub stretches: Vec<StretchTime>,
    /// The times of each instance.
    pub instances: Vec<InstanceTime>,
}

/// The time from one point to the next.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct StretchTime {
    /// The point at which the stretch ends, none for the logits. The exact end
    /// is the kernel call at which the point's instances diverge from `full`.
    pub to: Option<PointId>,
    /// The median, in seconds.
    pub median: f64,
}

/// The times of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct InstanceTime {
    /// The instance.
    pub instance: Instance,
    /// Its multiply-accumulates for one image.
    pub macs: u64,
    /// The median of a whole run, in seconds.
    pub median: f64,
    /// The 90th percentile of a whole run, in seconds.
    pub p90: f64,
    /// The median from the instance's point on, in seconds.
    pub rest: f64,
}

/// The source of the instances' latencies.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TimeSource {
    /// The profile next to the model.
    Profile,
    /// Measurement, because there is no profile: a few instances are measured
    /// on first use, and the others estimated from the MACs of their layers.
    NoProfile,
    /// Measurement, because the profile is of other machines.
    OtherMachine {
        /// The machines in the profile.
        profiled: Vec<Machine>,
    },
    /// Measurement, because the profile cannot be used, for this reason.
    Unusable(String),
}

/// A latency profile that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProfileError {
    /// The file cannot be read.
    #[error("cannot read '{}': {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The file cannot be written.
    #[error(transparent)]
    Write(io::Error),
    /// The file is not a valid profile.
    #[error("'{}' is not a valid latency profile: {problem}; measure again with `sdpoint profile --save`", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The profile belongs to another model.
    #[error(
        "the latency profile does not fit the model: {0}; measure again with `sdpoint profile --save`"
    )]
    OtherModel(String),
}

impl Profile {
    /// The path of a model file's profile: `model.profile.json` next to
    /// `model.safetensors`.
    pub fn path(model: &Path) -> PathBuf {
        model.with_extension("profile.json")
    }

    /// Reads the profile next to a model file, if there is one.
    ///
    /// # Errors
    /// If the file exists and cannot be read or is not a valid profile.
    pub fn load_beside(model: &Path) -> Result<Option<Self>, ProfileError> {
        let path = Self::path(model);
        let unreadable = |source| ProfileError::Read {
            path: path.clone(),
            source,
        };
        let bytes = match file::read(&path, MAX_BYTES) {
            Ok(bytes) => bytes,
            Err(FileError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(None);
            }
            Err(FileError::Io(error)) => return Err(unreadable(error)),
            Err(error) => {
                let problem = format!("it {error}");
                return Err(ProfileError::Malformed { path, problem });
            }
        };
        Self::parse(&bytes)
            .map(Some)
            .map_err(|problem| ProfileError::Malformed { path, problem })
    }

    /// Parses a profile and validates its times. The input is not trusted.
    ///
    /// # Errors
    /// A description of what is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let profile: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if profile.version != VERSION {
            return Err(format!("it has version {}", profile.version));
        }
        let batches = profile.machines.iter().flat_map(|machine| &machine.batches);
        for batch in batches {
            let stretches = batch.stretches.iter().map(|stretch| stretch.median);
            let instances = batch.instances.iter();
            let times = instances.flat_map(|time| [time.median, time.p90, time.rest]);
            if let Some(time) = stretches
                .chain(times)
                .find(|t| !(LEAST_TIME..1e6).contains(t))
            {
                return Err(format!("it says that something took {time} s"));
            }
        }
        Ok(profile)
    }

    /// Writes latencies measured on this machine into the profile next to a
    /// model file, and returns its path. They replace this machine's earlier
    /// ones for the same batch size; those of other machines are kept. An
    /// unusable profile is replaced.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save_beside(
        model: &Path,
        engine: &Engine,
        measured: BatchProfile,
    ) -> Result<PathBuf, ProfileError> {
        let fresh = Self {
            version: VERSION,
            network: engine.network().name().to_owned(),
            input: engine.preprocessing().size,
            machines: Vec::new(),
        };
        let there = Self::load_beside(model).ok().flatten();
        let mut profile = there
            .filter(|old| old.network == fresh.network && old.input == fresh.input)
            .unwrap_or(fresh);
        let machine = engine.machine();
        let place = profile.machines.iter().position(|m| m.machine == machine);
        let place = place.unwrap_or_else(|| {
            let batches = Vec::new();
            profile.machines.push(Measured { machine, batches });
            profile.machines.len() - 1
        });
        let batches = &mut profile.machines[place].batches;
        batches.retain(|old| old.batch != measured.batch && old.same_instances(&measured));
        batches.push(measured);
        batches.sort_by_key(|profile| profile.batch);
        let path = Self::path(model);
        write_atomically(&path, |out| {
            serde_json::to_writer_pretty(&mut *out, &profile)?;
            writeln!(out)
        })
        .map_err(ProfileError::Write)?;
        Ok(path)
    }

    /// The latencies that `machine` measured, if they cover all instances of
    /// `records`.
    pub(super) fn for_machine(
        self,
        machine: &Machine,
        network: &Network,
        input: [usize; 2],
        records: &[Record],
    ) -> Result<(Vec<BatchProfile>, TimeSource), ProfileError> {
        let other = |problem: String| Err(ProfileError::OtherModel(problem));
        if self.network != network.name() || self.input != input {
            return other(format!("it is of {} at {:?}", self.network, self.input));
        }
        let profiled = self
            .machines
            .iter()
            .map(|measured| measured.machine.clone())
            .collect();
        let found = self
            .machines
            .into_iter()
            .find(|measured| measured.machine == *machine);
        let Some(Measured { batches, .. }) = found else {
            return Ok((Vec::new(), TimeSource::OtherMachine { profiled }));
        };
        let points = network.points().iter().map(|point| Some(point.id()));
        let ends: Vec<Option<PointId>> = points.chain([None]).collect();
        for batch in &batches {
            if !batch
                .stretches
                .iter()
                .map(|stretch| stretch.to)
                .eq(ends.iter().copied())
            {
                return other("its stretches are not the network's".into());
            }
            let lacking = records.iter().find(|record| {
                let mut times = batch.instances.iter();
                !times.any(|t| t.instance == record.instance && t.macs == record.macs)
            });
            if let Some(record) = lacking {
                return other(format!("it lacks the instance {}", record.instance));
            }
        }
        Ok((batches, TimeSource::Profile))
    }
}

impl StretchTime {
    /// The median time of a stretch, in seconds. It ends at the point `to`, or at
    /// the logits.
    pub fn new(to: Option<PointId>, median: f64) -> Self {
        Self { to, median }
    }
}

impl InstanceTime {
    /// The times of an instance, in seconds, and its multiply-accumulates for one
    /// image.
    pub fn new(instance: Instance, macs: u64, median: f64, p90: f64, rest: f64) -> Self {
        Self {
            instance,
            macs,
            median,
            p90,
            rest,
        }
    }
}

impl BatchProfile {
    /// The latencies of a batch size, from measurements elsewhere or for a
    /// simulation. [`Engine::measure`] measures them.
    ///
    /// `stretches` are in execution order, one for each point of the network and a
    /// last one that ends at the logits.
    pub fn new(batch: usize, stretches: Vec<StretchTime>, instances: Vec<InstanceTime>) -> Self {
        Self {
            batch,
            stretches,
            instances,
        }
    }

    /// Whether both profiles have the same instances. Profiles from before
    /// instances were added to the model are discarded.
    fn same_instances(&self, other: &Self) -> bool {
        let names = |profile: &Self| -> Vec<Instance> {
            profile.instances.iter().map(|time| time.instance).collect()
        };
        names(self) == names(other)
    }
}

impl fmt::Display for TimeSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const ESTIMATED: &str = "a few instances were measured and the others estimated";
        match self {
            Self::Profile => f.write_str("times are from the profile beside the model"),
            Self::NoProfile => write!(f, "the model has no latency profile: {ESTIMATED}"),
            Self::OtherMachine { profiled } => {
                let names: Vec<String> = profiled.iter().map(Machine::to_string).collect();
                let names = names.join(", ");
                write!(
                    f,
                    "the latency profile is of {names}, not of this machine: {ESTIMATED}"
                )
            }
            Self::Unusable(problem) => write!(f, "{problem}; so {ESTIMATED}"),
        }
    }
}
