// The client of grpc-js: calls of all four kinds, deadlines, cancelling, errors; by TLS and without.
'use strict';

const assert = require('node:assert');
const fs = require('node:fs');
const grpc = require('@grpc/grpc-js');

const site = JSON.parse(fs.readFileSync(process.argv[2]));
const same = (message) => message;
const within = (ms = 30000) => ({ deadline: Date.now() + ms });
const range = (count) => Array.from({ length: count }, (_, number) => Buffer.from(String(number)));

/** Result of a call with one answer; its status, and first metadata, beside. */
function unary(client, path, message, options = within(), begun = () => {}) {
  return new Promise((resolve) => {
    const got = {};
    const call = client.makeUnaryRequest(path, same, same, message, new grpc.Metadata(), options, (error, answer) => {
      Object.assign(got, { error, answer });
    });
    call.on('metadata', (metadata) => { got.metadata = metadata; });
    call.on('status', (status) => setImmediate(() => resolve({ ...got, status })));
    begun(call);
  });
}

function all(stream) {
  return new Promise((resolve, reject) => {
    const messages = [];
    stream.on('data', (message) => messages.push(String(message)));
    stream.on('end', () => resolve(messages));
    stream.on('error', reject);
  });
}

async function calls(client) {
  const { answer, status, metadata } = await unary(client, '/castling.Test/Unary', Buffer.from('hello'));
  assert.strictEqual(String(answer), 'HELLO');
  assert.deepStrictEqual(metadata.get('x-greeting'), ['hi']);
  assert.deepStrictEqual(status.metadata.get('x-bytes'), ['5']);
  const large = await unary(client, '/castling.Test/Unary', Buffer.alloc(3000000, 'm'));
  assert.ok(large.answer.equals(Buffer.alloc(3000000, 'M')), 'a message of 3 MB');

  const counted = client.makeServerStreamRequest('/castling.Test/Counts', same, same, Buffer.from('1000'), within());
  assert.deepStrictEqual(await all(counted), range(1000).map(String), 'a stream of the server');

  const joined = await new Promise((resolve, reject) => {
    const call = client.makeClientStreamRequest('/castling.Test/Joins', same, same, within(), (error, message) => {
      if (error) reject(error); else resolve(String(message));
    });
    range(1000).forEach((part) => call.write(part));
    call.end();
  });
  assert.strictEqual(joined, range(1000).join(','), 'a stream of the client');

  // Each message is sent when the one before has come back.
  const both = client.makeBidiStreamRequest('/castling.Test/Echoes', same, same, within());
  const left = range(100);
  both.write(left.shift());
  both.on('data', () => { if (left.length) both.write(left.shift()); else both.end(); });
  assert.deepStrictEqual(await all(both), range(100).map(String), 'messages both ways');
}

async function endings(client) {
  const { DEADLINE_EXCEEDED, CANCELLED, INVALID_ARGUMENT, UNIMPLEMENTED, UNAVAILABLE } = grpc.status;
  const nothing = Buffer.alloc(0);
  const ends = async (path, options, begun) => (await unary(client, path, nothing, options, begun)).status;
  const toldOrigin = async () => String((await unary(client, '/castling.Test/Cancelled', nothing)).answer);

  assert.strictEqual((await ends('/castling.Test/Waits', within(300))).code, DEADLINE_EXCEEDED);
  assert.strictEqual(await toldOrigin(), 'yes', 'the origin is told of the deadline');
  const cancelled = await ends('/castling.Test/Waits', within(), (call) => setTimeout(() => call.cancel(), 200));
  assert.strictEqual(cancelled.code, CANCELLED);
  assert.strictEqual(await toldOrigin(), 'yes', 'the origin is told of the cancelling');

  const failed = await ends('/castling.Test/Fails');
  assert.deepStrictEqual([failed.code, failed.details], [INVALID_ARGUMENT, 'no: über 100 %']);
  const details = failed.metadata.get('grpc-status-details-bin')[0];
  assert.ok(details.equals(Buffer.from('\x08\x03\x12\x02no\x00\xff', 'latin1')), 'details of an error');
  assert.strictEqual((await ends('/castling.Test/None')).code, UNIMPLEMENTED);
  assert.strictEqual((await ends('/castling.Dead/Any')).code, UNAVAILABLE);
}

/** More calls at once than the gateway lets a connection have streams. */
async function many(client) {
  const answers = await Promise.all(range(500).map((message) => unary(client, '/castling.Test/Unary', message)));
  assert.deepStrictEqual(answers.map(({ answer }) => String(answer)), range(500).map(String), '500 calls at once');
}

async function main() {
  const tls = grpc.credentials.createSsl(fs.readFileSync(site.ca));
  const name = { 'grpc.ssl_target_name_override': site.name, 'grpc.default_authority': site.name };
  const clients = [
    new grpc.Client(site.plain, grpc.credentials.createInsecure()),
    new grpc.Client(site.tls, tls, name),
  ];
  for (const client of clients) {
    await calls(client);
    await endings(client);
    await many(client);
    client.close();
  }
  const { version } = require('@grpc/grpc-js/package.json');
  console.log(`${version} (Node.js ${process.version})`);
  console.log('with TLS and without: unary, streams of server, client and both, deadline, cancelling, error details, UNAVAILABLE of a dead peer, 500 calls at once');
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
