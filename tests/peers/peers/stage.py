"""What all rows share: how much is done, where, and whoever takes part, started when first needed."""

import dataclasses
import functools
import os
import pathlib
import shutil
import tempfile

from . import machine
from .garage import Garage
from .ours import Ours
from .seaweed import SeaweedFs

KIB, MIB, GIB = 2**10, 2**20, 2**30


@dataclasses.dataclass(frozen=True)
class Form:
    """How much is done."""

    name: str
    times: int
    large_bytes: int
    small_count: int
    files: int
    pings: int
    blobs: tuple[int, ...]
    scale_count: int
    transfers: tuple[int, int]
    whale_bytes: int
    crowd: int
    garage: bool
    disk_gib: int
    memory_gib: int


SHORT = Form("short", 1, 128 * MIB, 1_000, 200, 2_000, (1_000, 3_000), 200, (8, 8 * MIB), 256 * MIB, 50, False, 4, 1)
LONG = Form(
    "long",
    5,
    GIB,
    20_000,
    10_000,
    50_000,
    (10_000, 100_000, 1_000_000),
    4_000,
    (64, 64 * MIB),
    20 * GIB,
    1_000,
    True,
    75,
    12,
)


class Stage:
    """Everything that takes part, in one folder on disk and one in memory, both removed at the end and not before."""

    def __init__(self, form, within, all_groups):
        self.form = form
        within.mkdir(parents=True, exist_ok=True)
        # No group leaves more than a third of what all of them leave.
        machine.need_free(within, form.disk_gib if all_groups else form.disk_gib // 3)
        machine.need_free(machine.SHARED_MEMORY, form.memory_gib)
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="run.", dir=within))
        self.memory = pathlib.Path(tempfile.mkdtemp(prefix="mini-tectonic-peers.", dir=machine.SHARED_MEMORY))
        self.disk = machine.Disk(self.folder)
        self.running = []

    def started(self, side):
        self.running.append(side)
        return side

    @functools.cached_property
    def ours(self):
        return self.started(Ours(self.folder / "ours"))

    @functools.cached_property
    def seaweed(self):
        seaweed = self.started(SeaweedFs(self.folder / "seaweedfs"))
        # Its first writes make volumes, a second each.
        seaweed.benchmark(100, 16, 4 * KIB)
        return seaweed

    @functools.cached_property
    def garage(self):
        return self.started(Garage(self.folder / "garage"))

    @functools.cached_property
    def large_file(self):
        """A file that does not shrink, in memory, so that reading it costs no disk."""
        file = self.memory / "large"
        with open(file, "wb") as out:
            for _ in range(self.form.large_bytes // MIB):
                out.write(os.urandom(MIB))
        return file

    @functools.cached_property
    def small_files(self):
        folder = self.memory / "files"
        folder.mkdir()
        for number in range(self.form.files):
            (folder / f"{number:06}").write_bytes(os.urandom(4 * KIB))
        return folder

    def end(self):
        for side in self.running:
            side.stop()
        for folder in (self.folder, self.memory):
            shutil.rmtree(folder)


def size(count):
    """1 GiB, 128 MiB."""
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if count >= unit:
            return f"{count / unit:.4g} {name}"
    return f"{count} B"
