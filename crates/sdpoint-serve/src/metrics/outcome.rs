//! The outcomes of requests.

use prometheus_client::encoding::{EncodeLabelValue, LabelValueEncoder};

use crate::protocol::error::Kind;

/// The outcome of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It was answered.
    Answered,
    /// It was refused on arrival: the server or the client has too much in flight.
    Shed,
    /// It was accepted, but its deadline passed.
    Expired,
    /// The client disconnected or cancelled it.
    Cancelled,
    /// The request was invalid.
    Invalid,
    /// The model or the server was not ready.
    Unavailable,
    /// An internal error.
    Failed,
}

impl Outcome {
    pub(super) const ALL: [Self; 7] = [
        Self::Answered,
        Self::Shed,
        Self::Expired,
        Self::Cancelled,
        Self::Invalid,
        Self::Unavailable,
        Self::Failed,
    ];

    /// The outcome of a failure of this kind.
    pub fn of(kind: Kind) -> Self {
        match kind {
            Kind::Overloaded | Kind::Quota => Self::Shed,
            Kind::Expired => Self::Expired,
            Kind::Unavailable => Self::Unavailable,
            Kind::Internal => Self::Failed,
            _ => Self::Invalid,
        }
    }

    /// The name, in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Shed => "shed",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
            Self::Invalid => "invalid",
            Self::Unavailable => "unavailable",
            Self::Failed => "failed",
        }
    }
}

impl EncodeLabelValue for Outcome {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.name().encode(encoder)
    }
}
