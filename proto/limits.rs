//! Every bound that both sides of a wire rely on, in one file.
//!
//! Clients learn sizes from responses; these constants are what the services announce and enforce by default.

use std::time::Duration;

/// One kibibyte.
pub const KIB: u64 = 1024;
/// One mebibyte.
pub const MIB: u64 = 1024 * KIB;

/// Bytes of a piece: the unit in which a chunk's bytes are verified.
pub const PIECE_BYTES: u64 = 64 * KIB;
/// Payload of one message of a write, unless the writer chooses otherwise.
pub const FRAME_BYTES: u64 = 256 * KIB;
/// Payload of one message of a read while few read: 1 GiB, read from the page cache and verified, came at 970 MB/s in such
/// messages, 900 in those of 1 MiB, 830 of 256 KiB, 730 of 128 KiB (medians of five or more, 2 cores, services and client on
/// them).
pub const READ_FRAME_BYTES: u64 = 512 * KIB;
/// Largest payload of one stream message that is taken.
pub const FRAME_BYTES_MAX: u64 = MIB;
/// Decode limit of the chunk service: a frame and what surrounds it.
pub const CHUNK_MESSAGE_BYTES_MAX: usize = 1024 * 1024 + 64 * 1024;
/// Decode limit of the metadata service's requests.
pub const METADATA_REQUEST_BYTES_MAX: usize = 256 * 1024;
/// Largest blob that our client sends and gets as one message, alone or with others: one piece.
pub const SMALL_BLOB_BYTES: u64 = PIECE_BYTES;
/// Items of one batch call.
pub const BATCH_ITEMS_MAX: usize = 128;
/// Bytes of all chunks that one batch call writes or reads.
pub const BATCH_BYTES_MAX: u64 = MIB;
/// Decode limit of what every service offers beside its own: health and reflection, whose requests are names.
pub const SMALL_REQUEST_BYTES_MAX: usize = 16 * 1024;
/// Decode limit of clients for the metadata service's answers: 256 blocks of up to 14 chunks with their capabilities.
pub const METADATA_RESPONSE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Block size of a blob whose size is known.
pub const BLOCK_BYTES: u64 = 64 * MIB;
/// Block size of a blob whose size is not known: what a client must keep until it has the receipt.
pub const BLOCK_BYTES_UNKNOWN_SIZE: u64 = 8 * MIB;
/// Largest chunk that a chunk service takes whatever a capability says.
pub const CHUNK_BYTES_MAX: u64 = 1024 * MIB;
/// Largest blob: 1 TiB, which is 16,384 blocks (131,072 when its size is not known).
pub const BLOB_BYTES_MAX: u64 = 1024 * 1024 * MIB;

/// Blocks planned by one call.
pub const BLOCKS_PER_ALLOCATION: u32 = 16;
/// Receipts taken by one call.
pub const RECEIPTS_PER_CALL: usize = 64;
/// Blocks in one layout answer.
pub const BLOCKS_PER_LAYOUT: usize = 256;
/// Entries of a page when the caller does not say.
pub const PAGE_SIZE: usize = 100;
/// Most entries of a page.
pub const PAGE_SIZE_MAX: usize = 1000;

/// Bytes of a display name.
pub const DISPLAY_NAME_BYTES_MAX: usize = 1024;
/// Bytes of a content type.
pub const CONTENT_TYPE_BYTES_MAX: usize = 255;
/// Number of labels.
pub const LABELS_MAX: usize = 32;
/// Bytes of a label's key.
pub const LABEL_KEY_BYTES_MAX: usize = 63;
/// Bytes of a label's value.
pub const LABEL_VALUE_BYTES_MAX: usize = 255;
/// Bytes of all keys and values of a blob's labels together, so that the blob's row stays under 4 KiB.
pub const LABELS_BYTES_MAX: usize = 2048;
/// Uploads that a tenant may have open at a time, unless its quota says otherwise.
pub const OPEN_UPLOADS_PER_TENANT: u64 = 1024;
/// Bytes of a `request_id`.
pub const REQUEST_ID_BYTES_MAX: usize = 64;
/// Tokens of one tenant.
pub const TENANT_TOKENS_MAX: usize = 16;
/// How long an admin token stays valid once it was rotated, unless the rotation says otherwise.
pub const ADMIN_TOKEN_OVERLAP: Duration = Duration::from_secs(60 * 60);
/// Longest such overlap.
pub const ADMIN_TOKEN_OVERLAP_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// How long a join token that the admin made is valid, unless it says otherwise.
pub const JOIN_TOKEN_LIFE: Duration = Duration::from_secs(24 * 60 * 60);
/// Longest such life.
pub const JOIN_TOKEN_LIFE_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How long a token is known once it has expired, so that its holder is told that rather than that it is unknown.
pub const EXPIRED_TOKEN_KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Bytes of a node's endpoint.
pub const ENDPOINT_BYTES_MAX: usize = 255;

/// HTTP/2 frame size on both sides: the larger it is, the fewer system calls a byte costs.
pub const HTTP2_FRAME_BYTES: u32 = 1024 * 1024 - 1;
/// HTTP/2 flow-control window of a stream.
pub const HTTP2_STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
/// HTTP/2 flow-control window of a connection. Half of it is also what small DATA frames that wait may cost beside their
/// bytes, up to 256 each; with more, the connection ends.
pub const HTTP2_CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// Streams that one connection may have open.
pub const HTTP2_STREAMS_PER_CONNECTION: u32 = 64;
/// Bytes of a header list that is taken.
pub const HTTP2_HEADER_LIST_BYTES: u32 = 8 * 1024;
/// Streams that the peer opened and reset before the service saw them; with more, the connection ends.
pub const HTTP2_PENDING_RESETS_MAX: usize = 32;
/// Streams that we had to reset for the peer's mistakes; with more, the connection ends.
pub const HTTP2_LOCAL_RESETS_MAX: usize = 128;
/// Interval of HTTP/2 keepalive pings.
pub const HTTP2_KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// How long a keepalive ping may stay unanswered.
pub const HTTP2_KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections of one listener.
pub const CONNECTIONS_MAX: usize = 4096;
/// Connections of one listener that come from the same address.
pub const CONNECTIONS_PER_ADDRESS: usize = 1200;
/// Streams of health and reflection, which need no credential, that an address may have open at a listener.
pub const WATCHES_PER_ADDRESS: usize = 64;
/// How long the TLS handshake of a connection may take.
pub const TLS_HANDSHAKE_WITHIN: Duration = Duration::from_secs(5);
/// How long a new connection may take to send its first request's headers.
pub const FIRST_REQUEST_WITHIN: Duration = Duration::from_secs(10);
/// How long a request of one message may take to arrive whole, however steadily it comes.
pub const REQUEST_WITHIN: Duration = Duration::from_secs(60);
/// How long an answer, or a frame of one, may wait for the client to take it; then the connection ends. A stream of chunks
/// has ended with its reason long before.
pub const ANSWER_TAKEN_WITHIN: Duration = Duration::from_secs(30);

/// Bytes of an answer that may be on their way to the client before more of it is asked for: with them, a frame of a chunk
/// waits behind none.
pub const ANSWER_BYTES_AHEAD: usize = 64 * 1024;

/// How long a capability is valid.
pub const CAPABILITY_LIFE: Duration = Duration::from_secs(15 * 60);
/// By how much clocks may differ.
pub const CLOCK_TOLERANCE: Duration = Duration::from_secs(30);
/// By how much a node's own clock may be off before its first heartbeat after a start; reads only.
pub const CLOCK_TOLERANCE_BEFORE_HEARTBEAT: Duration = Duration::from_secs(5 * 60);
/// Without a heartbeat for this long a node takes no new writes.
pub const HEARTBEAT_LOST_FOR_WRITES: Duration = Duration::from_secs(10 * 60);
/// Lease of an upload; every AllocateBlocks renews it.
pub const UPLOAD_LEASE: Duration = Duration::from_secs(60 * 60);
/// Longest upload, however often its lease is renewed.
pub const UPLOAD_LIFE_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// How long garbage is kept at least.
pub const GARBAGE_GRACE: Duration = Duration::from_secs(60 * 60);
/// How long a deleted blob is kept.
pub const UNDELETE_RETENTION: Duration = Duration::from_secs(24 * 60 * 60);
/// How often expired uploads are looked for.
pub const SWEEP_INTERVAL: Duration = Duration::from_secs(10 * 60);
/// How often orphans are looked for.
pub const ORPHAN_SWEEP_INTERVAL: Duration = Duration::from_secs(6 * 60 * 60);
/// Within which a node reads and verifies everything that it holds.
pub const SCRUB_PERIOD: Duration = Duration::from_secs(14 * 24 * 60 * 60);
/// How often a node sends a heartbeat.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);
/// Without a heartbeat for this long a node counts as lost.
pub const NODE_LOST_AFTER: Duration = Duration::from_secs(30);
/// After so long a node gets a new key for its capabilities and receipts.
pub const NODE_KEY_LIFE: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How long an open write is kept after its stream broke.
pub const WRITE_SESSION_KEPT: Duration = Duration::from_secs(60);
/// How long a `request_id` is remembered.
pub const REQUEST_ID_REMEMBERED: Duration = Duration::from_secs(24 * 60 * 60);
/// A stream that makes no progress for this long is cut.
pub const STREAM_STALL: Duration = Duration::from_secs(15);
/// A stream is cut after this long whatever its progress; clients go on where it ended.
pub const STREAM_LIFE_MAX: Duration = Duration::from_secs(60 * 60);

/// Largest value of a metadata record: larger ones would become separate, unsynced files in sled.
pub const RECORD_BYTES_MAX: usize = 4096;
/// Longest key of a metadata record: a tenant, an escaped name, an id.
pub const KEY_BYTES_MAX: usize = 4096;
/// Writes in one metadata batch.
pub const BATCH_WRITES_MAX: usize = 128;

const _: () = assert!(FRAME_BYTES.is_multiple_of(PIECE_BYTES), "a frame is whole pieces");
const _: () = assert!(READ_FRAME_BYTES.is_multiple_of(PIECE_BYTES), "a frame is whole pieces");
const _: () = assert!(FRAME_BYTES <= FRAME_BYTES_MAX, "the default frame is allowed");
const _: () = assert!(READ_FRAME_BYTES <= FRAME_BYTES_MAX, "the default frame is allowed");
const _: () = assert!(FRAME_BYTES_MAX + 32 * KIB <= CHUNK_MESSAGE_BYTES_MAX as u64, "the largest frame can be decoded");
const _: () = assert!(
    HTTP2_STREAM_WINDOW_BYTES as u64 * 156 / 100 <= HTTP2_CONNECTION_WINDOW_BYTES as u64 / 2,
    "a stream may fill its window with frames of 100 bytes"
);
const _: () = assert!(BLOCK_BYTES.is_multiple_of(FRAME_BYTES), "a block is whole frames");
const _: () = assert!(BLOCK_BYTES_UNKNOWN_SIZE.is_multiple_of(FRAME_BYTES), "a block is whole frames");
const _: () = assert!(BLOCK_BYTES <= CHUNK_BYTES_MAX, "a block fits into one chunk");
const _: () = assert!(
    GARBAGE_GRACE.as_secs() >= CAPABILITY_LIFE.as_secs() + CLOCK_TOLERANCE.as_secs(),
    "garbage outlives every capability to it"
);
const _: () = assert!(
    DISPLAY_NAME_BYTES_MAX + CONTENT_TYPE_BYTES_MAX + LABELS_BYTES_MAX + 512 <= RECORD_BYTES_MAX,
    "a blob's row fits into a record"
);
