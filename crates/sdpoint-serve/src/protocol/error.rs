//! Errors of requests, independent of the transport.

use std::time::Duration;

use crate::Refusal;

/// The kind of a failure, which each transport maps to a status code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The request is invalid, or does not fit the model.
    Invalid,
    /// There is no such model, version or path.
    NotFound,
    /// The path does not support this method.
    Method,
    /// The token is missing or wrong.
    Unauthenticated,
    /// The server does not allow it.
    Forbidden,
    /// The request is larger than the server allows.
    TooLarge,
    /// The content type or encoding is not supported.
    MediaType,
    /// The client did not send its request in time.
    Slow,
    /// The client has too much in flight.
    Quota,
    /// The server has too much in flight.
    Overloaded,
    /// The deadline passed.
    Expired,
    /// The model or the server is not ready, or shutting down.
    Unavailable,
    /// The server does not implement this part of the protocol.
    Unsupported,
    /// An internal error.
    Internal,
}

/// A failed request.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// The kind.
    pub kind: Kind,
    /// The message for the client.
    pub message: String,
    /// The time after which a retry makes sense.
    pub retry_after: Option<Duration>,
}

impl ApiError {
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            retry_after: None,
        }
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, message)
    }

    /// A temporary overload.
    pub fn overloaded(message: impl Into<String>, retry_after: Duration) -> Self {
        Self {
            retry_after: Some(retry_after),
            ..Self::new(Kind::Overloaded, message)
        }
    }

    /// A body of more than `most` bytes.
    pub fn too_long(most: usize) -> Self {
        Self::new(
            Kind::TooLarge,
            format!("the body has more than {most} bytes"),
        )
    }

    pub fn expired() -> Self {
        Refusal::Expired.into()
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let kind = match &refusal {
            Refusal::Overloaded { .. } => Kind::Overloaded,
            Refusal::Expired | Refusal::TooShort { .. } => Kind::Expired,
            Refusal::NoInstance(_) => Kind::Invalid,
            Refusal::Unavailable => Kind::Unavailable,
            Refusal::Failed(_) => Kind::Internal,
        };
        let retry_after = match refusal {
            Refusal::Overloaded { retry_after, .. } => Some(retry_after),
            _ => None,
        };
        Self {
            kind,
            message: refusal.to_string(),
            retry_after,
        }
    }
}

/// The error for the shared-memory extension.
pub fn shared_memory() -> ApiError {
    ApiError::new(
        Kind::Unsupported,
        "shared memory is not supported; send tensors in the request",
    )
}

/// Quotes a name or value from a request in an error message: escaped and truncated.
pub fn quoted(text: &str) -> String {
    const SHOWN: usize = 80;
    let mut shown: String = text
        .chars()
        .take(SHOWN)
        .flat_map(char::escape_debug)
        .collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    format!("'{shown}'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_are_short_and_on_one_line() {
        assert_eq!(quoted("cats"), "'cats'");
        assert_eq!(quoted("a\nb\u{1b}[2J"), "'a\\nb\\u{1b}[2J'");
        assert!(quoted(&"é".repeat(10_000)).chars().count() < 90);
    }

    #[test]
    fn an_overload_suggests_when_to_retry() {
        let overloaded = |late| Refusal::Overloaded {
            reason: "the queue is full".into(),
            retry_after: Duration::from_millis(12),
            late,
        };
        let error = ApiError::from(overloaded(false));
        assert_eq!(error.kind, Kind::Overloaded);
        assert_eq!(error.retry_after, Some(Duration::from_millis(12)));
        assert_eq!(
            error.message,
            "overloaded: the queue is full; retry in 12 ms"
        );
        let message = overloaded(true).to_string();
        assert!(message.contains("12 ms, or set 'late'"), "{message}");
    }

    #[test]
    fn nobody_retries_with_a_deadline_that_is_too_short() {
        let error = ApiError::from(Refusal::TooShort {
            by: "instance full".into(),
            left: Duration::from_micros(3456),
            shortest: Duration::from_micros(123_456),
        });
        assert_eq!((error.kind, error.retry_after), (Kind::Expired, None));
        for text in ["3.46 ms", "instance full takes 123 ms", "'late'"] {
            assert!(error.message.contains(text), "{}", error.message);
        }
    }
}
