// An application in one file, without any package: a worker that speaks the
// JSON codec. The first half is yours to change, the second half is the protocol.
//
//   workers: { app: { command: node worker.js, codec: json } }

'use strict';

const net = require('node:net');
const zlib = require('node:zlib');

// ---- What the application decides -------------------------------------------

/** Answers one event: a result, an error or a disconnect. */
async function answer(event) {
  switch (event.event) {
    case 'connect':
      return result({ user: event.data?.user ?? 'guest' });
    case 'subscribe':
      return event.channel === 'secret' ? refuse(403, 'this channel is secret') : result();
    case 'publish':
      return JSON.stringify(event.data).includes('spam') ? refuse(400, 'no spam please') : result();
    case 'refresh':
    case 'sub_refresh':
      return result({ expire_at: Math.floor(Date.now() / 1000) + 3600 });
    case 'rpc':
      return rpc(event.method, event.data, event);
    default:
      return refuse(108, `nobody answers ${event.event} here`);
  }
}

async function rpc(method, data, event) {
  switch (method) {
    case 'add':
      return result({ data: data.a + data.b });
    case 'echo':
      return result({ data });
    case 'whoami':
      return result({ data: { user: event.user, client: event.client } });
    case 'publish':
      return result({ data: await call('centrifuge.Publish', { channel: data.channel, data: data.data }) });
    default:
      return refuse(404, `there is no method ${method}`);
  }
}

const result = (fields = {}) => ({ result: fields });
const refuse = (code, message) => ({ error: { code, message } });

// ---- The protocol: frames on stdin and stdout, calls back to the server ------

const CONTROL = 0x01;
const JSON_CODEC = 0x08;
const ERROR = 0x40;

/** Yields { flags, options, payload } for each frame of a stream. */
async function* frames(stream) {
  let bytes = Buffer.alloc(0);
  for await (const chunk of stream) {
    bytes = bytes.length ? Buffer.concat([bytes, chunk]) : chunk;
    while (bytes.length >= 12) {
      const start = 4 * (bytes[0] & 15);
      const end = start + bytes.readUInt32LE(2);
      if (bytes.length < end) break;
      const options = [];
      for (let at = 12; at < start; at += 4) options.push(bytes.readUInt32LE(at));
      yield { flags: bytes[1], options, payload: bytes.toString('utf8', start, end) };
      bytes = bytes.subarray(end);
    }
  }
}

function frame(flags, options, text) {
  const payload = Buffer.from(text);
  const head = Buffer.alloc(12 + 4 * options.length);
  head[0] = 0x10 | (3 + options.length);
  head[1] = flags;
  head.writeUInt32LE(payload.length, 2);
  head.writeUInt32LE(crc32(head.subarray(0, 6)), 6);
  options.forEach((option, i) => head.writeUInt32LE(option, 12 + 4 * i));
  return Buffer.concat([head, payload]);
}

/** zlib.crc32 is there from Node 20.15 and 22.2 on. */
const crc32 = zlib.crc32 ?? ((bytes) => {
  let sum = 0xffffffff;
  for (const byte of bytes) {
    sum ^= byte;
    for (let bit = 0; bit < 8; bit++) sum = (sum >>> 1) ^ (sum & 1 ? 0xedb88320 : 0);
  }
  return (sum ^ 0xffffffff) >>> 0;
});

let server; // { socket, calls: sequence → { resolve, reject } }
let sequence = 0;

/** Calls a method of the server, e.g. centrifuge.Publish, and returns its result. */
async function call(method, args) {
  server ??= connect(process.env.RR_RPC ?? 'tcp://127.0.0.1:6001');
  const { socket, calls } = server;
  const body = await new Promise((resolve, reject) => {
    calls.set(++sequence, { resolve, reject });
    socket.write(frame(JSON_CODEC, [sequence, Buffer.byteLength(method)], method + JSON.stringify(args)));
  });
  const response = JSON.parse(body);
  if (response.error) throw new Error(response.error.message);
  return response.result;
}

function connect(address) {
  const [scheme, where] = address.split('://');
  const colon = where.lastIndexOf(':');
  const socket = scheme === 'unix' ? net.connect(where) : net.connect(Number(where.slice(colon + 1)), where.slice(0, colon));
  const calls = new Map();
  (async () => {
    let reason = new Error('the server has closed the RPC connection');
    try {
      for await (const { flags, options, payload } of frames(socket)) {
        const { resolve, reject } = calls.get(options[0]);
        calls.delete(options[0]);
        const body = Buffer.from(payload).subarray(options[1]).toString();
        flags & ERROR ? reject(new Error(body)) : resolve(body);
      }
    } catch (error) {
      reason = error;
    }
    server = undefined;
    for (const { reject } of calls.values()) reject(reason);
  })();
  return { socket, calls };
}

// stdout is for frames: what is printed goes to the log instead.
console.log = console.info = console.debug = console.error;

(async () => {
  for await (const { flags, payload } of frames(process.stdin)) {
    const message = JSON.parse(payload);
    if (flags & CONTROL) {
      if (message.stop) break;
      process.stdout.write(frame(CONTROL, [], JSON.stringify({ pid: process.pid })));
      continue;
    }
    try {
      process.stdout.write(frame(JSON_CODEC, [0], JSON.stringify(await answer(message))));
    } catch (error) {
      process.stdout.write(frame(ERROR, [], error.stack)); // goes to the log; the client may try again
    }
  }
  process.exit(0);
})();
