"""SeaweedFS: master, volume server, filer and S3 door in one process, as `weed server` starts them."""

import pathlib
import re
import urllib.request

from . import processes
from .processes import Service

RATE = re.compile(r"Requests per second:\s+([\d.]+)")
FAILED = re.compile(r"Failed requests:\s+(\d+)")
COMPLETED = re.compile(r"Completed? requests:\s+(\d+)", re.I)


def version():
    found = re.search(r"\b(\d+\.\d+)\b", processes.run("weed", "version").stdout)
    return f"SeaweedFS {found[1]}"


class SeaweedFs:
    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir()
        ports = processes.free_ports(4)
        self.master, volume, self.filer, self.s3 = ports
        named = zip(("master", "volume", "filer", "s3"), ports)
        both = ((name, port, kind) for name, port in named for kind in ("", ".grpc"))
        flags = [f"-{name}.port{kind}={port + (10_000 if kind else 0)}" for name, port, kind in both]
        self.service = Service(
            self.folder / "weed.log",
            "weed",
            "server",
            f"-dir={self.folder}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            "-filer",
            "-s3",
            "-master.volumeSizeLimitMB=4096",
            "-master.telemetry=false",
            "-volume.max=200",
            # Doors that nobody asked for, on fixed ports.
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            *flags,
            ready=self.answers,
        )

    def answers(self):
        """Whether a file can be stored, and the S3 door is open."""
        try:
            self.request("PUT", f"http://127.0.0.1:{self.filer}/ready", b"ready")
            self.request("GET", f"http://127.0.0.1:{self.s3}/")
            return True
        except OSError:
            return False

    def request(self, method, url, data=None):
        with urllib.request.urlopen(urllib.request.Request(url, data, method=method), timeout=10) as answer:
            return answer.read()

    def stop(self):
        self.service.stop()

    def benchmark(self, count, concurrency, size_bytes):
        """Durable writes and then reads, a second of each; contents are mostly zeros."""
        told = processes.run(
            "weed",
            "benchmark",
            f"-master=127.0.0.1:{self.master}",
            f"-n={count}",
            f"-c={concurrency}",
            f"-size={size_bytes}",
            "-fsync",
            f"-list={self.folder}/benchmark.list",
        ).stdout
        return rates(told, count)

    def put(self, file, name):
        return self.curl("--upload-file", file, self.url(name))

    def get(self, name):
        return self.curl(self.url(name))

    def curl(self, *arguments):
        return processes.run("curl", "--silent", "--show-error", "--fail", "--output", "/dev/null", *arguments)

    def url(self, name):
        return f"http://127.0.0.1:{self.filer}/{name}"

    def remote(self):
        """As rclone calls it."""
        return f":s3,provider=SeaweedFS,endpoint='http://127.0.0.1:{self.s3}',force_path_style=true:"


def rates(told, count):
    """Writes and reads a second, from what the benchmark prints."""
    found = [float(number) for number in RATE.findall(told)]
    failed = [int(number) for number in FAILED.findall(told)]
    completed = [int(number) for number in COMPLETED.findall(told)]
    if len(found) != 2 or any(failed) or completed != [count, count]:
        raise RuntimeError(f"weed benchmark went wrong:\n{told}")
    return found
