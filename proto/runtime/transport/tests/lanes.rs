//! On whose threads calls are served.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::server::NamedService;
use tonic_health::pb::HealthCheckResponse;
use tower::Service;

use super::*;
use crate::traffic::TrafficClass;

/// Calls of it are bronze or gold by their name, and end with the name of the thread that served them.
#[derive(Debug, Clone)]
struct WhereAmI;

impl NamedService for WhereAmI {
    const NAME: &'static str = "test.WhereAmI";
}

impl Service<Request> for WhereAmI {
    type Response = Response;
    type Error = Infallible;
    type Future = Ready<Result<Response, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let class = if request.uri().path().ends_with("Bronze") { TrafficClass::Bronze } else { TrafficClass::Gold };
        if let Some(lane) = request.extensions().get::<Lane>() {
            lane.carry(class);
        }
        ready(Ok(Status::aborted(std::thread::current().name().unwrap_or_default()).into_http()))
    }
}

struct Caller(Grpc<Channel>);

impl Caller {
    async fn of(address: SocketAddr) -> Self {
        Self(Grpc::new(Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()))
    }

    /// The thread that served the call.
    async fn call(&mut self, method: &'static str) -> String {
        self.0.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
        let request = tonic::Request::new(HealthCheckRequest::default());
        let status = self.0.unary(request, PathAndQuery::from_static(method), codec).await.unwrap_err();
        assert_eq!(status.code(), Code::Aborted, "{status}");
        status.message().to_owned()
    }
}

#[tokio::test]
async fn connections_of_bronze_are_served_in_the_background_and_no_others() {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let background = builder.worker_threads(1).thread_name("background").enable_all().build().unwrap();
    let door = door(TransportLimits::default(), Tls::off(Arc::new(SystemClock)), DAY).await;
    let address = door.listener.local_addr().unwrap();
    let door = Door { background: Some(background.handle().clone()), ..door };
    let stop = CancellationToken::new();
    let serving = TaskGroup::new().spawn("server", serve(server().add_service(WhereAmI), door, stop.clone()));
    let (mut bronze, mut gold) = (Caller::of(address).await, Caller::of(address).await);
    let is_behind = async |caller: &mut Caller, method| caller.call(method).await == "background";
    assert!(!is_behind(&mut bronze, "/test.WhereAmI/Bronze").await, "nothing is known of it yet");
    for _ in 0..3 {
        assert!(is_behind(&mut bronze, "/test.WhereAmI/Bronze").await);
        assert!(!is_behind(&mut gold, "/test.WhereAmI/Gold").await);
    }
    assert!(is_behind(&mut bronze, "/test.WhereAmI/Gold").await, "known only when it is served");
    for method in ["/test.WhereAmI/Gold", "/test.WhereAmI/Bronze"] {
        assert!(!is_behind(&mut bronze, method).await, "{method}");
    }
    stop.cancel();
    drop((bronze, gold));
    assert_eq!(tokio::time::timeout(DEADLINE, serving).await.unwrap().unwrap(), Some(true));
    background.shutdown_background();
}

/// Whoever held a stream open was once served on by a service that had said that it had ended.
#[tokio::test]
async fn a_connection_that_outlasts_the_drain_is_cut() {
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status("", ServingStatus::Serving).await;
    let door = door(patient(), Tls::off(Arc::new(SystemClock)), Duration::from_millis(100)).await;
    let endpoint = Endpoint::from_shared(format!("http://{}", door.listener.local_addr().unwrap())).unwrap();
    let stop = CancellationToken::new();
    let serving = TaskGroup::new().spawn("server", serve(server().add_service(health), door, stop.clone()));
    let mut client = HealthClient::new(endpoint.connect().await.unwrap());
    let mut watch = client.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert!(watch.message().await.unwrap().is_some());
    stop.cancel();
    assert_eq!(tokio::time::timeout(DEADLINE, serving).await.unwrap().unwrap(), Some(false));
    assert!(tokio::time::timeout(DEADLINE, watch.message()).await.unwrap().is_err());
}
