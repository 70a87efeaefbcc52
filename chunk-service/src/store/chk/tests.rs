use proptest::prelude::*;
use proto::checksum::{ChunkHasher, Sha256};
use proto::entropy::SeededEntropy;
use proto::ids::{BlobId, BlockId, ChunkId};

use super::*;

fn example(bytes: &[u8]) -> Chk {
    let mut hasher = ChunkHasher::default();
    hasher.update(bytes);
    let binding = ChunkBinding {
        chunk: "0190b5c4-7e5a-7cc3-98c4-dc0c0c07398f".parse().unwrap(),
        block: "0190b5c4-7e5a-7cc3-98c4-dc0c0c073990".parse().unwrap(),
        blob: "0190b5c4-7e5a-7cc3-98c4-dc0c0c073991".parse().unwrap(),
        shard_index: 0,
        shard_count: 1,
        generation: 1,
        epoch: 1,
        sequence: 42,
    };
    Chk { binding, sums: hasher.finish() }
}

const GOLDEN: &str = "\
# mini-tectonic chunk v1
# chunk=0190b5c4-7e5a-7cc3-98c4-dc0c0c07398f block=0190b5c4-7e5a-7cc3-98c4-dc0c0c073990 \
blob=0190b5c4-7e5a-7cc3-98c4-dc0c0c073991 shard=0/1 size=11 generation=1 epoch=1 sequence=42
# crc32c-64k=c99465aa
b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9  0190b5c4-7e5a-7cc3-98c4-dc0c0c07398f.blob
# end crc32c=74e6aebd
";

#[test]
fn the_golden_file_is_what_is_printed_and_read() {
    let chk = example(b"hello world");
    assert_eq!(chk.print(), GOLDEN);
    assert_eq!(Chk::parse(GOLDEN.as_bytes()), Ok(chk));
}

#[test]
fn every_truncation_and_every_flipped_bit_of_the_golden_file_is_refused() {
    for at in 0..GOLDEN.len() {
        assert_eq!(Chk::parse(&GOLDEN.as_bytes()[..at]), Err(ChkError::Damaged), "cut at {at}");
        for bit in 0..8 {
            let mut bytes = GOLDEN.as_bytes().to_vec();
            bytes[at] ^= 1 << bit;
            assert_eq!(Chk::parse(&bytes), Err(ChkError::Damaged), "bit {bit} of byte {at}");
        }
    }
    assert_eq!(Chk::parse(format!("{GOLDEN}\n").as_bytes()), Err(ChkError::Damaged));
}

/// The text with another last line, whose sum holds.
fn resealed(text: &str) -> String {
    let covered = &text[..text.rfind("# end").unwrap_or(text.len())];
    format!("{covered}# end crc32c={:08x}\n", crc32c(covered.as_bytes()))
}

#[test]
fn a_second_spelling_is_refused_even_under_a_sum_that_holds() {
    assert_eq!(resealed(GOLDEN), GOLDEN);
    for (from, to) in [
        ("size=11", "size=011"),
        ("size=11", "size=+11"),
        ("size=11", "size=65537"),
        ("size=11", "size=0"),
        ("shard=0/1", "shard=1/1"),
        ("shard=0/1 size=11", "size=11 shard=0/1"),
        (" sequence=42", " sequence=42 more=1"),
        (" sequence=42", ""),
        ("c99465aa", "C99465AA"),
        ("c99465aa", "c99465aa,"),
        ("c99465aa", "c99465aa,00000000"),
        ("c99465aa", "99465aa"),
        ("  0190", " 0190"),
        ("chunk v1", "chunk v01"),
        ("chunk v1", "chunk v0"),
        ("\n", "\r\n"),
    ] {
        let other = resealed(&GOLDEN.replace(from, to));
        assert_ne!(other, GOLDEN, "{from} is in the file");
        assert_eq!(Chk::parse(other.as_bytes()), Err(ChkError::Damaged), "{from} as {to}");
    }
}

/// A checksum file of a later version was once reported like a damaged one, and written over by the next repair.
#[test]
fn a_file_of_a_later_version_is_named_and_a_damaged_number_is_damage() {
    let later = |text: &str, found| assert_eq!(Chk::parse(text.as_bytes()), Err(ChkError::TooNew { found }), "{text}");
    later(&resealed(&GOLDEN.replace("chunk v1", "chunk v2")), 2);
    later(&resealed("# mini-tectonic chunk v17\nanything at all\n"), 17);
    assert_eq!(
        ChkError::TooNew { found: 2 }.to_string(),
        "checksum file of a later version 2; this program knows up to 1"
    );
    let whole = resealed("# mini-tectonic chunk v2\nanything at all\n");
    for text in [
        &GOLDEN.replace("chunk v1", "chunk v3"),
        &whole.replace("all", "ill"),
        &whole.replace("v2", "v+2"),
        whole.trim_end(),
        "# mini-tectonic chunk v2",
        "# mini-tectonic chunk v2\n",
    ] {
        assert_eq!(Chk::parse(text.as_bytes()), Err(ChkError::Damaged), "{text}");
    }
}

#[test]
fn sha256sum_reads_the_file_and_sees_a_changed_byte() {
    let folder = tempfile::tempdir().unwrap();
    let mut names = Vec::new();
    for size in [0usize, 1, 65_536, 200_001] {
        let bytes: Vec<u8> = (0u8..251).cycle().take(size).collect();
        let mut chk = example(&bytes);
        chk.binding.chunk = ChunkId::generate(1, &SeededEntropy::new(size as u64));
        let name = format!("{}.blob", chk.binding.chunk);
        put(&folder.path().join(&name), &bytes);
        put(&folder.path().join(format!("{name}.chk")), chk.print().as_bytes());
        names.push((name, bytes));
    }
    let sound = || {
        let mut command = std::process::Command::new("sha256sum");
        command.args(["-c", "--quiet", "--strict"]).current_dir(folder.path());
        command.args(names.iter().map(|(name, _)| format!("{name}.chk")));
        command.output().unwrap().status.success()
    };
    assert!(sound());
    let (name, bytes) = &names[3];
    let mut changed = bytes.clone();
    changed[100_000] ^= 1;
    put(&folder.path().join(name), &changed);
    assert!(!sound());
}

#[expect(clippy::disallowed_methods, reason = "files that a test plants")]
fn put(path: &std::path::Path, bytes: &[u8]) {
    std::fs::write(path, bytes).unwrap();
}

prop_compose! {
    fn any_chk()(
        seed in any::<u64>(),
        size in 0u64..40 * PIECE_BYTES,
        numbers in any::<[u64; 3]>(),
        count in 1u32..20,
    )(
        index in 0..count,
        pieces in proptest::collection::vec(any::<u32>(), usize::try_from(size.div_ceil(PIECE_BYTES)).unwrap()),
        (seed, size, numbers, count) in Just((seed, size, numbers, count)),
    ) -> Chk {
        let entropy = SeededEntropy::new(seed);
        let [generation, epoch, sequence] = numbers;
        let binding = ChunkBinding {
            chunk: ChunkId::generate(seed >> 20, &entropy),
            block: BlockId::generate(seed >> 20, &entropy),
            blob: BlobId::generate(seed >> 20, &entropy),
            shard_index: index,
            shard_count: count,
            generation,
            epoch,
            sequence,
        };
        Chk { binding, sums: ChunkSums { size_bytes: size, sha256: Sha256::of(&seed.to_be_bytes()), pieces } }
    }
}

proptest! {
    #[test]
    fn what_is_printed_reads_the_same(chk in any_chk()) {
        let text = chk.print();
        prop_assert!((text.len() as u64) < CHK_BYTES_MAX);
        prop_assert_eq!(Chk::parse(text.as_bytes()), Ok(chk));
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        prop_assert_eq!(Chk::parse(&bytes), Err(ChkError::Damaged));
    }

    #[test]
    fn no_changed_text_panics_or_is_taken(chk in any_chk(), at: prop::sample::Index, with in ".{0,12}") {
        let text = chk.print();
        let at = at.index(text.len());
        let changed = format!("{}{with}{}", &text[..at], &text[(at + 1).min(text.len())..]);
        prop_assume!(changed != text);
        prop_assert!(Chk::parse(changed.as_bytes()).is_err());
    }
}
