// Starts the server as a user would and gives the tests SDK clients for it.
import { spawn } from 'node:child_process';
import { createHmac } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { Centrifuge as JSONClient } from 'centrifuge';
import { Centrifuge as ProtobufClient } from 'centrifuge/build/protobuf';
import WebSocket from 'ws';

const here = path.dirname(fileURLToPath(import.meta.url));
const binary = process.env.VOLUTE ?? path.join(here, '../../bin/volute');
const tokenKey = 'a secret of the tests';
const apiKey = 'a key of the tests';

// What each format does with payloads: JSON values travel as they are, Protobuf clients see bytes.
const encoder = new TextEncoder();
const decoder = new TextDecoder();
export const formats = {
  json: { Client: JSONClient, encode: (v) => v, decode: (v) => v },
  protobuf: {
    Client: ProtobufClient,
    encode: (v) => encoder.encode(JSON.stringify(v)),
    decode: (v) => JSON.parse(decoder.decode(v)),
  },
};

// event resolves with the next such event that matches, or fails after five seconds.
export function event(emitter, name, matches = () => true) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      emitter.off(name, listener);
      reject(new Error(`no ${name} event within 5 s`));
    }, 5000);
    const listener = (ctx) => {
      if (!matches(ctx)) return;
      clearTimeout(timer);
      emitter.off(name, listener);
      resolve(ctx);
    };
    emitter.on(name, listener);
  });
}

// token signs a JWT as an application would.
export function token(claims, key = tokenKey) {
  const part = (v) => Buffer.from(typeof v === 'string' ? v : JSON.stringify(v)).toString('base64url');
  const text = `${part({ alg: 'HS256', typ: 'JWT' })}.${part(claims)}`;
  return `${text}.${createHmac('sha256', key).update(text).digest('base64url')}`;
}

export const inSeconds = (n) => Math.floor(Date.now() / 1000) + n;

const config = {
  http_server: { address: '127.0.0.1', port: 0 },
  http_api: { key: apiKey },
  client: {
    token: { hmac_secret_key: tokenKey },
    ping_interval: '2s',
    pong_timeout: '1s',
    expired_close_delay: '2s',
    proxy: {
      connect: { enabled: true, endpoint: 'worker://app', timeout: '5s', http_headers: ['X-Test'], emulated_headers: ['X-Emulated'] },
      refresh: { enabled: true, endpoint: 'worker://app', timeout: '5s' },
    },
  },
  channel: {
    proxy: {
      subscribe: { endpoint: 'worker://app', timeout: '5s' },
      publish: { endpoint: 'worker://app', timeout: '5s' },
    },
    namespaces: [
      {
        name: 'room', presence: true, join_leave: true, force_push_join_leave: true,
        allow_subscribe_for_client: true, allow_publish_for_subscriber: true, allow_presence_for_subscriber: true,
      },
      {
        name: 'log', history_size: 100, history_ttl: '60s', force_recovery: true,
        allow_subscribe_for_client: true, allow_publish_for_client: true, allow_history_for_client: true,
      },
      { name: 'judged', subscribe_proxy_enabled: true, publish_proxy_enabled: true },
      { name: 'closed' },
      {
        name: 'diff', history_size: 10, history_ttl: '60s', force_recovery: true, delta_publish: true, allowed_delta_types: ['fossil'],
        allow_subscribe_for_client: true, allow_publish_for_client: true, allow_history_for_client: true,
      },
      { name: 'tagged', allow_tags_filter: true, allow_subscribe_for_client: true },
      {
        name: 'board', subscription_type: 'map', allow_subscribe_for_client: true,
        map: { mode: 'recoverable', key_ttl: '60s', allow_publish_for_client: true, allow_remove_for_client: true },
      },
    ],
  },
  rpc: { proxy: { endpoint: 'worker://app', timeout: '5s' }, without_namespace: { proxy_enabled: true } },
  workers: { app: { command: ['node', path.join(here, 'worker.js')], codec: 'json', num_workers: 2 } },
};

// Server is one `volute serve` process.
export class Server {
  #process;
  #folder = mkdtempSync(path.join(tmpdir(), 'volute-sdk-'));
  #clients = [];
  #address;
  #extra;
  log = [];

  // extra are sections of the configuration beside those that every test has.
  constructor(extra = {}) { this.#extra = extra; }

  // start resolves once the server listens.
  async start() {
    const file = path.join(this.#folder, 'config.json');
    writeFileSync(file, JSON.stringify({ ...config, ...this.#extra, rpc: { ...config.rpc, listen: `unix://${this.#folder}/rpc.sock` } }));
    this.#process = spawn(binary, ['serve', '-c', file], { stdio: ['ignore', 'inherit', 'pipe'] });
    this.#address = await new Promise((resolve, reject) => {
      this.#process.once('error', reject);
      this.#process.once('exit', (code) => reject(new Error(`the server ended with ${code}:\n${this.log.join('\n')}`)));
      createInterface({ input: this.#process.stderr }).on('line', (line) => {
        this.log.push(line);
        let entry;
        try { entry = JSON.parse(line); } catch { return; }
        if (entry.msg === 'listening' && entry.for === 'http') resolve(entry.address);
      });
    });
    return this;
  }

  // stop ends all clients and the server, and fails unless it leaves with status 0.
  async stop() {
    for (const client of this.#clients) client.disconnect();
    const ended = new Promise((resolve) => this.#process.once('exit', (code, signal) => resolve(code ?? signal)));
    this.#process.kill('SIGTERM');
    const status = await ended;
    rmSync(this.#folder, { recursive: true });
    if (status !== 0) throw new Error(`the server ended with ${status}:\n${this.log.join('\n')}`);
  }

  get address() { return this.#address; }

  get url() { return `ws://${this.#address}/connection/websocket`; }

  // client makes an SDK client; client.cut() breaks its connection as a lost network would, if that
  // is a WebSocket. transports are tried instead of WebSocket.
  client(format, options = {}) {
    const { websocketOptions, transports, ...rest } = options;
    let socket;
    class Socket extends WebSocket {
      constructor(url, protocols) {
        super(url, protocols, websocketOptions);
        socket = this;
      }
    }
    const client = new formats[format].Client(transports ?? this.url, { websocket: Socket, minReconnectDelay: 50, maxReconnectDelay: 200, ...rest });
    client.cut = () => socket.terminate();
    client.extensions = () => socket.extensions;
    client.on('error', () => {});
    this.#clients.push(client);
    return client;
  }

  // connected makes a client of user that is connected by a token.
  async connected(format, user, claims = {}) {
    const client = this.client(format, { token: token({ sub: user, ...claims }) });
    const connected = event(client, 'connected');
    client.connect();
    client.hello = await connected;
    return client;
  }

  // api calls the server API and returns the result.
  async api(method, params) {
    const response = await fetch(`http://${this.#address}/api/${method}`, {
      method: 'POST', headers: { 'X-API-Key': apiKey }, body: JSON.stringify(params),
    });
    const { result, error } = await response.json();
    if (error) throw new Error(`${method}: ${error.code} ${error.message}`);
    return result;
  }
}
