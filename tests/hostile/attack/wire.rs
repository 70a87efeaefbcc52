//! HTTP/2 by hand: frames are bytes, and nothing is checked.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RESET: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GO_AWAY: u8 = 7;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

/// Error code: a stream beyond the announced number.
pub(crate) const REFUSED_STREAM: u32 = 7;
/// Error code: too much of something that is no mistake by itself.
pub(crate) const CALM: u32 = 11;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Hostile connections come from so many addresses, of which 127.0.0.2 is the first.
pub(crate) const ADDRESSES: u8 = 8;

/// One of our addresses; numbers go round.
pub(crate) fn address(number: usize) -> IpAddr {
    let number = u8::try_from(number % usize::from(ADDRESSES)).unwrap_or_default();
    Ipv4Addr::new(127, 0, 0, 2 + number).into()
}

/// A frame's bytes.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&length, [kind, flags].as_slice(), &stream.to_be_bytes(), payload].concat()
}

/// What a client says first.
pub(crate) fn greeting() -> Vec<u8> {
    [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()
}

/// A stream that a client opens as its how-manieth, from 0.
pub(crate) fn stream_id(number: u32) -> u32 {
    2 * number + 1
}

/// A length as HPACK has it for texts: seven bits, then seven more in each byte.
fn length(of: usize) -> Vec<u8> {
    let Some(mut rest) = of.checked_sub(127) else { return vec![u8::try_from(of).unwrap_or_default()] };
    let mut bytes = vec![127];
    while rest >= 128 {
        bytes.push(u8::try_from(rest % 128).unwrap_or_default() | 128);
        rest /= 128;
    }
    bytes.push(u8::try_from(rest).unwrap_or_default());
    bytes
}

/// A header as a literal with a name of its own; `first` says what becomes of it: 0 nothing, 0x40 it is remembered.
pub(crate) fn header(first: u8, name: &str, value: &str) -> Vec<u8> {
    [&[first], length(name.len()).as_slice(), name.as_bytes(), &length(value.len()), value.as_bytes()].concat()
}

/// The block of headers of a call.
pub(crate) fn call_headers(path: &str, credential: Option<&str>) -> Vec<u8> {
    let mut headers = vec![
        (":method", "POST".to_owned()),
        (":scheme", "http".to_owned()),
        (":path", path.to_owned()),
        (":authority", "x".to_owned()),
        ("content-type", "application/grpc".to_owned()),
        ("te", "trailers".to_owned()),
    ];
    headers.extend(credential.map(|credential| ("authorization", format!("Bearer {credential}"))));
    headers.iter().flat_map(|(name, value)| header(0, name, value)).collect()
}

/// The frame that opens a call whose message is still to come.
pub(crate) fn open_call(stream: u32, path: &str, credential: Option<&str>) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &call_headers(path, credential))
}

/// A call that needs no credential and is answered at once.
pub(crate) fn health_check(stream: u32) -> Vec<u8> {
    let message = frame(DATA, END_STREAM, stream, &[0; 5]);
    [open_call(stream, "/grpc.health.v1.Health/Check", None), message].concat()
}

/// What came back on connections.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Error codes with which the server said good-bye, and how often.
    pub(crate) go_aways: BTreeMap<u32, u64>,
    /// Error codes with which it reset streams.
    pub(crate) resets: BTreeMap<u32, u64>,
    /// Answers that are nothing but headers: refusals.
    pub(crate) refusals: u64,
    /// Answers with something behind their headers.
    pub(crate) answers: u64,
    /// Acknowledged pings and settings.
    pub(crate) acknowledged: u64,
    /// Connections that ended.
    pub(crate) ended: u64,
    /// Bytes that were sent.
    pub(crate) sent: u64,
}

impl Seen {
    fn count(&mut self, kind: u8, flags: u8, payload: &[u8]) {
        let code = |at: usize| {
            let bytes = payload.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
            bytes.map_or(u32::MAX, u32::from_be_bytes)
        };
        match kind {
            HEADERS if flags & END_STREAM > 0 => self.refusals += 1,
            HEADERS => self.answers += 1,
            RESET => *self.resets.entry(code(0)).or_default() += 1,
            GO_AWAY => *self.go_aways.entry(code(4)).or_default() += 1,
            SETTINGS | PING if flags & ACK > 0 => self.acknowledged += 1,
            _what_tells_nothing => {}
        }
    }

    /// Both together.
    pub(crate) fn and(mut self, other: Self) -> Self {
        other.go_aways.into_iter().for_each(|(code, times)| *self.go_aways.entry(code).or_default() += times);
        other.resets.into_iter().for_each(|(code, times)| *self.resets.entry(code).or_default() += times);
        self.refusals += other.refusals;
        self.answers += other.answers;
        self.acknowledged += other.acknowledged;
        self.ended += other.ended;
        self.sent += other.sent;
        self
    }

    /// Whether the server sent the peer away for too much of something.
    pub(crate) fn is_calmed(&self) -> bool {
        self.go_aways.contains_key(&CALM)
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = Vec::new();
        let mut say = |times: u64, what: &str| {
            if times > 0 {
                words.push(format!("{times} {what}"));
            }
        };
        say(self.sent / 1024, "KiB sent");
        say(self.acknowledged, "acks");
        say(self.answers, "answers");
        say(self.refusals, "refusals");
        self.resets.iter().for_each(|(code, times)| say(*times, &format!("resets({code})")));
        self.go_aways.iter().for_each(|(code, times)| say(*times, &format!("goaways({code})")));
        say(self.ended, "ended");
        f.write_str(&words.join(", "))
    }
}

/// A connection of ours.
#[derive(Debug)]
pub(crate) struct Raw {
    stream: TcpStream,
    /// What was read and is no whole frame yet.
    unread: Vec<u8>,
}

impl Raw {
    /// Dials from an address of ours. Small buffers, so that who does not read is soon in the way of who writes.
    pub(crate) async fn connect(from: IpAddr, to: SocketAddr) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(64 * 1024)?;
        socket.bind(SocketAddr::new(from, 0))?;
        Ok(Self { stream: socket.connect(to).await?, unread: Vec::new() })
    }

    /// Sends bytes; an error says that the server has ended the connection.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Sends without reading for so long, or until the connection ends. Returns how many bytes the server took.
    pub(crate) async fn push(&mut self, block: &[u8], lasts: Duration) -> u64 {
        let mut taken = 0;
        let pushing = async {
            while self.stream.write_all(block).await.is_ok() {
                taken += block.len() as u64;
            }
        };
        // The time that ends it is what is wanted.
        timeout(lasts, pushing).await.ok();
        taken
    }

    /// Sends blocks while reading what comes back, until that is enough, the connection ends, or `lasts` is over.
    pub(crate) async fn exchange(
        &mut self,
        blocks: impl Iterator<Item = Vec<u8>> + Send,
        lasts: Duration,
        enough: impl Fn(&Seen) -> bool + Send,
    ) -> Seen {
        let (mut seen, mut sent) = (Seen::default(), 0);
        let (mut reader, mut writer) = self.stream.split();
        let sending = async {
            for block in blocks {
                if writer.write_all(&block).await.is_err() {
                    break;
                }
                sent += block.len() as u64;
            }
            std::future::pending::<()>().await;
        };
        let both = async {
            tokio::select! {
                () = read_frames(&mut reader, &mut self.unread, &mut seen, enough) => {}
                () = sending => {}
            }
        };
        timeout(lasts, both).await.ok();
        seen.sent = sent;
        seen
    }

    /// Reads until that is enough, the connection ends, or `lasts` is over.
    pub(crate) async fn watch(&mut self, lasts: Duration, enough: impl Fn(&Seen) -> bool + Send) -> Seen {
        self.exchange(std::iter::empty(), lasts, enough).await
    }

    /// Waits for the end and returns whether it came with a reset of the connection; `None` when it does not come.
    pub(crate) async fn end(&mut self, within: Duration) -> Option<bool> {
        let mut buffer = vec![0; 4096];
        let ending = async {
            loop {
                match self.stream.read(&mut buffer).await {
                    Ok(0) => return false,
                    Ok(_) => {}
                    Err(_reset) => return true,
                }
            }
        };
        timeout(within, ending).await.ok()
    }
}

/// Reads frames until they are enough, or the connection ends. May be cancelled without losing a byte.
async fn read_frames(
    reader: &mut (impl AsyncRead + Unpin),
    unread: &mut Vec<u8>,
    seen: &mut Seen,
    enough: impl Fn(&Seen) -> bool,
) {
    loop {
        while let Some(rest) = count_first(unread, seen) {
            unread.drain(..unread.len() - rest);
            if enough(seen) {
                return;
            }
        }
        if !matches!(reader.read_buf(unread).await, Ok(1..)) {
            seen.ended += 1;
            return;
        }
    }
}

/// Counts the first frame, and returns how many bytes are behind it; `None` when it is not whole.
fn count_first(bytes: &[u8], seen: &mut Seen) -> Option<usize> {
    let ([a, b, c, kind, flags, _stream @ ..], rest) = bytes.split_first_chunk::<9>()?;
    let length = usize::try_from(u32::from_be_bytes([0, *a, *b, *c])).ok()?;
    let (payload, rest) = rest.split_at_checked(length)?;
    seen.count(*kind, *flags, payload);
    Some(rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_its_head_and_its_payload() {
        assert_eq!(frame(PING, 1, 7, b"ab"), [0, 0, 2, 6, 1, 0, 0, 0, 7, b'a', b'b']);
        assert_eq!(greeting().len(), 24 + 9);
    }

    #[test]
    fn lengths_are_those_of_hpack() {
        assert_eq!(length(0), [0]);
        assert_eq!(length(126), [126]);
        assert_eq!(length(127), [127, 0]);
        assert_eq!(length(1337), [127, 186, 9]);
    }

    #[test]
    fn what_was_seen_adds_up() {
        let mut one = Seen::default();
        one.count(GO_AWAY, 0, &[0, 0, 0, 0, 0, 0, 0, 11]);
        one.count(RESET, 0, &[0, 0, 0, 7]);
        one.count(HEADERS, END_STREAM | END_HEADERS, &[]);
        one.count(PING, ACK, &[0; 8]);
        let two = one.clone().and(one.clone());
        assert!(two.is_calmed());
        assert_eq!(two.to_string(), "2 acks, 2 refusals, 2 resets(7), 2 goaways(11)");
    }
}
