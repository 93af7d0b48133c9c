//! Sources of images: the forms of the `--data` option.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::error::DataError;

/// A source of labelled images.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// `shapes`: images drawn by the program itself.
    Shapes,
    /// `folder:DIR`: class folders under `train/` and `test/` or `val/`.
    Folder(PathBuf),
    /// `tar:PATH[,PATH…]`: the same tree in archives, or WebDataset shards. A
    /// path may also be a folder of archives, or a pattern such as
    /// `shard-{000..003}.tar` or `*.tar`.
    Tar(Vec<PathBuf>),
    /// `cifar10:PATH`: the official files, binary or for Python, in a folder or
    /// in the official archive.
    Cifar10(PathBuf),
    /// `cifar100:PATH`: the same with the 100 fine labels.
    Cifar100(PathBuf),
}

impl Source {
    /// A name of the data that is independent of its location: the kind, or the
    /// name of the folder or first archive up to a dot.
    pub fn name(&self) -> String {
        match self {
            Source::Shapes => "shapes".to_owned(),
            Source::Cifar10(_) => "cifar10".to_owned(),
            Source::Cifar100(_) => "cifar100".to_owned(),
            Source::Folder(path) => stem(path).unwrap_or("folder".to_owned()),
            Source::Tar(paths) => {
                let first = paths.first().and_then(|path| stem(path));
                first.unwrap_or("tar".to_owned())
            }
        }
    }
}

/// Splits at commas, except for those in braces.
fn paths(text: &str) -> Vec<&str> {
    let mut depth = 0usize;
    text.split(|c| {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    })
    .collect()
}

/// The last component of a path up to its first dot or pattern character.
fn stem(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_string_lossy();
    let mut parts = name.split(['.', '{', '*', '?', '[', '~']);
    let part = parts.find(|part| !part.is_empty())?;
    let part = part.trim_end_matches(['-', '_']);
    (!part.is_empty()).then(|| part.to_owned())
}

impl FromStr for Source {
    type Err = DataError;

    fn from_str(text: &str) -> Result<Source, DataError> {
        if text == "shapes" {
            return Ok(Source::Shapes);
        }
        let unknown = || DataError::Source(text.to_owned());
        let (kind, path) = text.split_once(':').ok_or_else(unknown)?;
        let (source, form) = match kind {
            "folder" => (Source::Folder(path.into()), "folder:DIR"),
            "tar" => {
                let paths = paths(path).into_iter().map(PathBuf::from);
                (Source::Tar(paths.collect()), "tar:PATH or tar:PATH,PATH")
            }
            "cifar10" => (Source::Cifar10(path.into()), "cifar10:DIR"),
            "cifar100" => (Source::Cifar100(path.into()), "cifar100:DIR"),
            _ => return Err(unknown()),
        };
        let is_empty = |path: &PathBuf| path.as_os_str().is_empty();
        let lacks_path = match &source {
            Source::Tar(paths) => paths.iter().any(is_empty),
            _ => path.is_empty(),
        };
        if lacks_path {
            let text = text.to_owned();
            return Err(DataError::SourcePath { text, form });
        }
        Ok(source)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Shapes => f.write_str("shapes"),
            Source::Folder(path) => write!(f, "folder:{}", path.display()),
            Source::Tar(paths) => {
                f.write_str("tar:")?;
                for (i, path) in paths.iter().enumerate() {
                    write!(f, "{}{}", if i == 0 { "" } else { "," }, path.display())?;
                }
                Ok(())
            }
            Source::Cifar10(path) => write!(f, "cifar10:{}", path.display()),
            Source::Cifar100(path) => write!(f, "cifar100:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_reads_back_as_written() {
        for text in [
            "shapes",
            "folder:a/b",
            "tar:x.tar.gz",
            "tar:a.tar,b.tar",
            "tar:a-{1,2}.tar,b*.tar",
            "cifar10:c",
            "cifar100:d:e",
        ] {
            assert_eq!(text.parse::<Source>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn names_tell_the_data_and_not_its_place() {
        for (text, name) in [
            ("shapes", "shapes"),
            ("folder:a/photos", "photos"),
            ("folder:/", "folder"),
            ("tar:a/birds.tar.gz,b.tar", "birds"),
            ("tar:a/birds-{000..003}.tar", "birds"),
            ("tar:a/*.tar", "tar"),
            ("folder:~", "folder"),
            ("cifar10:anywhere", "cifar10"),
        ] {
            assert_eq!(text.parse::<Source>().unwrap().name(), name);
        }
    }

    #[test]
    fn an_unknown_form_is_refused_with_the_list_of_forms() {
        for text in ["", "shape", "folder", "zip:a", ":"] {
            let message = text.parse::<Source>().unwrap_err().to_string();
            assert!(message.contains(&format!("`{text}`")), "{message}");
            assert!(
                message.contains("shapes, folder:DIR, tar:PATH"),
                "{message}"
            );
        }
    }

    #[test]
    fn a_missing_path_is_what_the_message_says() {
        for (text, form) in [
            ("folder:", "folder:DIR"),
            ("tar:", "tar:PATH"),
            ("tar:a.tar,", "tar:PATH,PATH"),
            ("cifar10:", "cifar10:DIR"),
            ("cifar100:", "cifar100:DIR"),
        ] {
            let message = text.parse::<Source>().unwrap_err().to_string();
            let expected = format!("`{text}` lacks a path: give");
            assert!(message.contains(&expected), "{message}");
            assert!(message.contains(form), "{message}");
        }
    }
}
