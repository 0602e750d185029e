// A log and a view on disk with known content, for tests that damage them.

import assert from 'node:assert/strict';
import { LevelLog } from '../../src/beacon/level.ts';
import { BeaconView } from '../../src/beacon/view.ts';
import { LevelKv } from '../../src/beacon/view-level.ts';
import { collect } from './beacon-log.suite.ts';
import { contentOf, putAppend, someAddress, someId, someManifest } from './beacon-records.ts';
import { catchUp } from './beacon-view.suite.ts';

const filledCount = 30;
const appends = Array.from({ length: filledCount }, (_, index) =>
  putAppend(someManifest(addressOf(index)), someId('bk')),
);

/** Opened anew every ten appends, so that some records lie in tables and some in LevelDB's log. */
export async function filledLog(path: string): Promise<void> {
  for (let start = 0; start < filledCount; start += 10) {
    await using log = await LevelLog.open(path);
    for (const append of appends.slice(start, start + 10)) await log.append(append);
  }
}

export async function filledView(path: string): Promise<void> {
  for (let start = 0; start < filledCount; start += 10) {
    await using log = await LevelLog.open(`${path}-log`);
    for (const append of appends.slice(start, start + 10)) await log.append(append);
    await using view = await BeaconView.open(await LevelKv.open(path));
    await catchUp(view, log);
  }
}

/** Throws an AssertionError when the log serves anything else than what was put in. */
export async function checkLog(path: string): Promise<void> {
  await using log = await LevelLog.open(path);
  const found = await collect(log.read(1));
  assert.deepEqual(
    found.map(({ subject, records }) => [subject, ...records.map(({ bytes }) => hex(bytes))]),
    appends.map(({ subject, records }) => [subject, ...records.map(({ bytes }) => hex(bytes))]),
  );
}

/** As `checkLog`. A view that lost its newest entries whole is behind and not wrong: it catches up. */
export async function checkView(path: string): Promise<BeaconView | undefined> {
  const view = await BeaconView.open(await LevelKv.open(path));
  if (view.position().revision < filledCount) {
    await view[Symbol.asyncDispose]();
    return undefined;
  }
  try {
    for (let index = 0; index < filledCount; index++) {
      const address = addressOf(index);
      const expected = someManifest(address).cid.toString();
      assert.equal((await view.head(address))?.record.cid.toString(), expected);
      assert.equal((await view.version(address, 1))?.record.cid.toString(), expected);
      assert.equal((await view.at(address, 5000))?.record.cid.toString(), expected);
      const { encryption } = someManifest(address).body;
      assert(encryption !== null);
      assert.equal(hex((await view.envelope(encryption.objId))?.record.body.objId), hex(encryption.objId));
      for (const { id } of (await view.byCid(contentOf(address, 1))).items) assert.equal(id, address);
    }
    return view;
  } catch (error) {
    await view[Symbol.asyncDispose]();
    throw error;
  }
}

function addressOf(index: number): string {
  return someAddress(`d/${index}`);
}

function hex(bytes: Uint8Array | undefined): string {
  return bytes === undefined ? '' : Buffer.from(bytes).toString('hex');
}
