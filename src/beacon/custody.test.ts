import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { collect } from '../../test/suites/beacon-log.suite.ts';
import { catchUp } from '../../test/suites/beacon-view.suite.ts';
import {
  putAppend,
  someAddress,
  someBranchKey,
  someEnvelope,
  someId,
  someKek,
  someManifest,
  writer,
} from '../../test/suites/beacon-records.ts';
import {
  bytes32,
  certificateRecord,
  cg,
  family,
  kekRecord,
  nextKek,
  nextPolicy,
  rootPolicy,
  signedKek,
  someEpoch,
  someRevocation,
  someSigner,
  someUnsignedKek,
} from '../../test/support/custody-records.ts';
import { toHex } from '../core/bytes.ts';
import { encodeLabel, parseLabel } from '../envelope/label.ts';
import { envelopeStepProblem } from '../envelope/records.ts';
import type { RpcClient, RpcHandler, RpcServer } from '../core/rpc.ts';
import { signRecord, type SignedRecord } from '../manifest/record.ts';
import { custodyStart, readCustody, serveCustody } from './custody-rpc.ts';
import type { Append } from './log.ts';
import { MemoryLog } from './memory.ts';
import { rebuildBeacon } from './rebuild.ts';
import { openRegistryRecord, recordKey } from './records.ts';
import { verifyBeacon } from './verify.ts';
import { BeaconView } from './view.ts';
import { checkAppend } from './check-append.ts';
import { MemoryKv } from './view-memory.ts';

const first = kekRecord(signedKek(someUnsignedKek()));
const { C, Yi, frostYi, custodians } = someUnsignedKek({ shareGen: 2 });
const refreshed = nextKek(first, { shareGen: 2, C, Yi, frostYi, custodians });
const second = kekRecord(signedKek(someUnsignedKek({ ver: 2 })));
const active = nextKek(second, { state: 'active' });
const tighter = nextPolicy(rootPolicy, { maxItemsPerBar: 1 });
const revocation = someRevocation(1, [{ what: 'key', id: bytes32('k') }]);
const certificate = certificateRecord(someEpoch());
const mallory = someSigner('mallory');
const history = [rootPolicy, first, refreshed, second, active, tighter, revocation, certificate];

function appendOf(record: SignedRecord<unknown>, expected = -1): Append {
  const key = recordKey(openRegistryRecord(record.block.bytes).body);
  return { subject: key, expected, records: [{ key, bytes: record.block.bytes }], at: 5 };
}

interface Registry extends AsyncDisposable {
  readonly log: MemoryLog;
  readonly view: BeaconView;
}

async function registryOf(...records: readonly SignedRecord<unknown>[]): Promise<Registry> {
  const log = new MemoryLog();
  const view = await BeaconView.open(new MemoryKv());
  for (const record of records) await log.append(appendOf(record));
  await catchUp(view, log);
  assert.equal(view.counts().rejected, 0);
  return { log, view, [Symbol.asyncDispose]: () => view[Symbol.asyncDispose]() };
}

/** Neither checked in nor folded in. */
async function refuses({ log, view }: Registry, append: Append, reason: RegExp): Promise<void> {
  await assert.rejects(checkAppend(view, append), (error: Error) => reason.test(error.message));
  const before = view.counts().rejected;
  await log.append(append);
  await catchUp(view, log);
  assert.equal(view.counts().rejected, before + 1);
}

describe('records of a custody group in the Beacon', () => {
  it('are filed, found and counted', async () => {
    await using registry = await registryOf(...history);
    const { view } = registry;
    assert.equal((await view.kek(cg, 1))?.version, 2, 'its second record');
    assert.equal((await view.kek(cg))?.record.body.ver, 2, 'the highest active one');
    assert.equal(await view.kek(cg, 3), undefined);
    assert.equal((await view.keks()).items.length, 2);
    assert.equal((await view.policy(family))?.version, 2);
    assert.equal((await view.policy(family, 1))?.record.cid.toString(), rootPolicy.cid.toString());
    assert.equal((await view.revocation(cg))?.version, 1);
    assert.equal((await view.certificate(cg, 1))?.record.cid.toString(), certificate.cid.toString());
    assert.deepEqual([view.counts().keks, view.counts().custody], [2, 4]);
    assert.equal((await collect(view.custodyBlocks())).length, history.length);
    assert.deepEqual((await view.byCid(tighter.cid)).items, [
      { as: 'policy', id: toHex(family), version: 2 },
    ]);
  });

  it('follow each other, and an old one is not taken again', async () => {
    await using registry = await registryOf(...history);
    const other = kekRecord(signedKek(someUnsignedKek({ refreshEveryBars: 9 })));
    await refuses(registry, appendOf(other), /version 1 given, 3 is next/);
    await refuses(
      registry,
      appendOf(nextPolicy(rootPolicy, { maxItemsPerBar: 9 })),
      /version 2 given, 3 is next/,
    );
    await refuses(
      registry,
      appendOf(someRevocation(1, [{ what: 'key', id: bytes32('z') }])),
      /1 given, 2 is next/,
    );
    await refuses(registry, appendOf(nextPolicy(tighter, { prev: rootPolicy.cid })), /follows/);
  });

  it('are compared and set on their subject', async () => {
    await using registry = await registryOf(first);
    await registry.log.append(appendOf(refreshed, 1));
    await assert.rejects(registry.log.append(appendOf(nextKek(first, { retireBeat: 9 }), 1)), {
      code: 'VERSION_CONFLICT',
    });
  });

  it('count only with the signature of the one key of the group', async () => {
    await using registry = await registryOf(rootPolicy, first);
    await refuses(registry, appendOf(nextPolicy(rootPolicy, {}, mallory)), /signature/);
    await refuses(registry, appendOf(certificateRecord(someEpoch(), mallory)), /signature/);
    const foreign = kekRecord(signedKek(someUnsignedKek({ ver: 2, frostPk: mallory.publicKey }), mallory));
    await refuses(registry, appendOf(foreign), /another key/);
    assert.throws(() => appendOf(kekRecord(signedKek(someUnsignedKek({ ver: 2 }), mallory))), /frostSig/);
    await refuses(registry, appendOf(someKek(cg)), /group of custodians/);
    await using empty = await registryOf(rootPolicy);
    await refuses(empty, appendOf(tighter), /no key yet/);
  });

  it('take no step that is not one', async () => {
    await using registry = await registryOf(rootPolicy, first);
    await refuses(registry, appendOf(nextKek(first, { state: 'retired' })), /cannot become/);
    await refuses(
      registry,
      appendOf(nextKek(first, { shareGen: 3, C, Yi, frostYi, custodians })),
      /cannot follow/,
    );
    await refuses(
      registry,
      appendOf(kekRecord(signedKek(someUnsignedKek({ ver: 3 })))),
      /version 2 of the key is not there/,
    );
    await refuses(
      registry,
      appendOf(kekRecord(signedKek(someUnsignedKek({ ver: 2, state: 'active' })))),
      /does not begin/,
    );
  });

  it('of envelopes and branch keys neither: class, scope and policy stay', async () => {
    await using registry = await registryOf();
    const bk = someId('bk');
    const manifest = someManifest(someAddress('a'));
    await registry.log.append(putAppend(manifest, bk));
    await catchUp(registry.view, registry.log);
    const objId = manifest.body.encryption?.objId ?? new Uint8Array();
    const envelope = someEnvelope(objId, bk);
    const next = { ...envelope.body, envVer: 2, prev: envelope.cid };
    await checkAppend(registry.view, appendOf(signRecord(next, writer)));
    await refuses(registry, appendOf(signRecord({ ...next, cls: 'public' }, writer)), /cannot become public/);
    // It may come under a policy, with a branch key that is under it; from then on the family stays.
    const governed = { ...next, policy: rootPolicy.cid };
    await assert.rejects(
      checkAppend(registry.view, appendOf(signRecord(governed, writer))),
      /bound to policy null/,
    );
    assert.equal(envelopeStepProblem(next, governed), undefined);
    assert.match(envelopeStepProblem(governed, next) ?? '', /policy family never changes/);
    const otherPolicy = { ...next, policy: envelope.cid };
    assert.match(envelopeStepProblem(governed, otherPolicy) ?? '', /policy family never changes/);
    const key = someBranchKey(bk);
    const moved = someBranchKey(bk, { version: 2, prev: key.cid });
    await checkAppend(registry.view, appendOf(moved));
    const label = encodeLabel({
      ...parseLabel(moved.body.wraps[0]?.label ?? new Uint8Array()),
      policy: rootPolicy.cid,
    });
    const wraps = moved.body.wraps.map((wrap) => ({ ...wrap, label }));
    await refuses(registry, appendOf(signRecord({ ...moved.body, wraps }, writer)), /policy family/);
    const fresh = { ...envelope.body, objId: someId('other') };
    const check = async (changes: object): Promise<void> =>
      checkAppend(registry.view, appendOf(signRecord({ ...fresh, ...changes }, writer)));
    await check({});
    await assert.rejects(check({ cls: 'confidential' }), /for internal content/);
    await assert.rejects(check({ policy: rootPolicy.cid }), /bound to policy null/);
    await assert.rejects(check({ bkId: someId('none') }), /not registered/);
  });

  it('come back from their blocks alone, and all of them are verified', async () => {
    await using original = await registryOf(...history);
    const blocks = history.map(({ block }) => block.bytes).toReversed();
    async function* source(): AsyncGenerator<Uint8Array> {
      yield* blocks;
      yield kekRecord(signedKek(someUnsignedKek({ ver: 2, retireBeat: 3 }), mallory)).block.bytes; // not the group's
    }
    const log = new MemoryLog();
    const report = await rebuildBeacon({ blocks: source(), log, scratch: new MemoryKv() });
    assert.deepEqual([report.records, report.invalid, report.forks.length], [history.length, 1, 0]);
    await using view = await BeaconView.open(new MemoryKv());
    await catchUp(view, log);
    assert.equal(view.counts().rejected, 0);
    assert.equal((await view.kek(cg))?.record.cid.toString(), active.cid.toString());
    assert.equal((await view.policy(family))?.version, 2);
    assert.deepEqual(view.counts().custody, original.view.counts().custody);
    const held = new Set(history.map(({ cid }) => cid.toString()));
    const verify = async (): Promise<readonly string[]> => {
      const hasBlock = async (cid: { toString(): string }): Promise<boolean> => held.has(cid.toString());
      return (await verifyBeacon({ log, view, scratch: new MemoryKv(), hasBlock })).problems;
    };
    assert.deepEqual(await verify(), []);
    held.delete(certificate.cid.toString());
    assert.equal((await verify()).length, 1);
  });
});

describe('beacon.custody', () => {
  it('gives everything in the order of the log, in pages', async () => {
    await using registry = await registryOf(rootPolicy, first);
    await registry.log.append(putAppend(someManifest(someAddress('a')), someId('bk')));
    for (const record of [refreshed, tighter]) await registry.log.append(appendOf(record));
    await catchUp(registry.view, registry.log);
    const found: string[] = [];
    let since = custodyStart;
    for (let done = false; !done; ) {
      const page = await registry.view.custodyRecords(since, { limit: 2 });
      found.push(...page.records.map(({ key }) => key));
      since = page.records.at(-1) ?? since;
      done = page.done;
      assert.equal(page.head, 5);
    }
    assert.deepEqual(found, [`pol/${toHex(family)}/1`, 'kek/prod/1', 'kek/prod/1', `pol/${toHex(family)}/2`]);
  });

  it('travels', async () => {
    await using registry = await registryOf(...history);
    const client = clientOf((server) => serveCustody(server, registry.view));
    const page = await readCustody(client, 'steward', custodyStart);
    assert.deepEqual(
      page.records.map(({ bytes }) => toHex(bytes)),
      history.map(({ block }) => toHex(block.bytes)),
    );
    assert.equal(page.done, true);
    const last = page.records.at(-1) ?? custodyStart;
    assert.deepEqual((await readCustody(client, 'steward', last)).records, []);
  });

  it('is refused in any other form', async () => {
    const good = { head: 3, done: true, records: [{ key: 'k', revision: 1, index: 0, size: 2 }] };
    const heads: unknown[] = [
      null,
      { ...good, head: -1 },
      { ...good, done: 1 },
      { ...good, records: 7 },
      { ...good, records: [{ ...good.records[0], size: 3 }] },
      { ...good, records: [{ ...good.records[0], size: 1 }] },
      { ...good, records: [{ ...good.records[0], revision: 4 }] },
      { ...good, records: [{ ...good.records[0], revision: 0 }] },
      { ...good, records: [{ ...good.records[0], key: 7 }] },
      { head: 3, done: false, records: [] },
    ];
    const body = Uint8Array.of(1, 2);
    const answer = (head: unknown): RpcClient =>
      clientOf((server) => server.handle('beacon.custody', async () => ({ head, body })));
    assert.equal((await readCustody(answer(good), 'x', custodyStart)).records.length, 1);
    for (const head of heads)
      await assert.rejects(readCustody(answer(head), 'x', custodyStart), { code: 'RECORD_INVALID' });
  });
});

/** A client of whatever `serve` registers, without a network. */
function clientOf(serve: (server: RpcServer) => void): RpcClient {
  const handlers = new Map<string, RpcHandler>();
  serve({ handle: (method, handler) => void handlers.set(method, handler), handleStream: () => undefined });
  return {
    call: async (peer, method, { head, body = new Uint8Array() }) => {
      const handler = handlers.get(method);
      assert.ok(handler !== undefined);
      const answer = await handler({ head, body }, { peer, signal: new AbortController().signal });
      return { head: answer.head, body: answer.body ?? new Uint8Array() };
    },
    stream: () => assert.fail('no stream expected'),
  };
}
