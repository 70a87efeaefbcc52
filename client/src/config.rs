//! What a client is made of.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use proto::ids::TenantId;
use proto::traffic::TrafficClass;
use zeroize::Zeroizing;

use crate::retry::RetryPolicy;

/// Settings of a [`Client`](crate::Client).
#[derive(Clone)]
#[non_exhaustive]
pub struct ClientConfig {
    /// The metadata service: `host`, `host:port`, `http://host:port` or `https://host:port`. The port is 50051 unless
    /// given.
    pub endpoint: String,
    /// Whose blobs are meant. The token says that too; when both are given and they differ, the service refuses.
    pub tenant: Option<TenantId>,
    /// How urgent uploads and downloads are; at most as urgent as the tenant's traffic, which is the default.
    pub traffic_class: Option<TrafficClass>,
    /// A tenant's token for that tenant's blobs, or the admin token for tenants.
    pub token: Option<Zeroizing<String>>,
    /// The file (PEM) of the authorities that are believed at `https://` endpoints. Default: this machine's own.
    pub tls_ca: Option<PathBuf>,
    /// Send tokens and capabilities to other machines also when nothing is encrypted. Default: no.
    pub insecure_plaintext: bool,
    /// How long a connection may take to come about. Default: 3 s.
    pub connect_timeout: Duration,
    /// How long the answer to one call may take; a longer wait is an unknown outcome, and may be retried. Default: 10 s.
    pub call_timeout: Duration,
    /// How long a chunk service may take to answer that a chunk is durable once it has all of it. Default: 60 s.
    pub sync_timeout: Duration,
    /// How long a stream may stand still before it is opened anew. Default: 20 s.
    pub stall_timeout: Duration,
    /// When to try again, and when to give up.
    pub retry: RetryPolicy,
}

impl ClientConfig {
    /// The defaults, for the metadata service at this endpoint.
    pub fn new(endpoint: impl Into<String>) -> Self {
        Self {
            endpoint: endpoint.into(),
            tenant: None,
            traffic_class: None,
            token: None,
            tls_ca: None,
            insecure_plaintext: false,
            connect_timeout: Duration::from_secs(3),
            call_timeout: Duration::from_secs(10),
            sync_timeout: Duration::from_secs(60),
            stall_timeout: Duration::from_secs(20),
            retry: RetryPolicy::default(),
        }
    }

    /// The credential to use. Surrounding white space is dropped, since token files end with a newline.
    #[must_use]
    pub fn with_token(mut self, token: impl AsRef<str>) -> Self {
        self.token = Some(Zeroizing::new(token.as_ref().trim().to_owned()));
        self
    }

    /// Whose blobs are meant: no call can then touch those of another tenant whose token was taken by mistake.
    #[must_use]
    pub fn with_tenant(mut self, tenant: TenantId) -> Self {
        self.tenant = Some(tenant);
        self
    }

    /// How urgent uploads and downloads are: bronze for work in the background.
    #[must_use]
    pub fn with_traffic_class(mut self, class: TrafficClass) -> Self {
        self.traffic_class = Some(class);
        self
    }

    /// The file (PEM) of the authorities that are believed at `https://` endpoints, instead of this machine's own.
    #[must_use]
    pub fn with_tls_ca(mut self, file: impl Into<PathBuf>) -> Self {
        self.tls_ca = Some(file.into());
        self
    }

    /// When to try again, and when to give up.
    #[must_use]
    pub fn with_retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }
}

impl fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientConfig")
            .field("endpoint", &self.endpoint)
            .field("tenant", &self.tenant)
            .field("traffic_class", &self.traffic_class)
            .field("token", &self.token.as_ref().map(|_secret| "[redacted]"))
            .field("tls_ca", &self.tls_ca)
            .field("insecure_plaintext", &self.insecure_plaintext)
            .field("connect_timeout", &self.connect_timeout)
            .field("call_timeout", &self.call_timeout)
            .field("sync_timeout", &self.sync_timeout)
            .field("stall_timeout", &self.stall_timeout)
            .field("retry", &self.retry)
            .finish()
    }
}
