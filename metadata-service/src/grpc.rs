//! gRPC: requests become commands, answers become messages, errors become statuses; nothing is decided here.
//!
//! A call passes authentication first (`authenticated`), before a byte of its body is read; then its handler converts it
//! in (`convert`), calls the service, and converts its answer out (`answers`).

mod answers;
mod audited;
pub(crate) mod authenticated;
mod check_stream;
mod cluster;
mod convert;
pub(crate) mod metadata;

use proto::limits::METADATA_REQUEST_BYTES_MAX;
use proto::pb::cluster_service_server::ClusterServiceServer;
use proto::pb::metadata_service_server::MetadataServiceServer;
use proto::status::to_status;
use tonic::{Request, Response, Status};

use self::answers::FromAnswer;
use self::authenticated::Authenticated;
use self::cluster::ClusterHandlers;
use self::convert::Call;
use self::metadata::MetadataHandlers;
use crate::auth::{Authenticator, Caller};
use crate::error::MetadataError;
use crate::service::Service;

type Answer<T> = Result<Response<T>, Status>;

/// The tenants' service, behind authentication.
pub fn metadata_server(
    service: &Service,
    authenticator: &Authenticator,
) -> Authenticated<MetadataServiceServer<MetadataHandlers>> {
    let server = MetadataServiceServer::new(MetadataHandlers::new(service.clone(), authenticator.clone()));
    Authenticated::new(server.max_decoding_message_size(METADATA_REQUEST_BYTES_MAX), authenticator.clone())
}

/// The nodes' and operators' service, behind authentication.
pub fn cluster_server(
    service: &Service,
    authenticator: &Authenticator,
) -> Authenticated<ClusterServiceServer<ClusterHandlers>> {
    let server = ClusterServiceServer::new(ClusterHandlers::new(service.clone()));
    Authenticated::new(server.max_decoding_message_size(METADATA_REQUEST_BYTES_MAX), authenticator.clone())
}

fn refused(error: MetadataError) -> Status {
    to_status(&error)
}

/// A request as the command it stands for.
fn command<T, C: TryFrom<Call<T>, Error = MetadataError>>(request: Request<T>) -> Result<C, Status> {
    let (_metadata, extensions, message) = request.into_parts();
    let caller = extensions.get::<Caller>().cloned();
    let caller = caller.ok_or_else(|| refused(MetadataError::Bug("a call came past authentication")))?;
    C::try_from(Call { caller, message }).map_err(refused)
}

fn answer<A, T: FromAnswer<A>>(outcome: Result<A, MetadataError>) -> Answer<T> {
    outcome.map(|answer| Response::new(T::from_answer(answer))).map_err(refused)
}
