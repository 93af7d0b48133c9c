//! The methods of the inference service.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::super::error::{ApiError, Kind};
use super::super::rest::repository::{check_load, state_name};
use super::super::rest::router::EXTENSIONS;
use super::super::signature::TensorMetadata;
use super::inference::grpc_inference_service_server::GrpcInferenceService;
use super::inference::model_metadata_response::TensorMetadata as TensorMessage;
use super::inference::repository_index_response::ModelIndex;
#[allow(clippy::wildcard_imports)]
use super::inference::*;
use super::{config, convert};
use crate::app::{App, Call, VERSION};

/// The inference service.
pub struct Service(pub Arc<App>);

/// The result of a method.
type Reply<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl GrpcInferenceService for Service {
    async fn server_live(&self, _: Request<ServerLiveRequest>) -> Reply<ServerLiveResponse> {
        Ok(Response::new(ServerLiveResponse { live: true }))
    }

    async fn server_ready(&self, _: Request<ServerReadyRequest>) -> Reply<ServerReadyResponse> {
        let ready = self.0.ready();
        Ok(Response::new(ServerReadyResponse { ready }))
    }

    async fn model_ready(&self, request: Request<ModelReadyRequest>) -> Reply<ModelReadyResponse> {
        let ModelReadyRequest { name, version } = request.into_inner();
        let ready = match self.0.model(&name, Some(&version)) {
            Ok(_) => true,
            Err(error) if error.kind == Kind::Unavailable => false,
            Err(error) => return Err(error.into()),
        };
        Ok(Response::new(ModelReadyResponse { ready }))
    }

    async fn server_metadata(
        &self,
        _: Request<ServerMetadataRequest>,
    ) -> Reply<ServerMetadataResponse> {
        Ok(Response::new(ServerMetadataResponse {
            name: "sdpoint".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            extensions: EXTENSIONS.map(str::to_owned).into(),
        }))
    }

    async fn model_metadata(
        &self,
        request: Request<ModelMetadataRequest>,
    ) -> Reply<ModelMetadataResponse> {
        let ModelMetadataRequest { name, version } = request.into_inner();
        let model = self.0.model(&name, Some(&version))?;
        let tensor = |tensor: TensorMetadata| TensorMessage {
            name: tensor.name.to_owned(),
            datatype: tensor.datatype.to_string(),
            shape: tensor.shape,
        };
        Ok(Response::new(ModelMetadataResponse {
            name,
            versions: vec![VERSION.to_owned()],
            platform: "sdpoint_safetensors".to_owned(),
            inputs: model.signature.inputs().map(tensor).into(),
            outputs: model.signature.outputs().map(tensor).into(),
        }))
    }

    async fn model_infer(&self, request: Request<ModelInferRequest>) -> Reply<ModelInferResponse> {
        let call = request.extensions().get::<Call>().cloned();
        let call =
            call.ok_or_else(|| ApiError::new(Kind::Internal, "the request has no client"))?;
        let mut message = request.into_inner();
        let name = std::mem::take(&mut message.model_name);
        let version = std::mem::take(&mut message.model_version);
        let request = async { Ok((convert::request(message)?, true)) };
        let answer = self.0.infer(&call, &name, Some(&version), request).await?;
        Ok(Response::new(convert::response(&answer)))
    }

    async fn model_config(
        &self,
        request: Request<ModelConfigRequest>,
    ) -> Reply<ModelConfigResponse> {
        let ModelConfigRequest { name, version } = request.into_inner();
        let model = self.0.model(&name, Some(&version))?;
        let config = Some(config::config(&model));
        Ok(Response::new(ModelConfigResponse { config }))
    }

    async fn model_statistics(
        &self,
        request: Request<ModelStatisticsRequest>,
    ) -> Reply<ModelStatisticsResponse> {
        let ModelStatisticsRequest { name, version } = request.into_inner();
        let registry = &self.0.registry;
        let names: Vec<&str> = if name.is_empty() {
            registry.names().collect()
        } else {
            self.0.model(&name, Some(&version))?;
            vec![&name]
        };
        let counts = |name: &str| {
            let counts = registry.statistics(name).map_err(ApiError::from)?.counts();
            Ok::<_, ApiError>(config::statistics(name, &counts))
        };
        let model_stats = names
            .into_iter()
            .map(counts)
            .collect::<Result<_, ApiError>>()?;
        Ok(Response::new(ModelStatisticsResponse { model_stats }))
    }

    async fn repository_index(
        &self,
        request: Request<RepositoryIndexRequest>,
    ) -> Reply<RepositoryIndexResponse> {
        let ready_only = request.into_inner().ready;
        let statuses = self.0.registry.statuses().into_iter();
        let index = statuses.map(|status| {
            let (state, reason) = state_name(&status);
            ModelIndex {
                name: status.name,
                version: VERSION.to_owned(),
                state: state.to_owned(),
                reason,
            }
        });
        let models = index
            .filter(|model| !ready_only || model.state == "READY")
            .collect();
        Ok(Response::new(RepositoryIndexResponse { models }))
    }

    async fn repository_model_load(
        &self,
        request: Request<RepositoryModelLoadRequest>,
    ) -> Reply<RepositoryModelLoadResponse> {
        let request = request.into_inner();
        check_load(request.parameters.keys())?;
        self.0.load(&request.model_name).await?;
        Ok(Response::new(RepositoryModelLoadResponse {}))
    }

    async fn repository_model_unload(
        &self,
        request: Request<RepositoryModelUnloadRequest>,
    ) -> Reply<RepositoryModelUnloadResponse> {
        self.0.unload(&request.into_inner().model_name).await?;
        Ok(Response::new(RepositoryModelUnloadResponse {}))
    }
}
