//! Errors as gRPC statuses.

use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use super::super::error::{ApiError, Kind};

impl Kind {
    fn code(self) -> Code {
        match self {
            Self::Invalid | Self::MediaType => Code::InvalidArgument,
            Self::NotFound => Code::NotFound,
            Self::Unauthenticated => Code::Unauthenticated,
            Self::Forbidden => Code::PermissionDenied,
            Self::TooLarge | Self::Quota | Self::Overloaded => Code::ResourceExhausted,
            Self::Slow | Self::Expired => Code::DeadlineExceeded,
            Self::Unavailable => Code::Unavailable,
            Self::Unsupported | Self::Method => Code::Unimplemented,
            Self::Internal => Code::Internal,
        }
    }
}

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Self {
        let mut status = Self::new(error.kind.code(), error.message);
        if let Some(time) = error.retry_after {
            // The time that gRPC clients wait before a retry.
            let time = MetadataValue::from(time.as_millis().max(1) as u64);
            status.metadata_mut().insert("grpc-retry-pushback-ms", time);
        }
        status
    }
}
