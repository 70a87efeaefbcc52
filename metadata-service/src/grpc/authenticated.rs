//! Authentication around a whole gRPC service, so that no method can be without it.

use std::convert::Infallible;
use std::task::{Context, Poll};

use proto::error::Classify as _;
use proto::runtime::transport::ClientCertificate;
use proto::status::{from_status, to_status};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::header::AUTHORIZATION;
use tonic::codegen::http::{Request, Response};
use tonic::codegen::{BoxFuture, Service};
use tonic::server::NamedService;
use tonic::transport::server::TcpConnectInfo;

use crate::auth::{Authenticator, Refusal, access_of, bearer};

/// A service whose calls come with the [`Caller`](crate::auth::Caller) among their extensions, or not at all.
#[derive(Debug, Clone)]
pub struct Authenticated<S> {
    inner: S,
    authenticator: Authenticator,
}

impl<S> Authenticated<S> {
    pub(super) fn new(inner: S, authenticator: Authenticator) -> Self {
        Self { inner, authenticator }
    }
}

impl<S: NamedService> NamedService for Authenticated<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Authenticated<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Response<Body>, Infallible>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // The service that was polled ready answers this call; its clone is polled for the next one.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        let Some((method, access)) = access_of(request.uri().path()) else {
            return Box::pin(async { Ok(Status::unimplemented("there is no such method").into_http()) });
        };
        let authenticator = self.authenticator.clone();
        let token = bearer(request.headers().get_all(AUTHORIZATION).iter().map(|value| value.as_bytes()));
        let key_id = token.as_ref().ok().map(|token| token.key_id);
        let certified = request.extensions().get::<ClientCertificate>().is_some();
        let peer = request.extensions().get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr);
        Box::pin(async move {
            match authenticator.admit(access, token, certified).await {
                Ok(caller) => {
                    request.extensions_mut().insert(caller);
                    inner.call(request).await
                }
                Err(error) => {
                    if let Err(too_many) = authenticator.count_failure(&error, peer) {
                        return Ok(to_status(&too_many).into_http());
                    }
                    let status = to_status(&error);
                    let request_id = from_status(&status).request_id;
                    let refusal = Refusal { method, key_id, reason: error.reason(), peer, request_id };
                    authenticator.refused(&refusal).await;
                    Ok(status.into_http())
                }
            }
        })
    }
}
