//! Experiments: one TOML file each, parsed and checked.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// The measure of every run: `curve.csv`, where every instance has its own
/// statistics.
pub const OWN: &str = "own";

/// An experiment: methods that are trained alike, and the comparison of their
/// results.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Experiment {
    /// The name of its file, without the extension.
    #[serde(skip)]
    pub name: String,
    /// The heading of its section.
    pub title: String,
    /// Its question and method, in Markdown.
    pub about: String,
    /// The network, as `sdpoint train --network` takes it.
    pub network: String,
    /// Passes over the training images.
    pub epochs: usize,
    /// More arguments of `sdpoint train`, the same for all methods.
    #[serde(default)]
    pub arguments: Vec<String>,
    /// Whether the expected calibration error of the full networks is measured.
    #[serde(default)]
    pub calibration_error: bool,
    /// The short version on the built-in images.
    pub quick: Quick,
    /// The range of costs for areas under curves, as shares of the full network's
    /// cost.
    pub area: [f64; 2],
    /// Costs at which accuracies are listed, as shares likewise.
    pub budgets: Vec<f64>,
    /// The series that the others are compared with; its full network is what
    /// costs are shares of.
    pub baseline: String,
    /// What is trained.
    #[serde(rename = "method")]
    pub methods: Vec<Method>,
    /// What is compared.
    #[serde(default)]
    pub series: Vec<Series>,
    /// The pictures.
    #[serde(default, rename = "picture")]
    pub pictures: Vec<Picture>,
    /// Conclusions from the results, in Markdown.
    pub findings: Option<String>,
    /// Results that the page should have but no method here provides yet.
    #[serde(default)]
    pub missing: Vec<String>,
}

/// The settings of the short version.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quick {
    pub network: String,
    pub epochs: usize,
    #[serde(default)]
    pub arguments: Vec<String>,
}

/// A training method, with the seeds that it is run with.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Method {
    pub name: String,
    /// What it is, in a few words.
    pub about: String,
    /// Another network; `{network}` in it is replaced by the experiment's.
    pub network: Option<String>,
    /// Another number of epochs, if a step costs more or less.
    pub epochs: Option<usize>,
    pub seeds: Vec<u64>,
    /// Arguments of `sdpoint train` that make the method. `{run:METHOD}` is the run
    /// of an earlier method with the same seed.
    #[serde(default)]
    pub arguments: Vec<String>,
    /// The instances whose logits for the test images are kept, in a file
    /// `logits/EXPERIMENT-METHOD-SEED.safetensors` beside the results.
    #[serde(default)]
    pub logits: Vec<String>,
    /// What is measured besides [`OWN`].
    #[serde(default, rename = "measure")]
    pub measures: Vec<Measure>,
}

/// A further measurement of a trained model.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measure {
    pub name: String,
    /// Another file of the run than its model.
    pub model: Option<String>,
    /// Arguments of an `sdpoint calibrate` that comes before; its model is
    /// then the one that is evaluated.
    pub calibrate: Option<Vec<String>>,
    /// More arguments of `sdpoint evaluate`.
    #[serde(default)]
    pub evaluate: Vec<String>,
}

/// Results that make one curve.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Series {
    pub name: String,
    pub parts: Vec<Part>,
}

/// Some results of one method.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    pub method: String,
    #[serde(default = "own")]
    pub measure: String,
    #[serde(default)]
    pub instances: Which,
}

/// The method that an argument `{run:METHOD}` names.
pub fn run_in(argument: &str) -> Option<&str> {
    argument.strip_prefix("{run:")?.strip_suffix('}')
}

fn own() -> String {
    OWN.to_owned()
}

/// Which instances of a method belong to a series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Which {
    #[default]
    All,
    /// `full` alone.
    Full,
}

/// Some series in one picture.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Picture {
    /// Its file, in the page's folder of pictures.
    pub file: String,
    pub title: String,
    pub series: Vec<String>,
}

/// An invalid experiment file.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub struct ExperimentError {
    path: PathBuf,
    problem: String,
}

impl Experiment {
    /// All experiments of a folder, by name.
    ///
    /// # Errors
    /// If the folder cannot be read, or contains an invalid experiment file.
    pub fn read_all(folder: &Path) -> Result<Vec<Self>, ExperimentError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |error: std::io::Error| ExperimentError {
                path,
                problem: error.to_string(),
            }
        };
        let mut files = Vec::new();
        for entry in fs::read_dir(folder).map_err(io(folder))? {
            let path = entry.map_err(io(folder))?.path();
            let toml = path.extension().is_some_and(|ending| ending == "toml");
            if toml && path.file_name() != Some("Cargo.toml".as_ref()) {
                files.push(path);
            }
        }
        files.sort();
        let read = |path: &PathBuf| {
            let text = fs::read_to_string(path).map_err(io(path))?;
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            Self::parse(&name, &text).map_err(|problem| ExperimentError {
                path: path.clone(),
                problem,
            })
        };
        files.iter().map(read).collect()
    }

    /// Reads and checks an experiment's text.
    pub fn parse(name: &str, text: &str) -> Result<Self, String> {
        let mut experiment: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        experiment.name = name.to_owned();
        experiment.check()?;
        Ok(experiment)
    }

    /// The short version: another network, fewer epochs, one seed each.
    pub fn quick(mut self) -> Self {
        let Quick {
            network,
            epochs,
            arguments,
        } = self.quick.clone();
        self.network = network;
        self.epochs = epochs;
        self.arguments = arguments;
        for method in &mut self.methods {
            method.seeds.truncate(1);
            method.epochs = None;
        }
        self
    }

    /// A method by name.
    pub fn method(&self, name: &str) -> Option<&Method> {
        self.methods.iter().find(|method| method.name == name)
    }

    /// The arguments of `sdpoint train` for a method and a seed, without the
    /// locations of data and results.
    pub fn train_arguments(&self, method: &Method, seed: u64) -> Vec<String> {
        let network = match &method.network {
            Some(network) => network.replace("{network}", &self.network),
            None => self.network.clone(),
        };
        let epochs = method.epochs.unwrap_or(self.epochs).to_string();
        let mut first = vec!["--epochs".to_owned(), epochs];
        // A model to start from brings its network.
        if !method.arguments.iter().any(|argument| argument == "--init") {
            first.splice(0..0, ["--network".to_owned(), network]);
        }
        let last = ["--seed".to_owned(), seed.to_string()];
        let all = first.iter().chain(&self.arguments);
        all.chain(&method.arguments).chain(&last).cloned().collect()
    }

    fn check(&self) -> Result<(), String> {
        if self.methods.is_empty() {
            return Err("it has no method".into());
        }
        let [from, to] = self.area;
        if !(0.0..to).contains(&from) || to > 10.0 {
            return Err(format!("the area goes from {from} to {to}"));
        }
        let name = |what: &str, name: &str| {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
            if !name.is_empty() && !name.starts_with('.') && name.chars().all(plain) {
                return Ok(());
            }
            Err(format!(
                "{what} '{name}' names a file or folder: use small letters, digits, - and ."
            ))
        };
        for method in &self.methods {
            name("the method", &method.name)?;
            for measure in &method.measures {
                name("the measure", &measure.name)?;
            }
            unique("seed", method.seeds.iter())?;
            unique("measure", method.measures.iter().map(|m| &m.name))?;
            if method.seeds.is_empty() {
                return Err(format!("the method '{}' has no seed", method.name));
            }
            if method.measures.iter().any(|measure| measure.name == OWN) {
                return Err(format!(
                    "'{OWN}' is what every method has; name the measure of '{}' otherwise",
                    method.name
                ));
            }
        }
        unique("method", self.methods.iter().map(|m| &m.name))?;
        for (index, method) in self.methods.iter().enumerate() {
            for other in method.arguments.iter().filter_map(|a| run_in(a)) {
                let earlier = &self.methods[..index];
                let found = earlier.iter().find(|method| method.name == other);
                let has = |seed| found.is_some_and(|found| found.seeds.contains(seed));
                if !method.seeds.iter().all(has) {
                    return Err(format!(
                        "'{}' starts from runs of '{other}', which no earlier method has",
                        method.name
                    ));
                }
            }
        }
        unique("series", self.series.iter().map(|s| &s.name))?;
        for series in &self.series {
            for part in &series.parts {
                let method = self.method(&part.method);
                let method = method.ok_or(format!(
                    "the series '{}' has the method '{}', which is not there",
                    series.name, part.method
                ))?;
                let mut measures = method.measures.iter().map(|measure| measure.name.as_str());
                if part.measure != OWN && !measures.any(|name| name == part.measure) {
                    return Err(format!(
                        "the series '{}' has the measure '{}', which '{}' has not",
                        series.name, part.measure, part.method
                    ));
                }
            }
        }
        let known = |name: &String| self.series.iter().any(|series| series.name == *name);
        for picture in &self.pictures {
            name("the picture", &picture.file)?;
            if let Some(series) = picture.series.iter().find(|name| !known(name)) {
                return Err(format!(
                    "the picture '{}' shows the series '{series}', which is not there",
                    picture.file
                ));
            }
        }
        if !known(&self.baseline) {
            return Err(format!("there is no series '{}'", self.baseline));
        }
        Ok(())
    }
}

fn unique<T: Ord + ToString>(what: &str, values: impl Iterator<Item = T>) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for value in values {
        let text = value.to_string();
        if !seen.insert(value) {
            return Err(format!("the {what} '{text}' is there twice"));
        }
    }
    Ok(())
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A small experiment.
    pub const TEXT: &str = r#"
        title = "Costs"
        about = "Many costs."
        network = "preresnet20"
        epochs = 20
        arguments = ["--train-images", "5000"]
        area = [0.4, 1.0]
        budgets = [0.5, 1.0]
        baseline = "plain"

        [quick]
        network = "preresnet8"
        epochs = 1

        [[method]]
        name = "plain"
        about = "every step in full"
        seeds = [0, 1]
        arguments = ["--method", "plain"]

        [[method]]
        name = "narrow"
        about = "fewer channels"
        network = "{network}-w12"
        seeds = [0]

        [[method.measure]]
        name = "shared"
        evaluate = ["--bn", "shared"]

        [[series]]
        name = "plain"
        parts = [{ method = "plain" }]

        [[series]]
        name = "smaller"
        parts = [{ method = "plain", instances = "full" },
                 { method = "narrow", measure = "shared", instances = "full" }]
    "#;

    #[test]
    fn arguments_are_those_of_experiment_method_and_seed() {
        let experiment = Experiment::parse("costs", TEXT).unwrap();
        let narrow = experiment.method("narrow").unwrap();
        assert_eq!(
            experiment.train_arguments(narrow, 3).join(" "),
            "--network preresnet20-w12 --epochs 20 --train-images 5000 --seed 3"
        );
        let quick = experiment.quick();
        let plain = quick.method("plain").unwrap();
        assert_eq!(plain.seeds, [0]);
        assert_eq!(
            quick.train_arguments(plain, 0).join(" "),
            "--network preresnet8 --epochs 1 --method plain --seed 0"
        );
    }

    #[test]
    fn what_does_not_hold_together_is_named() {
        let refused = |from: &str, to: &str, part: &str| {
            assert!(TEXT.contains(from), "{from}");
            let error = Experiment::parse("x", &TEXT.replace(from, to)).unwrap_err();
            assert!(error.contains(part), "{error}");
        };
        refused("seeds = [0, 1]", "seeds = []", "no seed");
        refused(
            "seeds = [0, 1]",
            "seeds = [1, 1]",
            "seed '1' is there twice",
        );
        refused("name = \"narrow\"", "name = \"../x\"", "'../x'");
        refused("method = \"narrow\"", "method = \"wide\"", "'wide'");
        refused("measure = \"shared\"", "measure = \"other\"", "'other'");
        refused("baseline = \"plain\"", "baseline = \"no\"", "'no'");
        refused("epochs = 20", "epoch = 20", "epoch");
        refused("area = [0.4, 1.0]", "area = [1.0, 0.4]", "area");
        refused(
            "network = \"{network}-w12\"",
            "arguments = [\"--init\", \"{run:wide}\"]",
            "runs of 'wide'",
        );
    }

    #[test]
    fn the_experiments_that_come_along_hold_together() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
        let experiments = Experiment::read_all(folder).unwrap();
        assert!(experiments.len() >= 2);
    }
}
