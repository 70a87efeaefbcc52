"""What each side leaves out, or does otherwise than ours."""

FOOTNOTES = {
    "no fsync": "It answers before anything is synced; ours after bytes, checksum file, folder and commit are.",
    "no verification": "Its client compares the bytes with nothing; ours checks CRC-32C of every frame and SHA-256 of "
    "every block, and `bench` every byte with what was put.",
    "benchmark's zeros": "`weed benchmark` puts mostly zeros, and its writes append to a few volume files; ours puts "
    "bytes that do not shrink.",
    "at random": "`weed benchmark` reads as many times at random, so it reads some twice and others not at all.",
    "together": "16 workers of one process with one client of the library, as `weed benchmark` has: calls of ours that wait "
    "for each other travel together, each with an outcome of its own.",
    "rclone": "By `rclone` with 16 transfers at once over HTTP and S3 signatures; one client as a user would take it.",
    "garage": "With `metadata_fsync` and `data_fsync`; it checks the bytes it reads from disk, and rclone what S3's "
    "checksums cover.",
    "to memory": "`rclone` writes to a file in memory, ours to /dev/null.",
    "nativelink": "NativeLink 1.6.6, the same stack (Rust, tonic), measured once on a machine of this kind with 16 "
    "clients over ByteStream, and not in this run: it cannot be had by a package client.",
    "touched": "A virtual machine may lend unused memory back to its host and pays for each page when it is used again, on "
    "the one measured first 2.5 s per GiB. Here a file in memory was written and removed just before each measurement.",
    "fio": "16 threads that create, write and fsync a file each, in one folder; no checksum file, no folder sync, no "
    "network, no metadata.",
}
