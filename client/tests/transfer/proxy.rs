//! A real proxy for TCP that cuts connections when it is told to: at random byte counts, or now.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use proto::entropy::{Entropy as _, SeededEntropy};
use proto::runtime::TaskGroup;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    tasks: TaskGroup,
}

struct Shared {
    connections: TaskTracker,
    target: Mutex<Option<SocketAddr>>,
    /// Cancelled to cut every connection there is.
    cut: Mutex<CancellationToken>,
    /// Bytes until the next cut; `u64::MAX` for never.
    left: AtomicU64,
    spacing: Mutex<Option<(SeededEntropy, u64)>>,
    cuts: AtomicU64,
    /// What the server says is swallowed.
    muted: AtomicBool,
    /// What the server says waits.
    held: watch::Sender<bool>,
    /// Bytes until one is changed; `u64::MAX` for never.
    until_flip: AtomicU64,
    flips: AtomicU64,
}

impl Proxy {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            connections: TaskTracker::new(),
            target: Mutex::new(None),
            cut: Mutex::new(CancellationToken::new()),
            left: AtomicU64::new(u64::MAX),
            spacing: Mutex::new(None),
            cuts: AtomicU64::new(0),
            muted: AtomicBool::new(false),
            held: watch::Sender::new(false),
            until_flip: AtomicU64::new(u64::MAX),
            flips: AtomicU64::new(0),
        });
        let tasks = TaskGroup::new();
        tasks.spawn("accept", accept(listener, Arc::clone(&shared), tasks.clone()));
        Self { address, shared, tasks }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn forward_to(&self, target: SocketAddr) {
        *self.shared.target.lock().unwrap() = Some(target);
    }

    /// Cuts every connection, and each new one at once, until there is a target again. On return nothing passes.
    pub(crate) async fn unplug(&self) {
        *self.shared.target.lock().unwrap() = None;
        self.shared.cut_all();
        self.shared.connections.close();
        self.shared.connections.wait().await;
        self.shared.connections.reopen();
    }

    /// From now on cuts all connections each time that up to `bytes` have passed, at a random count.
    pub(crate) fn cut_within(&self, seed: u64, bytes: u64) {
        *self.shared.spacing.lock().unwrap() = Some((SeededEntropy::new(seed), bytes));
        self.shared.draw_next();
    }

    /// Cuts no more.
    pub(crate) fn heal(&self) {
        *self.shared.spacing.lock().unwrap() = None;
        self.shared.left.store(u64::MAX, Ordering::SeqCst);
    }

    /// Number of cuts at random counts so far.
    pub(crate) fn cuts(&self) -> u64 {
        self.shared.cuts.load(Ordering::SeqCst)
    }

    /// From now on swallows what the server says, or no longer does.
    pub(crate) fn mute(&self, muted: bool) {
        self.shared.muted.store(muted, Ordering::SeqCst);
    }

    /// From now on keeps what the server says, or lets go of what was kept and keeps no more.
    pub(crate) fn hold(&self, held: bool) {
        self.shared.held.send_replace(held);
    }

    /// Changes one bit of the byte that passes after so many others, in whichever direction.
    pub(crate) fn flip_after(&self, bytes: u64) {
        self.shared.until_flip.store(bytes, Ordering::SeqCst);
    }

    /// Number of bits changed so far.
    pub(crate) fn flips(&self) -> u64 {
        self.shared.flips.load(Ordering::SeqCst)
    }

    /// Cuts every connection there is now.
    pub(crate) fn cut(&self) {
        self.shared.cut_all();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.tasks.stop_signal().cancel();
        self.shared.cut_all();
    }
}

impl Shared {
    fn cut_all(&self) {
        let cut = std::mem::take(&mut *self.cut.lock().unwrap());
        cut.cancel();
    }

    fn draw_next(&self) {
        let mut random = [0; 8];
        if let Some((entropy, bytes)) = &*self.spacing.lock().unwrap() {
            entropy.fill(&mut random);
            self.left.store(1 + u64::from_be_bytes(random) % bytes, Ordering::SeqCst);
        }
    }

    /// Changes one of these bytes if it is its turn.
    fn disturb(&self, bytes: &mut [u8]) {
        let count = bytes.len() as u64;
        let next = |until: u64| match until {
            u64::MAX => None,
            until if until < count => Some(u64::MAX),
            until => Some(until - count),
        };
        if let Ok(at) = self.until_flip.fetch_update(Ordering::SeqCst, Ordering::SeqCst, next)
            && let Some(byte) = usize::try_from(at).ok().and_then(|at| bytes.get_mut(at))
        {
            *byte ^= 0x10;
            self.flips.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// How many of these bytes may pass before a cut is due.
    fn allow(&self, bytes: u64) -> u64 {
        let update = |left: u64| if left == u64::MAX { None } else { Some(left.saturating_sub(bytes)) };
        match self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, update) {
            Ok(left) => left.min(bytes),
            Err(_never) => bytes,
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, tasks: TaskGroup) {
    let stop = tasks.stop_signal();
    while let Some(Ok((client, _from))) = stop.run_until_cancelled(listener.accept()).await {
        let cut = shared.cut.lock().unwrap().clone();
        let connection = connection(client, Arc::clone(&shared), cut);
        tasks.spawn("connection", shared.connections.track_future(connection));
    }
}

async fn connection(client: TcpStream, shared: Arc<Shared>, cut: CancellationToken) {
    let Some(target) = *shared.target.lock().unwrap() else { return };
    let Ok(server) = TcpStream::connect(target).await else { return };
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    for stream in [&client, &server] {
        // A cut is a reset, not an orderly end: bytes on the way are lost too.
        stream.set_zero_linger().unwrap();
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let both = async {
        tokio::select! {
            () = copy(from_client, to_server, &shared, false) => {}
            () = copy(from_server, to_client, &shared, true) => {}
        }
    };
    if cut.run_until_cancelled(both).await.is_none() {
        tracing::debug!("cut");
    }
}

/// Copies until one side ends, or a cut is due.
async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, shared: &Shared, answers: bool) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if answers {
            shared.held.subscribe().wait_for(|held| !held).await.unwrap();
        }
        if answers && shared.muted.load(Ordering::SeqCst) {
            continue;
        }
        shared.disturb(&mut buffer[..count]);
        let allowed = shared.allow(count as u64);
        let pass = usize::try_from(allowed).unwrap();
        if to.write_all(&buffer[..pass]).await.is_err() {
            return;
        }
        if pass < count {
            shared.cuts.fetch_add(1, Ordering::SeqCst);
            shared.draw_next();
            shared.cut_all();
            return;
        }
    }
}
