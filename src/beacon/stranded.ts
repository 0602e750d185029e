// The stranded audit: blocks × entries, both ways.
//
// What the nodes list is sorted on disk, what the registry names is sorted beside it, and the two are walked
// together. It asks the nodes themselves and believes no ledger. A cluster at work changes while it is walked, so
// nothing is a finding at first sight: a block that no entry names must be leased by nobody, and still be named by
// nobody after this view has caught up with the log; a block that no node listed is asked for once more.
//
//   unreached   a node holds it, no entry and no upload does
//   orphan      the same, and it is a valid record: perhaps of a version that was never registered, or was lost
//   missing     an entry needs it, no node has it
//   keys        an entry whose envelope, branch key or KEK is not registered
//   chain       a version that is missing, or does not follow the one before it
//
// What an entry named and needs no more (after a removal) is garbage on its way out, not stranded: it is counted.

import type { StrandedReport } from '../api/types.ts';
import { CID, cidOf, codecDagCbor, codecRaw, decodeCbor } from '../core/block.ts';
import { asBuffer } from '../core/bytes.ts';
import { grouped } from '../core/concurrency.ts';
import { describeError, HoldfastError } from '../core/errors.ts';
import { fieldOf } from '../core/shape.ts';
import { isRecordBytes } from '../manifest/record.ts';
import { indexBlocks } from '../manifest/segments.ts';
import type { Kv } from './kv.ts';
import { KeyChecks } from './stranded-keys.ts';
import { judgeOrphans, type Orphan } from './stranded-orphans.ts';
import { joined, sizeBytesOf, StrandedRows, togetherMax } from './stranded-rows.ts';
import type { CatalogueEntry, ChainVersion } from './queries.ts';
import { registryRecordOrUndefined } from './records.ts';
import type { BeaconView } from './view.ts';

export interface StrandedPorts {
  readonly view: BeaconView;
  /** Empty room to sort in; the caller closes and removes it. */
  readonly scratch: Kv;
  /** Storage nodes of the membership, by name. */
  readonly nodes: readonly string[];
  /** What a node holds, page by page. Throws when it cannot be asked, or not to the end. */
  list(
    node: number,
    signal: AbortSignal,
  ): AsyncIterable<readonly { readonly cid: CID; readonly sizeBytes: number }[]>;
  /** Whether any node that answers holds each of them now; and whether all nodes answered. */
  held(cids: readonly CID[]): Promise<{ readonly held: readonly boolean[]; readonly all: boolean }>;
  /** From any node; undefined when none has it. The bytes match the CID. */
  load(cid: CID): Promise<Uint8Array | undefined>;
  /** Whether an upload or a person holds each of them; undefined when somebody who might know does not answer. */
  leased(cids: readonly CID[]): Promise<readonly boolean[] | undefined>;
  /** Resolves when the view has reached what the log ended with at the call; with the reason when it cannot. */
  caughtUp(): Promise<string>;
  readonly signal: AbortSignal;
}

export type Finding = { readonly sure: boolean; readonly reason: string } & (
  | {
      readonly kind: 'unreached';
      readonly cid: CID;
      readonly what: 'content' | 'index' | 'unknown';
      readonly sizeBytes: number;
      readonly copies: number;
    }
  | {
      readonly kind: 'orphan';
      readonly cid: CID;
      readonly chain: string;
      readonly version: number;
      readonly adoptable: boolean;
    }
  | { readonly kind: 'missing'; readonly cid: CID; readonly chain: string; readonly version: number }
  | { readonly kind: 'keys' | 'chain'; readonly chain: string; readonly version: number }
);

export type StrandedEvent = { readonly progress: string } | { readonly finding: Finding };

/** One audit. Run it once; afterwards `rows` hold what could be done. */
export class StrandedAudit {
  readonly rows: StrandedRows;
  readonly #ports: StrandedPorts;
  readonly #keys: KeyChecks;
  readonly #unasked: { who: string; reason: string }[] = [];
  readonly #found: Record<Finding['kind'], number> = {
    unreached: 0,
    orphan: 0,
    missing: 0,
    keys: 0,
    chain: 0,
  };
  #counts = { unsure: 0, entries: 0, blocks: 0, leased: 0, released: 0, ofOrphans: 0 };
  /** Why a block that no entry seems to name may be needed after all. */
  #doubt = '';

  constructor(ports: StrandedPorts) {
    this.#ports = ports;
    this.rows = new StrandedRows(ports.scratch);
    this.#keys = new KeyChecks(ports.view);
  }

  report(): StrandedReport {
    const { revision } = this.#ports.view.position();
    return { ...this.#counts, found: { ...this.#found }, unasked: [...this.#unasked], revision };
  }

  /** Why nothing may be deleted on the word of this audit, else ''. */
  get doubt(): string {
    return this.#doubt;
  }

  async *run(): AsyncGenerator<StrandedEvent> {
    const behind = await this.#ports.caughtUp();
    if (behind !== '') this.#lacks('the Beacon', behind);
    yield* this.#listNodes();
    const from = this.#ports.view.position().revision + 1;
    yield { progress: `walking the registry at revision ${from - 1}` };
    for await (const finding of this.#walkChains()) yield this.#count(finding);
    for await (const finding of this.#walkCatalogue()) yield this.#count(finding);
    yield { progress: `comparing both` };
    for await (const finding of this.#compare()) yield this.#count(finding);
    yield { progress: 'looking again at what nothing names' };
    await this.#dropLeased();
    await this.#takeIn(from);
    await this.#sortOut();
    for await (const finding of this.#orphans()) yield this.#count(finding);
    for await (const finding of this.#unreached()) yield this.#count(finding);
  }

  #count(finding: Finding): StrandedEvent {
    if (finding.sure) this.#found[finding.kind]++;
    else this.#counts = { ...this.#counts, unsure: this.#counts.unsure + 1 };
    return { finding };
  }

  #add(name: 'entries' | 'blocks' | 'leased' | 'released' | 'ofOrphans', count = 1): void {
    this.#counts = { ...this.#counts, [name]: this.#counts[name] + count };
  }

  /** Something could not be asked. What no entry seems to name is in doubt when the registry is incomplete. */
  #lacks(who: string, reason: string, doubt = `${who}: ${reason}`): void {
    if (!this.#unasked.some((each) => each.who === who)) this.#unasked.push({ who, reason });
    if (this.#doubt === '') this.#doubt = doubt;
  }

  async *#listNodes(): AsyncGenerator<StrandedEvent> {
    for (const [node, name] of this.#ports.nodes.entries()) {
      let blocks = 0;
      try {
        for await (const page of this.#ports.list(node, this.#ports.signal)) {
          for (const { cid, sizeBytes } of page)
            await this.rows.add('b', [cid.toString(), node], sizeBytesOf(sizeBytes));
          blocks += page.length;
          yield { progress: `listing ${name}: ${blocks} blocks` };
        }
      } catch (error) {
        this.#ports.signal.throwIfAborted();
        // A node that is away has no say about what others hold: that stays sure.
        this.#unasked.push({ who: name, reason: describeError(error) });
      }
    }
    await this.rows.flush();
  }

  async *#walkChains(): AsyncGenerator<Finding> {
    const { view, signal } = this.#ports;
    let before: ChainVersion | undefined;
    for await (const each of view.chains({ signal })) {
      const last = before?.chainId === each.chainId ? before : undefined;
      before = each;
      const reason = chainProblem(each, last);
      const { chainId: chain, version } = each;
      if (reason !== '') yield { kind: 'chain', sure: true, chain, version, reason };
      if (each.cid === null) continue;
      const kind = isKept(chain) ? 'k' : 'x';
      await this.rows.add(kind, [each.cid.toString()], `${chain}\0${version}`);
    }
    for await (const cid of this.#currentKeks()) await this.rows.add('k', [cid.toString()], 'kek\x000');
    await this.rows.flush();
  }

  /** Of a KEK that no group of custodians holds, objects need the current record. */
  async *#currentKeks(): AsyncGenerator<CID> {
    if (this.#ports.view.counts().versions === 0) return;
    let after: string | undefined;
    do {
      const page = await this.#ports.view.keks(after === undefined ? {} : { after });
      for (const { record } of page.items) yield record.cid;
      after = page.next;
    } while (after !== undefined);
  }

  async *#walkCatalogue(): AsyncGenerator<Finding> {
    const { view, signal } = this.#ports;
    let address = '';
    let kept = 0;
    for await (const entry of view.catalogue({ signal })) {
      this.#add('entries');
      if (entry.address !== address) kept = 0;
      address = entry.address;
      const chain = `addr/${address}`;
      if (entry.type === 'tombstone' && kept > 0)
        yield {
          kind: 'chain',
          sure: true,
          chain,
          version: entry.version,
          reason: `a removal after ${kept} versions that are still kept`,
        };
      if (entry.retained && entry.type !== 'tombstone') kept++;
      const keys = await this.#keys.problem(entry);
      if (keys !== '') yield { kind: 'keys', sure: true, chain, version: entry.version, reason: keys };
      const index = await this.#addReached(entry);
      if (index !== undefined) yield index;
    }
    await this.rows.flush();
  }

  /** Everything that an entry names. A finding when its index cannot be read. */
  async #addReached(entry: CatalogueEntry): Promise<Finding | undefined> {
    const place = `addr/${entry.address}\0${entry.version}`;
    for (const cid of entry.records) await this.rows.add('k', [cid.toString()], place);
    const root = entry.manifest.cid;
    if (root === null) return undefined;
    const kind = entry.retained ? 'k' : 'x';
    await this.rows.add(kind, [root.toString()], place);
    try {
      for await (const cid of indexBlocks(root, (each) => this.#need(each)))
        await this.rows.add(kind, [cid.toString()], place);
      return undefined;
    } catch (error) {
      this.#ports.signal.throwIfAborted();
      if (!entry.retained) return undefined; // it is being collected, perhaps from the top
      const reason = `its index cannot be read: ${describeError(error)}`;
      if (this.#doubt === '') this.#doubt = `${entry.address} version ${entry.version}: ${reason}`;
      if (this.#unasked.length === 0) return undefined; // the block itself is found missing below
      return {
        kind: 'missing',
        sure: false,
        chain: `addr/${entry.address}`,
        version: entry.version,
        cid: root,
        reason,
      };
    }
  }

  async #need(cid: CID): Promise<Uint8Array> {
    const bytes = await this.#ports.load(cid);
    if (bytes !== undefined) return bytes;
    throw new HoldfastError('BLOCK_UNAVAILABLE', `no node gave index block ${cid.toString()}`);
  }

  async *#compare(): AsyncGenerator<Finding> {
    let missing: { readonly cid: CID; readonly text: string }[] = [];
    for await (const { left: held, right: kept } of joined(this.rows.held(), this.rows.named('k'))) {
      if (held !== undefined) this.#add('blocks');
      if (held !== undefined && kept === undefined)
        await this.rows.add('c', [held.cid.toString()], `${held.sizeBytes} ${held.copies}`);
      if (held === undefined && kept !== undefined) missing.push(kept);
      if (missing.length < togetherMax) continue;
      yield* this.#missing(missing);
      missing = [];
    }
    yield* this.#missing(missing);
    await this.rows.flush();
  }

  /** No node listed them: perhaps they moved while the nodes were listed, or were removed since. */
  async *#missing(rows: readonly { readonly cid: CID; readonly text: string }[]): AsyncGenerator<Finding> {
    if (rows.length === 0) return;
    const { held, all } = await this.#ports.held(rows.map(({ cid }) => cid));
    for (const [index, { cid, text }] of rows.entries()) {
      if (held[index] === true) continue;
      const [chain = '', number = '0'] = text.split('\0');
      const version = Number(number);
      if (!(await this.#isStillKept(cid, chain, version))) continue;
      const reason = all ? 'no node holds it' : 'no node that answers holds it';
      yield { kind: 'missing', sure: all, cid, chain, version, reason };
    }
  }

  async #isStillKept(cid: CID, chain: string, version: number): Promise<boolean> {
    if (!chain.startsWith('addr/')) return true;
    const entry = await this.#ports.view.version(chain.slice('addr/'.length), version);
    return entry === undefined || entry.retained || entry.record.cid.equals(cid);
  }

  /** In this order: a block whose lease has ended between both looks was registered before, which the second sees. */
  async #dropLeased(): Promise<void> {
    for await (const group of grouped(this.rows.all('c'), togetherMax)) {
      const cids = group.map(({ parts }) => cidIn(parts));
      const leased = await this.#ports.leased(cids);
      if (leased === undefined) this.#lacks('uploads', 'a steward or a door that may lease blocks is silent');
      for (const [index, { parts, value }] of group.entries()) {
        if (leased?.[index] === true) this.#add('leased');
        else await this.rows.add('d', parts, value);
      }
    }
    await this.rows.flush();
  }

  /** What was registered since the walk began. */
  async #takeIn(from: number): Promise<void> {
    const { view, signal } = this.#ports;
    const behind = await this.#ports.caughtUp();
    if (behind !== '') this.#lacks('the Beacon', behind);
    const walked = new Set<string>();
    for await (const { records } of view.entriesSince(from, { signal })) {
      for (const { key, bytes } of records) {
        await this.rows.add('x', [cidOf(bytes, codecDagCbor).toString()], `${key}\x000`);
        if (key.startsWith('addr/')) walked.add(key.slice('addr/'.length));
      }
      if (walked.size >= togetherMax) await this.#walkAgain(walked);
    }
    await this.#walkAgain(walked);
    await this.rows.flush();
  }

  async #walkAgain(addresses: Set<string>): Promise<void> {
    for (const address of addresses)
      for await (const entry of this.#ports.view.catalogueOf(address)) await this.#addReached(entry);
    addresses.clear();
  }

  /** What is left is read: records apart, everything else by what it looks like. */
  async #sortOut(): Promise<void> {
    for await (const group of grouped(this.rows.all('d'), togetherMax)) {
      const cids = group.map(({ parts }) => cidIn(parts));
      const [kept, released, { held }] = await Promise.all([
        this.rows.known('k', cids),
        this.rows.known('x', cids),
        this.#ports.held(cids),
      ]);
      for (const [index, { parts, value }] of group.entries()) {
        if (kept[index] === true || held[index] !== true) continue;
        if (released[index] === true) this.#add('released');
        else await this.#sortOne(cidIn(parts), value);
      }
    }
    await this.rows.flush();
  }

  async #sortOne(cid: CID, value: Uint8Array): Promise<void> {
    const isRaw = cid.code === codecRaw;
    const bytes = isRaw ? undefined : await this.#ports.load(cid);
    const record =
      bytes === undefined || !isRecordBytes(bytes) ? undefined : registryRecordOrUndefined(bytes);
    if (record !== undefined)
      return this.rows.add('o', [record.chainId, record.version, cid.toString()], record.bytes);
    const what = isRaw ? 'content' : bytes !== undefined && isIndex(bytes) ? 'index' : 'unknown';
    return this.rows.add('u', [cid.toString()], `${asBuffer(value).toString()} ${what}`);
  }

  async *#orphans(): AsyncGenerator<Finding> {
    const ports = { rows: this.rows, view: this.#ports.view, load: (cid: CID) => this.#need(cid) };
    for await (const orphan of judgeOrphans(ports)) yield await this.#orphan(orphan);
    await this.rows.flush();
  }

  async #orphan({ chain, version, cid, order, fate, reason }: Orphan): Promise<Finding> {
    if (fate === 'adopt') await this.rows.add('a', ['adopt', order, chain, version, cid.toString()], '');
    if (fate === 'leave') await this.rows.add('a', ['lease', cid.toString()], '');
    if (fate === 'collect') await this.rows.add('a', ['collect', cid.toString()], '');
    const adoptable = fate === 'adopt';
    return { kind: 'orphan', sure: this.#doubt === '', cid, chain, version, adoptable, reason };
  }

  async *#unreached(): AsyncGenerator<Finding> {
    for await (const group of grouped(this.rows.named('u'), togetherMax)) {
      const cids = group.map(({ cid }) => cid);
      const ofOrphans = await this.rows.known('p', cids);
      for (const [index, { cid, text }] of group.entries()) {
        if (ofOrphans[index] === true) {
          this.#add('ofOrphans');
          continue;
        }
        const [size, copies, what] = text.split(' ');
        await this.rows.add('a', ['lease', cid.toString()], '');
        await this.rows.add('a', ['collect', cid.toString()], '');
        yield {
          kind: 'unreached',
          sure: this.#doubt === '',
          cid,
          what: what === 'content' || what === 'index' ? what : 'unknown',
          sizeBytes: Number(size),
          copies: Number(copies),
          reason: this.#doubt === '' ? 'no entry and no upload names it' : `perhaps: ${this.#doubt}`,
        };
      }
    }
    await this.rows.flush();
  }
}

/** Chains whose records are kept whatever becomes of the content: manifests, and what custody is believed by. */
const keptChains = ['addr/', 'pol/', 'rev/', 'cert/'];

/** Records of a threshold group are kept too, under `kek/group/version`. */
function isKept(chainId: string): boolean {
  return keptChains.some((prefix) => chainId.startsWith(prefix)) || /^kek\/[^/]*\/\d+$/.test(chainId);
}

function chainProblem(each: ChainVersion, last: ChainVersion | undefined): string {
  if (each.version !== (last?.version ?? 0) + 1) return `follows version ${last?.version ?? 0} in the view`;
  if (each.cid === null) return 'the version is missing: a rebuild did not find it';
  if (last !== undefined && last.cid === null) return ''; // said at the one that is missing
  const before = last?.cid ?? null;
  const follows = each.prev === null ? before === null : before?.equals(each.prev) === true;
  return follows ? '' : `names ${String(each.prev)} as the record before it, which is ${String(before)}`;
}

function cidIn(parts: readonly string[]): CID {
  return CID.parse(parts[0] ?? '');
}

function isIndex(bytes: Uint8Array): boolean {
  try {
    return fieldOf(decodeCbor(bytes, 'block'), 't') === 'index';
  } catch (error) {
    if (error instanceof HoldfastError) return false;
    throw error;
  }
}
