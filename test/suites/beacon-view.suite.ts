// What a Beacon view must do over any Kv: folded from a memory log, asked everything, compared with a naive model.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import * as fc from 'fast-check';
import type { Kv, KvRow } from '../../src/beacon/kv.ts';
import { type BeaconLog, expectAny } from '../../src/beacon/log.ts';
import { MemoryLog } from '../../src/beacon/memory.ts';
import { BeaconView } from '../../src/beacon/view.ts';
import { checkAppend } from '../../src/beacon/check-append.ts';
import { MemoryKv } from '../../src/beacon/view-memory.ts';
import { toHex } from '../../src/core/bytes.ts';
import { parsePattern } from '../../src/ucxl/match.ts';
import type { SignedRecord } from '../../src/manifest/record.ts';
import type { ManifestBody } from '../../src/manifest/manifest.ts';
import { collect } from './beacon-log.suite.ts';
import {
  contentOf,
  logRecord,
  objectOf,
  otherWriter,
  putAppend,
  someAddress,
  someBranchKey,
  someEnvelope,
  someId,
  someKek,
  someManifest,
  writer,
} from './beacon-records.ts';

/** A new, empty Kv. `reopen`, where it keeps files: closes it and opens the same one again. */
export interface KvFixture extends AsyncDisposable {
  readonly kv: Kv;
  reopen?(): Promise<Kv>;
}

const bk = someId('bk');
const a = someAddress('a.md');
const b = someAddress('notes/b.md');

/** Brings `view` to the head of `log`. */
export async function catchUp(view: BeaconView, log: BeaconLog): Promise<void> {
  for await (const entry of log.read(view.position().revision + 1)) await view.apply([entry]);
}

function comparableRows(rows: readonly KvRow[]): string[] {
  return rows.map(([key, value]) => `${key} ${toHex(value)}`);
}

export function beaconViewSuite(name: string, create: () => Promise<KvFixture>): void {
  describe(`Beacon view: ${name}`, () => {
    it('answers for versions, instants, removal and revival', async () => {
      await using fixture = await create();
      await using log = new MemoryLog();
      await using view = await BeaconView.open(fixture.kv);
      const history = await threeLives(log);
      await catchUp(view, log);
      assert.equal((await view.head(a))?.version, 4);
      assert.equal((await view.version(a, 2))?.record.cid.toString(), history[1]?.cid.toString());
      assert.equal(await view.version(a, 5), undefined);
      assert.equal(await view.head(someAddress('none')), undefined);
      const at = async (instant: number) => (await view.at(a, instant))?.version;
      assert.deepEqual(await Promise.all([at(999), at(1000), at(2999), at(3500), at(9e12)]), [
        undefined,
        1,
        2,
        3,
        4,
      ]);
      const lines = (await view.versions(a)).items;
      assert.deepEqual(
        lines.map(({ version, type }) => [version, type]),
        [
          [1, 'object'],
          [2, 'object'],
          [3, 'tombstone'],
          [4, 'object'],
        ],
      );
      const newest = await view.versions(a, { reverse: true, limit: 3 });
      assert.deepEqual(
        newest.items.map(({ version }) => version),
        [4, 3, 2],
      );
      const rest = await view.versions(a, {
        reverse: true,
        limit: 3,
        ...(newest.next === undefined ? {} : { after: newest.next }),
      });
      assert.deepEqual(
        rest.items.map(({ version }) => version),
        [1],
      );
      assert.equal(rest.next, undefined);
      const entries = await collect(view.catalogue());
      assert.deepEqual(
        entries.map(({ retained, head }) => [retained, head]),
        [
          [false, false],
          [false, false],
          [false, false],
          [true, true],
        ],
      );
      assert.equal(entries[3]?.records.length, 3);
      assert.deepEqual(await collect(view.catalogueOf(a)), entries);
    });

    it('gives its rows of a moment to come, whatever is folded in behind that', async () => {
      await using fixture = await create();
      await using log = new MemoryLog();
      await using view = await BeaconView.open(fixture.kv);
      await using model = await BeaconView.open(new MemoryKv());
      for (let index = 0; index < 9; index++)
        await log.append(putAppend(someManifest(someAddress(`r/${index}`)), bk));
      const entries = await collect(log.read(1));
      await model.apply(entries.slice(0, 5));
      const { signal } = new AbortController();
      const waiting = [5, 7].map((revision) => view.rowsAt(revision, signal));
      await view.apply(entries.slice(0, 2));
      await view.apply(entries.slice(2));
      const [five, seven] = await Promise.all(waiting);
      assert(five !== undefined && seven !== undefined);
      assert.deepEqual(comparableRows(await collect(five)), comparableRows(await collect(model.rows())));
      await model.apply(entries.slice(5, 7));
      assert.deepEqual(comparableRows(await collect(seven)), comparableRows(await collect(model.rows())));
      assert.equal(await view.rowsAt(8, signal), undefined);
      const now = await view.rowsAt(9, signal);
      assert(now !== undefined);
      await model.apply(entries.slice(7));
      assert.deepEqual(comparableRows(await collect(now)), comparableRows(await collect(model.rows())));
      await assert.rejects(view.rowsAt(10, AbortSignal.timeout(20)), { name: 'TimeoutError' });
    });

    it('finds by CID, tag, writer, branch key and pattern', async () => {
      await using fixture = await create();
      await using log = new MemoryLog();
      await using view = await BeaconView.open(fixture.kv);
      await log.append(putAppend(someManifest(a, { tags: ['sec-high'] }), bk));
      await log.append(putAppend(someManifest(b, { tags: ['sec-high', 'dr'], by: otherWriter }), bk));
      await catchUp(view, log);
      const uses = (await view.byCid(contentOf(a, 1))).items;
      assert.deepEqual(uses, [{ as: 'content', id: a, version: 1 }]);
      assert.deepEqual(
        (await view.tagged('sec-high')).items.map(({ address }) => address),
        [a, b],
      );
      assert.deepEqual(
        (await view.tagged('dr')).items.map(({ address }) => address),
        [b],
      );
      assert.deepEqual((await view.writtenBy(writer.publicKey)).items, [{ address: a, version: 1 }]);
      const wrapped = (await view.objectsOfBranchKey(bk)).items;
      assert.deepEqual(
        wrapped.map(({ objId, uses }) => `${toHex(objId)} ${uses[0]?.address}`).sort(),
        [`${toHex(objectOf(a, 1))} ${a}`, `${toHex(objectOf(b, 1))} ${b}`].sort(),
      );
      for (const [pattern, expected] of [
        ['ucxl://any:any@holdfast:beacon/*^/**', [a, b]],
        ['ucxl://any:any@any:any/*^/**/b.md', [b]],
        ['ucxl://ann:writer@holdfast:any/*^/notes/', [b]],
        ['ucxl://any:any@holdfast:any/*^/*.md', [a]],
        ['ucxl://bob:any@holdfast:any/*^/**', []],
      ] as const) {
        const { items } = await view.query(parsePattern(pattern));
        assert.deepEqual(
          items.map(({ address }) => address),
          expected,
          pattern,
        );
      }
    });

    it('pages through more than one page, whatever the order', async () => {
      await using fixture = await create();
      await using log = new MemoryLog();
      await using view = await BeaconView.open(fixture.kv);
      const addresses = Array.from({ length: 25 }, (_, index) =>
        someAddress(`p/${String(index).padStart(2, '0')}`),
      );
      for (const address of addresses) await log.append(putAppend(someManifest(address), bk));
      await catchUp(view, log);
      for (const pattern of ['ucxl://any:any@holdfast:beacon/*^/p/', 'ucxl://ann:any@any:any/*^/**']) {
        const found: string[] = [];
        let after: string | undefined;
        do {
          const page = await view.query(parsePattern(pattern), {
            limit: 7,
            ...(after === undefined ? {} : { after }),
          });
          found.push(...page.items.map(({ address }) => address));
          after = page.next;
        } while (after !== undefined);
        assert.deepEqual(found, addresses, pattern);
      }
      await assert.rejects(view.query(parsePattern('ucxl://any:any@any:any'), { limit: 0 }), {
        code: 'ARGUMENT_INVALID',
      });
    });

    it('moves an object to another branch key', async () => {
      await using fixture = await create();
      await using log = new MemoryLog();
      await using view = await BeaconView.open(fixture.kv);
      const objId = objectOf(a, 1);
      await log.append(putAppend(someManifest(a), bk));
      const next = someId('bk2');
      const moved = someEnvelope(objId, next, { version: 2, prev: someEnvelope(objId, bk).cid });
      const key = `env/${toHex(objId)}`;
      const records = [logRecord(`bk/${toHex(next)}`, someBranchKey(next)), logRecord(key, moved)];
      await log.append({ subject: key, expected: 0, records, at: 9 });
      await log.append({
        subject: 'kek/dev/1',
        expected: 0,
        records: [logRecord('kek/dev/1', someKek('dev'))],
        at: 9,
      });
      await catchUp(view, log);
      assert.deepEqual((await view.objectsOfBranchKey(bk)).items, []);
      assert.equal((await view.objectsOfBranchKey(next)).items.length, 1);
      assert.equal((await view.envelope(objId))?.version, 2);
      assert.equal((await view.envelope(objId, 1))?.record.body.envVer, 1);
      assert.equal((await view.branchKey(next))?.record.body.bkVer, 1);
      assert.equal((await view.kek('dev'))?.record.body.cg, 'dev');
      assert.equal((await view.keks()).items.length, 1);
      assert.equal((await collect(view.keyBlocks())).length, 3);
      assert.equal((await collect(view.catalogueOf(a)))[0]?.records.length, 4);
      assert.equal(await view.subjectRevision(key), 2);
    });

    it('skips what is no good, says why, and goes on', async () => {
      await using fixture = await create();
      await using log = new MemoryLog();
      await using view = await BeaconView.open(fixture.kv);
      const first = someManifest(a);
      await log.append(putAppend(first, bk));
      const forged = first.block.bytes.slice();
      forged[forged.length - 1] = (forged[forged.length - 1] ?? 0) ^ 1;
      const bad = [
        { key: `addr/${a}`, bytes: forged },
        logRecord(`addr/${b}`, first),
        logRecord(`addr/${a}`, someManifest(a, { salt: 'rival' })),
        logRecord(`addr/${a}`, someManifest(a, { version: 3, prev: first.cid })),
        logRecord(`addr/${a}`, someManifest(a, { version: 2, prev: someManifest(b).cid })),
      ];
      for (const record of bad)
        await log.append({ subject: record.key, expected: expectAny, records: [record], at: 1 });
      await log.append(putAppend(someManifest(a, { version: 2, prev: first.cid }), bk));
      await catchUp(view, log);
      const { items } = await view.rejected();
      assert.deepEqual(
        items.map(({ revision }) => revision),
        [2, 3, 4, 5, 6],
      );
      for (const [index, pattern] of [
        /signature/,
        /belongs under/,
        /version 1 given/,
        /version 3 given/,
        /follows/,
      ].entries()) {
        assert.match(items[index]?.reason ?? '', pattern);
      }
      assert.equal((await view.head(a))?.version, 2);
      assert.deepEqual(view.counts(), {
        entries: 7,
        rejected: 5,
        addresses: 1,
        removed: 0,
        versions: 2,
        sizeBytes: 102,
        envelopes: 2,
        branchKeys: 1,
        keks: 0,
        custody: 0,
        missing: 0,
      });
      const changes = await collect(view.changesSince(6));
      assert.deepEqual(
        changes.map(({ rejected }) => rejected === undefined),
        [false, true],
      );
    });

    it('lets a writer know beforehand', async () => {
      await using fixture = await create();
      await using log = new MemoryLog();
      await using view = await BeaconView.open(fixture.kv);
      const first = someManifest(a);
      await checkAppend(view, putAppend(first, bk, 0));
      await log.append(putAppend(first, bk, 0));
      await catchUp(view, log);
      await assert.rejects(checkAppend(view, putAppend(someManifest(a, { salt: 'x' }), bk, 0)), {
        code: 'VERSION_CONFLICT',
        details: { subject: `addr/${a}`, expected: 0, current: 1 },
      });
      await assert.rejects(checkAppend(view, putAppend(someManifest(a, { salt: 'x' }), bk)), {
        code: 'VERSION_CONFLICT',
      });
      const bare = {
        subject: `addr/${b}`,
        expected: 0,
        records: [logRecord(`addr/${b}`, someManifest(b))],
        at: 1,
      };
      await assert.rejects(checkAppend(view, bare), {
        code: 'RECORD_INVALID',
        message: /envelope is not registered/,
      });
      await checkAppend(view, putAppend(someManifest(a, { version: 2, prev: first.cid }), bk, 1));
    });

    it('follows a log, and lets readers wait for their own writes', async () => {
      await using fixture = await create();
      await using log = new MemoryLog();
      await using view = await BeaconView.open(fixture.kv);
      const stop = new AbortController();
      for (let index = 0; index < 5; index++)
        await log.append(putAppend(someManifest(someAddress(`f/${index}`)), bk));
      const following = view.follow(log, stop.signal);
      const { revision } = await log.append(putAppend(someManifest(a), bk));
      await view.waitFor(revision, AbortSignal.timeout(5000));
      assert.equal((await view.head(a))?.version, 1);
      assert.equal(view.health().state, 'following');
      await assert.rejects(view.waitFor(99, AbortSignal.timeout(1)), { name: 'TimeoutError' });
      stop.abort();
      await following;
    });

    it('raises the alarm for a log that lost or rewrote its history, and does not follow it', async () => {
      await using fixture = await create();
      await using log = new MemoryLog();
      await using view = await BeaconView.open(fixture.kv);
      await log.append(putAppend(someManifest(a), bk));
      await log.append(putAppend(someManifest(b), bk));
      await catchUp(view, log);
      const before = view.position();
      for (const appends of [[b], [b, a], [b, a, someAddress('c')]]) {
        await using other = new MemoryLog();
        for (const address of appends) await other.append(putAppend(someManifest(address), bk));
        const stop = new AbortController();
        const following = view.follow(other, stop.signal);
        while (view.health().state !== 'diverged') await new Promise((resolve) => setImmediate(resolve));
        stop.abort();
        await following;
        assert.deepEqual(view.position(), before);
      }
    });

    it('agrees with a naive model over random writes and restarts, and with a second fold to the byte', async () => {
      await fc.assert(
        fc.asyncProperty(fc.array(step, { maxLength: 30 }), (steps) => agreesWithModel(create, steps)),
        { numRuns: 8 },
      );
    });
  });
}

/** v1, v2, removed, v4. */
async function threeLives(log: BeaconLog): Promise<SignedRecord<ManifestBody>[]> {
  const history: SignedRecord<ManifestBody>[] = [];
  for (const removed of [false, false, true, false]) {
    const manifest = someManifest(a, {
      version: history.length + 1,
      prev: history.at(-1)?.cid ?? null,
      removed,
    });
    await log.append(putAppend(manifest, bk));
    history.push(manifest);
  }
  return history;
}

const step = fc.record({
  path: fc.constantFrom('a', 'b', 'x/ü', 'x/😀'),
  kind: fc.constantFrom('put', 'put', 'put', 'remove', 'stale', 'restart'),
  tag: fc.constantFrom('t1', 't2'),
});

interface Naive {
  readonly manifests: SignedRecord<ManifestBody>[];
  revision: number;
}

async function agreesWithModel(
  create: () => Promise<KvFixture>,
  steps: readonly { readonly path: string; readonly kind: string; readonly tag: string }[],
): Promise<void> {
  await using fixture = await create();
  await using log = new MemoryLog();
  let view = await BeaconView.open(fixture.kv);
  const model = new Map<string, Naive>();
  for (const { path, kind, tag } of steps) {
    if (kind === 'restart') {
      if (fixture.reopen !== undefined) view = await BeaconView.open(await fixture.reopen());
      continue;
    }
    const address = someAddress(path);
    const known: Naive = model.get(address) ?? { manifests: [], revision: 0 };
    const prev = known.manifests.at(-1);
    const manifest = someManifest(address, {
      version: known.manifests.length + 1,
      prev: prev?.cid ?? null,
      removed: kind === 'remove',
      tags: [tag],
    });
    if (kind === 'stale') {
      // One revision too late for what is there, or too early for what is not.
      await assert.rejects(log.append(putAppend(manifest, bk, known.revision + 1)), {
        code: 'VERSION_CONFLICT',
      });
      continue;
    }
    const entry = await log.append(putAppend(manifest, bk, known.revision));
    known.manifests.push(manifest);
    known.revision = entry.revision;
    model.set(address, known);
    await view.apply([entry]);
  }
  await compareWithModel(view, model);
  await using again = await BeaconView.open(new MemoryKv());
  await again.apply(await collect(log.read(1)));
  assert.deepEqual((await collect(view.rows())).map(plainRow), (await collect(again.rows())).map(plainRow));
}

async function compareWithModel(view: BeaconView, model: ReadonlyMap<string, Naive>): Promise<void> {
  const live: string[] = [];
  for (const [address, { manifests, revision }] of model) {
    const head = await view.head(address);
    assert.equal(head?.version, manifests.length);
    assert.equal(await view.subjectRevision(`addr/${address}`), revision);
    for (const [index, manifest] of manifests.entries()) {
      const found = await view.version(address, index + 1);
      assert.deepEqual(plain(found?.record.block.bytes), plain(manifest.block.bytes));
    }
    if (manifests.at(-1)?.body.type !== 'tombstone') live.push(address);
  }
  for (const pattern of ['ucxl://any:any@holdfast:any', 'ucxl://any:any@any:any']) {
    const { items } = await view.query(parsePattern(pattern));
    assert.deepEqual(items.map(({ address }) => address).sort(), live.toSorted(), pattern);
  }
  for (const tag of ['t1', 't2']) {
    const tagged = live.filter((address) =>
      model.get(address)?.manifests.at(-1)?.body.compliance_tags.includes(tag),
    );
    assert.deepEqual((await view.tagged(tag)).items.map(({ address }) => address).sort(), tagged.sort());
  }
  assert.equal(view.counts().addresses, live.length);
  assert.equal(view.counts().removed, model.size - live.length);
}

function plain(bytes: Uint8Array | undefined): string {
  return bytes === undefined ? '' : Buffer.from(bytes).toString('hex');
}

function plainRow([key, value]: KvRow): string {
  return `${key}=${plain(value)}`;
}
