// The official SDK over the transports beside plain WebSocket: compressed WebSocket, HTTP streaming
// and server-sent events, the latter two with commands that come to the emulation endpoint.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { EventSource } from 'eventsource';
import { event, formats, inSeconds, Server, token } from './harness.js';

const server = new Server({
  websocket: { compression: true },
  http_stream: { enabled: true },
  sse: { enabled: true },
});
before(() => server.start());
after(() => server.stop());

// The ways a client can take, and the encodings that each can carry.
const ways = [
  { transport: 'websocket', formats: ['json', 'protobuf'] },
  { transport: 'http_stream', formats: ['json', 'protobuf'] },
  { transport: 'sse', formats: ['json'] },
];

for (const way of ways) {
  for (const format of way.formats) {
    const { encode, decode } = formats[format];

    const client = (options = {}) => server.client(format, {
      transports: way.transport === 'websocket'
        ? undefined
        : [{ transport: way.transport, endpoint: `http://${server.address}/connection/${way.transport}` }],
      emulationEndpoint: `http://${server.address}/emulation`,
      eventsource: EventSource,
      ...options,
    });

    async function connected(user, claims = {}) {
      const c = client({ token: token({ sub: user, ...claims }) });
      const done = event(c, 'connected');
      c.connect();
      c.hello = await done;
      return c;
    }

    async function subscribed(c, channel, options) {
      const sub = c.newSubscription(channel, options);
      sub.on('error', () => {});
      const done = event(sub, 'subscribed');
      sub.subscribe();
      sub.reply = await done;
      return sub;
    }

    describe(`${way.transport} ${format}`, { concurrency: true }, () => {
      const room = (name) => `room:${way.transport}-${format}-${name}`;
      const log = (name) => `log:${way.transport}-${format}-${name}`;

      test('connect', async () => {
        const c = await connected('alice');
        assert.match(c.hello.client, /^[0-9a-f-]{36}$/);
        assert.equal(c.hello.transport, way.transport);
        if (way.transport === 'websocket') assert.match(c.extensions(), /^permessage-deflate/);
      });

      test('subscribe, publish, hear oneself and another', async () => {
        const [a, b] = [await connected('alice'), await connected('bob')];
        const [sa, sb] = [await subscribed(a, room('talk')), await subscribed(b, room('talk'))];
        const heard = [event(sa, 'publication'), event(sb, 'publication')];
        await sa.publish(encode({ text: 'hello, "wörld"\n'.repeat(50) }));
        for (const { data, info } of await Promise.all(heard)) {
          assert.deepEqual(decode(data), { text: 'hello, "wörld"\n'.repeat(50) });
          assert.equal(info.user, 'alice');
        }
        assert.deepEqual(await sb.presenceStats(), { numClients: 2, numUsers: 2 });
      });

      test('calls, many at once, in order', async () => {
        const c = await connected('alice');
        const numbers = Array.from({ length: 50 }, (_, n) => n);
        const answers = await Promise.all(numbers.map((n) => c.rpc('echo', encode({ n }))));
        assert.deepEqual(answers.map(({ data }) => decode(data).data.n), numbers);
        await assert.rejects(c.rpc('fail', encode({})), { code: 400, message: 'as you wish' });
      });

      test('pings are answered', async () => {
        const c = await connected('alice');
        await assert.rejects(event(c, 'connecting'), /no connecting event/); // ping_interval is 2 s, pong_timeout 1 s
        assert.equal(c.state, 'connected');
      });

      test('a lost connection comes back with what was missed', async () => {
        const c = await connected('alice');
        const sub = await subscribed(c, log('missed'));
        const first = event(sub, 'publication');
        await server.api('publish', { channel: log('missed'), data: 1 });
        assert.equal(decode((await first).data), 1);
        c.disconnect();
        await server.api('publish', { channel: log('missed'), data: 2 });
        await server.api('publish', { channel: log('missed'), data: 3 });
        const heard = [];
        sub.on('publication', ({ data }) => heard.push(decode(data)));
        const back = event(sub, 'subscribed');
        c.connect();
        const { recovered, wasRecovering } = await back;
        assert.deepEqual({ recovered, wasRecovering, heard }, { recovered: true, wasRecovering: true, heard: [2, 3] });
      });

      test('what resembles the publication before comes as a patch', async () => {
        const c = await connected('alice');
        const channel = `diff:${way.transport}-${format}`;
        const sub = await subscribed(c, channel, { delta: 'fossil' });
        const heard = [];
        const last = event(sub, 'publication', ({ data }) => decode(data).n === 3);
        sub.on('publication', ({ data }) => heard.push(decode(data)));
        const text = 'this stays as it is, '.repeat(20);
        for (const n of [1, 2, 3]) await server.api('publish', { channel, data: { text, n } });
        await last;
        assert.deepEqual(heard, [1, 2, 3].map((n) => ({ text, n })));
        assert.equal(sub.deltaStats().numDeltaPayloads, 2);
      });

      test('a tags filter leaves out the others', async () => {
        const c = await connected('alice');
        const channel = `tagged:${way.transport}-${format}`;
        const sub = await subscribed(c, channel, { tagsFilter: { key: 'lang', cmp: 'eq', val: 'de' } });
        const heard = event(sub, 'publication');
        await server.api('publish', { channel, data: 1, tags: { lang: 'en' } });
        await server.api('publish', { channel, data: 2, tags: { lang: 'de' } });
        const { data, tags } = await heard;
        assert.deepEqual([decode(data), tags], [2, { lang: 'de' }]);
      });

      test('a map is loaded and kept', async () => {
        const c = await connected('alice');
        const channel = `board:${way.transport}-${format}`;
        await server.api('map_publish', { channel, key: 'a', data: 1 });
        const sub = c.newMapSubscription(channel);
        const synced = event(sub, 'sync');
        sub.subscribe();
        assert.deepEqual((await synced).entries.map(({ key, data }) => [key, decode(data)]), [['a', 1]]);
        const updated = event(sub, 'update');
        await sub.publish('b', encode({ n: 2 }));
        const { key, data } = await updated;
        assert.deepEqual([key, decode(data)], ['b', { n: 2 }]);
        const removed = event(sub, 'update', (ctx) => ctx.removed);
        await sub.remove('a');
        assert.equal((await removed).key, 'a');
      });

      test('history, presence, own data and headers', async () => {
        const c = await connected('alice');
        const sub = await subscribed(c, log('read'));
        for (const n of [1, 2, 3]) await sub.publish(encode({ n }));
        const { publications, offset } = await sub.history({ limit: 2, reverse: true });
        assert.deepEqual([publications.map(({ data }) => decode(data).n), offset], [[3, 2], 3]);
        const there = await subscribed(c, room('there'));
        const { clients } = await there.presence();
        assert.deepEqual(Object.values(clients).map(({ user }) => user), ['alice']);

        const welcomed = client({ data: encode({ as: 'bob' }), headers: { 'X-Emulated': 'from the command' } });
        const done = event(welcomed, 'connected');
        welcomed.connect();
        const { welcome, emulated } = decode((await done).data);
        assert.deepEqual({ welcome, emulated }, { welcome: 'bob', emulated: ['from the command'] });
      });

      test('the server ends it for good', async () => {
        const c = await connected(`${way.transport}-${format}-banned`);
        const gone = event(c, 'disconnected');
        await server.api('disconnect', { user: `${way.transport}-${format}-banned`, disconnect: { code: 4500, reason: 'banned' } });
        const { code, reason } = await gone;
        assert.deepEqual({ code, reason }, { code: 4500, reason: 'banned' });
      });

      test('the server sends it elsewhere, and it comes back', async () => {
        const c = await connected(`${way.transport}-${format}-moved`);
        const [gone, back] = [event(c, 'connecting'), event(c, 'connected')];
        await server.api('disconnect', { user: `${way.transport}-${format}-moved`, disconnect: { code: 4000, reason: 'moved' } });
        assert.equal((await gone).code, 4000);
        assert.notEqual((await back).client, c.hello.client);
      });

      test('an expired token is exchanged', async () => {
        let asked = 0;
        const c = client({
          token: token({ sub: 'alice', exp: inSeconds(-60) }),
          getToken: async () => { asked++; return token({ sub: 'alice' }); },
        });
        const done = event(c, 'connected');
        c.connect();
        await done;
        assert.equal(asked, 1);
      });

      test('a refused client is told why', async () => {
        const c = client({ token: 'no token at all' });
        const gone = event(c, 'disconnected');
        c.connect();
        const { code, reason } = await gone;
        assert.deepEqual({ code, reason }, { code: 3500, reason: 'invalid token' });
      });
    });
  }
}

test('a client falls back to what works', async () => {
  const c = server.client('json', {
    transports: [
      { transport: 'websocket', endpoint: `ws://${server.address}/nothing-here` },
      { transport: 'http_stream', endpoint: `http://${server.address}/connection/http_stream` },
    ],
    emulationEndpoint: `http://${server.address}/emulation`,
    token: token({ sub: 'alice' }),
  });
  const done = event(c, 'connected');
  c.connect();
  assert.equal((await done).transport, 'http_stream');
});
