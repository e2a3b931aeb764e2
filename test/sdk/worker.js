// The application of the tests: a worker of codec json, without any package.
// A frame is 12 bytes of header, 4 per option, and the payload.
import process from 'node:process';

const answers = {
  connect({ data = {}, headers = {} }) {
    if (data.refuse) return data.refuse;
    if (!data.as) return {};
    return {
      result: {
        user: data.as,
        expire_at: data.expire ? Math.floor(Date.now() / 1000) + data.expire : 0,
        data: { welcome: data.as, header: headers['x-test'], emulated: headers['x-emulated'] },
      },
    };
  },
  refresh: ({ user }) => ({
    result: user === 'short-lived' ? { expired: true } : { expire_at: Math.floor(Date.now() / 1000) + 3600 },
  }),
  subscribe: ({ channel, data }) => (channel.endsWith('shut')
    ? { error: { code: 403, message: 'shut' } }
    : { result: { data: { knocked: data } } }),
  publish: ({ data }) => (data.text === 'swear'
    ? { error: { code: 451, message: 'mind your words' } }
    : { result: { data: { text: data.text.toUpperCase() } } }),
  rpc: ({ method, user, data }) => (method === 'fail'
    ? { error: { code: 400, message: 'as you wish' } }
    : { result: { data: { method, user, data } } }),
};

const crcTable = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let i = 0; i < 8; i++) n = n & 1 ? (n >>> 1) ^ 0xedb88320 : n >>> 1;
  return n >>> 0;
});
const crc = (bytes) => ~bytes.reduce((c, b) => crcTable[(c ^ b) & 255] ^ (c >>> 8), ~0) >>> 0;

const CONTROL = 0x01;

function send(flags, payload, options = []) {
  const head = Buffer.alloc(12 + 4 * options.length);
  head[0] = 0x10 | (head.length / 4);
  head[1] = flags;
  head.writeUInt32LE(payload.length, 2);
  head.writeUInt32LE(crc(head.subarray(0, 6)), 6);
  options.forEach((option, i) => head.writeUInt32LE(option, 12 + 4 * i));
  process.stdout.write(Buffer.concat([head, payload]));
}

let waiting = Buffer.alloc(0);
process.stdin.on('data', (chunk) => {
  waiting = Buffer.concat([waiting, chunk]);
  while (waiting.length >= 12) {
    const head = 4 * (waiting[0] & 15);
    const size = waiting.readUInt32LE(2);
    if (waiting.length < head + size) return;
    const [flags, payload] = [waiting[1], waiting.subarray(head, head + size)];
    waiting = waiting.subarray(head + size);
    const message = JSON.parse(payload);
    if (flags & CONTROL) {
      if (message.stop) process.exit(0);
      send(CONTROL, Buffer.from(JSON.stringify({ pid: process.pid })));
    } else {
      send(0, Buffer.from(JSON.stringify(answers[message.event](message))), [0]);
    }
  }
});
