// What passes through does not stay: one object larger than every process may be, put and got by the command line.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { TestCluster } from '../helpers/cluster.ts';
import { madeContent, madeDigest, peaksOf, runCli } from '../helpers/peak-memory.ts';

const mebibyte = 1_048_576;
/** Several times what any process may hold for it: windows, batches and buffers are full long before the end. */
const objectBytes = 256 * mebibyte;
/** Of every process, as the kernel counts it. */
const peakMax = 200;
const address = 'ucxl://memory:writer@cluster:run/*^/large';

test('no process of a cluster, and no client, grows with the object that passes through it', async (t) => {
  await using cluster = await TestCluster.start();
  await cluster.until('all nodes known', ({ nodes }) => nodes.length === 5);
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
