//! Files that commands write: checked before any work begins, so that nothing
//! of the user's is destroyed and hours of work do not end in "no such folder".
//!
//! A command names what it reads, then prepares each [`Output`], then works,
//! then writes. `docs/command-line.md` has the rules for users.

mod identity;
mod inputs;
mod kind;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use sdpoint::core::atomic::{check_writable, resolve, write_atomically};
use sdpoint::data::Source;
use sdpoint::train::folder;

use crate::failure::{Class, Failure, Outcome};
use identity::{Identity, is_printed_to};
use inputs::Inputs;
pub use kind::Kind;

/// The option that lets files of other kinds be replaced.
#[derive(clap::Args)]
pub struct OverwriteArgs {
    /// Replace an existing file even if it is of another kind than the one to be written
    #[arg(long)]
    force: bool,
}

/// What a command reads and writes.
pub struct Outputs {
    force: bool,
    inputs: Inputs,
    /// What is written so far, and what it is called on the command line.
    taken: Vec<(Identity, String)>,
}

/// A file to be written, to which nothing stands in the way.
#[derive(Debug)]
pub struct Output {
    path: PathBuf,
}

impl Output {
    /// Where it is, for writers of their own. They have to keep what is there
    /// until the new file is complete, as [`write_atomically`] does.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the file, whole or not at all.
    pub fn write(&self, content: &[u8]) -> Outcome {
        write_atomically(&self.path, |out| out.write_all(content))
            .map_err(|error| Failure::io(error.to_string(), error.kind()))
    }
}

impl Outputs {
    /// No inputs and no outputs yet.
    pub fn new(replacing: &OverwriteArgs) -> Self {
        Self {
            force: replacing.force,
            inputs: Inputs::default(),
            taken: Vec::new(),
        }
    }

    /// As [`Outputs::new`], for commands that never replace a file of another
    /// kind.
    pub fn without_force() -> Self {
        Self::new(&OverwriteArgs { force: false })
    }

    /// Nothing is written to this file, or to the files in this folder.
    pub fn reads(mut self, path: &Path) -> Self {
        self.inputs.add(path);
        self
    }

    /// Nothing is written to this model or to what belongs to it.
    pub fn reads_model(mut self, path: &Path) -> Self {
        self.inputs.add_model(path);
        self
    }

    /// Nothing is written to the files of this data source.
    pub fn reads_data(mut self, source: &Source) -> Self {
        self.inputs.add_data(source);
        self
    }

    /// Prepares a file that the user named by `option`.
    ///
    /// # Errors
    /// If it is an input or another output, belongs to a run that is going
    /// on, holds something of another kind, or cannot be written.
    pub fn file(&mut self, option: &str, path: &Path, kind: Kind) -> Result<Output, Failure> {
        self.prepare(option, path, kind, None)
    }

    /// As [`Outputs::file`], where the file may be this input.
    ///
    /// # Errors
    /// As [`Outputs::file`].
    pub fn in_place(
        &mut self,
        option: &str,
        path: &Path,
        kind: Kind,
        input: &Path,
    ) -> Result<Output, Failure> {
        self.prepare(option, path, kind, Identity::of(input))
    }

    /// Prepares a file in a folder that was prepared and may not be there yet.
    ///
    /// # Errors
    /// As [`Outputs::file`].
    pub fn file_in(&mut self, folder: &Path, name: &str, kind: Kind) -> Result<Output, Failure> {
        let path = folder.join(name);
        match folder.is_dir() {
            true => self.file("-o", &path, kind),
            false => Ok(Output { path }),
        }
    }

    /// Prepares a folder for several files, to be made when the first is
    /// written.
    ///
    /// # Errors
    /// If something else is there, or no folder can be made.
    pub fn folder(&mut self, path: &Path) -> Outcome {
        if path.exists() && !path.is_dir() {
            return Err(Failure::new(
                Class::Files,
                format!(
                    "'{}' is a file, but several are to be written",
                    path.display()
                ),
            )
            .hint("name a folder, which need not exist"));
        }
        let there = existing_ancestor(path);
        if self.inputs.surround(&there) {
            return Err(self.is_input(path));
        }
        check_writable(&there.join(PROBE)).map_err(|error| {
            Failure::io(
                format!("cannot write to the folder '{}': {error}", path.display()),
                error.kind(),
            )
        })
    }

    /// Prepares the folder of a run. Where files of the run that it holds are
    /// to be `replaced`, they have to be some.
    ///
    /// # Errors
    /// As [`Outputs::folder`], or if one of its files is an input or, though
    /// named like a run's, none of a run's.
    pub fn run_folder(&mut self, path: &Path, replaced: bool) -> Outcome {
        self.folder(path)?;
        for (name, kind) in run_files(path) {
            let file = path.join(name);
            if self.inputs.contain(&target(&file)?) {
                return Err(self.is_input(&file));
            }
            if replaced {
                check_writable(&file)
                    .map_err(|error| Failure::io(error.to_string(), error.kind()))?;
                self.refuse_other_kind(&file, kind).map_err(|failure| {
                    failure.hint("move it away, or choose another folder with --out")
                })?;
            }
        }
        Ok(())
    }

    fn prepare(
        &mut self,
        option: &str,
        path: &Path,
        kind: Kind,
        in_place: Option<Identity>,
    ) -> Result<Output, Failure> {
        let unwritable = |error: std::io::Error| Failure::io(error.to_string(), error.kind());
        if is_printed_to(path) {
            return Err(Failure::new(
                Class::Usage,
                format!(
                    "'{}' is where the command prints to: {option} needs a file of its own",
                    path.display()
                ),
            ));
        }
        // Pipes and devices hold nothing that could be lost.
        let Some(target) = resolve(path).map_err(unwritable)? else {
            return Ok(Output {
                path: path.to_owned(),
            });
        };
        let identity = Identity::of(&target);
        let replaces_its_input = identity.is_some() && identity == in_place;
        if !replaces_its_input && self.inputs.contain(&target) {
            return Err(self.is_input(path));
        }
        if let Some((_, other)) = self
            .taken
            .iter()
            .find(|(it, _)| Some(it) == identity.as_ref())
        {
            return Err(Failure::new(
                Class::Usage,
                format!(
                    "{other} and {option} name the same file, '{}'",
                    path.display()
                ),
            )
            .hint("name two files"));
        }
        if folder::is_in_use(&target) {
            return Err(Failure::new(
                Class::Usage,
                format!("'{}' belongs to a run that is going on", path.display()),
            )
            .hint("wait for its end, or name another file"));
        }
        if target.exists() {
            self.refuse_other_kind(&target, kind).map_err(|failure| {
                failure.hint("name another file, or add --force to replace it")
            })?;
        }
        check_writable(&target).map_err(unwritable)?;
        self.taken
            .extend(identity.map(|it| (it, option.to_owned())));
        Ok(Output {
            path: path.to_owned(),
        })
    }

    /// Keeps what is no file of this kind, unless the user insists.
    fn refuse_other_kind(&self, path: &Path, kind: Kind) -> Outcome {
        let found = Kind::of(path).map_err(|error| {
            // What cannot be read is not known to be of no value.
            Failure::io(
                format!("cannot look at '{}': {error}", path.display()),
                error.kind(),
            )
        })?;
        if found.gives_way_to(kind) {
            return Ok(());
        }
        if self.force {
            return match self.inputs.contain_by_link(path) {
                true => Err(self.is_input(path)),
                false => Ok(()),
            };
        }
        Err(Failure::new(
            Class::Usage,
            format!(
                "'{}' exists and is {found}: it is not replaced by {kind}",
                path.display()
            ),
        ))
    }

    fn is_input(&self, path: &Path) -> Failure {
        let message = format!(
            "'{}' is, or belongs to, what this command reads: it is not written to",
            path.display()
        );
        Failure::new(Class::Usage, message).hint("name another place")
    }
}

/// The name of a file that is made and removed again to see whether one can be.
const PROBE: &str = "sdpoint-check";

/// The file that a path leads to, or would.
fn target(path: &Path) -> Result<PathBuf, Failure> {
    let resolved = resolve(path).map_err(|error| Failure::io(error.to_string(), error.kind()))?;
    Ok(resolved.unwrap_or_else(|| path.to_owned()))
}

/// The nearest folder that is there, of one that need not be, without links.
fn existing_ancestor(path: &Path) -> PathBuf {
    let here = std::env::current_dir().unwrap_or_default();
    let absolute = here.join(path);
    let mut ancestors = absolute.ancestors();
    let there = ancestors.find_map(|folder| folder.canonicalize().ok());
    there.unwrap_or(here)
}

/// The files of a run that are in a folder, and what they should be.
fn run_files(path: &Path) -> impl Iterator<Item = (String, Kind)> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter_map(|name| {
        let kind = match &*name {
            folder::CHECKPOINT => Kind::Checkpoint,
            folder::METRICS => Kind::Metrics,
            folder::CURVE_CSV => Kind::Table,
            folder::CURVE_SVG => Kind::Picture,
            // It is never removed.
            folder::LOCK => return None,
            name if folder::is_run_file(name) => Kind::Model,
            _ => return None,
        };
        Some((name, kind))
    })
}
