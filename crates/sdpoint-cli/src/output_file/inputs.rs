//! The inputs of a command, which it never writes to.

use std::fs;
use std::path::{Path, PathBuf};

use sdpoint::data::{Source, Split};
use sdpoint::profile::Profile;
use sdpoint::train::folder::MODEL;

use super::identity::Identity;
use super::kind::Kind;

/// Files and folders that a command reads.
#[derive(Default)]
pub struct Inputs {
    files: Vec<Identity>,
    /// Folders that are read as a whole; a file added to them would be read the
    /// next time.
    trees: Vec<PathBuf>,
    /// Folders of data files that may also hold results of `sdpoint`.
    shared: Vec<PathBuf>,
}

impl Inputs {
    /// Adds a file, or all files in a folder. Missing files are ignored here;
    /// reading them reports an error.
    pub fn add(&mut self, path: &Path) {
        if path.is_dir() {
            let entries = fs::read_dir(path).into_iter().flatten().flatten();
            let files = entries.map(|entry| entry.path()).filter(|p| !p.is_dir());
            self.files
                .extend(files.filter_map(|file| Identity::of(&file)));
        } else if path.exists() {
            self.files.extend(Identity::of(path));
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
        self.add(&Profile::path(&file));
        if let Some(folder) = file.parent() {
            self.add(&folder.join(sdpoint::train::folder::CHECKPOINT));
            self.add(&folder.join(sdpoint::train::folder::METRICS));
        }
    }

    /// Adds the files of a data source.
    pub fn add_data(&mut self, source: &Source) {
        match source {
            Source::Folder(folder) => {
                let splits = [Split::Train, Split::Test].into_iter();
                let names = splits.flat_map(|split| split.names());
                let there: Vec<PathBuf> = names
                    .map(|name| folder.join(name))
                    .filter(|split| split.is_dir())
                    .collect();
                let none = there.is_empty();
                let trees = there.iter().chain(none.then_some(folder));
                self.trees
                    .extend(trees.filter_map(|tree| tree.canonicalize().ok()));
            }
            Source::Tar(paths) => {
                for path in paths {
                    match path.is_dir() {
                        true => self.shared.extend(path.canonicalize().ok()),
                        false => self.add(path),
                    }
                }
            }
            Source::Cifar10(folder) | Source::Cifar100(folder) => {
                self.shared.extend(folder.canonicalize().ok());
                for name in ["cifar-10-batches-bin", "cifar-10-batches-py"]
                    .into_iter()
                    .chain(["cifar-100-binary", "cifar-100-python"])
                {
                    self.trees.extend(folder.join(name).canonicalize().ok());
                }
            }
            // Sources without files.
            _ => {}
        }
    }

    /// Whether writing to `target`, with links resolved, would replace an input
    /// or add to one.
    pub fn contain(&self, target: &Path) -> bool {
        self.surround(target)
            || Identity::of(target).is_some_and(|identity| self.files.contains(&identity))
            || self.is_data(target)
    }

    /// Whether a folder is inside one that is read as a whole.
    pub fn surround(&self, folder: &Path) -> bool {
        self.trees.iter().any(|tree| folder.starts_with(tree))
    }

    /// Whether a file is in a folder of data files and is not a result of
    /// `sdpoint`.
    fn is_data(&self, target: &Path) -> bool {
        let folder = target.parent();
        let shared = self.shared.iter().any(|shared| Some(&**shared) == folder);
        shared && Kind::of(target).is_ok_and(|kind| !kind.is_ours() && kind != Kind::Empty)
    }

    /// Whether a file is a hard link to a file of the data set. Walks through
    /// the whole set.
    pub fn contain_by_link(&self, target: &Path) -> bool {
        let Some(identity) = Identity::of(target) else {
            return false;
        };
        let mut folders: Vec<PathBuf> = self.trees.clone();
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                // Links to folders are not followed: they may form cycles.
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    folders.push(entry.path());
                } else if Identity::of(&entry.path()).as_ref() == Some(&identity) {
                    return true;
                }
            }
        }
        false
    }
}
