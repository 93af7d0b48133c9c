//! Bearer tokens.

use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

use axum::http::{HeaderMap, header};
use subtle::{Choice, ConstantTimeEq};

/// The minimum length of a token.
const SHORTEST: usize = 16;

/// An invalid token file.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It cannot be read.
    #[error("cannot read the token file '{}': {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// It has no tokens.
    #[error("the token file '{}' is empty; create a token with `openssl rand -hex 32`", .0.display())]
    Empty(PathBuf),
    /// A token is too short, or has characters that a header cannot have.
    #[error(
        "line {line} of the token file '{}' is no token: one has at least {SHORTEST} visible \
         ASCII characters; `openssl rand -hex 32` makes one",
        file.display()
    )]
    Form {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        line: usize,
    },
}

/// The accepted tokens.
#[derive(Clone, Default)]
pub struct Tokens(Vec<String>);

impl Tokens {
    /// Reads a file with one token per line. Several allow tokens to be rotated.
    ///
    /// # Errors
    /// If the file cannot be read, is empty, or has an invalid token.
    pub fn read(file: &Path) -> Result<Self, TokenError> {
        let text = fs::read_to_string(file).map_err(|source| TokenError::Read {
            file: file.to_owned(),
            source,
        })?;
        let mut tokens = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let token = line.trim();
            if token.is_empty() {
                continue;
            }
            if token.len() < SHORTEST || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(TokenError::Form {
                    file: file.to_owned(),
                    line: number + 1,
                });
            }
            tokens.push(token.to_owned());
        }
        if tokens.is_empty() {
            return Err(TokenError::Empty(file.to_owned()));
        }
        Ok(Self(tokens))
    }

    /// Whether no token is required.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the headers have a valid token. The time that this takes depends on the
    /// lengths of the tokens, but not on their contents.
    pub fn allow(&self, headers: &HeaderMap) -> bool {
        if self.is_empty() {
            return true;
        }
        let given = headers
            .get(header::AUTHORIZATION)
            .map(|value| value.as_bytes());
        let Some((scheme, token)) = given.and_then(|value| value.split_at_checked(7)) else {
            return false;
        };
        let equal = self.0.iter().fold(Choice::from(0), |equal, known| {
            equal | known.as_bytes().ct_eq(token.trim_ascii())
        });
        scheme.eq_ignore_ascii_case(b"bearer ") && bool::from(equal)
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tokens({})", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Result<Tokens, TokenError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        Tokens::read(file.path())
    }

    fn allowed(tokens: &Tokens, authorization: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, authorization.parse().unwrap());
        tokens.allow(&headers)
    }

    #[test]
    fn one_of_the_tokens_is_needed() {
        let tokens = tokens("0123456789abcdef\n\n  fedcba9876543210fedcba  \n").unwrap();
        for good in [
            "Bearer 0123456789abcdef",
            "bearer fedcba9876543210fedcba",
            "BEARER  0123456789abcdef",
        ] {
            assert!(allowed(&tokens, good), "{good}");
        }
        for bad in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer 0123456789abcdeg",
            "Bearer 0123456789abcde",
            "Bearer 0123456789abcdef0",
            "Basic 0123456789abcdef",
            "0123456789abcdef",
            "é",
        ] {
            assert!(!allowed(&tokens, bad), "{bad}");
        }
        assert!(!tokens.allow(&HeaderMap::new()));
        assert!(Tokens::default().allow(&HeaderMap::new()));
        assert_eq!(format!("{tokens:?}"), "Tokens(2)");
    }

    #[test]
    fn files_without_good_tokens_are_refused() {
        assert!(matches!(tokens("\n \n"), Err(TokenError::Empty(_))));
        for text in [
            "short",
            "0123456789abcdef\nwith a blank in it",
            "0123456789abcdeé",
        ] {
            assert!(
                matches!(tokens(text), Err(TokenError::Form { .. })),
                "{text}"
            );
        }
        let missing = Tokens::read(Path::new("/no/such/file")).unwrap_err();
        assert!(missing.to_string().contains("/no/such/file"));
    }
}
