//! Exports for the fuzzer: streams of any bytes, of sound frames in any order, and of a good export with changes.
//!
//! Beside the reader stands [`Reference`], which has the whole stream before it and so can be simple. A stream is taken
//! exactly if the reference takes it, in pieces of any length and with no more than one frame held; and what is imported
//! from it is, row for row, what the reference saw.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use futures_util::FutureExt as _;
use prost::Message as _;
use proto::checksum::{Sha256, crc32c};
use proto::entropy::SeededEntropy;
use proto::fuzzing::Choices;
use proto::limits::RECORD_BYTES_MAX;
use proto::runtime::folder;
use tokio::runtime::Runtime;

use super::import::{Source, fill};
use super::*;
use crate::store::engine::{Engine as _, KeyRange};
use crate::store::keys;
use crate::store::memory::MemoryEngine;
use crate::store::records::{ClusterRecord, SCHEMA, encode};

const FRAMES_MAX: usize = 32;
const CHANGES_MAX: usize = 8;
/// A body is repeated up to this length: one byte more than is read.
const REPEATED_BYTES_MAX: usize = BODY_BYTES_MAX + 1;
const FIRST_LINE: &[u8] = b"mini-tectonic export v1\n";

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.build().expect("a runtime needs nothing that could be missing")
});

/// The first byte says what the others are, the second in pieces of which length the stream comes.
pub(crate) fn run(input: &[u8]) {
    let mut choices = Choices::new(input);
    let (what, piece) = (choices.byte(), usize::from(choices.byte()) + 1);
    let stream = match what % 3 {
        0 => choices.rest().to_vec(),
        1 => composed(choices),
        _ => changed(choices),
    };
    let expected = Reference::read(&stream);
    check_pieces(&stream, piece.max(stream.len() / 256), expected.as_ref());
    check_import(&stream, expected);
}

/// What a stream holds, if it is whole.
#[derive(Debug, Default)]
struct Reference {
    header: Option<raw::Header>,
    last_key: Vec<u8>,
    sequence: u64,
    rows: u64,
    commits: u64,
    ended: bool,
    state: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Reference {
    fn read(stream: &[u8]) -> Option<Self> {
        let mut reference = Self::default();
        let mut rest = stream.strip_prefix(FIRST_LINE)?;
        while !reference.ended {
            let before = stream.get(..stream.len() - rest.len())?;
            let (&[kind, a, b, c, d], _) = rest.split_first_chunk()?;
            let end = FRAME_HEAD_BYTES + usize::try_from(u32::from_be_bytes([a, b, c, d])).ok()?;
            let (frame, body) = (rest.get(..end + FRAME_SUM_BYTES)?, rest.get(FRAME_HEAD_BYTES..end)?);
            reference.frame(kind, body, before).filter(|()| frame == sealed(kind, body))?;
            rest = rest.get(frame.len()..)?;
        }
        rest.is_empty().then_some(reference)
    }

    /// Takes a frame; `None` when it cannot follow those before it.
    fn frame(&mut self, kind: u8, body: &[u8], before: &[u8]) -> Option<()> {
        if body.len() > BODY_BYTES_MAX || self.header.is_some() != (kind != KIND_HEADER) {
            return None;
        }
        match kind {
            KIND_HEADER => self.header(raw::Header::decode(body).ok()?),
            KIND_ROWS => raw::Rows::decode(body).ok()?.rows.into_iter().try_for_each(|row| self.row(row)),
            KIND_COMMIT => self.commit(raw::Commit::decode(body).ok()?),
            KIND_END => {
                self.ended = true;
                (raw::End::decode(body).ok()? == self.end(before)).then_some(())
            }
            _unknown => None,
        }
    }

    fn header(&mut self, header: raw::Header) -> Option<()> {
        self.sequence = header.begins_behind;
        let sound = header.cluster.len() == 16 && header.cluster_key.as_ref().is_none_or(|key| key.len() == 32);
        self.header = Some(header).filter(|_header| sound);
        self.header.as_ref().map(drop)
    }

    fn row(&mut self, row: raw::Write) -> Option<()> {
        let value = row.value.filter(|value| value.len() <= RECORD_BYTES_MAX)?;
        if row.key <= self.last_key {
            return None;
        }
        self.rows += 1;
        self.last_key.clone_from(&row.key);
        self.state.insert(row.key, value);
        Some(())
    }

    fn commit(&mut self, commit: raw::Commit) -> Option<()> {
        if commit.sequence < self.sequence {
            return None;
        }
        (self.sequence, self.commits) = (commit.sequence, self.commits + 1);
        for raw::Write { key, value } in commit.writes {
            let fits = value.as_ref().is_none_or(|value| value.len() <= RECORD_BYTES_MAX);
            Some(()).filter(|()| fits && !key.is_empty())?;
            match value {
                Some(value) => self.state.insert(key, value),
                None => self.state.remove(&key),
            };
        }
        Some(())
    }

    /// The end that belongs behind these bytes.
    fn end(&self, before: &[u8]) -> raw::End {
        let (sequence, rows, commits, bytes) = (self.sequence, self.rows, self.commits, before.len() as u64);
        raw::End { sequence, rows, commits, bytes, sha256: Sha256::of(before).as_bytes().to_vec() }
    }
}

fn sealed(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("no body is that long");
    let covered = [&[kind], length.to_be_bytes().as_slice(), body].concat();
    [covered.as_slice(), &crc32c(&covered).to_be_bytes()].concat()
}

/// Pieces of any length make no difference, and are not kept.
fn check_pieces(stream: &[u8], length: usize, expected: Option<&Reference>) {
    let mut decoder = Decoder::default();
    let frame_bytes = FRAME_HEAD_BYTES + BODY_BYTES_MAX + FRAME_SUM_BYTES;
    let read = stream.chunks(length).try_for_each(|piece| {
        decoder.push(piece);
        assert!(decoder.held_bytes() <= frame_bytes + length, "what was read is held");
        while decoder.next_frame()?.is_some() {}
        Ok(())
    });
    let counts = |summary: Summary| (summary.sequence, summary.rows, summary.commits, summary.bytes);
    let read = read.and_then(|()| decoder.finish()).ok().map(counts);
    let expected = expected.map(|whole| (whole.sequence, whole.rows, whole.commits, stream.len() as u64));
    assert_eq!(read, expected);
}

/// What is not whole is not imported; what is imported is all of it.
fn check_import(stream: &[u8], expected: Option<Reference>) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let source = Source { path: folder.path().join("export") };
    folder::publish(&source.path, stream).expect("a temporary file can be written");
    match source.verify() {
        Ok(_plan) => {
            let mut expected = expected.expect("only what is whole is imported").state;
            expected.remove(&keys::cluster()).expect("only a cluster is imported");
            let engine = MemoryEngine::new();
            RUNTIME.block_on(fill(&engine, source, folder.path())).expect("what was verified can be written");
            let rows = engine.scan(&KeyRange::prefix(b""), usize::MAX).now_or_never();
            let rows = rows.expect("nothing in memory has to be waited for").expect("the engine can be read");
            assert!(
                rows.iter()
                    .map(|(key, value)| (&key[..], &value[..]))
                    .eq(expected.iter().map(|(key, value)| (&key[..], &value[..])))
            );
        }
        Err(ImportError::Unfit { .. }) => assert!(expected.is_some(), "what is damaged was called unfit"),
        Err(error) => {
            assert!(matches!(error, ImportError::Malformed { .. }), "{error}");
            assert!(expected.is_none(), "what is whole was refused: {error}");
        }
    }
}

fn good_header() -> raw::Header {
    let cluster = ClusterId::generate(1, &SeededEntropy::new(1)).as_bytes().to_vec();
    raw::Header { cluster, epoch: 1, begins_behind: 3, export_ms: 1, cluster_key: None }
}

fn put(key: &[u8], value: &[u8]) -> raw::Write {
    raw::Write { key: key.to_vec(), value: Some(value.to_vec()) }
}

fn cluster_row() -> raw::Write {
    let (cluster, key_check) = (ClusterId::generate(1, &SeededEntropy::new(1)), Sha256::of(b"key"));
    let row = ClusterRecord { cluster, epoch: 1, key_check, create_ms: 1, schema: SCHEMA, restores: Vec::new() };
    put(&keys::cluster(), &encode(&row))
}

/// A body as the input has it.
fn body(choices: &mut Choices<'_>) -> Vec<u8> {
    (0..choices.byte()).map_while(|_| (!choices.is_over()).then(|| choices.byte())).collect()
}

/// Sound frames, in the order in which the input has them.
fn composed(mut choices: Choices<'_>) -> Vec<u8> {
    let (mut stream, mut reference, mut repeated) = (FIRST_LINE.to_vec(), Reference::default(), false);
    for _ in 0..FRAMES_MAX {
        if choices.is_over() {
            break;
        }
        let (kind, body) = match choices.byte() % 8 {
            0 => (KIND_HEADER, good_header().encode_to_vec()),
            1 => (KIND_ROWS, raw::Rows { rows: vec![cluster_row()] }.encode_to_vec()),
            2 => (KIND_ROWS, raw::Rows { rows: vec![put(&body(&mut choices), &body(&mut choices))] }.encode_to_vec()),
            3 => (KIND_COMMIT, commit(&mut choices).encode_to_vec()),
            4 => (KIND_END, reference.end(&stream).encode_to_vec()),
            5 => (choices.byte(), body(&mut choices)),
            // Once is enough to fill what memory there is.
            6 if !std::mem::replace(&mut repeated, true) => {
                let (kind, times, body) = (choices.byte(), 1_usize << (choices.byte() % 20), body(&mut choices));
                (kind, body.repeat(times.min(REPEATED_BYTES_MAX / body.len().max(1))))
            }
            _ => (KIND_ROWS, body(&mut choices)),
        };
        // Whoever takes it as an error has no use for an end, so it does not matter what the counts are then.
        let _counted: Option<()> = reference.frame(kind, &body, &stream);
        stream.extend(sealed(kind, &body));
    }
    stream
}

fn commit(choices: &mut Choices<'_>) -> raw::Commit {
    let (sequence, key) = (u64::from(choices.byte()), body(choices));
    let value = choices.byte().is_multiple_of(2).then(|| body(choices));
    raw::Commit { sequence, writes: vec![raw::Write { key, value }] }
}

/// Its first line and its frames.
fn good() -> Vec<Vec<u8>> {
    let rows = |rows: &[raw::Write]| sealed(KIND_ROWS, &raw::Rows { rows: rows.to_vec() }.encode_to_vec());
    let commit = |sequence, writes: &[raw::Write]| {
        sealed(KIND_COMMIT, &raw::Commit { sequence, writes: writes.to_vec() }.encode_to_vec())
    };
    let removal = raw::Write { key: b"name/a".to_vec(), value: None };
    let mut frames = vec![
        FIRST_LINE.to_vec(),
        sealed(KIND_HEADER, &good_header().encode_to_vec()),
        rows(&[put(b"blob/b", b"1"), cluster_row()]),
        commit(4, &[put(b"blob/b", b"2"), removal]),
        rows(&[put(b"name/a", b"3"), put(b"name/b", b"4")]),
        commit(4, &[put(b"name/c", b"5")]),
        commit(5, &[]),
    ];
    let before = frames.concat();
    let reference = Reference { sequence: 5, rows: 4, commits: 3, ..Reference::default() };
    frames.push(sealed(KIND_END, &reference.end(&before).encode_to_vec()));
    frames
}

/// The good one with frames left out, repeated and exchanged, and bytes changed, cut off and added.
fn changed(mut choices: Choices<'_>) -> Vec<u8> {
    let mut frames = good();
    let mut stream = None;
    for _ in 0..CHANGES_MAX {
        if choices.is_over() {
            break;
        }
        let (what, at, to) = (choices.byte(), usize::from(u16::from_be_bytes(choices.bytes())), choices.byte());
        let frame = at % frames.len().max(1);
        match what % 6 {
            0 if !frames.is_empty() => drop(frames.remove(frame)),
            1 if !frames.is_empty() => {
                let again = frames.get(frame).cloned().unwrap_or_default();
                frames.insert(usize::from(to) % frames.len(), again);
            }
            2 if !frames.is_empty() => {
                let other = usize::from(to) % frames.len();
                frames.swap(frame, other);
            }
            3 => stream.get_or_insert_with(|| frames.concat()).truncate(at),
            4 => stream.get_or_insert_with(|| frames.concat()).push(to),
            _ => {
                let stream = stream.get_or_insert_with(|| frames.concat());
                let at = at % stream.len().max(1);
                stream.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= to);
            }
        }
    }
    stream.unwrap_or_else(|| frames.concat())
}

/// The good one, also as a stranger's bytes; streams of frames that end well and that do not; a change of each kind.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let row = |key: u8| vec![2, 1, key, 1, b'v'];
    let commit = |sequence: u8, key: u8, removes: u8| vec![3, sequence, 1, key, removes, 1, b'w'];
    let (header, cluster, end) = (vec![0], vec![1], vec![4]);
    let repeated = |kind: u8, body: &[u8]| [&[6, kind, 19, u8::try_from(body.len()).unwrap_or(0)], body].concat();
    let streams = [
        [header.clone(), cluster.clone(), end.clone()].concat(),
        [header.clone(), row(b'a'), cluster.clone(), commit(3, b'a', 0), row(b'e'), commit(4, b'e', 1), end.clone()]
            .concat(),
        [header.clone(), row(b'b'), row(b'a'), end.clone()].concat(),
        [header.clone(), cluster.clone(), commit(2, b'a', 0), end.clone()].concat(),
        [header.clone(), cluster.clone(), end.clone(), end.clone()].concat(),
        [header.clone(), cluster.clone(), repeated(KIND_ROWS, &[10, 0]), end.clone()].concat(),
        [header, cluster, repeated(KIND_COMMIT, &[18, 3, 10, 1, b'k']), end].concat(),
        vec![5, KIND_END, 0],
    ];
    let changes = (0..6).map(|what| vec![2, 7, what, 0, 3, 2]);
    let whole = [[0, 0].as_slice(), &good().concat()].concat();
    let streams = streams.into_iter().map(|stream| [vec![1, 7], stream].concat());
    [whole, vec![2, 30]].into_iter().chain(streams).chain(changes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_good_export_is_one_and_so_are_composed_ones() {
        let composed_ones = [[0, 1, 4].as_slice(), &[0, 2, 1, b'a', 0, 1, 3, 4, 1, b'a', 1, 4]];
        let streams = composed_ones.map(|frames| composed(Choices::new(frames)));
        for stream in streams.into_iter().chain([good().concat(), changed(Choices::new(&[]))]) {
            assert!(Reference::read(&stream).is_some_and(|whole| whole.state.contains_key(&keys::cluster())));
        }
    }
}
