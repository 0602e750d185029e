// The shell on an in-memory cluster: five nodes behind a fake of the RPC port, time moved by the test.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { parseBeat } from '../backbeat/beat.ts';
import { frameAt } from '../backbeat/schedule.ts';
import type { Beat, Tempo } from '../backbeat/tempo.ts';
import { type Block, CID, rawBlock } from '../core/block.ts';
import { concat, utf8 } from '../core/bytes.ts';
import { HoldfastError, isHoldfastError } from '../core/errors.ts';
import { sha256 } from '../core/hash.ts';
import { segmentBytes } from '../core/limits.ts';
import type { RpcCallOptions, RpcClient, RpcHandler, RpcMessage, RpcServer } from '../core/rpc.ts';
import { buildIndex } from '../manifest/segments.ts';
import type { Catalogue, CatalogueObject } from './catalogue.ts';
import { DigestSum } from './digest-sum.ts';
import { type LedgerStore, LevelLedgerStore } from './ledger-level.ts';
import type { StewardStatus } from './status.ts';
import type { StewardMember } from './node-watch.ts';
import { defaultStewardSettings } from './settings.ts';
import { allShares, type Shares } from './share-keeper.ts';
import { Steward } from './steward.ts';

type Fields = Readonly<Record<string, unknown>>;

/** A storage node as the steward sees it. */
class FakeNode {
  readonly blocks = new Map<string, Block>();
  #epoch: string;
  #journal: { cid: CID; op: 'add' | 'del'; size: number }[] = [];
  up = true;
  refusesPulls = '';
  /** Pretends to be without faults: answers for bytes that it does not have right. */
  readonly rotten = new Set<string>();
  /** Listed and not there. */
  readonly invented = new Map<string, Block>();
  /** Answers challenges about what it has not with something. */
  lies = false;
  /** Does not answer challenges. */
  evades = false;

  constructor(epoch: string) {
    this.#epoch = epoch;
  }

  put(block: Block): void {
    this.blocks.set(block.cid.toString(), block);
    this.#journal.push({ cid: block.cid, op: 'add', size: block.bytes.length });
  }

  drop(cid: CID): void {
    if (this.blocks.delete(cid.toString())) this.#journal.push({ cid, op: 'del', size: 0 });
    this.rotten.delete(cid.toString());
  }

  bytes(cid: CID): Uint8Array | undefined {
    const block = this.blocks.get(cid.toString());
    return block !== undefined && this.rotten.has(cid.toString()) ? Uint8Array.of(0) : block?.bytes;
  }

  beat(fields: Fields): unknown {
    const { epoch, seq } = Object(fields['journal']);
    parseBeat(fields['beat']);
    const sum = new DigestSum();
    for (const { cid } of this.#listed()) sum.add(cid.multihash.digest);
    const reset = epoch !== this.#epoch;
    const changes = reset ? [] : this.#journal.slice(seq, seq + 3);
    return {
      epoch: this.#epoch,
      seq: reset ? this.#journal.length : seq + changes.length,
      reset,
      changes,
      more: !reset && seq + changes.length < this.#journal.length,
      usage: { blocks: this.blocks.size, bytes: 0, freeBytes: 1e12, state: 'ready' },
      digest: { count: this.#listed().length, sum: sum.bytes() },
    };
  }

  /** Begins a new life: whoever followed it lists it again. */
  restart(): void {
    this.#epoch = `${this.#epoch}+`;
    this.#journal = [];
  }

  #listed(): Block[] {
    return [...this.blocks.values(), ...this.invented.values()];
  }

  list(fields: Fields): unknown {
    const sorted = this.#listed().sort((a, b) =>
      Buffer.compare(a.cid.multihash.digest, b.cid.multihash.digest),
    );
    const after = CID.asCID(fields['after']);
    const from = after === null ? 0 : sorted.findIndex(({ cid }) => cid.equals(after)) + 1;
    const page = sorted.slice(from, from + 5);
    return {
      cids: page.map(({ cid, bytes }) => ({ cid, size: bytes.length })),
      done: from + page.length >= sorted.length,
    };
  }
}

class Rig implements RpcClient, RpcServer, Tempo, Catalogue {
  readonly nodes = new Map<string, FakeNode>();
  readonly members: StewardMember[] = [];
  readonly handlers = new Map<string, RpcHandler>();
  readonly objects: CatalogueObject[] = [];
  readonly calls = new Map<string, number>();
  /** What orders carried. */
  readonly tokens: unknown[] = [];
  /** Blocks asked about in calls that ask about many. */
  challenged = 0;
  /** Rounds that have come to their end. */
  saves = 0;
  time = 1_790_000_000_000;
  fresh = true;
  #listeners = new Set<(beat: Beat) => void>();
  #sequence = 0;
  #random = 1;

  constructor() {
    for (const [at, zone] of ['a', 'a', 'b', 'b', 'c'].entries()) {
      const name = `node-${at + 1}`;
      this.nodes.set(name, new FakeNode(`epoch of ${name}`));
      this.members.push({ name, peer: name, zone, host: name, roles: ['node'] });
    }
    this.members.push({ name: 'door', peer: 'door', zone: 'a', host: 'door', roles: ['door'] });
  }

  node(at: number): FakeNode {
    const node = this.nodes.get(`node-${at}`);
    assert.ok(node);
    return node;
  }

  /** Puts a block on the nodes with these numbers. */
  store(text: string, ...on: number[]): Block {
    const block = rawBlock(utf8(text));
    for (const at of on) this.node(at).put(block);
    return block;
  }

  register(root: CID | null, records: readonly CID[] = [], manifest?: CID): CatalogueObject {
    const at = this.objects.length;
    const object: CatalogueObject = {
      manifest: manifest ?? rawBlock(utf8(`manifest ${at}`)).cid,
      address: `ucxl://a:b@c:d/*^/${at}`,
      version: 1,
      type: 'object',
      policy: { min: 3, max: 5, zones: 3 },
      root,
      records,
      sizeBytes: 1,
    };
    this.objects.push(object);
    return object;
  }

  copies(cid: CID): string[] {
    return [...this.nodes]
      .filter(([, node]) => node.bytes(cid)?.length !== 1 && node.bytes(cid))
      .map(([name]) => name);
  }

  async call(
    peer: string,
    method: string,
    message: RpcMessage,
    _options?: RpcCallOptions,
  ): Promise<Required<RpcMessage>> {
    await nextTurn();
    this.calls.set(method, (this.calls.get(method) ?? 0) + 1);
    if (method === 'block.pull' || method === 'block.delete') this.tokens.push(Object(message.head).epoch);
    if (peer === 'door') return { head: {}, body: new Uint8Array() };
    const node = this.nodes.get(peer);
    if (node?.up !== true) throw new HoldfastError('PEER_UNREACHABLE', `${peer} is down`);
    const fields: Fields = Object(message.head);
    const cid = CID.asCID(fields['cid']);
    const bytes = cid === null ? undefined : node.bytes(cid);
    const answer = (head: unknown, body: Uint8Array = new Uint8Array()): Required<RpcMessage> => ({
      head,
      body,
    });
    if (method === 'node.beat') return answer(node.beat(fields));
    if (method === 'block.list') return answer(node.list(fields));
    if (method === 'block.get') return answer({ found: bytes !== undefined }, bytes);
    if (method === 'node.challenge') {
      const nonce = fields['nonce'];
      assert.ok(nonce instanceof Uint8Array);
      return answer({ answer: bytes === undefined ? null : sha256(concat(nonce, bytes)) });
    }
    if (method === 'node.challenges') return answer({ answers: this.#challenges(node, fields) });
    if (method === 'block.delete') {
      assert.ok(Array.isArray(fields['cids']));
      for (const value of fields['cids']) node.drop(CID.parse(String(value)));
      return answer({ deleted: 1 });
    }
    assert.equal(method, 'block.pull');
    return answer(this.#pull(node, fields, cid));
  }

  #challenges(node: FakeNode, { cids, nonce }: Fields): unknown {
    assert.ok(Array.isArray(cids) && nonce instanceof Uint8Array);
    if (node.evades) throw new HoldfastError('TIMEOUT', 'no answer to challenges');
    this.challenged += cids.length;
    return cids.map((value) => {
      const bytes = node.bytes(CID.parse(String(value)));
      if (bytes === undefined) return node.lies ? sha256(nonce) : null;
      return sha256(concat(nonce, bytes));
    });
  }

  #pull(node: FakeNode, fields: Fields, cid: CID | null): unknown {
    assert.ok(cid);
    if (node.refusesPulls !== '') return { result: 'failed', reason: node.refusesPulls };
    assert.ok(Array.isArray(fields['from']));
    for (const source of fields['from']) {
      const from = this.nodes.get(String(source));
      const block = from?.blocks.get(cid.toString());
      if (from?.up !== true || block === undefined || from.rotten.has(cid.toString())) continue;
      if (node.blocks.has(cid.toString())) return { result: 'present' };
      node.put(block);
      return { result: 'stored' };
    }
    return { result: 'failed', reason: 'no source had it' };
  }

  stream(): never {
    throw new RangeError('the steward streams nothing');
  }

  handle(method: string, handler: RpcHandler): void {
    this.handlers.set(method, handler);
  }

  handleStream(): never {
    throw new RangeError('the steward streams nothing');
  }

  async ask(method: string, head: unknown, peer = 'door'): Promise<unknown> {
    const handler = this.handlers.get(method);
    assert.ok(handler);
    const context = { peer, signal: new AbortController().signal };
    return (await handler({ head, body: new Uint8Array() }, context)).head;
  }

  current(): ReturnType<Tempo['current']> {
    return { state: 'locked', beat: undefined, intervalMs: 1000, since: 0 };
  }

  onBeat(listener: (beat: Beat) => void): () => void {
    this.#listeners.add(listener);
    return () => {
      this.#listeners.delete(listener);
    };
  }

  state(): ReturnType<Catalogue['state']> {
    return { revision: this.objects.length, fresh: this.fresh, reason: this.fresh ? '' : 'the log is away' };
  }

  async changes(after: number, limit: number): ReturnType<Catalogue['changes']> {
    const objects = this.objects.slice(after, after + limit);
    const revision = after + objects.length;
    return { objects, revision, done: revision === this.objects.length };
  }

  /** Beats, each a second later, until `done`; fails after `most`. */
  async beatUntil(what: string, done: () => boolean, most = 80): Promise<void> {
    for (let beat = 0; beat < most; beat++) {
      await this.beat();
      if (done()) return;
    }
    assert.fail(`not within ${most} beats: ${what}`);
  }

  async beat(): Promise<void> {
    this.time += 1000;
    const frame = frameAt(
      { clusterId: 'c', tempoBpm: 60, barBeats: 8 },
      { epoch: new Uint8Array(32), nextIndex: 0 },
      this.#sequence++,
      { wall: 0, logical: 0, node: 0 },
      this.time,
    );
    for (const listener of this.#listeners) {
      listener({ sequence: this.#sequence, frame, source: 'pulse', downbeat: false });
    }
    // The round ends with a save, which is real and takes as long as the disk takes; what it began may go on a little.
    const before = this.saves;
    for (let turn = 0; turn < 20_000 && this.saves === before; turn++) await nextTurn();
    for (let turn = 0; turn < 60; turn++) await nextTurn();
  }

  random(count: number): Uint8Array {
    const out = new Uint8Array(count);
    for (let at = 0; at < count; at++) {
      this.#random = (Math.imul(this.#random, 1_103_515_245) + 12_345) >>> 0;
      out[at] = this.#random >>> 16;
    }
    return out;
  }
}

interface Running {
  readonly rig: Rig;
  readonly path: string;
  readonly status: () => StewardStatus;
  readonly restart: () => Promise<void>;
}

async function running(
  t: TestContext,
  settings = defaultStewardSettings,
  shares: Shares = allShares,
): Promise<Running> {
  const rig = new Rig();
  const path = await mkdtemp(join(tmpdir(), 'holdfast-steward-'));
  const open = async (): Promise<{ steward: Steward; store: LevelLedgerStore }> => {
    const store = await LevelLedgerStore.open(join(path, 'ledger'));
    const clock = { now: () => rig.time, monotonic: () => rig.time };
    const random = (count: number): Uint8Array => rig.random(count);
    const counted: LedgerStore = {
      load: (ledger, now) => store.load(ledger, now),
      save: async (ledger, journals) => {
        await store.save(ledger, journals);
        rig.saves++;
      },
    };
    const ports = {
      rpc: rig,
      server: rig,
      tempo: rig,
      catalogue: rig,
      store: counted,
      clock,
      random,
      shares,
    };
    return { store, steward: await Steward.start(ports, rig.members, settings) };
  };
  let current = await open();
  const close = async (): Promise<void> => {
    await current.steward[Symbol.asyncDispose]();
    await current.store[Symbol.asyncDispose]();
  };
  t.after(async () => {
    await close();
    await rm(path, { recursive: true });
  });
  const restart = async (): Promise<void> => {
    await close();
    current = await open();
  };
  return { rig, path, status: () => current.steward.status(), restart };
}

test('a node is killed: its blocks are copied elsewhere, counted when stored, and all is healthy again', async (t) => {
  const { rig, status } = await running(t);
  const blocks = Array.from({ length: 20 }, (_, at) =>
    rig.store(`block ${at}`, 1 + (at % 2), 3 + (at % 2), 5),
  );
  for (const { cid } of blocks) rig.register(cid);
  await rig.beatUntil('healthy', () => status().objects.healthy === 20);
  assert.equal(rig.calls.get('block.pull'), undefined);
  rig.node(3).up = false;
  await rig.beatUntil('endangered', () => status().objects.belowMin > 0 || status().healing.copiesDone > 0);
  await rig.beatUntil('healed', () => status().objects.healthy === 20 && status().healing.copiesDone === 10);
  for (const { cid } of blocks) assert.ok(rig.copies(cid).filter((name) => name !== 'node-3').length >= 3);
  const [node] = status().nodes.filter(({ name }) => name === 'node-3');
  await rig.beatUntil('given up', () => status().nodes[2]?.liveness === 'down');
  assert.match(node?.lastError ?? '', /node-3 is down/);
  assert.equal(status().objects.total, 20);
  assert.ok(status().proofs.proven > 0);
  const answer = Object(await rig.ask('steward.holders', { cids: [blocks[0]?.cid] }));
  assert.ok(answer.holders[0].length >= 3);
});

test('a restart resumes: nothing is lost, nothing deleted, nothing copied, inventories are not listed again', async (t) => {
  const { rig, status, restart } = await running(t);
  for (let at = 0; at < 10; at++) rig.register(rig.store(`block ${at}`, 1, 3, 5).cid);
  await rig.beatUntil('healthy', () => status().objects.healthy === 10);
  const lists = rig.calls.get('block.list');
  await restart();
  for (const at of [3, 5]) rig.node(at).up = false;
  for (let beat = 0; beat < 7; beat++) await rig.beat();
  assert.equal(status().objects.lost + status().objects.lastCopy + status().objects.belowMin, 0);
  assert.equal(status().objects.unchecked, 10);
  assert.equal(rig.calls.get('block.pull'), undefined);
  for (const at of [3, 5]) rig.node(at).up = true;
  await rig.beatUntil('healthy', () => status().objects.healthy === 10);
  assert.equal(rig.calls.get('block.list'), lists);
  assert.equal(rig.calls.get('block.delete'), undefined);
});

test('silent damage: a challenge disagrees, the bytes decide, the copy is replaced', async (t) => {
  const { rig, status } = await running(t);
  const block = rig.store('precious', 1, 3, 5);
  rig.register(block.cid);
  await rig.beatUntil('healthy', () => status().objects.healthy === 1);
  rig.node(3).rotten.add(block.cid.toString());
  await rig.beatUntil('found', () => status().proofs.failed > 0);
  await rig.beatUntil('repaired', () => rig.copies(block.cid).length === 3 && status().objects.healthy === 1);
  assert.ok(!rig.node(3).rotten.has(block.cid.toString()));
  assert.ok(status().problems.some(({ reason }) => reason.includes('do not match')));
});

test('a large object: its index is read through its holders, its segments are watched, a tombstone frees them', async (t) => {
  const { rig, status } = await running(t);
  const segments = Array.from({ length: 5 }, (_, at) => {
    const block = rawBlock(new Uint8Array(segmentBytes).fill(at));
    for (const node of [2, 4, 5]) rig.node(node).put(block);
    return { cid: block.cid, size: block.bytes.length };
  });
  const { root, blocks } = await buildIndex(segments);
  for (const block of blocks) for (const node of [1, 2, 3, 4, 5]) rig.node(node).put(block);
  const object = rig.register(root);
  await rig.beatUntil(
    'healthy',
    () => status().objects.healthy === 1 && status().catalogue.indexesPending === 0,
  );
  const report = Object(await rig.ask('steward.object', { manifest: object.manifest }));
  assert.equal(report.blocks, 6);
  assert.equal(report.copiesFewest, 3);
  assert.equal(report.zonesFewest, 3);
  rig.register(null, [], object.manifest);
  rig.time += defaultStewardSettings.budget.leaseMs;
  await rig.beatUntil('unreferenced', () => status().blocks.unreferenced === 6);
  rig.fresh = false;
  rig.time += 2 * defaultStewardSettings.budget.leaseMs;
  for (let beat = 0; beat < 15; beat++) await rig.beat();
  assert.equal(rig.node(2).blocks.size, 6);
  assert.ok(status().alarms.some(({ text }) => text.includes('the log is away')));
  rig.fresh = true;
  await rig.beatUntil('collected', () => rig.node(2).blocks.size === 0 && rig.node(5).blocks.size === 0);
});

test('a target that refuses is said, left alone for a while, and another one is taken', async (t) => {
  const { rig, status } = await running(t);
  const block = rig.store('block', 1, 3, 5);
  rig.register(block.cid);
  await rig.beatUntil('healthy', () => status().objects.healthy === 1);
  rig.node(2).refusesPulls = 'disk is on fire';
  rig.node(4).refusesPulls = 'disk is on fire';
  rig.node(1).up = false;
  await rig.beatUntil('refused', () => status().healing.copiesFailed >= 2);
  assert.ok(status().problems.some(({ reason }) => reason.includes('disk is on fire; next try in 2 s')));
  await rig.beatUntil('explained', () =>
    status().unable.some(({ reason }) => reason.includes('disk is on fire')),
  );
  assert.ok((rig.calls.get('block.pull') ?? 0) < 10);
  rig.node(4).refusesPulls = '';
  await rig.beatUntil('healed', () => rig.copies(block.cid).includes('node-4'));
});

test('what a journal adds is known at the next beats, without another listing', async (t) => {
  const { rig, status } = await running(t);
  rig.register(rig.store('before', 1, 3, 5).cid);
  await rig.beatUntil('healthy', () => status().objects.healthy === 1);
  const listings = rig.calls.get('block.list');
  rig.register(rig.store('after', 2, 4, 5).cid);
  await rig.beatUntil('known', () => status().objects.healthy === 2, 5);
  assert.equal(rig.calls.get('block.list'), listings);
  assert.equal(rig.calls.get('block.pull'), undefined);
});

test('a node that lies about its inventory is listed again', async (t) => {
  const { rig, status } = await running(t);
  const block = rig.store('block', 1, 3, 5);
  rig.register(block.cid);
  await rig.beatUntil('healthy', () => status().objects.healthy === 1);
  rig.node(3).blocks.clear(); // without a word in the journal
  await rig.beatUntil('noticed', () => status().nodes[2]?.blocks === 0);
  await rig.beatUntil('healed', () => rig.copies(block.cid).length >= 3 && status().objects.healthy === 1);
});

test('what normal work suspends is an alarm only when it stays; a lasting reason is one at once', async (t) => {
  const { rig, status } = await running(t);
  const suspended = (): string | undefined => status().alarms.find(({ name }) => name === 'suspended')?.text;
  await rig.beatUntil('heard', () => status().nodes.every(({ liveness }) => liveness === 'up'));
  const parts = [0, 1, 2].map((at) => rawBlock(new Uint8Array(segmentBytes).fill(at)));
  const { root } = await buildIndex(parts.map(({ cid, bytes }) => ({ cid, size: bytes.length })));
  rig.register(root); // nobody has it: its index stays unread
  for (let beat = 0; beat < 59; beat++) {
    await rig.beat();
    assert.equal(suspended(), undefined, `after ${beat} s`);
  }
  await rig.beatUntil('said', () => suspended() !== undefined, 5);
  assert.match(suspended() ?? '', /^collecting garbage: 1 objects whose index has not been read$/);
  rig.objects.length = 0;
  rig.fresh = false;
  await rig.beatUntil('said at once', () => suspended()?.includes('the log is away') === true, 3);
});

test('an order to collect obeys the rules of the planner, and says of each block why it stays', async (t) => {
  const { budget } = defaultStewardSettings;
  const { rig, status } = await running(t, {
    ...defaultStewardSettings,
    budget: { ...budget, collects: false },
  });
  const needed = rig.store('needed', 1, 3, 5);
  rig.register(needed.cid);
  const garbage = rig.store('garbage', 1, 2);
  const young = async (): Promise<string[]> =>
    Object(
      await rig.ask('steward.collect', { cids: [needed.cid, garbage.cid, rawBlock(new Uint8Array(9)).cid] }),
    ).problems;
  await rig.beatUntil('seen', () => status().blocks.unreferenced === 1 && status().objects.healthy === 1);
  assert.match(
    (await young()).join(),
    /an object needs it,nothing has named it .*,no node is known to hold it/,
  );
  rig.time += 2 * budget.leaseMs;
  for (let beat = 0; beat < 15; beat++) await rig.beat();
  assert.deepEqual(rig.copies(garbage.cid), ['node-1', 'node-2'], 'not without an order');
  await rig.ask('steward.staged', { cids: [garbage.cid] });
  assert.match((await young())[1] ?? '', /it is leased until/);
  assert.deepEqual(await rig.ask('steward.leased', { cids: [needed.cid, garbage.cid] }), {
    leased: [false, true],
  });
  rig.time += 2 * budget.leaseMs;
  await rig.beat();
  rig.fresh = false;
  assert.match((await young())[1] ?? '', /the log is away/);
  rig.fresh = true;
  await rig.beatUntil('awake', () => status().nodes.every(({ liveness }) => liveness === 'up'));
  assert.equal((await young())[1], '');
  assert.deepEqual(rig.copies(garbage.cid), []);
  assert.equal(rig.copies(needed.cid).length, 3);
});

test('a steward copies and deletes in its own slices only, under its token, and takes over what becomes its own', async (t) => {
  let mine = (slice: number): boolean => slice % 2 === 0;
  let n = 1;
  const token = () => ({ n, by: 'steward', members: ['other', 'steward'] });
  const shares: Shares = { mine: (slice) => mine(slice), token, count: () => 2, status: () => undefined };
  const { budget } = defaultStewardSettings;
  const { rig, status } = await running(t, defaultStewardSettings, shares);
  const sliceOf = ({ cid }: Block): number => cid.multihash.digest[0] ?? 0;
  const blocks = Array.from({ length: 40 }, (_, at) => rig.store(`block ${at}`, 1, 3));
  for (const { cid } of blocks) rig.register(cid);
  const own = blocks.filter((block) => sliceOf(block) % 2 === 0);
  assert.ok(own.length > 5 && own.length < 35);
  await rig.beatUntil('its own are healed', () => own.every(({ cid }) => rig.copies(cid).length === 3));
  for (let beat = 0; beat < 20; beat++) await rig.beat();
  for (const block of blocks)
    assert.equal(rig.copies(block.cid).length, own.includes(block) ? 3 : 2, `slice ${sliceOf(block)}`);
  assert.deepEqual(new Set(rig.tokens.map((each) => Object(each).n)), new Set([1]));
  const garbage = Array.from({ length: 20 }, (_, at) => rig.store(`garbage ${at}`, 2));
  rig.time += 2 * budget.leaseMs;
  await rig.beatUntil('seen', () => status().blocks.unreferenced >= 20 || status().healing.blocksDeleted > 0);
  rig.time += 2 * budget.leaseMs;
  for (let beat = 0; beat < 20; beat++) await rig.beat();
  for (const block of garbage)
    assert.equal(rig.copies(block.cid).length, sliceOf(block) % 2 === 0 ? 0 : 1, `slice ${sliceOf(block)}`);
  const other = garbage.find((block) => sliceOf(block) % 2 === 1) ?? assert.fail();
  const refused = Object(await rig.ask('steward.collect', { cids: [other.cid] }));
  assert.deepEqual(refused.problems, ['another steward looks after it']);
  rig.tokens.length = 0;
  [mine, n] = [() => true, 2];
  await rig.beatUntil('all are healed', () => status().objects.healthy === 40);
  assert.deepEqual(new Set(rig.tokens.map((each) => Object(each).n)), new Set([2]));
});

test('leases and orders are for doors', async (t) => {
  const { rig } = await running(t);
  const { cid } = rig.store('x');
  const refused = (error: unknown): boolean => isHoldfastError(error, 'FORBIDDEN');
  await assert.rejects(rig.ask('steward.staged', { cids: [cid] }, 'node-1'), refused);
  await assert.rejects(rig.ask('steward.heal', {}, 'node-1'), refused);
  const { until } = Object(await rig.ask('steward.staged', { cids: [cid] }));
  assert.equal(until, rig.time + defaultStewardSettings.budget.leaseMs);
  await assert.rejects(rig.ask('steward.object', { manifest: cid }), (error) =>
    isHoldfastError(error, 'NOT_FOUND'),
  );
  await assert.rejects(rig.ask('steward.holders', { cids: 7 }), (error) =>
    isHoldfastError(error, 'RECORD_INVALID'),
  );
});

for (const how of ['says that it has it not', 'lies', 'evades'] as const) {
  test(`a node lists blocks that it does not have and ${how}: they do not count, and are copied`, async (t) => {
    const { rig, status } = await running(t);
    const liar = rig.node(5);
    liar.lies = how === 'lies';
    liar.evades = how === 'evades';
    for (let at = 0; at < 12; at++) {
      const block = rig.store(`block ${at}`, 1, 3);
      rig.register(block.cid);
      liar.invented.set(block.cid.toString(), block);
    }
    // Its word alone makes nothing healthy, not even for one beat.
    await rig.beatUntil('healed', () => {
      const believed = status().objects.healthy - status().healing.copiesDone;
      assert.ok(believed <= 0, `${believed} objects are called healthy on the liar's word`);
      return status().objects.healthy + status().objects.short === 12;
    });
    for (const { root } of rig.objects) {
      assert.ok(root);
      assert.ok(rig.copies(root).length >= 3);
    }
  });
}

test('a node returns after it was given up: what it lists is proven by few calls before it counts, and nothing is copied for it', async (t) => {
  const { rig, status } = await running(t);
  for (let at = 0; at < 30; at++) rig.register(rig.store(`block ${at}`, 1, 3, 4, 5).cid);
  await rig.beatUntil('healthy', () => status().objects.healthy === 30);
  rig.node(5).up = false;
  await rig.beatUntil('given up', () => status().nodes[4]?.liveness === 'down');
  const pulls = rig.calls.get('block.pull');
  const before = { calls: rig.calls.get('node.challenges') ?? 0, blocks: rig.challenged };
  rig.node(5).up = true;
  rig.node(5).restart();
  const proven = async (): Promise<number> => {
    const asked = { cids: rig.objects.map(({ root }) => root) };
    const { holders } = Object(await rig.ask('steward.holders', asked));
    return holders
      .flat()
      .filter((holder: Fields) => holder['node'] === 'node-5' && holder['provenAt'] !== null).length;
  };
  let count = 0;
  for (let beat = 0; beat < 40 && count < 30; beat++) {
    await rig.beat();
    count = await proven();
  }
  assert.equal(count, 30);
  assert.equal(status().objects.healthy, 30);
  assert.equal(rig.calls.get('block.pull'), pulls);
  assert.ok(rig.challenged - before.blocks >= 30);
  assert.ok((rig.calls.get('node.challenges') ?? 0) - before.calls <= 12, 'a call for each block or so');
});

test('a proof that is older than it may be is asked for again', async (t) => {
  const { rig, status } = await running(t);
  for (let at = 0; at < 10; at++) rig.register(rig.store(`block ${at}`, 1, 3, 5).cid);
  await rig.beatUntil('healthy', () => status().objects.healthy === 10);
  const before = rig.challenged;
  rig.time += defaultStewardSettings.budget.proofAgeMsMax + 60_000;
  await rig.beatUntil('asked again', () => rig.challenged >= before + 20);
});
