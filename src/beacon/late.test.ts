// Records folded in on trust are opened properly afterwards, and a false one does not stay unnoticed.

import assert from 'node:assert/strict';
import { it } from 'node:test';
import { putAppend, someAddress, someId, someManifest } from '../../test/suites/beacon-records.ts';
import { encodeCbor } from '../core/block.ts';
import type { KvChanges } from './kv.ts';
import type { Append } from './log.ts';
import { MemoryLog } from './memory.ts';
import { BeaconView, type ViewOptions } from './view.ts';
import { MemoryKv } from './view-memory.ts';

const bk = someId('bk');
const appends = Array.from({ length: 40 }, (_, index) =>
  putAppend(someManifest(someAddress(`l/${index}`)), bk),
);

it('verifies after the fold what it folded in on trust, and holds the same rows as a view that verified before', async () => {
  const kv = new WatchedKv();
  await using log = await logOf(appends);
  await using late = await BeaconView.open(kv, { signatures: 'after' });
  const stop = new AbortController();
  const following = late.follow(log, stop.signal);
  await late.waitFor(appends.length, AbortSignal.timeout(10_000));
  await until(async () => (await kv.get('sig')) === undefined);
  assert(kv.wasLate, 'nothing was left to verify');
  stop.abort();
  await following;
  await using strict = await followed(new MemoryKv(), log, 'before');
  assert.deepEqual(await Array.fromAsync(late.rows()), await Array.fromAsync(strict.rows()));
});

it('condemns a view that took a record with a false signature, and the next open says so', async () => {
  const kv = new MemoryKv();
  await using log = await logOf(
    appends.map((append, index) => (index === 25 ? withFalseSignature(append) : append)),
  );
  const late = await BeaconView.open(kv, { signatures: 'after' });
  await late.follow(log, AbortSignal.timeout(10_000)); // ends by itself
  assert.equal(late.health().state, 'damaged');
  assert.match(late.health().reason, /log entry 26 .*signature/s);
  await assert.rejects(BeaconView.open(kv), { code: 'RECORD_CORRUPT', message: /log entry 26/ });
  // Folded again with signatures first, the entry is skipped as it is everywhere else.
  await using strict = await followed(new MemoryKv(), log, 'before');
  assert.equal(strict.counts().rejected, 1);
  assert.equal(await strict.head(someAddress('l/25')), undefined);
});

it('goes on verifying where it was when it was closed', async () => {
  const kv = new MemoryKv();
  await using log = await logOf(appends);
  {
    await using _once = await followed(kv, log, 'before');
    await kv.write(new Map([['sig', encodeCbor({ next: 10, problem: '' })]]));
  }
  const again = await BeaconView.open(kv);
  const stop = new AbortController();
  const following = again.follow(log, stop.signal);
  await until(async () => (await kv.get('sig')) === undefined);
  stop.abort();
  await following;
});

class WatchedKv extends MemoryKv {
  wasLate = false;

  override async write(changes: KvChanges): Promise<void> {
    this.wasLate ||= changes.get('sig') instanceof Uint8Array;
    await super.write(changes);
  }
}

async function logOf(entries: readonly Append[]): Promise<MemoryLog> {
  const log = new MemoryLog();
  for (const append of entries) await log.append(append);
  return log;
}

/** A view that has come to the end of `log`. */
async function followed(
  kv: MemoryKv,
  log: MemoryLog,
  signatures: ViewOptions['signatures'] & string,
): Promise<BeaconView> {
  const view = await BeaconView.open(kv, { signatures });
  const stop = new AbortController();
  const following = view.follow(log, stop.signal);
  await view.waitFor(appends.length, AbortSignal.timeout(10_000));
  stop.abort();
  await following;
  return view;
}

function withFalseSignature(append: Append): Append {
  const [record, ...others] = append.records;
  if (record === undefined) throw new RangeError('an append without records');
  const bytes = record.bytes.slice();
  bytes[bytes.length - 1] = (bytes.at(-1) ?? 0) ^ 1;
  return { ...append, records: [{ key: record.key, bytes }, ...others] };
}

async function until(isSo: () => Promise<boolean>): Promise<void> {
  const giveUpAt = performance.now() + 20_000;
  while (!(await isSo())) {
    assert(performance.now() < giveUpAt, 'it did not come to pass');
    await new Promise((resolve) => setImmediate(resolve));
  }
}
