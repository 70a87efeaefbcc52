"""A small client on the generated stubs: what a Python user of the service would write."""

import hashlib

import google_crc32c
import grpc

from minitectonic.v1 import chunk_service_pb2 as chunk
from minitectonic.v1 import chunk_service_pb2_grpc as chunk_grpc
from minitectonic.v1 import common_pb2 as common
from minitectonic.v1 import metadata_service_pb2 as meta
from minitectonic.v1 import metadata_service_pb2_grpc as meta_grpc


def bearer(credential):
    return [("authorization", f"Bearer {credential}")]


def frames(chunk_id, content, frame_size, sha256=""):
    """The messages of a WriteChunk stream."""
    offsets = range(0, len(content), frame_size) or [0]
    for at in offsets:
        part = content[at : at + frame_size]
        last = at + frame_size >= len(content)
        yield chunk.WriteChunkRequest(
            spec=chunk.WriteChunkSpec(chunk_id=chunk_id, size_bytes=len(content)) if at == 0 else None,
            write_offset=at,
            data=common.ChunkData(content=part, crc32c=google_crc32c.value(part)),
            finish_write=last,
            checksums=chunk.ChunkChecksums(sha256=sha256) if last else None,
        )


class BlobClient:
    def __init__(self, metadata_address, token):
        self.metadata_channel = grpc.insecure_channel(metadata_address)
        self.metadata = meta_grpc.MetadataServiceStub(self.metadata_channel)
        self.credential = bearer(token)
        self.nodes = {}

    def node(self, endpoint):
        if endpoint not in self.nodes:
            options = [("grpc.max_receive_message_length", 2 * 1024 * 1024)]
            channel = grpc.insecure_channel(endpoint.removeprefix("http://"), options=options)
            self.nodes[endpoint] = chunk_grpc.ChunkServiceStub(channel)
        return self.nodes[endpoint]

    def start(self, name, size):
        request = meta.StartUploadRequest(display_name=name, size_bytes=size)
        return self.metadata.StartUpload(request, metadata=self.credential)

    def write_block(self, block, content, frame_size):
        plan = block.chunks[0]
        part = content[block.offset_bytes : block.offset_bytes + block.max_bytes]
        messages = frames(plan.chunk_id, part, frame_size, hashlib.sha256(part).hexdigest())
        return self.node(plan.endpoint).WriteChunk(messages, metadata=bearer(plan.capability))

    def commit(self, blob_id, content, receipts):
        request = meta.CommitUploadRequest(
            blob_id=blob_id,
            size_bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
            receipts=receipts,
        )
        return self.metadata.CommitUpload(request, metadata=self.credential).blob

    def put(self, name, content):
        start = self.start(name, len(content))
        receipts = [self.write_block(block, content, start.frame_size_bytes).receipt for block in start.blocks]
        return self.commit(start.upload.blob_id, content, receipts)

    def get(self, blob_id, offset=0, limit=0):
        """Reads a range of a blob; returns its bytes and, block by block, the lengths of the frames they came in."""
        request = meta.GetBlobLayoutRequest(blob_id=blob_id, read_offset=offset, read_limit=limit)
        layout = self.metadata.GetBlobLayout(request, metadata=self.credential)
        assert not layout.HasField("next_read_offset"), "more than one page of blocks"
        end = min(offset + limit, layout.blob.size_bytes) if limit else layout.blob.size_bytes
        content, lengths = bytearray(), []
        for block in layout.blocks:
            location = block.chunks[0]
            first = max(offset - block.offset_bytes, 0)
            count = min(end - block.offset_bytes, block.size_bytes) - first
            read = chunk.ReadChunkRequest(chunk_id=location.chunk_id, read_offset=first, read_limit=count)
            lengths.append([])
            for message in self.node(location.endpoint).ReadChunk(read, metadata=bearer(location.capability)):
                assert message.read_offset == first + sum(lengths[-1])
                assert message.data.crc32c == google_crc32c.value(message.data.content)
                content += message.data.content
                lengths[-1].append(len(message.data.content))
        return bytes(content), lengths, layout.frame_size_bytes
