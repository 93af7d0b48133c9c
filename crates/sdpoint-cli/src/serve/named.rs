//! Models and their names on the command line.

use std::path::{Path, PathBuf};

use sdpoint::data::expand_home;
use sdpoint::train::folder::MODEL;
use sdpoint_serve::check_name;

use crate::failure::{Class, Failure};
use crate::model;

/// The names and files of models.
pub fn files(models: &[String]) -> Result<Vec<(String, PathBuf)>, Failure> {
    models.iter().map(|argument| named(argument)).collect()
}

fn named(argument: &str) -> Result<(String, PathBuf), Failure> {
    // A path may contain an equals sign, a name may not.
    if let Some((name, path)) = argument.split_once('=')
        && !name.contains(std::path::is_separator)
    {
        check_name(name).map_err(|error| {
            Failure::from_error(Class::Usage, &error)
                .hint("the part before = is the model's name, as in NAME=PATH")
        })?;
        if path.is_empty() {
            let message = format!("'{argument}' has no path after the =");
            let hint =
                format!("name a model file or the folder of a run, as in {name}=runs/{name}");
            return Err(Failure::new(Class::Usage, message).hint(hint));
        }
        return Ok((name.to_owned(), model::file(&expand_home(Path::new(path)))));
    }
    let path = &expand_home(Path::new(argument));
    let name = name_of(path);
    check_name(&name).map_err(|error| {
        Failure::from_error(Class::Usage, &error)
            .hint(format!("give the model a name, as in NAME={argument}"))
    })?;
    Ok((name, model::file(path)))
}

/// The name of a model's run, or of its file.
fn name_of(path: &Path) -> String {
    let run = match path {
        path if path.is_dir() => Some(path),
        path if path.file_name() == Some(MODEL.as_ref()) => path.parent(),
        _ => None,
    };
    let run = run.and_then(|run| run.canonicalize().ok());
    let name = run
        .as_deref()
        .and_then(Path::file_name)
        .or_else(|| path.file_stem());
    name.unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_named_by_run_or_file() {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path().join("birds");
        std::fs::create_dir(&run).unwrap();
        let model = run.join(MODEL);
        for path in [&run, &model] {
            let (name, file) = named(path.to_str().unwrap()).unwrap();
            assert_eq!((name.as_str(), &file), ("birds", &model));
        }
        let (name, file) = named("cats.safetensors").unwrap();
        assert_eq!((name.as_str(), file), ("cats", "cats.safetensors".into()));
        let given = format!("b-1={}", run.display());
        assert_eq!(named(&given).unwrap(), ("b-1".to_owned(), model));
        let home = std::env::home_dir().unwrap();
        for argument in ["~/cats.safetensors", "cats=~/cats.safetensors"] {
            let (name, file) = named(argument).unwrap();
            assert_eq!(
                (name.as_str(), file),
                ("cats", home.join("cats.safetensors"))
            );
        }
        let odd = named("./a=b.safetensors").unwrap_err();
        assert!(format!("{odd:?}").contains("NAME=./a=b.safetensors"));
        for bad in [
            "a b.safetensors",
            "=x.safetensors",
            "..=x",
            "stats.safetensors",
        ] {
            assert!(named(bad).is_err(), "{bad}");
        }
    }
}
