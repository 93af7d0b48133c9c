//! What a command reads, and therefore never writes to.

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
    /// Folders of which everything beneath is read, and whatever would be
    /// added would be read the next time.
    trees: Vec<PathBuf>,
    /// Folders of data files, in which `sdpoint`'s own results may lie too.
    shared: Vec<PathBuf>,
}

impl Inputs {
    /// A file, or all files in a folder. One that is not there will be told
    /// of by whoever reads it.
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

    /// A model file or the folder of a run, with what commands look for
    /// beside a model, and what else a run needs.
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

    /// The files of a data source.
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
            // There may be sources without files of their own.
            _ => {}
        }
    }

    /// Whether writing to `target`, which has all links resolved, would
    /// replace something that is read, or add to it.
    pub fn contain(&self, target: &Path) -> bool {
        self.surround(target)
            || Identity::of(target).is_some_and(|identity| self.files.contains(&identity))
            || self.is_data(target)
    }

    /// Whether a folder lies within one that is read as a whole.
    pub fn surround(&self, folder: &Path) -> bool {
        self.trees.iter().any(|tree| folder.starts_with(tree))
    }

    /// Whether a file lies in a folder of data files and is no result of
    /// `sdpoint`'s.
    fn is_data(&self, target: &Path) -> bool {
        let folder = target.parent();
        let shared = self.shared.iter().any(|shared| Some(&**shared) == folder);
        shared && Kind::of(target).is_ok_and(|kind| !kind.is_ours() && kind != Kind::Empty)
    }

    /// Whether a file is one of a data set's under another name. It takes a
    /// walk through the whole set.
    pub fn contain_by_link(&self, target: &Path) -> bool {
        let Some(identity) = Identity::of(target) else {
            return false;
        };
        let mut folders: Vec<PathBuf> = self.trees.clone();
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                // Links to folders are not followed: they may lead in circles.
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
