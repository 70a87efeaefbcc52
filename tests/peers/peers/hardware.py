"""What the hardware and the system allow, by the tools that everybody has."""

import json
import re

from . import processes


def dd(source, target):
    """Copies a file and syncs it once at the end; seconds."""
    return processes.run("dd", f"if={source}", f"of={target}", "bs=1M", "conv=fsync", "status=none").seconds


def touch_memory(folder, bytes_):
    """Has the system take so much memory from whoever lends it, by a file in memory that goes at once."""
    file = folder / "touched"
    processes.run("dd", "if=/dev/zero", f"of={file}", "bs=1M", f"count={bytes_ // 2**20}", "status=none")
    file.unlink()


def sha256_speed():
    """Bytes a second that one core hashes, in pieces of 64 KiB."""
    told = processes.run("openssl", "speed", "-seconds", "2", "-bytes", "65536", "-evp", "sha256").stdout
    return speed(told)


def speed(told):
    """The last figure of what `openssl speed` prints, in thousands of bytes a second."""
    found = re.findall(r"^sha256\s+([\d.]+)k\s*$", told, re.M | re.I)
    return float(found[-1]) * 1000


def sha256_cpu_s(file):
    """Processor time of hashing a file with a tool that does nothing else."""
    return processes.run("openssl", "dgst", "-sha256", file).cpu_seconds


def synced_files(folder, count, jobs):
    """Files of 4 KiB a second, each created, written and fsynced by one of `jobs` threads."""
    folder.mkdir()
    told = processes.run(
        "fio",
        "--name=synced",
        f"--directory={folder}",
        "--ioengine=sync",
        "--rw=write",
        "--bs=4k",
        "--filesize=4k",
        f"--nrfiles={count // jobs}",
        "--openfiles=1",
        "--file_service_type=sequential",
        "--create_on_open=1",
        "--fsync_on_close=1",
        "--fallocate=none",
        f"--numjobs={jobs}",
        "--thread",
        "--group_reporting",
        "--output-format=json",
    ).stdout
    return files_per_second(told)


def files_per_second(told):
    """From fio's report: each write is one file, and the run is as long as its slowest thread."""
    write = json.loads(told[told.index("{") :])["jobs"][0]["write"]
    return write["total_ios"] / (write["runtime"] / 1000)
