// Records folded in on trust are opened properly afterwards, and a false one does not stay unnoticed.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  contentOf,
  objectOf,
  putAppend,
  someAddress,
  someId,
  someManifest,
  withFalseSignature,
  writer,
} from '../../test/suites/beacon-records.ts';
import { encodeCbor } from '../core/block.ts';
import type { KvChanges } from './kv.ts';
import { HoldfastError } from '../core/errors.ts';
import { parsePattern } from '../ucxl/match.ts';
import type { Append, BeaconLog } from './log.ts';
import { MemoryLog } from './memory.ts';
import { BeaconView, type ViewOptions } from './view.ts';
import { MemoryKv } from './view-memory.ts';

const bk = someId('bk');
/** Entries that a view which is behind folds in at a time. */
const groupSize = 512;
const appends = someAppends(40);

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

it('verifies what it holds although the log announces more than it ever delivers', async () => {
  const kv = new MemoryKv();
  await using log = await logOf(someAppends(groupSize));
  const lying = promising(log, 1_000_000);
  await using view = await BeaconView.open(kv, { signatures: 'after' });
  const stop = new AbortController();
  const following = view.follow(lying, stop.signal);
  await view.waitFor(groupSize, AbortSignal.timeout(10_000));
  assert(view.position().revision < (view.health().logRevision ?? 0), 'it is behind for ever');
  await until(async () => (await kv.get('sig')) === undefined);
  stop.abort();
  await following;
});

it('verifies what it holds although the log was lost in the middle', async () => {
  const kv = new MemoryKv();
  await using log = await logOf(
    someAppends(groupSize).map((append, index) => (index === 30 ? withFalseSignature(append) : append)),
  );
  const dying = promising(log, 1_000_000, { dies: true });
  await using view = await BeaconView.open(kv, { signatures: 'after', retryMsMax: 5 });
  await view.follow(dying, AbortSignal.timeout(10_000));
  assert.match(view.health().reason, /log entry 31 .*signature/s);
});

it('goes on verifying after its own rows could not be written for a while', async () => {
  const kv = new WatchedKv();
  await using log = await logOf(appends);
  await using view = await BeaconView.open(kv, { signatures: 'after', retryMsMax: 5 });
  const stop = new AbortController();
  kv.failures = 3;
  const following = view.follow(log, stop.signal);
  await until(async () => kv.failures === 0 && (await kv.get('sig')) === undefined);
  assert.equal(view.position().revision, appends.length);
  assert.equal(view.health().state, 'following');
  stop.abort();
  await following;
});

describe('a record that nobody has opened yet', () => {
  const forgedAt = 25;
  const forged = appends.map((append, index) => (index === forgedAt ? withFalseSignature(append) : append));
  const where = someAddress(`l/${forgedAt}`);
  const pattern = parsePattern('ucxl://any:any@holdfast:beacon/*^/l/25');
  const questions: Readonly<Record<string, (view: BeaconView) => Promise<unknown>>> = {
    head: (view) => view.head(where),
    version: (view) => view.version(where, 1),
    at: (view) => view.at(where, 9e12),
    versions: (view) => view.versions(where),
    'query by path': (view) => view.query(parsePattern('ucxl://any:writer@holdfast:beacon/*^/l/25')),
    'query by address': (view) => view.query(pattern, { removed: true }),
    tagged: (view) => view.tagged('late'),
    writtenBy: (view) => view.writtenBy(writer.publicKey),
    byCid: (view) => view.byCid(contentOf(where, 1)),
    envelope: (view) => view.envelope(objectOf(where, 1)),
    wrappedObject: (view) => view.wrappedObject(objectOf(where, 1)),
    objectsOfBranchKey: (view) => view.objectsOfBranchKey(bk),
    changesSince: (view) => Array.fromAsync(view.changesSince(1)),
    catalogueOf: (view) => Array.fromAsync(view.catalogueOf(where)),
    chains: (view) => Array.fromAsync(view.chains()),
    chainVersion: (view) => view.chainVersion(`addr/${where}`),
    'chainVersion, the first': (view) => view.chainVersion(`addr/${where}`, 1),
    keyBlocks: (view) => Array.fromAsync(view.keyBlocks()),
    wrappedKeys: (view) => view.wrappedKeys(),
  };
  const forgedKey = appends.map((append, at) => (at === 0 ? withFalseSignature(append, 2) : append));
  /** Where it is not the manifest of an object that is false. */
  const others: Readonly<Record<string, readonly Append[]>> = {
    keyBlocks: forgedKey,
    wrappedKeys: forgedKey,
  };
  for (const [name, ask] of Object.entries(questions))
    it(`is opened before an answer names it: ${name}`, async () => {
      await using view = await heldOnTrust(others[name] ?? forged);
      await assert.rejects(ask(view), { code: 'RECORD_CORRUPT', message: /is false/ });
      // It condemns the view: what may follow from it is not told either.
      assert.equal(view.health().state, 'damaged');
      await view.condemned;
      await assert.rejects(view.head(someAddress('l/1')), { code: 'RECORD_CORRUPT', message: /is false/ });
      await assert.rejects(view.tagged('of nobody'), { code: 'RECORD_CORRUPT' });
      await assert.rejects(view.subjectRevision('of nobody'), { code: 'RECORD_CORRUPT' });
      await assert.rejects(view.waitFor(1, AbortSignal.timeout(1000)), { code: 'RECORD_CORRUPT' });
      await assert.rejects(view.apply([]), { code: 'RECORD_CORRUPT' });
    });

  it('does not keep others from being told of those that are true', async () => {
    await using view = await heldOnTrust(forged);
    assert.equal((await view.head(someAddress('l/1')))?.version, 1);
    assert.equal((await view.byCid(contentOf(someAddress('l/2'), 1))).items.length, 1);
    assert.notEqual(view.health().state, 'damaged');
  });
});

/** A view that has folded `entries` in on trust and has not verified any since. */
async function heldOnTrust(entries: readonly Append[]): Promise<BeaconView> {
  const kv = new MemoryKv();
  await using log = await logOf(entries);
  {
    const view = await BeaconView.open(kv, { signatures: 'after' });
    const stop = new AbortController();
    const following = view.follow(log, stop.signal);
    await view.waitFor(entries.length, AbortSignal.timeout(10_000)).catch(() => undefined);
    stop.abort();
    await following;
  }
  // Whatever was verified meanwhile is forgotten again.
  await kv.write(new Map([['sig', encodeCbor({ next: 1, problem: '' })]]));
  return await BeaconView.open(kv);
}

/** `log`, which says that it has come to `revision`; with `dies` it breaks off where it really ends. */
function promising(log: MemoryLog, revision: number, { dies = false } = {}): BeaconLog {
  return {
    append: (append) => log.append(append),
    read: (from) => log.read(from),
    async *watch(from, options) {
      yield* dies ? log.read(from) : log.watch(from, options);
      if (dies) throw new HoldfastError('PEER_UNREACHABLE', 'the other end is gone');
    },
    head: async () => ({ revision, chain: new Uint8Array(32) }),
    [Symbol.asyncDispose]: async () => undefined,
  };
}

function someAppends(count: number): Append[] {
  return Array.from({ length: count }, (_, index) =>
    putAppend(someManifest(someAddress(`l/${index}`), { tags: ['late'] }), bk),
  );
}

class WatchedKv extends MemoryKv {
  wasLate = false;
  /** Writes of the row of late signatures that fail from now on. */
  failures = 0;

  override async write(changes: KvChanges): Promise<void> {
    if (this.failures > 0 && changes.get('sig') === null) {
      this.failures--;
      throw new HoldfastError('DISK_FULL', 'no room', { details: { readOnly: true } });
    }
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

async function until(isSo: () => Promise<boolean>): Promise<void> {
  const giveUpAt = performance.now() + 20_000;
  while (!(await isSo())) {
    assert(performance.now() < giveUpAt, 'it did not come to pass');
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}
