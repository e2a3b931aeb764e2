// The conversation that the official SDK has with the server, in both encodings.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import WebSocket from 'ws';
import { event, formats, inSeconds, Server, token } from './harness.js';

const server = new Server();
before(() => server.start());
after(() => server.stop());

// settled waits until the client is connected or gave up, and returns the last event.
const settled = (client) => Promise.race([event(client, 'connected'), event(client, 'disconnected')]);

// stays fails if the client loses its connection within five seconds.
const stays = (client) => assert.rejects(event(client, 'connecting'), /no connecting event/);

// subscribed subscribes and returns the subscription once the server agreed.
async function subscribed(client, channel, options) {
  const sub = client.newSubscription(channel, options);
  sub.on('error', () => {});
  const done = event(sub, 'subscribed');
  sub.subscribe();
  sub.reply = await done;
  return sub;
}

for (const [format, { encode, decode }] of Object.entries(formats)) {
  describe(format, { concurrency: true }, () => {
    test('connect with a token', async () => {
      const client = await server.connected(format, 'alice');
      assert.match(client.hello.client, /^[0-9a-f-]{36}$/);
      assert.equal(client.hello.transport, 'websocket');
    });

    test('connect judged by the worker, with data and headers', async () => {
      const client = server.client(format, {
        data: encode({ as: 'bob' }),
        headers: { 'X-Emulated': 'from the command' },
        websocketOptions: { headers: { 'X-Test': 'from the request' } },
      });
      const done = event(client, 'connected');
      client.connect();
      const { data } = await done;
      assert.deepEqual(decode(data), { welcome: 'bob', header: ['from the request'], emulated: ['from the command'] });
    });

    for (const [name, data, want] of [
      ['an error of the worker is final', { refuse: { error: { code: 1000, message: 'not today' } } }, { code: 1000, reason: 'not today' }],
      ['a disconnect of the worker arrives', { refuse: { disconnect: { code: 4501, reason: 'banned' } } }, { code: 4501, reason: 'banned' }],
      ['an illegal close code goes out as 4500', { refuse: { disconnect: { code: 403, reason: 'forbidden' } } }, { code: 4500, reason: /403/ }],
      ['nobody answers for a client without credentials', { refuse: {} }, { code: 3501, reason: 'bad request' }],
    ]) {
      test(`connect refused: ${name}`, async () => {
        const client = server.client(format, { data: encode(data) });
        const done = event(client, 'disconnected');
        client.connect();
        const { code, reason } = await done;
        assert.equal(code, want.code);
        assert.match(reason, want.reason instanceof RegExp ? want.reason : new RegExp(`^${want.reason}$`));
      });
    }

    test('a server that is too busy is tried again', async () => {
      let attempts = 0;
      const busy = { refuse: { error: { code: 111, message: 'too many requests', temporary: true } } };
      const client = server.client(format, {
        getData: async () => encode(++attempts < 3 ? busy : { as: 'bob' }),
        minReconnectDelay: 10,
        maxReconnectDelay: 50,
      });
      const done = event(client, 'connected');
      client.connect();
      await done;
      assert.equal(attempts, 3);
    });

    test('connect refused: a forged token is final', async () => {
      const client = server.client(format, { token: token({ sub: 'mallory' }, 'another key') });
      client.connect();
      assert.equal((await settled(client)).code, 3500);
    });

    test('an expired token makes the SDK fetch another', async () => {
      let asked = 0;
      const client = server.client(format, {
        token: token({ sub: 'alice', exp: inSeconds(-60) }),
        getToken: async () => { asked++; return token({ sub: 'alice', exp: inSeconds(3600) }); },
      });
      const done = event(client, 'connected');
      client.connect();
      await done;
      assert.equal(asked, 1);
    });

    test('subscribe, publish, join and leave', async () => {
      const [alice, bob] = await Promise.all([server.connected(format, 'alice'), server.connected(format, 'bob')]);
      const room = await subscribed(alice, `room:${format}-talk`);
      const joined = event(room, 'join', (ctx) => ctx.info.user === 'bob');
      const bobs = await subscribed(bob, `room:${format}-talk`);
      assert.equal((await joined).info.client, bob.hello.client);

      const heard = event(room, 'publication');
      const echo = event(bobs, 'publication');
      await bobs.publish(encode({ text: 'hello' }));
      for (const ctx of [await heard, await echo]) {
        assert.deepEqual(decode(ctx.data), { text: 'hello' });
        assert.equal(ctx.info.user, 'bob');
      }

      const left = event(room, 'leave', (ctx) => ctx.info.user === 'bob');
      bobs.unsubscribe();
      await left;
    });

    test('presence', async () => {
      const [alice, bob] = await Promise.all([server.connected(format, 'alice'), server.connected(format, 'bob')]);
      const room = await subscribed(alice, `room:${format}-presence`);
      await subscribed(bob, `room:${format}-presence`);
      const { clients } = await room.presence();
      assert.deepEqual(Object.values(clients).map((c) => c.user).sort(), ['alice', 'bob']);
      assert.deepEqual(await room.presenceStats(), { numClients: 2, numUsers: 2 });
    });

    test('what is not allowed is refused with 103, what does not exist with 102', async () => {
      const client = await server.connected(format, 'alice');
      for (const [channel, code] of [['closed:door', 103], ['nowhere:at-all', 102]]) {
        const sub = client.newSubscription(channel);
        const refused = event(sub, 'unsubscribed');
        sub.subscribe();
        assert.equal((await refused).code, code);
        await assert.rejects(client.publish(channel, encode({})), { code });
      }
      await assert.rejects(client.presence('log:without-presence'), { code: 108 });
    });

    test('the worker judges subscriptions and publications', async () => {
      const client = await server.connected(format, 'alice');
      const sub = await subscribed(client, `judged:${format}-open`, { data: encode({ knock: true }) });
      assert.deepEqual(decode(sub.reply.data), { knocked: { knock: true } });
      const heard = event(sub, 'publication');
      await sub.publish(encode({ text: 'shout' }));
      assert.deepEqual(decode((await heard).data), { text: 'SHOUT' });
      await assert.rejects(sub.publish(encode({ text: 'swear' })), { code: 451, message: 'mind your words' });

      const refused = client.newSubscription('judged:shut');
      const done = event(refused, 'unsubscribed');
      refused.subscribe();
      assert.equal((await done).code, 403);
    });

    test('history', async () => {
      const client = await server.connected(format, 'alice');
      const sub = await subscribed(client, `log:${format}-history`);
      for (const n of [1, 2, 3]) await sub.publish(encode({ n }));
      const all = await sub.history({ limit: -1 });
      assert.deepEqual(all.publications.map((p) => decode(p.data).n), [1, 2, 3]);
      assert.equal(all.offset, 3);
      const last = await sub.history({ limit: 1, reverse: true });
      assert.deepEqual(last.publications.map((p) => decode(p.data).n), [3]);
      const since = await sub.history({ limit: 10, since: { offset: 1, epoch: all.epoch } });
      assert.deepEqual(since.publications.map((p) => p.offset), [2, 3]);
      assert.deepEqual((await sub.history({ limit: 0 })).publications, []);
      await assert.rejects(sub.history({ limit: 1, since: { offset: 1, epoch: 'gone' } }), { code: 112 });
    });

    test('a dropped connection misses nothing and repeats nothing', async () => {
      const channel = `log:${format}-recovery`;
      const client = await server.connected(format, 'alice');
      const sub = await subscribed(client, channel);
      const seen = [];
      sub.on('publication', (ctx) => seen.push(decode(ctx.data).n));
      const publish = (n) => server.api('publish', { channel, data: { n } });
      await publish(1);

      const down = event(client, 'connecting');
      const again = event(sub, 'subscribed');
      client.cut();
      await down;
      await publish(2);
      await publish(3);
      const reply = await again;
      assert.ok(reply.wasRecovering && reply.recovered);
      const four = event(sub, 'publication', (ctx) => decode(ctx.data).n === 4);
      await publish(4);
      await four;
      assert.deepEqual(seen, [1, 2, 3, 4]);
    });

    test('history that was removed cannot be recovered, and the SDK is told', async () => {
      const channel = `log:${format}-lost`;
      const client = await server.connected(format, 'alice');
      const sub = await subscribed(client, channel);
      await server.api('publish', { channel, data: { n: 1 } });
      const down = event(client, 'connecting');
      const again = event(sub, 'subscribed');
      client.cut();
      await down;
      await server.api('publish', { channel, data: { n: 2 } });
      await server.api('history_remove', { channel });
      const reply = await again;
      assert.ok(reply.wasRecovering && !reply.recovered);
    });

    test('rpc', async () => {
      const client = await server.connected(format, 'alice');
      const { data } = await client.rpc('echo', encode({ a: 1 }));
      assert.deepEqual(decode(data), { method: 'echo', user: 'alice', data: { a: 1 } });
      await assert.rejects(client.rpc('fail', encode({})), { code: 400, message: 'as you wish' });
      await assert.rejects(client.rpc('elsewhere:echo', encode({})), { code: 104 });
      const answers = await Promise.all(Array.from({ length: 100 }, (_, n) => client.rpc('echo', encode(n))));
      assert.deepEqual(answers.map((r) => decode(r.data).data), Array.from({ length: 100 }, (_, n) => n));
    });

    test('server-side subscriptions from a token and from the API', async () => {
      const client = server.client(format, { token: token({ sub: `${format}-srv`, channels: [`log:${format}-srv`] }) });
      const [given, heard] = [event(client, 'subscribed'), event(client, 'publication')];
      client.connect();
      assert.equal((await given).channel, `log:${format}-srv`);
      await server.api('publish', { channel: `log:${format}-srv`, data: { n: 1 } });
      assert.deepEqual(decode((await heard).data), { n: 1 });

      const added = event(client, 'subscribed');
      await server.api('subscribe', { user: `${format}-srv`, channel: `room:${format}-srv` });
      assert.equal((await added).channel, `room:${format}-srv`);
      const removed = event(client, 'unsubscribed');
      await server.api('unsubscribe', { user: `${format}-srv`, channel: `room:${format}-srv` });
      assert.equal((await removed).channel, `room:${format}-srv`);
    });

    test('server-side subscriptions recover after a drop', async () => {
      const channel = `log:${format}-srv-recovery`;
      const client = await server.connected(format, 'alice', { channels: [channel] });
      const seen = [];
      client.on('publication', (ctx) => seen.push(decode(ctx.data).n));
      const one = event(client, 'publication');
      await server.api('publish', { channel, data: { n: 1 } });
      await one;
      const down = event(client, 'connecting');
      const two = event(client, 'publication', (ctx) => decode(ctx.data).n === 2);
      client.cut();
      await down;
      await server.api('publish', { channel, data: { n: 2 } });
      await two;
      assert.deepEqual(seen, [1, 2]);
    });

    test('refresh with a new token', async () => {
      let asked = 0;
      const client = server.client(format, {
        token: token({ sub: 'alice', exp: inSeconds(3) }),
        getToken: async () => { asked++; return token({ sub: 'alice', exp: inSeconds(3600) }); },
      });
      const done = event(client, 'connected');
      client.connect();
      await done;
      await stays(client);
      assert.equal(asked, 1);
    });

    test('a connection without a new token is closed when it expires', async () => {
      const client = server.client(format, { token: token({ sub: 'alice', exp: inSeconds(2) }) });
      const done = event(client, 'disconnected');
      client.connect();
      assert.equal((await done).code, 1); // the SDK gives up: unauthorized
    });

    test('refresh by the worker', async () => {
      const connect = async (as) => {
        const client = server.client(format, { data: encode({ as, expire: 1 }) });
        const done = event(client, 'connected');
        client.connect();
        await done;
        return client;
      };
      const expired = await connect('short-lived');
      assert.equal((await event(expired, 'connecting')).code, 3005);
      expired.disconnect();
      await stays(await connect('long-lived'));
    });

    test('disconnect codes of the API arrive', async () => {
      const user = `${format}-leaver`;
      const client = await server.connected(format, user);
      const final = event(client, 'disconnected');
      await server.api('disconnect', { user });
      assert.deepEqual(await final, { code: 3503, reason: 'force disconnect' });

      const back = event(client, 'connected');
      client.connect();
      await back;
      const [away, again] = [event(client, 'connecting'), event(client, 'connected')];
      await server.api('disconnect', { user, disconnect: { code: 4001, reason: 'come back' } });
      assert.deepEqual(await away, { code: 4001, reason: 'come back' });
      await again;
    });

    test('pings keep the connection alive', async () => {
      await stays(await server.connected(format, 'alice')); // through at least two pings and their pongs
    });
  });
}

test('a client that does not answer pings is sent away', async () => {
  const socket = new WebSocket(server.url);
  const closed = new Promise((resolve) => socket.on('close', (code, reason) => resolve([code, String(reason)])));
  socket.on('open', () => socket.send(JSON.stringify({ id: 1, connect: { token: token({ sub: 'silent' }) } })));
  assert.deepEqual(await closed, [3012, 'no pong']);
});

test('a foreign origin is refused', async () => {
  const socket = new WebSocket(server.url, { origin: 'https://elsewhere.example' });
  const status = await new Promise((resolve) => {
    socket.on('unexpected-response', (_, response) => { resolve(response.statusCode); socket.terminate(); });
    socket.on('error', () => {});
    socket.on('open', () => resolve('let in'));
  });
  assert.equal(status, 403);
});

test('the refusals are in the log, with client, user, channel, event and backend', () => {
  const entries = server.log.map((line) => JSON.parse(line));
  const refusal = entries.find((e) => e.event === 'subscribe' && e.channel === 'judged:shut');
  assert.equal(refusal.user, 'alice');
  assert.equal(refusal.backend, 'worker://app');
  assert.match(refusal.client, /-/);
  assert.equal(refusal.code, 403);
});
