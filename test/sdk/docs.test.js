// The JavaScript in the documentation, run as it stands there, against the worker that the page starts.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Centrifuge } from 'centrifuge';
import WebSocket from 'ws';
import { event, Server } from './harness.js';

const repository = fileURLToPath(new URL('../..', import.meta.url));
const server = new Server({
  backend: 'worker://app', client: {}, channel: {},
  workers: { app: { command: ['php', `${repository}examples/workers/php/worker.php`], codec: 'json', num_workers: 1 } },
});
before(() => server.start());
after(() => server.stop());

const AsyncFunction = (async () => {}).constructor;

for (const page of ['README.md', 'README.zh-CN.md', 'docs/quick-start.md', 'docs/zh-CN/quick-start.md']) {
  test(page, async () => {
    const [, program] = readFileSync(repository + page, 'utf8').match(/```js\n(.*?)```/s);
    // Of the page's addresses only the port is another one here, and Node has no WebSocket of its own.
    class Here extends Centrifuge {
      constructor(url, options) {
        assert.equal(new URL(url).host, 'localhost:8000');
        super(url.replace('localhost:8000', server.address), { websocket: WebSocket, ...options });
      }
    }
    const lines = [];
    const run = new AsyncFunction('Centrifuge', 'console', `${program.replace(/^import .*$/m, '')}\nreturn { client, news, data };`);
    const { client, news, data } = await run(Here, { log: (line) => lines.push(line) });
    try {
      assert.equal(data, 3);
      if (news.state !== 'subscribed') await event(news, 'subscribed');
      const heard = event(news, 'publication');
      await server.api('publish', { channel: 'news', data: { text: 'hello' } });
      await heard;
      assert.deepEqual(lines.map((line) => line.text ?? line), ['hello']);
    } finally {
      client.disconnect();
    }
  });
}
