//! The inputs of a command, which it never writes to.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use sdpoint::data::Source;
use sdpoint::profile::Profile;
use sdpoint::train::folder::{CHECKPOINT, METRICS, MODEL};

use super::identity::Identity;
use super::kind::Kind;

/// Files and folders that a command reads.
#[derive(Default)]
pub struct Inputs {
    files: Vec<(Identity, Input)>,
    /// Folders that are read as a whole; a file added to them would be read the
    /// next time. Links are resolved.
    trees: Vec<Folder>,
    /// Folders of data files that may also hold results of `sdpoint`.
    shared: Vec<Folder>,
}

/// A folder, and its name on the command line.
struct Folder {
    resolved: PathBuf,
    name: PathBuf,
}

/// How a file is part of an input: `is 'm.safetensors'`.
#[derive(Clone, Debug)]
pub struct Input {
    relation: &'static str,
    name: PathBuf,
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} '{}'", self.relation, self.name.display())
    }
}

impl Input {
    fn of(relation: &'static str, name: &Path) -> Self {
        Self {
            relation,
            name: name.to_owned(),
        }
    }
}

impl Inputs {
    /// Adds a file, or a folder and all files in it. Missing files are ignored here;
    /// reading them reports an error.
    pub fn add(&mut self, path: &Path) {
        if path.is_dir() {
            // A new file could be taken for the input the next time.
            self.trees.extend(resolved(path));
            let entries = fs::read_dir(path).into_iter().flatten().flatten();
            let files = entries.map(|entry| entry.path()).filter(|p| !p.is_dir());
            for file in files {
                self.add_file(&file, Input::of("is in", path));
            }
        } else {
            self.add_file(path, Input::of("is", path));
        }
    }

    fn add_file(&mut self, path: &Path, input: Input) {
        if path.exists() {
            self.files
                .extend(Identity::of(path).map(|file| (file, input)));
        }
    }

    /// Adds a model file or the folder of a run, with its latency profile and
    /// the other files of the run.
    pub fn add_model(&mut self, path: &Path) {
        let file = if path.is_dir() {
            path.join(MODEL)
        } else {
            path.to_owned()
        };
        self.add(&file);
        let belongs = Input::of("belongs to", path);
        self.add_file(&Profile::path(&file), belongs.clone());
        if let Some(folder) = file.parent() {
            for name in [CHECKPOINT, METRICS] {
                self.add_file(&folder.join(name), belongs.clone());
            }
        }
    }

    /// Adds the files and folders of a data source.
    pub fn add_data(&mut self, source: &Source) {
        let places = source.places();
        for file in &places.files {
            self.add(file);
        }
        let resolve = |folders: &[PathBuf]| -> Vec<Folder> {
            folders.iter().filter_map(|it| resolved(it)).collect()
        };
        self.trees.extend(resolve(&places.trees));
        self.shared.extend(resolve(&places.shared));
    }

    /// The input that writing to `target`, with links resolved, would replace or
    /// add to.
    pub fn containing(&self, target: &Path) -> Option<Input> {
        let of_file = || {
            let identity = Identity::of(target)?;
            let mut files = self.files.iter();
            files
                .find(|(file, _)| *file == identity)
                .map(|(_, input)| input.clone())
        };
        self.surrounding(target)
            .or_else(of_file)
            .or_else(|| self.data_folder(target))
    }

    /// The folder that is read as a whole and contains this one.
    pub fn surrounding(&self, folder: &Path) -> Option<Input> {
        let mut trees = self.trees.iter();
        trees
            .find(|tree| folder.starts_with(&tree.resolved))
            .map(|tree| Input::of("is in", &tree.name))
    }

    /// The folder of data files of a file that is not a result of `sdpoint`.
    fn data_folder(&self, target: &Path) -> Option<Input> {
        let folder = target.parent();
        let mut shared = self.shared.iter();
        let shared = shared.find(|shared| Some(&*shared.resolved) == folder)?;
        let is_data = Kind::of(target).is_ok_and(|kind| !kind.is_ours() && kind != Kind::Empty);
        is_data.then(|| Input::of("is in", &shared.name))
    }

    /// The folder of the data set that has a hard link to the file. Walks through
    /// the whole set.
    pub fn linked_to(&self, target: &Path) -> Option<Input> {
        let identity = Identity::of(target)?;
        let contains = |tree: &&Folder| {
            let mut folders = vec![tree.resolved.clone()];
            while let Some(folder) = folders.pop() {
                for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                    // Linked folders are trees of their own.
                    if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                        folders.push(entry.path());
                    } else if Identity::of(&entry.path()).as_ref() == Some(&identity) {
                        return true;
                    }
                }
            }
            false
        };
        let tree = self.trees.iter().find(contains)?;
        Some(Input::of("is a link to an image in", &tree.name))
    }
}

/// A folder with links resolved, if it exists.
fn resolved(folder: &Path) -> Option<Folder> {
    Some(Folder {
        resolved: folder.canonicalize().ok()?,
        name: folder.to_owned(),
    })
}
