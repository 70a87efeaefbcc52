//! TLS on a listener, seen from both sides.

use std::error::Error as _;
use std::path::Path;

use tempfile::TempDir;
use tonic_health::pb::health_check_response::ServingStatus as Status;

use super::raw::{PREFACE, Raw};
use super::*;
use crate::runtime::tls::{NetworkOptions, Reload, TlsOptions};
use crate::runtime::{Clock as _, ManualClock, folder};
use crate::tls::development::Authority;
use crate::tls::{DialError, Dialer, Trust, WANTS_TLS, authorities};

const ONE: [u8; 4] = [127, 0, 0, 1];
const HOUR_MS: u64 = 60 * 60 * 1000;

/// An authority, and a folder with a certificate of it.
struct Site {
    authority: Authority,
    folder: TempDir,
}

fn now_ms() -> u64 {
    SystemClock.now_ms()
}

impl Site {
    fn new() -> Self {
        let site = Self { authority: Authority::generate(now_ms()).unwrap(), folder: tempfile::tempdir().unwrap() };
        site.issue(&["127.0.0.1"], now_ms() + HOUR_MS);
        site
    }

    /// Puts a certificate for these hosts into the folder.
    fn issue(&self, hosts: &[&str], until_ms: u64) {
        let hosts: Vec<_> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let issued = self.authority.issue(&hosts, until_ms - HOUR_MS, until_ms).unwrap();
        let write = |name: &str, text: &str| folder::publish(&self.folder.path().join(name), text.as_bytes()).unwrap();
        write("ca.pem", self.authority.certificate());
        write("server.pem", &issued.certificate);
        write("server.key", &issued.key);
    }

    fn tls(&self) -> Arc<Tls> {
        self.tls_at(now_ms())
    }

    /// As a machine has it whose clock says so.
    fn tls_at(&self, now_ms: u64) -> Arc<Tls> {
        let options = TlsOptions { tls_dir: Some(self.folder.path().into()), ..TlsOptions::default() };
        Tls::open(&options, &NetworkOptions::default(), Arc::new(ManualClock::at(now_ms))).unwrap()
    }

    fn trust(&self) -> Trust {
        Trust::authorities(authorities(Path::new("ca.pem"), self.authority.certificate().as_bytes()).unwrap())
    }
}

fn client(scheme: &str, host: &str, served: &Served, trust: Trust) -> HealthClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("{scheme}://{host}:{}", served.address.port())).unwrap();
    HealthClient::new(endpoint.connect_with_connector_lazy(Dialer::new(trust)))
}

async fn refusal(mut client: HealthClient<Channel>) -> tonic::Status {
    client.check(HealthCheckRequest::default()).await.unwrap_err()
}

fn dial_error(status: &tonic::Status) -> &DialError {
    std::iter::successors(status.source(), |error| (*error).source())
        .find_map(|error| error.downcast_ref())
        .unwrap_or_else(|| panic!("{status:?}"))
}

async fn answers(site: &Site, served: &Served) -> bool {
    client("https", "127.0.0.1", served, site.trust()).check(HealthCheckRequest::default()).await.is_ok()
}

#[tokio::test]
async fn half_handshakes_plain_text_and_noise_end_their_own_connection_and_no_other() {
    let site = Site::new();
    let limits = TransportLimits { handshake_within: Duration::from_millis(300), ..patient() };
    let served = serve_as(limits, site.tls()).await;
    // A record of TLS that announces more than ever comes; half of the head of one; nothing; another protocol; noise.
    let half = [&[0x16, 3, 1, 2, 0][..], &[1; 100]].concat();
    let said: [&[u8]; 5] = [&half, &half[..3], b"", PREFACE, &[0xff; 4096]];
    for (number, said) in (1..).zip(said) {
        let mut raw = Raw::connect(ONE, served.address).await;
        raw.send(said).await;
        tokio::time::timeout(DEADLINE, raw.ended()).await.unwrap();
        wait_until("it is counted", async || served.gate.counts().failed_handshakes == number).await;
        assert!(answers(&site, &served).await, "after {said:?}");
    }
    wait_until("their places are given back", async || served.gate.counts().open == 0).await;
}

#[tokio::test]
async fn connections_in_their_handshake_count_among_those_of_their_address_and_do_not_hold_up_a_stop() {
    let site = Site::new();
    let served = serve_as(TransportLimits { connections_per_address: 4, ..patient() }, site.tls()).await;
    let mut silent = Vec::new();
    for _ in 0..4 {
        silent.push(Raw::connect([127, 0, 0, 2], served.address).await);
    }
    wait_until("they are in", async || served.gate.counts().open == 4).await;
    if let Ok(mut turned_away) = Raw::try_connect([127, 0, 0, 2], served.address).await {
        turned_away.ended().await;
    }
    wait_until("one more is refused", async || served.gate.counts().refused_address >= 1).await;
    assert!(answers(&site, &served).await);
    served.stop.cancel();
    let ended = tokio::time::timeout(DEADLINE, served.serving).await.unwrap();
    assert!(matches!(ended, Ok(Some(true))));
}

#[tokio::test]
async fn who_dials_is_told_what_is_wrong_with_the_other_side() {
    let (site, stranger) = (Site::new(), Site::new());
    let served = serve_as(patient(), site.tls()).await;

    let unknown = refusal(client("https", "127.0.0.1", &served, stranger.trust())).await;
    assert!(matches!(dial_error(&unknown), DialError::UnknownAuthority), "{unknown:?}");

    let another = refusal(client("https", "localhost", &served, site.trust())).await;
    let DialError::WrongHost { host, names } = dial_error(&another) else { panic!("{another:?}") };
    assert_eq!((host.as_str(), names.as_str()), ("localhost", "127.0.0.1"));

    let plain = refusal(client("http", "127.0.0.1", &served, site.trust())).await;
    assert!(crate::status::in_words(&plain).ends_with(WANTS_TLS), "{plain:?}");

    let unencrypted = serve_with(patient()).await;
    let not_tls = refusal(client("https", "127.0.0.1", &unencrypted, site.trust())).await;
    assert!(matches!(dial_error(&not_tls), DialError::NotTls), "{not_tls:?}");
}

#[tokio::test]
async fn a_certificate_that_has_expired_or_is_of_later_is_named_as_that() {
    let site = Site::new();
    let days = 24 * HOUR_MS;
    site.issue(&["127.0.0.1"], now_ms() - 3 * days - HOUR_MS);
    let served = serve_as(patient(), site.tls_at(now_ms() - 4 * days)).await;
    let expired = refusal(client("https", "127.0.0.1", &served, site.trust())).await;
    assert!(matches!(dial_error(&expired), DialError::Expired(ago) if ago == "3 days"), "{expired:?}");

    site.issue(&["127.0.0.1"], now_ms() + 10 * days);
    let served = serve_as(patient(), site.tls()).await;
    let early = refusal(client("https", "127.0.0.1", &served, site.trust())).await;
    assert!(matches!(dial_error(&early), DialError::NotYetValid), "{early:?}");
}

/// TLS 1.2 offers what must not be taken: old ciphers, renegotiation, certificates in the clear.
#[tokio::test]
async fn nothing_older_than_tls_1_3_is_spoken() {
    let site = Site::new();
    let served = serve_as(patient(), site.tls()).await;
    let mut raw = Raw::connect(ONE, served.address).await;
    // A ClientHello of TLS 1.2: version, random, no session, one cipher suite, no compression, no extensions.
    let body = [&[3, 3][..], &[7; 32], &[0, 0, 2, 0xc0, 0x2b, 1, 0]].concat();
    let length = u8::try_from(body.len()).unwrap();
    raw.send(&[&[0x16, 3, 1, 0, length + 4, 1, 0, 0, length][..], &body].concat()).await;
    raw.ended().await;
    assert_eq!(served.gate.counts().failed_handshakes, 1);
}

/// The old connection goes on with the old certificate, the next one meets the new one.
#[tokio::test]
async fn a_new_certificate_holds_for_new_connections_and_ends_no_stream() {
    let (site, next) = (Site::new(), Site::new());
    let tls = site.tls();
    let (reporter, health) = tonic_health::server::health_reporter();
    let served = serve_router(server().add_service(health), patient(), Arc::clone(&tls)).await;
    let mut before = client("https", "127.0.0.1", &served, site.trust());
    let watched = before.watch(HealthCheckRequest::default()).await.unwrap();
    let mut watched = watched.into_inner();
    assert_eq!(watched.message().await.unwrap().unwrap().status(), Status::Serving);

    for name in ["ca.pem", "server.pem", "server.key"] {
        let content = std::fs::read(next.folder.path().join(name)).unwrap();
        folder::publish(&site.folder.path().join(name), &content).unwrap();
    }
    assert_eq!(tls.reload(), Reload::Renewed);
    assert!(answers(&next, &served).await);
    assert!(!answers(&site, &served).await, "nobody is greeted with the old one");
    reporter.set_service_status("", ServingStatus::NotServing).await;
    assert_eq!(watched.message().await.unwrap().unwrap().status(), Status::NotServing);
    assert!(before.check(HealthCheckRequest::default()).await.is_ok(), "its connection is the old one");
}
