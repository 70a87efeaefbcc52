"""Starts the two services as two processes, once for all tests, and registers tenants."""

import os
import pathlib
import signal
import subprocess
import threading

import grpc
import pytest

from minitectonic.v1 import metadata_service_pb2 as meta
from minitectonic.v1 import metadata_service_pb2_grpc as meta_grpc

READY_WITHIN_S = 60


class Service:
    """A running service: its process, and the address from its ready line."""

    def __init__(self, name, *arguments):
        self.process = subprocess.Popen([name, *map(str, arguments)], stdout=subprocess.PIPE, text=True)
        alarm = threading.Timer(READY_WITHIN_S, self.process.kill)
        alarm.start()
        line = self.process.stdout.readline()
        alarm.cancel()
        assert line.startswith("ready "), f"{name} is not ready: {line!r}"
        self.url = line.split("=", 1)[1].strip()
        self.address = self.url.split("://", 1)[1]

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(timeout=60) == 0, "a service did not drain"


class Services:
    def __init__(self, storage):
        self.storage = storage
        self.metadata = Service("metadata-service", "--storage", storage, "--listen", "127.0.0.1:0")
        self.chunk = Service(
            "chunk-service", "--storage", storage, "--listen", "127.0.0.1:0", "--metadata", self.metadata.url
        )
        self.admin_token = (storage / "admin.token").read_text().strip()

    def register(self, tenant_id):
        """Registers a tenant and returns its token."""
        with grpc.insecure_channel(self.metadata.address) as channel:
            stub = meta_grpc.MetadataServiceStub(channel)
            request = meta.RegisterTenantRequest(tenant_id=tenant_id)
            return stub.RegisterTenant(request, metadata=bearer(self.admin_token)).token

    def stop(self):
        self.chunk.stop()
        self.metadata.stop()


class Encrypted:
    """The two services with TLS, with certificates that `mini-tectonic-rs certs` made."""

    def __init__(self, folder):
        certs, storage = folder / "certs", folder / "storage"
        subprocess.run(["mini-tectonic-rs", "certs", "--quiet", "--out", certs], check=True, timeout=60)
        common = ["--storage", storage, "--listen", "127.0.0.1:0", "--tls-dir", certs]
        self.metadata = Service("metadata-service", *common)
        self.chunk = Service("chunk-service", *common, "--metadata", self.metadata.url)
        self.authority = certs / "ca.pem"
        self.admin_token = (storage / "admin.token").read_text().strip()

    def register(self, tenant_id):
        """Registers a tenant and returns its token."""
        credentials = grpc.ssl_channel_credentials(self.authority.read_bytes())
        with grpc.secure_channel(self.metadata.address, credentials) as channel:
            stub = meta_grpc.MetadataServiceStub(channel)
            request = meta.RegisterTenantRequest(tenant_id=tenant_id)
            return stub.RegisterTenant(request, metadata=bearer(self.admin_token)).token

    def stop(self):
        self.chunk.stop()
        self.metadata.stop()


class Figures:
    """What was measured on the way; printed at the end, and judged by nobody."""

    lines = []

    def throughput(self, what, size_bytes, seconds):
        self.lines.append(f"{what} of {size_bytes / 1e6:.0f} MB: {size_bytes / 1e6 / seconds:.0f} MB/s")


def pytest_terminal_summary(terminalreporter):
    for line in Figures.lines:
        terminalreporter.write_line(line)


def bearer(credential):
    return [("authorization", f"Bearer {credential}")]


@pytest.fixture(scope="session")
def services(tmp_path_factory):
    running = Services(tmp_path_factory.mktemp("services") / "storage")
    yield running
    running.stop()


@pytest.fixture(scope="session")
def encrypted(tmp_path_factory):
    running = Encrypted(tmp_path_factory.mktemp("tls"))
    yield running
    running.stop()


@pytest.fixture(scope="session")
def figures():
    return Figures()


@pytest.fixture(scope="session")
def repository():
    return pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture
def environment():
    return dict(os.environ)
