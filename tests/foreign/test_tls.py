"""The real grpcurl and Python's gRPC over TLS, with certificates that `mini-tectonic-rs certs` made."""

import json
import subprocess


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
    assert encrypted.register("encrypted").startswith("mt1.")
