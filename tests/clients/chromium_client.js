// Chromium without a window: a page with its parts over HTTP/2, a WebSocket, a stream of events.
'use strict';

const assert = require('node:assert');
const fs = require('node:fs');
const path = require('node:path');
const { chromium } = require('playwright-core');

const site = JSON.parse(fs.readFileSync(process.argv[2]));
const port = site.tls.split(':')[1];
const ARGUMENTS = [
  '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync',
  `--host-resolver-rules=MAP ${site.name} 127.0.0.1`,
];

/** What `inPage` gives, and what the page has logged. */
async function loads(page) {
  const response = await page.goto(`https://${site.name}:${port}/page`, { waitUntil: 'load' });
  assert.strictEqual(response.status(), 200);
  const loaded = await page.evaluate(() => ({
    page: performance.getEntriesByType('navigation')[0].nextHopProtocol,
    assets: performance.getEntriesByType('resource').filter(({ name }) => name.includes('/asset/'))
      .map(({ name, nextHopProtocol, responseStatus }) => ({ name, nextHopProtocol, responseStatus })),
    scripts: window.ran,
    images: [...document.images].filter((image) => image.naturalWidth > 0).length,
  }));
  assert.strictEqual(loaded.page, 'h2');
  assert.strictEqual(loaded.assets.length, 50);
  const others = loaded.assets.filter((it) => it.nextHopProtocol !== 'h2' || it.responseStatus !== 200);
  assert.deepStrictEqual(others, []);
  assert.deepStrictEqual([loaded.scripts, loaded.images], [17, 16]);
}

async function echoes(page) {
  const echoed = await page.evaluate(() => new Promise((resolve, reject) => {
    const socket = new WebSocket(`wss://${location.host}/echo`);
    const got = [];
    socket.onopen = () => { socket.send('text'); socket.send('y'.repeat(300000)); };
    socket.onmessage = ({ data }) => {
      got.push(data.length);
      if (got.length === 2) socket.close(4003, 'done');
    };
    socket.onclose = ({ code, reason, wasClean }) => resolve({ got, code, reason, wasClean });
    socket.onerror = () => reject(new Error('the WebSocket failed'));
  }));
  assert.deepStrictEqual(echoed, { got: [4, 300000], code: 4003, reason: 'done', wasClean: true });
}

/** The origin sends each event when the page has said that the one before came: so none was kept back. */
async function streams(page) {
  const events = await page.evaluate(() => new Promise((resolve, reject) => {
    const source = new EventSource('/events');
    const got = [];
    source.onmessage = async ({ data }) => {
      got.push(data);
      if (got.length === 3) { source.close(); resolve(got); }
      await fetch(`/seen/${data}`);
    };
    source.onerror = () => reject(new Error(`the stream ended after ${got}`));
  }));
  assert.deepStrictEqual(events, ['1', '2', '3']);
}

/** Version of HTTP that the WebSocket came by, from the gateway's access log. */
async function websocketVersion() {
  for (;;) {
    const log = fs.readFileSync(path.join(site.dir, 'access.log'), 'utf8');
    const line = log.split('\n').find((it) => it.includes(' /echo ') && it.includes('Chrome/'));
    if (line) return line.match(/HTTP\/(\d\.\d)"/)[1];
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

async function main() {
  const folder = fs.mkdtempSync(path.join(site.dir, 'chromium-'));
  const context = await chromium.launchPersistentContext(folder, {
    executablePath: '/usr/bin/chromium', headless: true, args: ARGUMENTS, ignoreHTTPSErrors: true, timeout: 60000,
  });
  try {
    const page = await context.newPage();
    await loads(page);
    await echoes(page);
    await streams(page);
    console.log(context.browser()?.version() ?? (await page.evaluate(() => navigator.userAgent.match(/Chrome\/(\S+)/)[1])));
  } finally {
    await context.close();
  }
  const by = { '1.1': 'HTTP/1.1', '2.0': 'HTTP/2 (RFC 8441)' }[await websocketVersion()];
  console.log(`a page and its 50 parts, all by h2, a WebSocket by TLS over ${by} echoes, 3 events come one by one`);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
