"""A Python client generated from the protos, against both services."""

import hashlib
import random
import time

import grpc
import pytest
from google.rpc import error_details_pb2

from blob_client import BlobClient, bearer, frames
from minitectonic.v1 import chunk_service_pb2 as chunk
from minitectonic.v1 import common_pb2 as common
from minitectonic.v1 import metadata_service_pb2 as meta

SIZE = 100 * 1000 * 1000


def error_info(error):
    """The google.rpc.ErrorInfo of an error."""
    from google.rpc import status_pb2

    trailer = dict(error.trailing_metadata())["grpc-status-details-bin"]
    for detail in status_pb2.Status.FromString(trailer).details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            return info
    raise AssertionError("the error has no ErrorInfo")


@pytest.fixture(scope="module")
def client(services):
    return BlobClient(services.metadata.address, services.register("python"))


@pytest.fixture(scope="module")
def content():
    return random.Random(7).randbytes(SIZE)


@pytest.fixture(scope="module")
def blob(client, content, figures):
    began = time.perf_counter()
    stored = client.put("random.bin", content)
    figures.throughput("Python put", SIZE, time.perf_counter() - began)
    return stored


def test_100_mb_go_in_and_come_out_equal(client, content, blob, figures):
    assert (blob.size_bytes, blob.block_count) == (SIZE, 2)
    assert blob.sha256 == hashlib.sha256(content).hexdigest()
    began = time.perf_counter()
    read, lengths, frame_size = client.get(blob.blob_id)
    figures.throughput("Python get", SIZE, time.perf_counter() - began)
    assert read == content
    for of_block in lengths:
        assert set(of_block[:-1]) == {frame_size}, "all frames but the last are equal"
        assert 0 < of_block[-1] <= frame_size


def test_ranges_are_read_exactly(client, content, blob):
    block = blob.block_size_bytes
    for offset, limit in [(0, 1), (SIZE - 1, 1), (12_345, 1_000_000), (block - 3, 7), (block, 65_536), (1, 0)]:
        read, _lengths, _frame_size = client.get(blob.blob_id, offset, limit)
        assert read == (content[offset : offset + limit] if limit else content[offset:]), (offset, limit)


def test_a_wrong_frame_checksum_is_refused(client):
    start = client.start("bad", 5)
    plan = start.blocks[0].chunks[0]
    message = chunk.WriteChunkRequest(
        spec=chunk.WriteChunkSpec(chunk_id=plan.chunk_id, size_bytes=5),
        data=common.ChunkData(content=b"hello", crc32c=1),
        finish_write=True,
    )
    with pytest.raises(grpc.RpcError) as refused:
        client.node(plan.endpoint).WriteChunk(iter([message]), metadata=bearer(plan.capability))
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    info = error_info(refused.value)
    assert (info.reason, info.domain) == ("CHECKSUM_MISMATCH", "minitectonic.v1")


def test_a_wrong_sha256_of_a_chunk_and_of_a_blob_are_refused(client):
    start = client.start("bad", 5)
    plan = start.blocks[0].chunks[0]
    wrong = hashlib.sha256(b"other").hexdigest()
    with pytest.raises(grpc.RpcError) as refused:
        messages = frames(plan.chunk_id, b"hello", start.frame_size_bytes, wrong)
        client.node(plan.endpoint).WriteChunk(messages, metadata=bearer(plan.capability))
    assert error_info(refused.value).reason == "CHECKSUM_MISMATCH"

    receipt = client.write_block(start.blocks[0], b"hello", start.frame_size_bytes).receipt
    request = meta.CommitUploadRequest(
        blob_id=start.upload.blob_id, size_bytes=5, sha256=wrong, receipts=[receipt]
    )
    with pytest.raises(grpc.RpcError) as refused:
        client.metadata.CommitUpload(request, metadata=client.credential)
    assert error_info(refused.value).reason == "CHECKSUM_MISMATCH"
    assert client.commit(start.upload.blob_id, b"hello", [receipt]).size_bytes == 5


def test_an_empty_blob_has_no_blocks(client):
    blob = client.put("empty", b"")
    assert (blob.size_bytes, blob.block_count) == (0, 0)
    assert client.get(blob.blob_id)[0] == b""


def test_another_tenants_blob_is_one_that_does_not_exist(services, client, blob):
    stranger = BlobClient(services.metadata.address, services.register("stranger"))
    answers = []
    for blob_id in (blob.blob_id, "0190b5c4-7e5a-7cc3-98c4-dc0c0c07398f"):
        with pytest.raises(grpc.RpcError) as refused:
            stranger.get(blob_id)
        info = error_info(refused.value)
        facts = {key: value.replace(blob_id, "ID") for key, value in info.metadata.items()}
        details = refused.value.details().replace(blob_id, "ID")
        answers.append((refused.value.code(), details, info.reason, facts))
    assert answers[0] == answers[1]
    assert answers[0][0] == grpc.StatusCode.NOT_FOUND and answers[0][2] == "BLOB_NOT_FOUND"
