//! An empty call: what a round trip costs before any work is done.

use std::sync::Arc;
use std::time::Instant;

use mini_tectonic_client::Error;
use proto::limits;
use proto::status::chain;
use proto::tls::{Dialer, Trust};
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::phase::{Done, Kind, Operation};
use crate::cli::context::Context;

/// Asks the metadata service whether it is well, over so many connections.
///
/// # Errors
/// When the endpoint or the authorities cannot be used.
pub(super) fn pings(context: &Context, connections: u16) -> Result<Operation, Error> {
    let invalid = |problem| Error::Invalid { what: "endpoint", problem };
    let trust = Trust::from_file(context.network().tls_ca.as_deref()).map_err(|error| invalid(chain(&error)))?;
    let dialer = Dialer::new(trust);
    let endpoint = Endpoint::from_shared(context.endpoint().to_owned()).map_err(|error| invalid(error.to_string()))?;
    let endpoint = endpoint.max_frame_size(limits::HTTP2_FRAME_BYTES);
    let connect = || HealthClient::new(endpoint.connect_with_connector_lazy(dialer.clone()));
    let channels: Arc<[_]> = std::iter::repeat_with(connect).take(connections.into()).collect();
    Ok(Arc::new(move |worker, _number| {
        let client = channels.get(worker % channels.len().max(1)).cloned();
        Box::pin(async move { ping(client.expect("there is a connection")).await })
    }))
}

async fn ping(mut client: HealthClient<Channel>) -> Result<Option<Done>, Error> {
    let began = Instant::now();
    let answer = client.check(HealthCheckRequest::default()).await;
    let took = began.elapsed();
    let unwell = |problem| Error::Invalid { what: "health of the metadata service", problem };
    let status = answer.map_err(|status| unwell(status.to_string()))?.into_inner().status();
    if status != ServingStatus::Serving {
        return Err(unwell(format!("it is {}", status.as_str_name())));
    }
    Ok(Some(Done { kind: Kind::Ping, bytes: 0, entries: 0, took }))
}
