// What passes through does not stay: objects larger than a process may be, put and got by the command line, which
// seals, and through the door, which then seals itself.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { after, before, test } from 'node:test';
import { TestCluster } from '../helpers/cluster.ts';
import { madeContent, madeDigest, peaksOf, runCli } from '../helpers/peak-memory.ts';

const mebibyte = 1_048_576;
/** Several times what any process may hold for it: windows, batches and buffers are full long before the end. */
const objectBytes = 256 * mebibyte;
const throughDoorBytes = 128 * mebibyte;
/** Of every process, as the kernel counts it. */
const peakMax = 200;
const address = 'ucxl://memory:writer@cluster:run/*^/large';

let cluster: TestCluster;
before(async () => {
  cluster = await TestCluster.start();
  await cluster.until('all nodes known', ({ nodes }) => nodes.length === 5);
});
after(() => cluster[Symbol.asyncDispose]());

test('no process of a cluster, and no client, grows with the object that passes through it', async (t) => {
  const put = await runCli(['put', address, '-', '--data', cluster.dir], madeContent(objectBytes));
  const got = await runCli(['get', address, '--data', cluster.dir]);
  assert.equal(got.digest, madeDigest(objectBytes), 'other bytes came back');
  const peaks = await peaksOf(await cluster.control());
  peaks.set('client put', put.peak).set('client get', got.peak);
  assert.ok(peaks.size >= 9, 'every process was looked at');
  t.diagnostic([...peaks].map(([name, peak]) => `${name} ${peak.toFixed(0)} MiB`).join(', '));
  for (const [name, peak] of peaks)
    assert.ok(peak > 0 && peak <= peakMax, `${name} had ${peak.toFixed(0)} MiB resident`);
});

test('a door that seals does not grow with what it is sent and asked for', async (t) => {
  const path = (route: string): string =>
    `/ucxi/v1/${route}?${new URLSearchParams({ address: `${address}-plain` }).toString()}`;
  const body = ReadableStream.from(madeContent(throughDoorBytes));
  const init: RequestInit & { duplex: 'half' } = { method: 'PUT', body, duplex: 'half' };
  const stored = await cluster.fetch(path('put'), init);
  assert.equal(stored.status, 201, await stored.text());
  const response = await cluster.fetch(path('get'));
  assert.ok(response.body !== null);
  const hash = createHash('sha256');
  for await (const chunk of response.body) hash.update(chunk);
  assert.equal(hash.digest('hex'), madeDigest(throughDoorBytes), 'other bytes came back');
  const peak = (await peaksOf(await cluster.control())).get('door') ?? 0;
  t.diagnostic(`door ${peak.toFixed(0)} MiB`);
  assert.ok(peak > 0 && peak <= peakMax, `door had ${peak.toFixed(0)} MiB resident`);
});
