// What the tests ask of the client, one command a process; prints one JSON object.
//
//   node main.js put FILE [BREAK_AT]
//   node main.js get BLOB_ID FILE [OFFSET LIMIT [BREAK_AT]]
//   node main.js error BLOB_ID
//
// ENDPOINT, TOKEN and, for https://, AUTHORITY (a file) come from the environment.
"use strict";

const fs = require("node:fs");

const grpc = require("@grpc/grpc-js");

const { BlobClient, errorInfo } = require("./blob_client");

const seconds = async (work) => {
  const began = process.hrtime.bigint();
  const done = await work();
  return { ...done, seconds: Number(process.hrtime.bigint() - began) / 1e9 };
};

const commands = {
  async put(client, file, breakAt) {
    const content = fs.readFileSync(file);
    return seconds(() => client.put("from Node.js", content, breakAt && Number(breakAt)));
  },
  async get(client, blobId, file, offset = "0", limit = "0", breakAt = undefined) {
    const wanted = [Number(offset), Number(limit), breakAt && Number(breakAt)];
    const { content, ...told } = await seconds(() => client.get(blobId, ...wanted));
    fs.writeFileSync(file, content);
    return told;
  },
  async error(client, blobId) {
    try {
      await client.blob(blobId);
    } catch (error) {
      return { code: grpc.status[error.code], ...errorInfo(error) };
    }
    throw new Error("the call should have failed");
  },
};

async function main([command, ...words]) {
  const { ENDPOINT, TOKEN, AUTHORITY } = process.env;
  const client = new BlobClient(ENDPOINT, TOKEN, AUTHORITY && fs.readFileSync(AUTHORITY));
  try {
    console.log(JSON.stringify(await commands[command](client, ...words)));
  } finally {
    client.close();
  }
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
