"""This project: the two services as two processes, and its command line tool."""

import json
import os
import pathlib
import re
import subprocess

from . import processes
from .processes import Service

READY = re.compile(r"^ready \w+=(http://\S+)", re.M)
TENANT = "peers"
# Many connections of one address are wanted here; sweeps would delete while something is measured.
COMMON = ("--listen=127.0.0.1:0", "--connections-max=16384", "--connections-per-address=16384")
METADATA = ("--sweep-interval=24h",)


def version():
    root = pathlib.Path(__file__).resolve().parents[3]
    commit = subprocess.run(["git", "-C", root, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return f"{processes.run('mini-tectonic-rs', '--version').stdout.strip()} at {commit.stdout.strip() or 'no commit'}"


class Ours:
    """Services over a storage folder, with a tenant."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir()
        self.start()
        self.cli("register-tenant", "-q", "-t", TENANT, "--max-open-uploads", "100000", token=False)

    def start(self):
        """Starts both; returns how long it took until both served, in seconds."""
        storage = self.folder / "storage"
        self.metadata = self.service("metadata-service", "--storage", storage, *COMMON, *METADATA)
        self.chunk = self.service("chunk-service", "--storage", storage, *COMMON, "--metadata", self.metadata.url)
        return self.metadata.ready_s + self.chunk.ready_s

    def service(self, name, *flags):
        log = self.folder / f"{name}.log"
        log.unlink(missing_ok=True)
        told = {"RUST_LOG": "warn"}
        service = Service(log, name, *flags, environment=told, ready=lambda: READY.search(log.read_text()))
        service.url = READY.search(service.text())[1]
        return service

    def stop(self):
        self.chunk.stop()
        self.metadata.stop()

    def environment(self, token=True):
        found = {
            "MINI_TECTONIC_ENDPOINT": self.metadata.url,
            "MINI_TECTONIC_CREDENTIALS": str(self.folder / "credentials.toml"),
        }
        kept = self.folder / "tenant.token"
        if token and kept.exists():
            return {**found, "MINI_TECTONIC_TOKEN_FILE": str(kept)}
        return {**found, "MINI_TECTONIC_TOKEN_FILE": str(self.folder / "storage" / "admin.token")}

    def cli(self, *arguments, token=True):
        """Runs the command line tool as the tenant, or as the operator, who registers it."""
        ended = processes.run("mini-tectonic-rs", *arguments, environment=self.environment(token))
        if not token:
            # The services' port is another after each start, and credentials are kept by endpoint.
            saved = re.search(r'^token = "(mt1[^"]+)"', (self.folder / "credentials.toml").read_text(), re.M)
            descriptor = os.open(self.folder / "tenant.token", os.O_WRONLY | os.O_CREAT, 0o600)
            with open(descriptor, "w") as file:
                file.write(saved[1])
        return ended

    def put(self, *files):
        """Stores files; returns how it ended, with the ids."""
        flags = [flag for file in files for flag in ("-f", file)]
        ended = self.cli("put", "-q", "-t", TENANT, *flags)
        ended.ids = ended.stdout.split()
        assert len(ended.ids) == len(files), ended.stdout
        return ended

    def get(self, blob_id, target="/dev/null"):
        return self.cli("get", "-q", "-t", TENANT, "-b", blob_id, "-o", target)

    def bench(self, what, **flags):
        """Runs `bench`; returns the figures of each phase, by name. Operations that fail make it fail."""
        words = [word for name, value in flags.items() for word in flag(name, value)]
        pids = [word for service in (self.metadata, self.chunk) for word in ("--service-pid", service.process.pid)]
        told = self.cli("bench", what, "-t", TENANT, "--json", *words, *pids).stdout
        phases = [json.loads(line) for line in told.splitlines()]
        return {phase["operation"]: phase for phase in phases if "part_of" not in phase}


def flag(name, value):
    name = "--" + name.replace("_", "-")
    return [name] if value is True else [name, str(value)]


def has_batches():
    """Whether `bench` knows batches yet."""
    return "--batch" in processes.run("mini-tectonic-rs", "bench", "--help").stdout
