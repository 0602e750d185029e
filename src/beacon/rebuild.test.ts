import assert from 'node:assert/strict';
import { it } from 'node:test';
import { collect } from '../../test/suites/beacon-log.suite.ts';
import { catchUp } from '../../test/suites/beacon-view.suite.ts';
import { putAppend, someAddress, someId, someManifest } from '../../test/suites/beacon-records.ts';
import { MemoryLog } from './memory.ts';
import { rebuildBeacon, type RebuildReport } from './rebuild.ts';
import { BeaconView } from './view.ts';
import { MemoryKv } from './view-memory.ts';
import { toHex } from '../core/bytes.ts';

const bk = someId('bk');
const a = someAddress('a');
const b = someAddress('b');
const v1 = someManifest(a);
const v2 = someManifest(a, { version: 2, prev: v1.cid });
const v3 = someManifest(a, { version: 3, prev: v2.cid, removed: true });
const v4 = someManifest(a, { version: 4, prev: v3.cid });
const rival = someManifest(a, { version: 2, prev: v1.cid, salt: 'lost the race', at: 1 });
const all = [v1, v2, v3, v4, someManifest(b)].flatMap((manifest) =>
  putAppend(manifest, bk).records.map(({ bytes }) => bytes),
);

it('rebuilds the same registry from shuffled, repeated and damaged blocks', async () => {
  const damaged = all.map((bytes) => bytes.map((byte, index) => (index === 20 ? byte ^ 1 : byte)));
  const { view, report } = await rebuilt([
    ...all.toReversed(),
    ...damaged,
    ...all,
    rival.block.bytes,
    new Uint8Array(3),
  ]);
  await using original = await BeaconView.open(new MemoryKv());
  await using log = new MemoryLog();
  for (const manifest of [v1, v2, v3, v4, someManifest(b)]) await log.append(putAppend(manifest, bk));
  await catchUp(original, log);
  assert.deepEqual(
    (await collect(view.catalogue())).map(summary),
    (await collect(original.catalogue())).map(summary),
  );
  assert.equal(report.invalid, damaged.length + 1);
  assert.deepEqual(
    report.forks.map(({ cid }) => cid.toString()),
    [rival.cid.toString()],
  );
  assert.deepEqual(report.missing, []);
  assert.equal(view.counts().rejected, 0);
  assert.equal((await view.objectsOfBranchKey(bk)).items.length, 4);
  // A writer goes on where the rebuilt registry stands.
  assert.equal(await view.subjectRevision(`addr/${a}`), 0);
});

it('keeps later versions where a middle one is lost, and reports the gap', async () => {
  const without = all.filter((bytes) => toHex(bytes) !== toHex(v2.block.bytes));
  const { view, report } = await rebuilt([...without, rival.block.bytes]);
  assert.deepEqual(report.missing, [{ chain: `addr/${a}`, version: 2 }]);
  assert.equal(report.forks.length, 1);
  assert.equal((await view.head(a))?.version, 4);
  assert.equal(await view.version(a, 2), undefined);
  assert.deepEqual(
    (await view.versions(a)).items.map(({ type }) => type),
    ['object', 'missing', 'tombstone', 'object'],
  );
  assert.equal(view.counts().missing, 1);
});

it('refuses a log that holds something', async () => {
  await using log = new MemoryLog();
  await log.append(putAppend(v1, bk));
  await assert.rejects(rebuildBeacon({ blocks: stream([]), log, scratch: new MemoryKv() }), {
    code: 'VERSION_CONFLICT',
  });
});

it('is refused when somebody else appended to the log meanwhile', async () => {
  await using log = new MemoryLog();
  async function* blocks(): AsyncGenerator<Uint8Array> {
    yield* all;
    await log.append(putAppend(v1, bk));
  }
  await assert.rejects(rebuildBeacon({ blocks: blocks(), log, scratch: new MemoryKv() }), {
    code: 'VERSION_CONFLICT',
    message: /somebody else rebuilds/,
  });
});

async function rebuilt(blocks: readonly Uint8Array[]): Promise<{ view: BeaconView; report: RebuildReport }> {
  const log = new MemoryLog();
  const report = await rebuildBeacon({ blocks: stream(blocks), log, scratch: new MemoryKv() });
  const view = await BeaconView.open(new MemoryKv());
  await catchUp(view, log);
  return { view, report };
}

async function* stream(blocks: readonly Uint8Array[]): AsyncGenerator<Uint8Array> {
  yield* blocks;
}

function summary(entry: {
  address: string;
  version: number;
  retained: boolean;
  records: readonly unknown[];
}): unknown {
  const { address, version, retained, records } = entry;
  return { address, version, retained, records: records.map(String).sort() };
}
