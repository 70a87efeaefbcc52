//! HTTP/2 by hand: frames are bytes, and nothing is checked.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

pub(in super::super) const DATA: u8 = 0;
pub(in super::super) const HEADERS: u8 = 1;
pub(in super::super) const RESET: u8 = 3;
pub(in super::super) const SETTINGS: u8 = 4;
pub(in super::super) const PING: u8 = 6;
pub(in super::super) const GO_AWAY: u8 = 7;
pub(in super::super) const WINDOW_UPDATE: u8 = 8;

pub(in super::super) const END_STREAM: u8 = 1;
pub(in super::super) const END_HEADERS: u8 = 4;

pub(in super::super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame as it is on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Frame {
    pub(in super::super) kind: u8,
    pub(in super::super) flags: u8,
    pub(in super::super) stream: u32,
    pub(in super::super) payload: Vec<u8>,
}

impl Frame {
    pub(in super::super) fn new(kind: u8, flags: u8, stream: u32, payload: impl Into<Vec<u8>>) -> Self {
        Self { kind, flags, stream, payload: payload.into() }
    }

    pub(in super::super) fn bytes(&self) -> Vec<u8> {
        let length = u32::try_from(self.payload.len()).unwrap().to_be_bytes();
        let head = [&length[1..], &[self.kind, self.flags], &self.stream.to_be_bytes()].concat();
        [head, self.payload.clone()].concat()
    }

    /// The 32-bit number at this place of the payload.
    pub(in super::super) fn number(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }
}

/// A connection of somebody.
pub(in super::super) struct Raw(pub(in super::super) TcpStream);

impl Raw {
    pub(in super::super) async fn connect(from: [u8; 4], to: SocketAddr) -> Self {
        Self::try_connect(from, to).await.unwrap()
    }

    /// Who is turned away may be gone before it knows that it was connected.
    pub(in super::super) async fn try_connect(from: [u8; 4], to: SocketAddr) -> std::io::Result<Self> {
        let socket = TcpSocket::new_v4().unwrap();
        // Who does not read shall soon be in the way of who writes.
        socket.set_recv_buffer_size(4096).unwrap();
        socket.bind(SocketAddr::from((from, 0))).unwrap();
        socket.connect(to).await.map(Self)
    }

    /// A connection over which frames may be sent.
    pub(in super::super) async fn greeted(to: SocketAddr) -> Self {
        let mut raw = Self::connect([127, 0, 0, 1], to).await;
        raw.send(&[PREFACE, &Frame::new(SETTINGS, 0, 0, []).bytes()].concat()).await;
        raw
    }

    pub(in super::super) async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    /// The next frame, or `None` when the connection has ended, in whatever way.
    pub(in super::super) async fn frame(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        self.0.read_exact(&mut payload).await.ok()?;
        let stream = u32::from_be_bytes(head[5..9].try_into().unwrap());
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// The next frame of this kind that is no acknowledgement; those before it are dropped.
    pub(in super::super) async fn next_of(&mut self, kind: u8) -> Option<Frame> {
        loop {
            let frame = self.frame().await?;
            let acknowledges = matches!(kind, SETTINGS | PING) && frame.flags & 1 == 1;
            if frame.kind == kind && !acknowledges {
                return Some(frame);
            }
        }
    }

    /// Reads until the connection has ended.
    pub(in super::super) async fn ended(&mut self) {
        while self.frame().await.is_some() {}
    }
}

/// Headers without an index or compression.
fn header_block(headers: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    headers.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
}

/// The headers of a health check, which a message has to follow.
pub(in super::super) fn health_check(stream: u32) -> Vec<u8> {
    call(stream, "/grpc.health.v1.Health/Check")
}

/// The headers of any call, which a message has to follow.
pub(in super::super) fn call(stream: u32, path: &str) -> Vec<u8> {
    let block = header_block(&[
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "x"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ]);
    Frame::new(HEADERS, END_HEADERS, stream, block).bytes()
}
