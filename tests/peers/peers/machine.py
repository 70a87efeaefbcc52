"""The machine: what it is, how much room it has, and whether its disk is calm."""

import os
import pathlib
import platform
import statistics
import sys
import time

PROBES = 30
CALM_FACTOR = 1.6
CALM_WITHIN_S = 180
SHARED_MEMORY = pathlib.Path("/dev/shm")


class Disk:
    """The disk below a folder. Small syncs tell whether it still works on what came before: deletes above all."""

    def __init__(self, folder):
        self.probe_file = pathlib.Path(folder) / "probe"
        self.probe_file.write_bytes(bytes(4096 * PROBES))
        os.sync()
        # The best of a few looks is what the disk can do.
        self.calm_s = min(self.sync_s() for _ in range(5))

    def sync_s(self):
        """How long a synced write of 4 KiB takes: the median of some."""
        times = []
        with open(self.probe_file, "r+b", buffering=0) as file:
            for at in range(PROBES):
                began = time.perf_counter()
                os.pwrite(file.fileno(), os.urandom(4096), at * 4096)
                os.fdatasync(file.fileno())
                times.append(time.perf_counter() - began)
        return statistics.median(times)

    def calm(self):
        """Waits until what was written before is on the disk and syncs are as quick as they were at the start."""
        os.sync()
        deadline = time.monotonic() + CALM_WITHIN_S
        while (now_s := self.sync_s()) > CALM_FACTOR * self.calm_s:
            if time.monotonic() > deadline:
                start = f"{self.calm_s * 1e3:.2f} ms at the start"
                print(f"the disk does not calm down: a sync takes {now_s * 1e3:.2f} ms, {start}", file=sys.stderr)
                return
            time.sleep(1)


def need_free(folder, gib):
    """Fails unless there is so much room."""
    found = os.statvfs(folder)
    free = found.f_bavail * found.f_frsize / 2**30
    if free < gib:
        raise SystemExit(f"{folder} has {free:.0f} GiB free; this form needs {gib}")


def description():
    """One line about the machine."""
    model = next((line for line in open("/proc/cpuinfo") if line.startswith("model name")), "?: ?").split(":", 1)[1]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores ({model.strip()}), {memory:.0f} GiB of memory, Linux {platform.release()}"
