// A small client on the protos as they are: what a Node.js user of the service would write.
"use strict";

const crypto = require("node:crypto");
const path = require("node:path");
const timers = require("node:timers/promises");

const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");
const { crc32c } = require("@node-rs/crc32");
const protobuf = require("protobufjs");

// Between two questions how far a write has come; each one disturbs it a little.
const POLL_MS = 50;
const PROTO = path.resolve(__dirname, "../../../proto");
const definition = loader.loadSync(
  ["metadata_service", "chunk_service"].map((name) => `minitectonic/v1/${name}.proto`),
  { includeDirs: [PROTO], keepCase: true, longs: Number, enums: String, defaults: true },
);
const { MetadataService, ChunkService } = grpc.loadPackageDefinition(definition).minitectonic.v1;

const google = protobuf.loadSync(path.join(__dirname, "status.proto"));
const Status = google.lookupType("google.rpc.Status");
const ErrorInfo = google.lookupType("google.rpc.ErrorInfo");

// The google.rpc.ErrorInfo of an error of the services: reason, domain and facts. Other errors have none.
function errorInfo(error) {
  const [trailer] = error.metadata?.get("grpc-status-details-bin") ?? [];
  if (!trailer) return {};
  const detail = Status.decode(trailer).details.find(({ type_url }) => type_url.endsWith("/google.rpc.ErrorInfo"));
  return ErrorInfo.toObject(ErrorInfo.decode(detail.value));
}

function bearer(credential) {
  const metadata = new grpc.Metadata();
  metadata.set("authorization", `Bearer ${credential}`);
  return metadata;
}

// The answer of a unary call.
function call(client, method, request, credential) {
  return new Promise((resolve, reject) => {
    client[method](request, bearer(credential), (error, answer) => (error ? reject(error) : resolve(answer)));
  });
}

const sha256 = (bytes) => crypto.createHash("sha256").update(bytes).digest("hex");

class BlobClient {
  constructor(endpoint, token, authority) {
    this.token = token;
    this.authority = authority;
    this.nodes = new Map();
    this.metadata = this.connect(MetadataService, endpoint);
  }

  // `authority` is the certificate to believe at https:// endpoints.
  connect(Service, endpoint) {
    const [scheme, address] = endpoint.split("://");
    const credentials =
      scheme === "https" ? grpc.credentials.createSsl(this.authority) : grpc.credentials.createInsecure();
    return new Service(address, credentials, { "grpc.max_receive_message_length": 4 * 1024 * 1024 });
  }

  node(endpoint) {
    if (!this.nodes.has(endpoint)) this.nodes.set(endpoint, this.connect(ChunkService, endpoint));
    return this.nodes.get(endpoint);
  }

  close() {
    for (const client of [this.metadata, ...this.nodes.values()]) client.close();
  }

  // Stores a blob. With `breakAt`, each block's stream is broken after so many bytes and taken up where the node says
  // that it ended; `resumed` has those offsets.
  async put(name, content, breakAt) {
    const start = await call(
      this.metadata, "StartUpload", { display_name: name, size_bytes: content.length }, this.token,
    );
    const resumed = [];
    const receipts = [];
    for (const block of start.blocks) {
      const part = content.subarray(block.offset_bytes, block.offset_bytes + block.max_bytes);
      receipts.push((await this.putBlock(block.chunks[0], part, start.frame_size_bytes, breakAt, resumed)).receipt);
    }
    const request = {
      blob_id: start.upload.blob_id, size_bytes: content.length, sha256: sha256(content), receipts,
    };
    return { blob: (await call(this.metadata, "CommitUpload", request, this.token)).blob, resumed };
  }

  async putBlock(plan, part, frameSize, breakAt, resumed) {
    if (breakAt === undefined || breakAt >= part.length) return this.write(plan, part, frameSize, 0);
    await this.writeAndBreak(plan, part, frameSize, breakAt);
    for (;;) {
      const status = await this.status(plan);
      try {
        const written = await this.write(plan, part, frameSize, status.persisted_size_bytes);
        resumed.push(status.persisted_size_bytes);
        return written;
      } catch (error) {
        // Frames of the broken stream may still have been on their way.
        if (!["WRITE_OFFSET_MISMATCH", "CONCURRENT_WRITE"].includes(errorInfo(error).reason)) throw error;
      }
    }
  }

  // How much of a chunk the node has. Beside a stream that begins or ends it may be told to ask again.
  async status(plan) {
    for (;;) {
      try {
        return await call(this.node(plan.endpoint), "QueryWriteStatus", { chunk_id: plan.chunk_id }, plan.capability);
      } catch (error) {
        if (errorInfo(error).reason !== "CONCURRENT_WRITE") throw error;
      }
    }
  }

  // Writes a chunk from an offset to its end; waits whenever the stream is full.
  write(plan, part, frameSize, from) {
    return new Promise((resolve, reject) => {
      const stream = this.node(plan.endpoint).WriteChunk(bearer(plan.capability), (error, answer) =>
        error ? reject(error) : resolve(answer),
      );
      const messages = frames(plan.chunk_id, part, frameSize, from);
      const more = () => {
        for (let next = messages.next(); !next.done; next = messages.next()) {
          if (!stream.write(next.value)) return void stream.once("drain", more);
        }
        stream.end();
      };
      // What ends the call early is told to its callback; writing goes nowhere then.
      stream.on("error", () => {});
      more();
    });
  }

  // Writes the first `bytes` of a chunk, waits until the node has some of them, and cancels the stream.
  async writeAndBreak(plan, part, frameSize, bytes) {
    const node = this.node(plan.endpoint);
    const broken = new Promise((resolve) => {
      const stream = node.WriteChunk(bearer(plan.capability), (error) => resolve(error));
      stream.on("error", () => {});
      for (const message of frames(plan.chunk_id, part, frameSize, 0)) {
        if (message.write_offset >= bytes || message.finish_write) break;
        stream.write(message);
      }
      this.untilWritten(plan).then(() => stream.cancel());
    });
    // Whatever ended it, it can be taken up.
    if (!(await broken)) throw new Error("a broken stream was answered");
  }

  async untilWritten(plan) {
    do await timers.setTimeout(POLL_MS);
    while ((await this.status(plan)).persisted_size_bytes === 0);
  }

  // Reads a range of a blob, all of it with a limit of 0; every frame is compared with its CRC-32C. With `breakAt`,
  // each block's stream is broken after so many bytes, and a new one begins where it ended.
  async get(blobId, offset = 0, limit = 0, breakAt = undefined) {
    const request = { blob_id: blobId, read_offset: offset, read_limit: limit };
    const layout = await call(this.metadata, "GetBlobLayout", request, this.token);
    const size = layout.blob.size_bytes;
    const end = limit ? Math.min(offset + limit, size) : size;
    const frames = [];
    const resumed = [];
    for (const block of layout.blocks) {
      const first = Math.max(offset - block.offset_bytes, 0);
      const last = Math.min(end - block.offset_bytes, block.size_bytes);
      let at = await this.read(block.chunks[0], first, last, frames, breakAt && first + breakAt);
      if (at < last) {
        resumed.push(at);
        at = await this.read(block.chunks[0], at, last, frames);
      }
      if (at !== last) throw new Error(`a block ended at byte ${at} of ${last}`);
    }
    return { content: Buffer.concat(frames), blob: layout.blob, resumed };
  }

  // Reads bytes of a chunk into `frames`; resolves with where it ended: at `last`, or once `breakAt` was reached.
  read(location, first, last, frames, breakAt = Infinity) {
    return new Promise((resolve, reject) => {
      const request = { chunk_id: location.chunk_id, read_offset: first, read_limit: last - first };
      const stream = this.node(location.endpoint).ReadChunk(request, bearer(location.capability));
      let at = first;
      let broken = false;
      stream.on("data", ({ read_offset, data }) => {
        if (broken) return;
        if (read_offset !== at || data.crc32c !== crc32c(data.content)) {
          stream.cancel();
          return reject(new Error(`a frame at byte ${read_offset} is not what it should be`));
        }
        frames.push(data.content);
        at += data.content.length;
        if (at >= breakAt && at < last) {
          broken = true;
          stream.cancel();
        }
      });
      stream.on("error", (error) => (broken ? resolve(at) : reject(error)));
      stream.on("end", () => resolve(at));
    });
  }

  async blob(blobId) {
    return (await call(this.metadata, "GetBlob", { blob_id: blobId }, this.token)).blob;
  }
}

// The messages of a WriteChunk stream from an offset on.
function* frames(chunkId, content, frameSize, from) {
  let at = from;
  do {
    const part = content.subarray(at, at + frameSize);
    const last = at + frameSize >= content.length;
    yield {
      spec: at === from ? { chunk_id: chunkId, size_bytes: content.length } : undefined,
      write_offset: at,
      data: { content: part, crc32c: crc32c(part) },
      finish_write: last,
      checksums: last ? { sha256: sha256(content) } : undefined,
    };
    at += frameSize;
  } while (at < content.length);
}

module.exports = { BlobClient, errorInfo };
