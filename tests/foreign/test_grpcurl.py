"""The real grpcurl, as a person would type it."""

import base64
import hashlib
import json
import random
import re
import subprocess
import time

import pytest

METADATA_SERVICES = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
    "minitectonic.v1.ClusterService",
    "minitectonic.v1.MetadataService",
]
# One block; what a person at a prompt would move is far less.
SIZE = 50 * 1000 * 1000
CHUNK_SERVICES = [*METADATA_SERVICES[:3], "minitectonic.v1.ChunkService"]


def grpcurl(address, *arguments, credential=None, data=None):
    command = ["grpcurl", "-plaintext"]
    if credential:
        command += ["-H", f"authorization: Bearer {credential}"]
    if data is not None:
        command += ["-d", json.dumps(data)]
    return subprocess.run([*command, address, *arguments], capture_output=True, text=True, timeout=60)


def call(address, method, credential=None, data=None):
    done = grpcurl(address, f"minitectonic.v1.{method}", credential=credential, data=data or {})
    assert done.returncode == 0, done.stderr
    return parsed(done.stdout)


def parsed(text):
    """The messages that grpcurl printed, one after the other."""
    decoder, found, at = json.JSONDecoder(), [], 0
    text = text.strip()
    while at < len(text):
        message, at = decoder.raw_decode(text, at)
        found.append(message)
        at += len(text[at : at + 2]) - len(text[at : at + 2].lstrip())
    return found


@pytest.fixture(scope="module")
def token(services):
    return services.register("grpcurl")


def test_list_names_exactly_what_is_served(services):
    for service, expected in ((services.metadata, METADATA_SERVICES), (services.chunk, CHUNK_SERVICES)):
        listed = grpcurl(service.address, "list")
        assert sorted(listed.stdout.split()) == expected, listed.stderr


def test_describe_shows_methods_and_their_comments(services):
    described = grpcurl(services.metadata.address, "describe", "minitectonic.v1.MetadataService").stdout
    assert "rpc StartUpload ( .minitectonic.v1.StartUploadRequest )" in described
    assert "Opens an upload" in described
    message = grpcurl(services.chunk.address, "describe", "minitectonic.v1.ChunkData").stdout
    assert re.search(r"optional fixed32 crc32c = 2", message)


def test_health_is_serving_without_a_credential(services):
    for service, name in ((services.metadata, "minitectonic.v1.MetadataService"), (services.chunk, "")):
        checked = grpcurl(service.address, "grpc.health.v1.Health/Check", data={"service": name})
        assert json.loads(checked.stdout) == {"status": "SERVING"}, checked.stderr


def test_a_small_blob_goes_in_and_comes_out(services, token):
    content = b"hello, tectonic\n"
    (start,) = call(
        services.metadata.address,
        "MetadataService/StartUpload",
        token,
        {"display_name": "hello.txt", "size_bytes": len(content)},
    )
    plan = start["blocks"][0]["chunks"][0]
    (written,) = call(
        plan["endpoint"].removeprefix("http://"),
        "ChunkService/WriteChunk",
        plan["capability"],
        {
            "spec": {"chunk_id": plan["chunkId"], "size_bytes": len(content)},
            "data": {"content": base64.b64encode(content).decode()},
            "finish_write": True,
        },
    )
    assert written["sha256"] == hashlib.sha256(content).hexdigest()
    blob_id = start["upload"]["blobId"]
    (committed,) = call(
        services.metadata.address,
        "MetadataService/CommitUpload",
        token,
        {
            "blob_id": blob_id,
            "size_bytes": len(content),
            "sha256": written["sha256"],
            "receipts": [written["receipt"]],
        },
    )
    assert committed["blob"]["displayName"] == "hello.txt"

    (layout,) = call(services.metadata.address, "MetadataService/GetBlobLayout", token, {"blob_id": blob_id})
    location = layout["blocks"][0]["chunks"][0]
    messages = call(
        location["endpoint"].removeprefix("http://"),
        "ChunkService/ReadChunk",
        location["capability"],
        {"chunk_id": location["chunkId"]},
    )
    assert b"".join(base64.b64decode(message["data"]["content"]) for message in messages) == content


def messages(chunk_id, content, frame_size):
    """A WriteChunk stream as grpcurl reads it."""
    for at in range(0, len(content), frame_size):
        message = {
            "write_offset": at,
            "data": {"content": base64.b64encode(content[at : at + frame_size]).decode()},
            "finish_write": at + frame_size >= len(content),
        }
        if at == 0:
            message["spec"] = {"chunk_id": chunk_id, "size_bytes": len(content)}
        yield json.dumps(message)


def test_a_stream_of_many_frames_goes_in_and_comes_out(services, token, figures):
    content = random.Random(7).randbytes(SIZE)
    (start,) = call(services.metadata.address, "MetadataService/StartUpload", token, {"size_bytes": SIZE})
    plan = start["blocks"][0]["chunks"][0]
    stream = "\n".join(messages(plan["chunkId"], content, int(start["frameSizeBytes"])))
    node, method = plan["endpoint"].removeprefix("http://"), "minitectonic.v1.ChunkService/WriteChunk"
    command = ["grpcurl", "-plaintext", "-H", f"authorization: Bearer {plan['capability']}", "-d", "@", node, method]
    began = time.perf_counter()
    written = subprocess.run(command, input=stream, capture_output=True, text=True, timeout=120)
    figures.throughput("grpcurl put (one chunk, JSON)", SIZE, time.perf_counter() - began)
    assert written.returncode == 0, written.stderr
    written = json.loads(written.stdout)
    assert written["sha256"] == hashlib.sha256(content).hexdigest()
    commit = {"blob_id": start["upload"]["blobId"], "size_bytes": SIZE, "sha256": written["sha256"]}
    commit["receipts"] = [written["receipt"]]
    call(services.metadata.address, "MetadataService/CommitUpload", token, commit)

    (layout,) = call(services.metadata.address, "MetadataService/GetBlobLayout", token, {"blob_id": commit["blob_id"]})
    location = layout["blocks"][0]["chunks"][0]
    began = time.perf_counter()
    request = {"chunk_id": location["chunkId"]}
    read = grpcurl(node, "minitectonic.v1.ChunkService/ReadChunk", credential=location["capability"], data=request)
    figures.throughput("grpcurl get (one chunk, JSON)", SIZE, time.perf_counter() - began)
    frames = [base64.b64decode(message["data"]["content"]) for message in parsed(read.stdout)]
    assert b"".join(frames) == content, read.stderr


def test_an_error_shows_its_error_info(services, token):
    missing = "0190b5c4-7e5a-7cc3-98c4-dc0c0c07398f"
    refused = grpcurl(
        services.metadata.address, "minitectonic.v1.MetadataService/GetBlob", credential=token, data={"blob_id": missing}
    )
    assert refused.returncode != 0
    assert "Code: NotFound" in refused.stderr
    assert '"reason": "BLOB_NOT_FOUND"' in refused.stderr or '"reason":"BLOB_NOT_FOUND"' in refused.stderr
    assert "minitectonic.v1" in refused.stderr


def test_without_a_token_nothing_is_told(services):
    refused = grpcurl(services.metadata.address, "minitectonic.v1.MetadataService/ListBlobs", data={})
    assert "Code: Unauthenticated" in refused.stderr and "TOKEN_MISSING" in refused.stderr
