"""The real grpcurl and Python's gRPC over TLS, with certificates that `mini-tectonic-rs certs` made."""

import json
import subprocess

import grpc
import pytest
from conftest import Service, bearer

from minitectonic.v1 import metadata_service_pb2 as meta
from minitectonic.v1 import metadata_service_pb2_grpc as meta_grpc


class Encrypted:
    def __init__(self, folder):
        certs, storage = folder / "certs", folder / "storage"
        subprocess.run(["mini-tectonic-rs", "certs", "--quiet", "--out", certs], check=True, timeout=60)
        common = ["--storage", storage, "--listen", "127.0.0.1:0", "--tls-dir", certs]
        self.metadata = Service("metadata-service", *common)
        self.chunk = Service("chunk-service", *common, "--metadata", self.metadata.url)
        self.authority = certs / "ca.pem"
        self.admin_token = (storage / "admin.token").read_text().strip()

    def stop(self):
        self.chunk.stop()
        self.metadata.stop()


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory):
    running = Encrypted(tmp_path_factory.mktemp("tls"))
    yield running
    running.stop()


def grpcurl(*arguments):
    return subprocess.run(["grpcurl", *map(str, arguments)], capture_output=True, text=True, timeout=60)


def test_grpcurl_is_served_when_it_trusts_the_authority_and_only_then(encrypted):
    for service in (encrypted.metadata, encrypted.chunk):
        assert service.url.startswith("https://")
        checked = grpcurl("-cacert", encrypted.authority, service.address, "grpc.health.v1.Health/Check")
        assert json.loads(checked.stdout) == {"status": "SERVING"}, checked.stderr
        listed = grpcurl("-cacert", encrypted.authority, service.address, "list")
        assert "grpc.health.v1.Health" in listed.stdout.split(), listed.stderr
        assert grpcurl(service.address, "list").returncode != 0
        assert grpcurl("-plaintext", service.address, "list").returncode != 0


def test_a_node_call_without_a_certificate_is_refused(encrypted):
    called = grpcurl(
        "-cacert", encrypted.authority, "-d", "{}", encrypted.metadata.address, "minitectonic.v1.ClusterService/Heartbeat"
    )
    assert "certificate of --tls-client-ca" in called.stderr, called.stderr


def test_python_registers_a_tenant(encrypted):
    credentials = grpc.ssl_channel_credentials(encrypted.authority.read_bytes())
    with grpc.secure_channel(encrypted.metadata.address, credentials) as channel:
        request = meta.RegisterTenantRequest(tenant_id="encrypted")
        answer = meta_grpc.MetadataServiceStub(channel).RegisterTenant(request, metadata=bearer(encrypted.admin_token))
    assert answer.token.startswith("mt1.")
