//! Output files, checked before any work begins, so that no file of the user is
//! destroyed and hours of work do not end in "no such folder".
//!
//! A command lists its inputs, prepares each [`Output`], does its work, and
//! writes. `docs/command-line.md` has the rules for users.

mod identity;
mod inputs;
mod kind;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use sdpoint::core::atomic::{check_writable, open_pipe, resolve, write_atomically};
use sdpoint::core::file;
use sdpoint::data::Source;
use sdpoint::train::folder;

use crate::failure::{Class, Failure, Outcome};
use identity::{Identity, is_printed_to};
use inputs::{Input, Inputs};
pub use kind::Kind;

/// The option to replace files of other kinds.
#[derive(clap::Args)]
pub struct OverwriteArgs {
    /// Replace an existing file even if it is of another kind
    #[arg(long)]
    force: bool,
}

/// The inputs and outputs of a command.
pub struct Outputs {
    force: bool,
    inputs: Inputs,
    /// The outputs so far, with their names on the command line.
    taken: Vec<(Identity, String)>,
}

/// A file that can be written safely.
#[derive(Debug)]
pub struct Output {
    path: PathBuf,
    /// A named pipe, opened so that its reader stays.
    _pipe: Option<File>,
}

impl Output {
    /// The path, for code that writes the file itself. It must keep an existing
    /// file until the new one is complete, as [`write_atomically`] does.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the file atomically.
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

    /// As [`Outputs::new`], for commands that never replace files of another kind.
    pub fn without_force() -> Self {
        Self::new(&OverwriteArgs { force: false })
    }

    /// Adds an input file, or the files in a folder.
    pub fn reads(mut self, path: &Path) -> Self {
        self.inputs.add(path);
        self
    }

    /// Adds an input model and the files that belong to it.
    pub fn reads_model(mut self, path: &Path) -> Self {
        self.inputs.add_model(path);
        self
    }

    /// Adds the files of an input data source.
    pub fn reads_data(mut self, source: &Source) -> Self {
        self.inputs.add_data(source);
        self
    }

    /// Prepares a file that the user named by `option`.
    ///
    /// # Errors
    /// If it is an input or another output, belongs to a run in progress, is a
    /// file of another kind, or cannot be written.
    pub fn file(&mut self, option: &str, path: &Path, kind: Kind) -> Result<Output, Failure> {
        self.prepare(option, path, kind, None)
    }

    /// As [`Outputs::file`], but the file may be this input.
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

    /// Prepares a file in a prepared folder, which may not exist yet.
    ///
    /// # Errors
    /// As [`Outputs::file`].
    pub fn file_in(&mut self, folder: &Path, name: &str, kind: Kind) -> Result<Output, Failure> {
        let path = folder.join(name);
        match folder.is_dir() {
            true => self.derived("-o", &path, kind),
            false => Ok(Output { path, _pipe: None }),
        }
    }

    /// As [`Outputs::file`], for a file that the user did not name: writing to a
    /// pipe of that name would wait for a reader that nobody has in mind.
    ///
    /// # Errors
    /// As [`Outputs::file`], or if it is a pipe or a device.
    pub fn derived(&mut self, option: &str, path: &Path, kind: Kind) -> Result<Output, Failure> {
        if path.exists() && !path.is_dir() {
            file::open(path).map_err(|error| {
                let error = std::io::Error::from(error);
                let message = format!("cannot write '{}': {error}", path.display());
                Failure::io(message, error.kind()).hint("move it away")
            })?;
        }
        self.file(option, path, kind)
    }

    /// Prepares a folder for several files. It is created with the first file.
    ///
    /// # Errors
    /// If the path is a file, or the folder cannot be created.
    pub fn folder(&mut self, path: &Path) -> Outcome {
        if path.exists() && !path.is_dir() {
            return Err(Failure::new(
                Class::Files,
                format!(
                    "'{}' is a file, but several files are to be written",
                    path.display()
                ),
            )
            .hint("give a folder, which need not exist"));
        }
        let there = existing_ancestor(path);
        if let Some(input) = self.inputs.surrounding(&there) {
            return Err(is_input(path, &input));
        }
        check_writable(&there.join(PROBE)).map_err(|error| {
            Failure::io(
                format!("cannot write to the folder '{}': {error}", path.display()),
                error.kind(),
            )
        })
    }

    /// Prepares the folder of a run. With `replaced`, the files of an earlier run
    /// in it are to be replaced.
    ///
    /// # Errors
    /// As [`Outputs::folder`], or if one of its files is an input, or has the
    /// name of a run's file but is something else.
    pub fn run_folder(&mut self, path: &Path, replaced: bool) -> Outcome {
        self.folder(path)?;
        for (name, kind) in run_files(path) {
            let file = path.join(name);
            if let Some(input) = self.inputs.containing(&target(&file)?) {
                return Err(is_input(&file, &input));
            }
            // Replacing a run includes its models.
            if replaced {
                check_writable(&file)
                    .map_err(|error| Failure::io(error.to_string(), error.kind()))?;
                if kind != Kind::Model || Kind::of(&file).ok() != Some(kind) {
                    let hint = "move it away, or choose another folder with --out";
                    self.refuse_other_kind(&file, kind, hint)?;
                }
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
                    "the command prints to '{}': {option} needs a separate file",
                    path.display()
                ),
            ));
        }
        // Pipes and devices have no content to lose.
        let Some(target) = resolve(path).map_err(unwritable)? else {
            return Ok(Output {
                path: path.to_owned(),
                _pipe: open_pipe(path).map_err(unwritable)?,
            });
        };
        let identity = Identity::of(&target);
        let replaces_its_input = identity.is_some() && identity == in_place;
        if !replaces_its_input && let Some(input) = self.inputs.containing(&target) {
            return Err(is_input(path, &input));
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
            .hint("give two different files"));
        }
        if folder::is_in_use(&target) {
            return Err(Failure::new(
                Class::Usage,
                format!("'{}' belongs to a run in progress", path.display()),
            )
            .hint("wait until it ends, or give another file"));
        }
        if folder::is_lock(&target) {
            return Err(Failure::new(
                Class::Usage,
                format!("'{}' belongs to the run in its folder", path.display()),
            )
            .hint("give another file"));
        }
        if target.exists() && !replaces_its_input {
            let hint = "give another file, or add --force to replace it";
            self.refuse_other_kind(path, kind, hint)?;
        }
        check_writable(path).map_err(unwritable)?;
        self.taken
            .extend(identity.map(|it| (it, option.to_owned())));
        Ok(Output {
            path: path.to_owned(),
            _pipe: None,
        })
    }

    /// Refuses to replace a file that cannot be made again, unless with `--force`.
    fn refuse_other_kind(&self, path: &Path, kind: Kind, hint: &str) -> Outcome {
        let found = Kind::of(path).map_err(|error| {
            // An unreadable file may be valuable.
            Failure::io(
                format!("cannot examine '{}': {error}", path.display()),
                error.kind(),
            )
        })?;
        if found.may_become(kind) {
            return Ok(());
        }
        if self.force {
            return match self.inputs.linked_to(path) {
                Some(input) => Err(is_input(path, &input)),
                None => Ok(()),
            };
        }
        let by = match (found, kind) {
            (Kind::Model, Kind::Model | Kind::ImportedModel) => String::new(),
            _ => format!(" by {kind}"),
        };
        Err(Failure::new(
            Class::Usage,
            format!(
                "'{}' exists and is {found}: refusing to replace it{by}",
                path.display()
            ),
        )
        .hint(hint))
    }
}

fn is_input(path: &Path, input: &Input) -> Failure {
    let message = format!(
        "'{}' {input}, an input of this command: refusing to write to it",
        path.display()
    );
    Failure::new(Class::Usage, message).hint("give another path")
}

/// The name of a file that is created and removed to check that one can be.
const PROBE: &str = "sdpoint-check";

/// The file that a path leads to, with links resolved.
fn target(path: &Path) -> Result<PathBuf, Failure> {
    let resolved = resolve(path).map_err(|error| Failure::io(error.to_string(), error.kind()))?;
    Ok(resolved.unwrap_or_else(|| path.to_owned()))
}

/// The nearest existing ancestor of a path, with links resolved.
fn existing_ancestor(path: &Path) -> PathBuf {
    let here = std::env::current_dir().unwrap_or_default();
    let absolute = here.join(path);
    let mut ancestors = absolute.ancestors();
    let there = ancestors.find_map(|folder| folder.canonicalize().ok());
    there.unwrap_or(here)
}

/// The files in a folder that have names of a run, with the kinds they should
/// be.
fn run_files(path: &Path) -> impl Iterator<Item = (String, Kind)> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter_map(|name| {
        let kind = match &*name {
            folder::CHECKPOINT => Kind::Checkpoint,
            folder::METRICS => Kind::Metrics,
            folder::EVENTS => Kind::Events,
            folder::CURVE_CSV => Kind::Table,
            folder::CURVE_SVG => Kind::Picture,
            // The lock is never removed.
            folder::LOCK => return None,
            name if folder::is_run_file(name) => Kind::Model,
            _ => return None,
        };
        Some((name, kind))
    })
}
