// Each kind of stranded thing is planted once and must be found exactly; what only looks stranded must not be.

import assert from 'node:assert/strict';
import { it } from 'node:test';
import {
  contentOf,
  logRecord,
  putAppend,
  someAddress,
  someBranchKey,
  someEnvelope,
  someId,
  someKek,
  someManifest,
} from '../../test/suites/beacon-records.ts';
import { type Block, type CID, rawBlock } from '../core/block.ts';
import { toHex, utf8 } from '../core/bytes.ts';
import type { ManifestBody } from '../manifest/manifest.ts';
import type { SignedRecord } from '../manifest/record.ts';
import { rebuildPrefix } from './fold.ts';
import type { Append } from './log.ts';
import { MemoryLog } from './memory.ts';
import { type Finding, StrandedAudit, type StrandedPorts } from './stranded.ts';
import { BeaconView } from './view.ts';
import { MemoryKv } from './view-memory.ts';

const bk = someId('bk');

it('finds nothing where blocks and entries agree, a removal and an upload under way among them', async () => {
  await using world = await World.open();
  const first = await world.put('a');
  const removed = await world.put('b');
  const removal = someManifest(removed.body.ucxl_address, { version: 2, prev: removed.cid, removed: true });
  world.holdRecord(removal);
  await world.register(putAppend(removal, bk));
  const upload = world.hold(0, rawBlock(utf8('on its way')));
  world.leases.add(upload.toString());
  const { findings, audit } = await world.audit();
  assert.deepEqual(findings, []);
  const { leased, released, entries, unasked } = audit.report();
  assert.deepEqual({ leased, entries, unasked }, { leased: 1, entries: 3, unasked: [] });
  assert.equal(released, 2, 'content and envelope of what was removed');
  assert.ok(first.cid);
});

it('unreached: a block that nothing names; not one that is registered while the audit runs', async () => {
  await using world = await World.open();
  await world.put('a');
  const lost = world.hold(1, rawBlock(utf8('nobody knows me')));
  world.hold(2, rawBlock(utf8('nobody knows me')));
  const late = world.content('late');
  world.whileCatchingUp = async () => void (await world.put('late'));
  const { findings, acts } = await world.audit();
  assert.ok(world.everywhere(late));
  assert.deepEqual(findings, [
    { kind: 'unreached', cid: lost.toString(), what: 'content', sizeBytes: 15, copies: 2, sure: true },
  ]);
  assert.deepEqual(acts, { adopt: [], lease: [lost.toString()], collect: [lost.toString()] });
});

it('missing: an entry whose block no node holds; not one that only moved', async () => {
  await using world = await World.open();
  const manifest = await world.put('a');
  const moved = await world.put('b');
  world.drop(contentOf(manifest.body.ucxl_address, 1));
  world.unlisted.add(moved.cid.toString());
  assert.deepEqual((await world.audit()).findings, [
    {
      kind: 'missing',
      cid: contentOf(manifest.body.ucxl_address, 1).toString(),
      chain: `addr/${manifest.body.ucxl_address}`,
      version: 1,
      sure: true,
    },
  ]);
});

it('a node that is away: nothing is called missing for sure, and it is named', async () => {
  await using world = await World.open();
  const manifest = await world.put('a');
  world.drop(contentOf(manifest.body.ucxl_address, 1));
  world.away.add(2);
  const { findings, audit } = await world.audit();
  assert.deepEqual(
    findings.map(({ kind, sure }) => ({ kind, sure })),
    [{ kind: 'missing', sure: false }],
  );
  assert.deepEqual(
    audit.report().unasked.map(({ who }) => who),
    ['node-2'],
  );
});

it('nobody to ask about leases: what nothing names is not sure, and nothing may be deleted', async () => {
  await using world = await World.open();
  world.hold(1, rawBlock(utf8('perhaps an upload')));
  world.lessorsAway = true;
  const { findings, audit } = await world.audit();
  assert.deepEqual(
    findings.map(({ sure }) => sure),
    [false],
  );
  assert.match(audit.doubt, /may lease blocks is silent/);
});

it('orphan: a whole object that was never registered may be adopted, with its keys and its blocks', async () => {
  await using world = await World.open();
  const manifest = someManifest(someAddress('stray'));
  const branch = someId('another branch key');
  const { envelope, branchKey } = world.strand(manifest, branch);
  const { findings, audit, acts } = await world.audit();
  assert.deepEqual(
    findings.map(({ kind, chain, adoptable }) => ({ kind, chain, adoptable })),
    [
      { kind: 'orphan', chain: `addr/${manifest.body.ucxl_address}`, adoptable: true },
      { kind: 'orphan', chain: `env/${toHex(manifest.body.encryption?.objId ?? bk)}`, adoptable: true },
      { kind: 'orphan', chain: `bk/${toHex(branch)}`, adoptable: true },
    ],
  );
  assert.equal(audit.report().ofOrphans, 1);
  assert.deepEqual(acts, { adopt: [branchKey, envelope, manifest.cid.toString()], lease: [], collect: [] });
});

it('orphan: what lost a race may be collected; a removal, a gap and an incomplete object are left', async () => {
  await using world = await World.open();
  const registered = await world.put('a');
  const rival = someManifest(registered.body.ucxl_address, { salt: 'rival' });
  const { envelope } = world.strand(rival, bk);
  const gap = someManifest(someAddress('gap'), { version: 3, prev: registered.cid });
  world.strand(gap, bk);
  const removal = someManifest(registered.body.ucxl_address, {
    version: 2,
    prev: registered.cid,
    removed: true,
  });
  world.holdRecord(removal);
  const incomplete = someManifest(someAddress('incomplete'));
  world.strand(incomplete, bk);
  world.drop(contentOf(incomplete.body.ucxl_address, 1));
  const { findings, acts } = await world.audit();
  const of = (record: SignedRecord<unknown>) =>
    findings.find(({ cid }) => cid === record.cid.toString()) ?? assert.fail('not found');
  for (const record of [rival, gap, removal, incomplete]) assert.equal(of(record).adoptable, false);
  for (const cid of [rival.cid.toString(), envelope]) assert.equal(acts.collect.includes(cid), true);
  const left = contentOf(gap.body.ucxl_address, 3).toString();
  assert.deepEqual([acts.lease.includes(left), acts.collect.includes(left)], [true, false]);
  for (const record of [gap, removal, incomplete]) {
    assert.equal(acts.collect.includes(record.cid.toString()), false);
    assert.equal(acts.lease.includes(record.cid.toString()), true);
  }
});

it('keys: an entry without its envelope; the envelope found in the blocks may be adopted', async () => {
  await using world = await World.open();
  await world.put('a');
  const manifest = someManifest(someAddress('keyless'));
  const key = `addr/${manifest.body.ucxl_address}`;
  const { envelope } = world.strand(manifest, bk);
  await world.register({
    subject: `${rebuildPrefix}${key}`,
    expected: -1,
    at: 0,
    records: [logRecord(key, manifest)],
  });
  const { findings, acts } = await world.audit();
  assert.deepEqual(
    findings.map(({ kind, chain }) => ({ kind, chain })),
    [
      { kind: 'keys', chain: key },
      { kind: 'orphan', chain: `env/${toHex(manifest.body.encryption?.objId ?? bk)}` },
    ],
  );
  assert.deepEqual(acts.adopt, [envelope]);
});

it('keys: a branch key under a KEK that is not registered', async () => {
  await using world = await World.open({ kek: false });
  await world.put('a');
  const { findings } = await world.audit();
  assert.deepEqual(
    findings.map(({ kind, sure }) => ({ kind, sure })),
    [{ kind: 'keys', sure: true }],
  );
});

it('chain: versions that a rebuild did not find', async () => {
  await using world = await World.open();
  const address = someAddress('holes');
  const manifest = someManifest(address, { version: 3, prev: someManifest(address).cid });
  world.holdAll(manifest);
  const append = putAppend(manifest, bk);
  await world.register({ ...append, subject: `${rebuildPrefix}addr/${address}` });
  assert.deepEqual(
    (await world.audit()).findings.map(({ kind, chain, version }) => ({ kind, chain, version })),
    [
      { kind: 'chain', chain: `addr/${address}`, version: 1 },
      { kind: 'chain', chain: `addr/${address}`, version: 2 },
    ],
  );
});

type Shown = Record<string, unknown> & { kind: Finding['kind']; sure: boolean };

/** Three nodes, a registry, and what lies on the nodes. */
class World implements AsyncDisposable {
  readonly log = new MemoryLog();
  readonly view: BeaconView;
  readonly nodes = [0, 1, 2].map(() => new Map<string, Block>());
  readonly leases = new Set<string>();
  /** Held, and overlooked when the nodes are listed. */
  readonly unlisted = new Set<string>();
  readonly away = new Set<number>();
  lessorsAway = false;
  whileCatchingUp: () => Promise<void> = async () => undefined;

  private constructor(view: BeaconView) {
    this.view = view;
  }

  static async open({ kek = true } = {}): Promise<World> {
    const world = new World(await BeaconView.open(new MemoryKv()));
    if (!kek) return world;
    const record = someKek('dev');
    world.holdRecord(record);
    const records = [logRecord('kek/dev/1', record)];
    await world.register({ subject: 'kek/dev/1', expected: -1, at: 0, records });
    return world;
  }

  async register(append: Append): Promise<void> {
    await this.view.apply([await this.log.append(append)]);
    assert.deepEqual((await this.view.rejected()).items, []);
  }

  /** Registers an object whose blocks all nodes hold. */
  async put(path: string): Promise<SignedRecord<ManifestBody>> {
    const manifest = someManifest(someAddress(path));
    this.holdAll(manifest);
    await this.register(putAppend(manifest, bk));
    return manifest;
  }

  content(path: string): CID {
    this.holdAll(someManifest(someAddress(path)));
    return contentOf(someAddress(path), 1);
  }

  everywhere(cid: CID): boolean {
    return this.nodes.every((node) => node.has(cid.toString()));
  }

  holdAll(manifest: SignedRecord<ManifestBody>): void {
    this.strand(manifest, bk);
  }

  /** Its blocks and records on all nodes; registers nothing. */
  strand(
    manifest: SignedRecord<ManifestBody>,
    branch: Uint8Array,
  ): { readonly envelope: string; readonly branchKey: string } {
    const { ucxl_address: address, context_version: version, encryption } = manifest.body;
    assert.ok(encryption);
    const content = rawBlock(utf8(`${address} ${version} `));
    for (const node of [0, 1, 2]) this.hold(node, content);
    const envelope = someEnvelope(encryption.objId, branch);
    const branchKey = someBranchKey(branch);
    for (const record of [manifest, envelope, branchKey]) this.holdRecord(record);
    return { envelope: envelope.cid.toString(), branchKey: branchKey.cid.toString() };
  }

  holdRecord(record: SignedRecord<unknown>): void {
    for (const node of [0, 1, 2]) this.hold(node, record.block);
  }

  hold(node: number, block: Block): CID {
    this.nodes[node]?.set(block.cid.toString(), block);
    return block.cid;
  }

  drop(cid: CID): void {
    for (const node of this.nodes) node.delete(cid.toString());
  }

  async audit() {
    await using scratch = new MemoryKv();
    const audit = new StrandedAudit(this.#ports(scratch));
    const findings: Shown[] = [];
    for await (const event of audit.run()) if ('finding' in event) findings.push(shown(event.finding));
    const acts: Record<'adopt' | 'lease' | 'collect', string[]> = { adopt: [], lease: [], collect: [] };
    for await (const { parts } of audit.rows.all('a')) {
      const [act, ...place] = parts;
      assert.ok(act === 'adopt' || act === 'lease' || act === 'collect');
      acts[act].push(place.at(-1) ?? '');
    }
    return { audit, findings, acts };
  }

  #ports(scratch: MemoryKv): StrandedPorts {
    const heldBy = (cid: CID) =>
      this.nodes.filter((node, index) => !this.away.has(index) && node.has(cid.toString()));
    const { nodes, away, unlisted } = this;
    let caughtUp = 0;
    return {
      view: this.view,
      scratch,
      nodes: ['node-0', 'node-1', 'node-2'],
      async *list(node) {
        if (away.has(node)) throw new Error('away');
        const held = [...(nodes[node]?.values() ?? [])].filter(({ cid }) => !unlisted.has(cid.toString()));
        yield held.map(({ cid, bytes }) => ({ cid, sizeBytes: bytes.length }));
      },
      held: async (cids) => ({ held: cids.map((cid) => heldBy(cid).length > 0), all: away.size === 0 }),
      load: async (cid) => heldBy(cid)[0]?.get(cid.toString())?.bytes,
      leased: async (cids) =>
        this.lessorsAway ? undefined : cids.map((cid) => this.leases.has(cid.toString())),
      caughtUp: async () => {
        if (++caughtUp === 2) await this.whileCatchingUp();
        return '';
      },
      signal: new AbortController().signal,
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.view[Symbol.asyncDispose]();
    await this.log[Symbol.asyncDispose]();
  }
}

function shown({ reason, ...finding }: Finding): Shown {
  assert.notEqual(reason, '');
  return { ...finding, ...('cid' in finding ? { cid: finding.cid.toString() } : {}) };
}
