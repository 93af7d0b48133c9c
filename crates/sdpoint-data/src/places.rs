//! The files and folders that a source is read from.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::archive::is_tar_name;
use crate::cifar::CifarKind;
use crate::expand::{expand, expand_home};
use crate::folder::{Disk, Folder};
use crate::source::Source;
use crate::tree::{Kind, Store, is_hidden, split_name};

/// The files and folders that a source is read from, for programs that must not
/// write to them. Missing ones are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Places {
    /// Archives, and files of CIFAR.
    pub files: Vec<PathBuf>,
    /// Folders of images: a file that is added to one would be read the next time.
    /// The targets of links to folders are listed, too.
    pub trees: Vec<PathBuf>,
    /// Folders that `files` are in, which may hold other files.
    pub shared: Vec<PathBuf>,
}

impl Source {
    /// Where the source is read from. Nothing is opened, but folders of images are
    /// listed, since they may contain links.
    pub fn places(&self) -> Places {
        let mut places = Places::default();
        match self {
            Source::Shapes => {}
            Source::Folder(root) => places.add_images(&expand_home(root)),
            Source::Tar(patterns) => {
                // A pattern without matches is reported when it is read.
                for path in patterns.iter().filter_map(|p| expand(p).ok()).flatten() {
                    places.add_archives(&path);
                }
            }
            Source::Cifar10(path) => places.add_cifar(CifarKind::Cifar10, &expand_home(path)),
            Source::Cifar100(path) => places.add_cifar(CifarKind::Cifar100, &expand_home(path)),
        }
        places
    }
}

impl Places {
    fn add_images(&mut self, root: &Path) {
        let disk = Disk::new(root);
        let entries = disk.top().and_then(|top| disk.entries(&top));
        let splits = entries.into_iter().flatten();
        let splits = splits.filter_map(|entry| match entry.kind {
            Kind::Folder(folder) if split_name(&entry.name).is_some() => Some(folder),
            _ => None,
        });
        let splits: Vec<Folder> = splits.collect();
        if splits.is_empty() && root.is_dir() {
            self.trees.push(root.to_owned());
        }
        for split in splits {
            self.trees.push(split.path.clone());
            self.trees.extend(linked_folders(&disk, split));
        }
    }

    fn add_archives(&mut self, path: &Path) {
        if path.is_dir() {
            self.shared.push(path.to_owned());
            self.files
                .extend(files_in(path, |name| is_tar_name(name) && !is_hidden(name)));
        } else if path.exists() {
            self.files.push(path.to_owned());
        }
    }

    fn add_cifar(&mut self, kind: CifarKind, path: &Path) {
        if path.is_file() {
            self.files.push(path.to_owned());
            return;
        }
        let is_read = |name: &str| kind.reads(name) || is_tar_name(name);
        self.shared.extend(path.is_dir().then(|| path.to_owned()));
        self.files.extend(files_in(path, is_read));
        for folder in kind.folders().map(|name| path.join(name)) {
            if folder.is_dir() {
                self.files.extend(files_in(&folder, is_read));
                self.trees.push(folder);
            }
        }
    }
}

/// The files in a folder with names for which the function is true.
fn files_in(folder: &Path, is_read: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let entries = entries.filter(|entry| is_read(&entry.file_name().to_string_lossy()));
    let paths = entries.map(|entry| entry.path());
    paths.filter(|path| !path.is_dir()).collect()
}

/// The folders that links inside a folder of images lead to, by the rules of
/// [`tree`](crate::tree).
fn linked_folders(disk: &Disk, top: Folder) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    let mut open = vec![top];
    while let Some(folder) = open.pop() {
        if !seen.insert(disk.id(&folder)) {
            continue;
        }
        for entry in disk.entries(&folder).into_iter().flatten() {
            let Kind::Folder(inner) = entry.kind else {
                continue;
            };
            let is_cycle = entry.linked && disk.is_within(&folder, &inner);
            if is_cycle || is_hidden(&entry.name) {
                continue;
            }
            if entry.linked {
                found.push(inner.path.clone());
            }
            open.push(inner);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(text: &str) -> Places {
        text.parse::<Source>().unwrap().places()
    }

    #[test]
    fn the_archives_of_patterns_and_folders_are_listed() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["a-train.tar", "a-test.tar", "b.tgz", "notes.txt"] {
            fs::write(path(name), "").unwrap();
        }
        let of = |pattern: &str| places(&format!("tar:{}", path(pattern).display()));
        assert_eq!(
            of("a-{train,test,none}.tar").files,
            [path("a-train.tar"), path("a-test.tar")]
        );
        assert_eq!(
            of("*.t[ag]?").files,
            [path("a-test.tar"), path("a-train.tar"), path("b.tgz")]
        );
        assert_eq!(of("none*.tar"), Places::default());
        let all = of("");
        assert_eq!(all.files.len(), 3);
        assert_eq!(all.shared, [path("")]);
    }

    #[cfg(unix)]
    #[test]
    fn linked_folders_are_listed_and_cycles_end() {
        use std::os::unix::fs::symlink;

        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in [
            "set/Train",
            "set/test/bee",
            "store/ant/more",
            "far",
            "cache",
        ] {
            fs::create_dir_all(path(name)).unwrap();
        }
        symlink("../../store/ant", path("set/Train/ant")).unwrap();
        symlink("../../far", path("store/ant/far")).unwrap();
        symlink("../..", path("set/test/bee/up")).unwrap();
        symlink("../../cache", path("set/test/.cache")).unwrap();
        let mut trees = places(&format!("folder:{}", path("set").display())).trees;
        trees.sort();
        assert_eq!(
            trees,
            [
                "set/Train",
                "set/Train/ant",
                "set/Train/ant/far",
                "set/test"
            ]
            .map(path)
        );
        assert_eq!(
            places(&format!("folder:{}", path("store").display())).trees,
            [path("store")]
        );
    }

    #[test]
    fn the_files_of_cifar_are_listed() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("cifar-10-batches-bin")).unwrap();
        for name in [
            "cifar-10-batches-bin/test_batch.bin",
            "cifar-10-python.tar.gz",
            "notes",
        ] {
            fs::write(path(name), "").unwrap();
        }
        let found = places(&format!("cifar10:{}", path("").display()));
        assert_eq!(
            found.files,
            [
                path("cifar-10-python.tar.gz"),
                path("cifar-10-batches-bin/test_batch.bin")
            ]
        );
        assert_eq!(found.trees, [path("cifar-10-batches-bin")]);
        let archive = path("cifar-10-python.tar.gz");
        let found = places(&format!("cifar10:{}", archive.display()));
        assert_eq!(found.files, [archive]);
    }
}
