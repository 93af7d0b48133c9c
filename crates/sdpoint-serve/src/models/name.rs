//! Names of models. They occur in URLs and in labels of metrics, and are never paths.

/// The maximum length of a name.
const LONGEST: usize = 64;

/// An invalid name of a model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It is too long, or has characters that would need escaping.
    #[error(
        "{} is not a valid model name: use 1 to {LONGEST} letters, digits, '-', '_' and '.', \
         starting with a letter or digit",
        crate::protocol::error::quoted(.0)
    )]
    Form(String),
    /// It is part of the protocol's URLs.
    #[error("a model cannot be named '{0}', which is part of the protocol's URLs")]
    Reserved(String),
}

/// Checks the name of a model.
///
/// # Errors
/// If it is empty, too long, has other characters than letters, digits, `-`, `_` and `.`,
/// or has another meaning in a URL.
///
/// ```
/// use sdpoint_serve::check_name;
///
/// assert!(check_name("cats-2.1").is_ok());
/// assert!(check_name("../cats").is_err());
/// ```
pub fn check_name(name: &str) -> Result<(), NameError> {
    if name == "stats" {
        return Err(NameError::Reserved(name.to_owned()));
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let fits = name.len() <= LONGEST
        && name.bytes().all(allowed)
        && name
            .bytes()
            .next()
            .is_some_and(|first| first.is_ascii_alphanumeric());
    if fits {
        Ok(())
    } else {
        Err(NameError::Form(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_no_paths() {
        for name in ["cats", "a", "resnet50.a1_in1k", "7", &"x".repeat(64)] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
        for name in [
            "",
            ".",
            "..",
            ".cats",
            "-v",
            "a/b",
            "a\\b",
            "a b",
            "é",
            "a\0",
            "a%2f",
            "a\n",
            &"x".repeat(65),
        ] {
            assert!(
                matches!(check_name(name), Err(NameError::Form(_))),
                "{name}"
            );
        }
        assert!(matches!(check_name("stats"), Err(NameError::Reserved(_))));
    }
}
