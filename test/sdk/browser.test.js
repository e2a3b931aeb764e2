// The official SDK in a browser: headless Chromium with a page of another origin, over every
// transport that browsers have, WebTransport included.
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { createHash, X509Certificate } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { after, before, test } from 'node:test';
import WebSocket from 'ws';
import { Server, token } from './harness.js';

const here = path.dirname(fileURLToPath(import.meta.url));
const folder = mkdtempSync(path.join(tmpdir(), 'volute-browser-'));
const certificate = path.join(folder, 'cert.pem');
const key = path.join(folder, 'key.pem');
execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2',
  '-subj', '/CN=127.0.0.1', '-addext', 'subjectAltName=IP:127.0.0.1', '-keyout', key, '-out', certificate], { stdio: 'ignore' });
const fingerprint = createHash('sha256')
  .update(new X509Certificate(readFileSync(certificate)).publicKey.export({ type: 'spki', format: 'der' })).digest('base64');

// Any page may connect: the one of this test has a port that is not known yet.
process.env.VOLUTE_CLIENT_ALLOWED_ORIGINS = '*';
const transports = { websocket: { compression: true }, http_stream: { enabled: true }, sse: { enabled: true } };
const plain = new Server(transports);
const secure = new Server({
  ...transports,
  webtransport: { enabled: true },
  http_server: { address: '127.0.0.1', port: 0, http3: { enabled: true }, tls: { enabled: true, cert_pem: certificate, key_pem: key } },
});
const overTLS = new Server({
  ...transports,
  init: { enabled: true },
  http_server: { address: '127.0.0.1', port: 0, websocket_streams: true, tls: { enabled: true, cert_pem: certificate, key_pem: key } },
});

const files = { '/json.js': 'dist/centrifuge.js', '/protobuf.js': 'dist/centrifuge.protobuf.js' };
const site = createServer((request, response) => {
  if (files[request.url]) {
    response.setHeader('Content-Type', 'text/javascript');
    response.end(readFileSync(path.join(here, 'node_modules/centrifuge', files[request.url])));
    return;
  }
  response.setHeader('Content-Type', 'text/html');
  response.end(`<!doctype html><title>test</title><script src="${request.url}.js"></script>`);
});

let browser;
let devtools;
const waiting = new Map();
const handshakes = []; // of WebSocket connections in pages, as the browser saw them
let lastID = 0;

// call asks the browser's DevTools.
function call(method, params = {}, sessionId = undefined) {
  const id = ++lastID;
  devtools.send(JSON.stringify({ id, method, params, sessionId }));
  return new Promise((resolve, reject) => waiting.set(id, { resolve, reject }));
}

before(async () => {
  await Promise.all([plain.start(), secure.start(), overTLS.start(), new Promise((done) => site.listen(0, '127.0.0.1', done))]);
  browser = spawn('chromium', ['--headless', '--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync', '--disable-dev-shm-usage', `--user-data-dir=${path.join(folder, 'profile')}`,
    `--ignore-certificate-errors-spki-list=${fingerprint}`, `--origin-to-force-quic-on=${secure.address}`,
    '--remote-debugging-port=0', 'about:blank'], { stdio: ['ignore', 'ignore', 'pipe'] });
  const address = await new Promise((resolve, reject) => {
    browser.once('error', reject);
    browser.once('exit', (code) => reject(new Error(`chromium ended with ${code}`)));
    createInterface({ input: browser.stderr }).on('line', (line) => {
      const found = /DevTools listening on (ws:\S+)/.exec(line);
      if (found) resolve(found[1]);
    });
  });
  devtools = new WebSocket(address);
  await new Promise((resolve, reject) => { devtools.once('open', resolve); devtools.once('error', reject); });
  devtools.on('message', (data) => {
    const { id, result, error, method, params } = JSON.parse(data);
    if (method === 'Network.webSocketHandshakeResponseReceived') handshakes.push(params.response);
    const asked = waiting.get(id);
    if (!asked) return;
    waiting.delete(id);
    if (error) asked.reject(new Error(error.message)); else asked.resolve(result);
  });
});

after(async () => {
  devtools?.close();
  if (browser?.exitCode === null) {
    const ended = new Promise((resolve) => browser.once('exit', resolve));
    browser.kill('SIGKILL');
    await ended;
  }
  site.closeAllConnections();
  site.close();
  await Promise.all([plain.stop(), secure.stop(), overTLS.stop()]);
  rmSync(folder, { recursive: true, force: true });
});

// inPage runs a function in a fresh page that has loaded the SDK, and returns its result.
async function inPage(format, run, argument) {
  const { targetId } = await call('Target.createTarget', { url: `http://127.0.0.1:${site.address().port}/${format}` });
  const { sessionId } = await call('Target.attachToTarget', { targetId, flatten: true });
  const evaluate = async (expression) => {
    const { result, exceptionDetails } = await call('Runtime.evaluate', { expression, awaitPromise: true, returnByValue: true }, sessionId);
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    return result.value;
  };
  try {
    await call('Network.enable', {}, sessionId);
    // The test's own timeout bounds this.
    while (!await evaluate("document.readyState === 'complete' && typeof Centrifuge === 'function'").catch(() => false));
    return await evaluate(`(${run})(${JSON.stringify(argument)})`);
  } finally {
    await call('Target.closeTarget', { targetId });
  }
}

// heard is what conversation comes to, over whichever transport.
const heard = { text: 600, n: 1, users: ['alice'], deltas: 2, history: [3, 2], key: 'a' };

// conversation runs in the page.
async function conversation({ transport, endpoint, emulationEndpoint, token, format, channel, first }) {
  if (first) await fetch(first, { mode: 'no-cors', credentials: 'include' });
  const encode = (v) => (format === 'json' ? v : new TextEncoder().encode(JSON.stringify(v)));
  const decode = (v) => (format === 'json' ? v : JSON.parse(new TextDecoder().decode(v)));
  const within = (promise) => Promise.race([promise, new Promise((_, reject) => setTimeout(() => reject(new Error('nothing within 10 s')), 10000))]);
  const client = new Centrifuge([{ transport, endpoint }], { token, emulationEndpoint });
  const next = (emitter, name) => new Promise((resolve) => emitter.once(name, resolve));
  const connected = next(client, 'connected');
  client.connect();
  const hello = await within(connected);
  const sub = client.newSubscription(channel);
  const subscribed = next(sub, 'subscribed');
  sub.subscribe();
  await within(subscribed);
  const heard = next(sub, 'publication');
  await within(sub.publish(encode({ text: 'grüße '.repeat(100) })));
  const publication = await within(heard);
  const answer = await within(client.rpc('echo', encode({ n: 1 })));
  const { clients } = await within(sub.presence());

  // A stream with deltas, read again; a map.
  const diff = client.newSubscription(channel.replace('room:', 'diff:'), { delta: 'fossil' });
  const diffed = next(diff, 'subscribed');
  diff.subscribe();
  await within(diffed);
  for (const n of [1, 2, 3]) {
    const told = next(diff, 'publication');
    await within(diff.publish(encode({ text: 'this stays as it is, '.repeat(20), n })));
    if (decode((await within(told)).data).n !== n) throw new Error('another publication');
  }
  const { publications } = await within(diff.history({ limit: 2, reverse: true }));
  const board = client.newMapSubscription(channel.replace('room:', 'board:'));
  const synced = next(board, 'sync');
  board.subscribe();
  await within(synced);
  const updated = next(board, 'update');
  await within(board.publish('a', encode(1)));
  const { key } = await within(updated);
  client.disconnect();
  return {
    transport: hello.transport, text: decode(publication.data).text.length, n: decode(answer.data).data.n,
    users: Object.values(clients).map(({ user }) => user), deltas: diff.deltaStats().numDeltaPayloads,
    history: publications.map(({ data }) => decode(data).n), key,
  };
}

for (const [transport, formats, server] of [
  ['websocket', ['json', 'protobuf'], plain],
  ['http_stream', ['json', 'protobuf'], plain],
  ['sse', ['json'], plain],
  ['webtransport', ['json', 'protobuf'], secure],
]) {
  for (const format of formats) {
    test(`${transport} ${format}`, async () => {
      const scheme = { websocket: 'ws', webtransport: 'https' }[transport] ?? 'http';
      const query = transport === 'webtransport' && format === 'protobuf' ? '?cf_protocol=protobuf' : '';
      const got = await inPage(format, conversation, {
        transport, format,
        endpoint: `${scheme}://${server.address}/connection/${transport}${query}`,
        emulationEndpoint: `http://${server.address}/emulation`,
        token: token({ sub: 'alice' }),
        channel: `room:browser-${transport}-${format}`,
      });
      assert.deepEqual(got, { transport, ...heard });
    });
  }
}

// A browser that has an HTTP/2 connection to the server opens its WebSocket connection on it,
// which it is told by status 200 instead of 101.
for (const format of ['json', 'protobuf']) {
  test(`websocket over HTTP/2 ${format}`, async () => {
    handshakes.length = 0;
    const got = await inPage(format, conversation, {
      transport: 'websocket', format,
      first: `https://${overTLS.address}/connection/init`,
      endpoint: `wss://${overTLS.address}/connection/websocket${format === 'protobuf' ? '?cf_protocol=protobuf' : ''}`,
      token: token({ sub: 'alice' }),
      channel: `room:browser-http2-${format}`,
    });
    assert.deepEqual(got, { transport: 'websocket', ...heard });
    assert.deepEqual(handshakes.map(({ status }) => status), [200]);
  });
}
