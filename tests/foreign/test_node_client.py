"""A Node.js client on @grpc/grpc-js, against both services; `node/` has it."""

import hashlib
import json
import os
import pathlib
import random
import subprocess

import pytest

SIZE = 100 * 1000 * 1000
MAIN = pathlib.Path(__file__).parent / "node" / "main.js"
MISSING = "0190b5c4-7e5a-7cc3-98c4-dc0c0c07398f"


class Node:
    def __init__(self, services, folder, token, authority=None):
        self.folder = folder
        self.environment = dict(os.environ, ENDPOINT=services.metadata.url, TOKEN=token)
        if authority:
            self.environment["AUTHORITY"] = str(authority)

    def run(self, *arguments):
        command = ["node", MAIN, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, env=self.environment, timeout=120)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def put(self, content, *more):
        file = self.folder / "in"
        file.write_bytes(content)
        return self.run("put", file, *more)

    def get(self, blob_id, *more):
        """Its bytes, and what was told of the read."""
        told = self.run("get", blob_id, self.folder / "out", *more)
        return (self.folder / "out").read_bytes(), told


@pytest.fixture(scope="module")
def node(services, tmp_path_factory):
    return Node(services, tmp_path_factory.mktemp("node"), services.register("node"))


@pytest.fixture(scope="module")
def content():
    return random.Random(7).randbytes(SIZE)


@pytest.fixture(scope="module")
def stored(node, content):
    return node.put(content)


def test_100_mb_go_in_and_come_out_equal(node, content, stored, figures):
    blob = stored["blob"]
    assert (blob["size_bytes"], blob["block_count"]) == (SIZE, 2)
    assert blob["sha256"] == hashlib.sha256(content).hexdigest()
    read, told = node.get(blob["blob_id"])
    assert read == content
    figures.throughput("Node.js put", SIZE, stored["seconds"])
    figures.throughput("Node.js get", SIZE, told["seconds"])


@pytest.mark.parametrize("offset, limit", [(0, 1), (SIZE - 1, 1), (12_345, 1_000_000), (67_108_861, 7), (1, 0)])
def test_ranges_are_read_exactly(node, content, stored, offset, limit):
    read, _told = node.get(stored["blob"]["blob_id"], offset, limit)
    assert read == (content[offset : offset + limit] if limit else content[offset:])


def test_an_upload_goes_on_where_its_stream_broke(node, content):
    told = node.put(content[:3_000_000], 1_000_000)
    (resumed_at,) = told["resumed"]
    assert 0 < resumed_at <= 1_048_576, "some of it was there, and no more than was sent"
    assert node.get(told["blob"]["blob_id"])[0] == content[:3_000_000]


def test_a_download_goes_on_where_its_stream_broke(node, content, stored):
    read, told = node.get(stored["blob"]["blob_id"], 5, 0, 1_000_000)
    first, second = told["resumed"]
    assert first >= 1_000_005 and second >= 1_000_000
    assert read == content[5:]


def test_an_empty_blob_has_no_blocks(node):
    blob = node.put(b"")["blob"]
    assert (blob["size_bytes"], blob["block_count"]) == (0, 0)
    assert node.get(blob["blob_id"])[0] == b""


def test_errors_tell_their_reason(node, services, stored):
    missing = node.run("error", MISSING)
    assert (missing["code"], missing["reason"], missing["domain"]) == ("NOT_FOUND", "BLOB_NOT_FOUND", "minitectonic.v1")
    stranger = Node(services, node.folder, services.register("node-stranger"))
    assert stranger.run("error", stored["blob"]["blob_id"])["reason"] == "BLOB_NOT_FOUND"
    nobody = Node(services, node.folder, "nonsense")
    assert nobody.run("error", MISSING)["code"] == "UNAUTHENTICATED"
    assert nobody.run("error", MISSING)["reason"] == "TOKEN_INVALID"


def test_it_works_over_tls(encrypted, tmp_path, content):
    node = Node(encrypted, tmp_path, encrypted.register("node"), encrypted.authority)
    blob = node.put(content[:1_000_000])["blob"]
    assert node.get(blob["blob_id"])[0] == content[:1_000_000]
