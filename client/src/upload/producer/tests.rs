use std::io::Write as _;

use proptest::prelude::*;

use super::*;
use crate::upload::Source;

/// A block as it came out: its frames' contents, and the sum at its end.
type Seen = (Vec<Bytes>, Option<Sha256>);

/// Reads an input and takes every block as it comes.
fn produce(cut: Cut, input: Input) -> (Result<Option<Whole>, Error>, Vec<Seen>) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let _entered = runtime.enter();
    let (announce, mut blocks) = mpsc::channel(1);
    let producer = Producer::new(cut, input.size_bytes(), Arc::new(Semaphore::new(1)), announce);
    let reading = std::thread::spawn(move || producer.run(input));
    let mut seen = Vec::new();
    while let Some(mut block) = blocks.blocking_recv() {
        assert_eq!(block.index, seen.len() as u64);
        let mut frames = Vec::new();
        while let Some(piece) = block.pieces.blocking_recv() {
            match piece {
                Piece::Frame(frame) => {
                    assert_eq!(frame.crc32c, crc32c(&frame.content));
                    frames.push(frame.content);
                }
                Piece::End { sha256 } => seen.push((std::mem::take(&mut frames), sha256)),
            }
        }
    }
    (reading.join().unwrap(), seen)
}

fn bytes(count: usize) -> Vec<u8> {
    (0u8..251).cycle().take(count).collect()
}

fn file_of(content: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(content).unwrap();
    file
}

#[test]
fn a_file_that_shrinks_or_grows_after_it_was_opened_is_refused() {
    let cut = Cut { block_bytes: 64, frame_bytes: 16 };
    for (changed, word) in [(99, "shorter"), (101, "longer"), (0, "shorter")] {
        let file = file_of(&bytes(100));
        let input = Input::open(Source::File(file.path().to_path_buf())).unwrap();
        file.as_file().set_len(changed).unwrap();
        let (outcome, _blocks) = produce(cut, input);
        let error = outcome.unwrap_err();
        assert!(matches!(error, Error::SourceChanged { .. }) && error.to_string().contains(word), "{error}");
    }
    let file = file_of(b"");
    let input = Input::open(Source::File(file.path().to_path_buf())).unwrap();
    file.as_file().set_len(1).unwrap();
    assert!(matches!(produce(cut, input).0, Err(Error::SourceChanged { .. })));
}

#[test]
fn what_cannot_be_read_is_refused_before_anything_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    for (path, kind) in [
        (folder.path().to_path_buf(), io::ErrorKind::IsADirectory),
        (folder.path().join("absent"), io::ErrorKind::NotFound),
    ] {
        let error = Input::open(Source::File(path)).map(|_input| ()).unwrap_err();
        assert_eq!(error.io_kind(), Some(kind), "{error}");
    }
}

#[test]
fn a_failing_reader_ends_its_block_without_an_end() {
    struct Failing(usize);
    impl Read for Failing {
        fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
            let Some(left) = self.0.checked_sub(room.len()) else { return Err(io::Error::other("as planned")) };
            self.0 = left;
            Ok(room.len())
        }
    }
    let (outcome, blocks) =
        produce(Cut { block_bytes: 64, frame_bytes: 16 }, Input::Stream(Box::new(Failing(64 + 40))));
    assert!(matches!(outcome, Err(Error::Local { .. })));
    assert_eq!(blocks.len(), 1, "the first block was complete, the second was not");
}

#[test]
fn reading_stops_when_nobody_takes_the_blocks() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let _entered = runtime.enter();
    let (announce, blocks) = mpsc::channel(1);
    drop(blocks);
    let cut = Cut { block_bytes: 64, frame_bytes: 16 };
    let producer = Producer::new(cut, None, Arc::new(Semaphore::new(1)), announce);
    let reading = std::thread::spawn(move || producer.run(Input::Stream(Box::new(io::repeat(1)))));
    assert_eq!(reading.join().unwrap().unwrap(), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn blocks_and_frames_are_the_input_cut_at_their_sizes(
        count in 0_usize..3_000,
        block_bytes in 1_u32..700,
        frame_bytes in 1_u32..300,
        size_known: bool,
    ) {
        let content = bytes(count);
        let file = file_of(&content);
        let input = if size_known {
            Input::open(Source::File(file.path().to_path_buf())).unwrap()
        } else {
            Input::Stream(Box::new(io::Cursor::new(content.clone())))
        };
        let cut = Cut { block_bytes: block_bytes.into(), frame_bytes: frame_bytes.into() };
        let (whole, blocks) = produce(cut, input);
        let sha256 = Sha256::of(&content);
        prop_assert_eq!(whole.unwrap(), Some(Whole { size_bytes: count as u64, sha256 }));

        let (block_bytes, frame_bytes) = (block_bytes as usize, frame_bytes as usize);
        let expected: Vec<Vec<&[u8]>> =
            content.chunks(block_bytes).map(|block| block.chunks(frame_bytes).collect()).collect();
        let seen: Vec<Vec<&[u8]>> =
            blocks.iter().map(|(frames, _sum)| frames.iter().map(Bytes::as_ref).collect()).collect();
        prop_assert_eq!(seen, expected);

        // The sum goes along where it is known in time: with a single block that is known to be the last one.
        let told = blocks.len() == 1 && (size_known || count < block_bytes);
        let sums: Vec<Option<Sha256>> = blocks.iter().map(|(_frames, sum)| *sum).collect();
        let expected: Vec<Option<Sha256>> = sums.iter().map(|_sum| told.then_some(sha256)).collect();
        prop_assert_eq!(sums, expected);
    }
}
