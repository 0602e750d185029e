// The door role: HTTP on one side, the cluster on the other, and a Beacon view of its own in between.

import { mkdir, rm } from 'node:fs/promises';
import { createReadStream, createWriteStream } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { BeatAnswer, HealthCheck, ProviderInfo } from '../api/types.ts';
import { parseBeat } from '../backbeat/beat.ts';
import { type Append, encodeAppend, type LogEntry, type LogPosition } from '../beacon/log.ts';
import { RemoteLog } from '../beacon/remote.ts';
import { parsePosition } from '../beacon/serve.ts';
import { exportLog, importLog, readLogFile } from '../beacon/transfer.ts';
import { BeaconView } from '../beacon/view.ts';
import { LevelKv } from '../beacon/view-level.ts';
import { type Block, CID } from '../core/block.ts';
import { sameBytes } from '../core/bytes.ts';
import { minute, second } from '../core/clock.ts';
import { Gate } from '../core/concurrency.ts';
import { describeError, HoldfastError, isHoldfastError } from '../core/errors.ts';
import type { PeerName } from '../core/rpc.ts';
import { fieldOf } from '../core/shape.ts';
import { openDevFile } from '../custody/dev-file.ts';
import { BranchKeys } from '../custody/keyring.ts';
import type { KekProvider } from '../custody/provider.ts';
import { fetchBlock } from '../flows/fetch.ts';
import { type Copies, type PutPorts } from '../flows/put.ts';
import { type RegisteredObject, registerObject } from '../flows/register.ts';
import { storeBlock } from '../flows/store.ts';
import { doorRoutes } from '../http/door.ts';
import type { DoorPorts } from '../http/door-ports.ts';
import { DoorMetrics } from '../http/metrics.ts';
import { HttpDoor } from '../http/server.ts';
import type { DoorConfig, ProcessConfig } from '../local/layout.ts';
import { devKeyPath } from '../local/layout.ts';
import type { ReplicationPolicy } from '../manifest/manifest.ts';
import { createExchange, type Exchange } from '../node/exchange.ts';
import { openIdentity } from '../node/identity.ts';
import { memberOf } from '../node/membership.ts';
import type { NodePeer } from '../node/peer.ts';
import { findProviders } from '../node/providers.ts';
import { type PlacementMember, rankMembers } from '../steward/place.ts';
import type { RunningRole } from './daemon.ts';
import { type Member, peersWithRole, random, type RoleOptions, startMember, systemClock } from './member.ts';
import { Receipts } from './receipts.ts';
import { readHolders, readObject, readStatus } from './steward-answers.ts';

const version = '0.1.0';
const defaultPolicy: ReplicationPolicy = { min: 3, max: 5, zones: 3 };
const objectBytesMax = 1024 ** 4;
/** Blocks under way to the nodes, over all requests: each is up to 256 KiB times its copies. */
const storesUnderway = 16;
const fetchesUnderway = 16;
/** Bytes on their way to and from nodes, copies counted: half of what the nodes can take keeps them busy. */
const exchangeWindowBytes = 16 * 1024 * 1024;
const hedgeAfterMs = 1 * second;
const callMs = 5 * second;
const leaseCidsMax = 1024;

export async function startDoorRole(config: ProcessConfig, options: RoleOptions = {}): Promise<RunningRole> {
  if (config.door === undefined)
    throw new HoldfastError('ARGUMENT_INVALID', `${config.name} is not configured as a door`);
  await using stack = new AsyncDisposableStack();
  const member = stack.use(await startMember(config, 'client', options));
  const door = new Door(member, config.door, stack.use(await openBeacon(member)));
  await door.followBeacon(stack);
  door.keepLeases(stack);
  const ports = await door.ports(stack);
  const http = stack.use(
    await HttpDoor.listen({
      host: config.door.host,
      port: config.door.port,
      token: config.door.token,
      clock: systemClock,
      routes: doorRoutes(ports),
      onAnswered: (operation, status, seconds) => ports.metrics.answered(operation, status, seconds),
      onFault: (operation, error) => console.error(operation, error),
    }),
  );
  await door.warmUp();
  const owned = stack.move();
  return {
    info: {
      url: `http://${config.door.host}:${http.port}`,
      sealing: ports.sealing !== undefined,
      peer: member.peer.name,
    },
    ended: door.replaced,
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

function viewDirectory(member: Member): string {
  return join(member.config.dataDir, 'view');
}

/** The door's view is a copy: one that cannot be opened is fetched again. */
async function openBeacon(member: Member): Promise<BeaconView> {
  const directory = viewDirectory(member);
  await mkdir(directory, { recursive: true });
  try {
    return await BeaconView.open(await LevelKv.open(directory));
  } catch (error) {
    if (!isHoldfastError(error) || !['DATA_DIR_DAMAGED', 'RECORD_CORRUPT'].includes(error.code)) throw error;
    console.error(`the Beacon view is damaged and fetched again: ${error.message}`);
    await rm(directory, { recursive: true, force: true });
    await mkdir(directory, { recursive: true });
    return BeaconView.open(await LevelKv.open(directory));
  }
}

class Door {
  /** Resolves when the process should be started again, on another Beacon. */
  readonly replaced: Promise<void>;
  readonly #member: Member;
  readonly #config: DoorConfig;
  readonly #view: BeaconView;
  readonly #log: RemoteLog;
  readonly #peer: NodePeer;
  readonly #exchange: Exchange;
  readonly #leaseNext: CID[] = [];
  #leasing: Promise<void> | undefined;
  readonly #receipts = new Receipts(() => systemClock.monotonic());
  readonly #storing = new Gate(storesUnderway);
  readonly #fetching = new Gate(fetchesUnderway);
  readonly #free = new Map<PeerName, number>();
  #freeAt = Number.NEGATIVE_INFINITY;
  #beat: { index: number; at: number; beatMs: number } | undefined;
  #seals = false;
  #kekPolicy = 'unknown';
  #replace: () => void = () => undefined;

  constructor(member: Member, config: DoorConfig, view: BeaconView) {
    this.#member = member;
    this.#config = config;
    this.#view = view;
    this.#peer = member.peer;
    this.#log = new RemoteLog(member.peer.rpc, () => this.#stewardPeer());
    this.#exchange = createExchange(member.peer.rpc, { windowBytes: exchangeWindowBytes });
    this.replaced = new Promise((resolve) => {
      this.#replace = resolve;
    });
    member.peer.rpc.handle('door.beat', async ({ head }, { peer }) => {
      if (!memberOf(member.peer.membership(), peer)?.roles.includes('steward'))
        throw new HoldfastError('FORBIDDEN', `${peer} is no steward`);
      this.#heard(head);
      return { head: {} };
    });
  }

  async followBeacon(stack: AsyncDisposableStack): Promise<void> {
    const stop = new AbortController();
    const following = this.#view.follow(this.#log, stop.signal);
    stack.defer(async () => {
      stop.abort();
      await this.#log[Symbol.asyncDispose]();
      await following;
    });
  }

  /** A moment to find the nodes, so that the first request does not meet an empty cluster. Bounded: a door serves without them too. */
  async warmUp(): Promise<void> {
    const others = this.#peer.membership().members.length - 1;
    const deadline = AbortSignal.timeout(5 * second);
    // A member that is down must not hold the start up for long: after a while, enough of them will do.
    const patience = AbortSignal.timeout(1.5 * second);
    const wanted = (): number => (patience.aborted ? Math.min(others, defaultPolicy.min + 1) : others);
    const settled = (): boolean =>
      this.#peer.connected().length >= wanted() &&
      this.#beat !== undefined &&
      this.#view.health().state === 'following';
    while (!settled() && !deadline.aborted) await new Promise((resolve) => setTimeout(resolve, 50));
  }

  async ports(stack: AsyncDisposableStack): Promise<DoorPorts> {
    const sealing = await this.#openSealing(stack);
    return {
      cluster: this.#member.config.cluster,
      version,
      clock: systemClock,
      view: this.#view,
      metrics: new DoorMetrics(),
      defaults: defaultPolicy,
      objectBytesMax,
      storeBlocks: (blocks, policy) => this.#storeBlocks(blocks, policy),
      load: (cids, signal) => this.#load(cids, signal),
      register: (blocks) => this.#register(blocks),
      ...(sealing === undefined ? {} : { sealing }),
      steward: {
        status: async () => readStatus(await this.#callSteward('steward.status', {})),
        object: async (manifest) => readObject(await this.#callSteward('steward.object', { manifest })),
        heal: async () => void (await this.#callSteward('steward.heal', {})),
      },
      dht: {
        announce: (cid) => this.#announce(cid),
        discover: (cid, signal) => this.#discover(cid, signal),
      },
      beacon: {
        verify: (signal) => this.#verify(signal),
        rebuild: (signal) => this.#rebuild(signal),
        export: (signal) => this.#export(signal),
        import: (body, signal) => this.#import(body, signal),
      },
      beat: () => this.#beatAnswer(),
      peersConnected: () => this.#peer.connected().length,
      health: () => this.#health(),
    };
  }

  // Blocks

  async #storeBlocks(blocks: readonly Block[], policy: ReplicationPolicy): Promise<Copies> {
    await Promise.all([this.#refreshFree(), this.#lease(blocks.map(({ cid }) => cid))]);
    const all = await Promise.all(
      // Index blocks are worth all they list: they get as many copies as records do.
      blocks.map((block) =>
        this.#storeBlock(block, block.cid.code === 0x55 ? policy.min : policy.max, policy.min),
      ),
    );
    const copies = Math.min(...all.map((each) => each.copies));
    return { copies, wanted: policy.min };
  }

  /** Tries for `copies`; `wanted` of them are what the caller is told of. */
  async #storeBlock(block: Block, copies: number, wanted: number): Promise<Copies> {
    let isFresh = true;
    const receipt = await this.#storing.run(() =>
      storeBlock(
        {
          candidates: (each) => this.#ranked(each.cid),
          nodesCount: () => this.#nodes().length,
          push: async (peer, each, signal) => {
            if ((await this.#exchange.pushBlock(peer, each, { signal })) === 'present') isFresh = false;
          },
          delay,
        },
        block,
        Math.min(copies, this.#nodes().length),
        { hedgeAfterMs, enough: wanted },
      ),
    );
    // A copy that was there already may be about to be collected: registering asks for it again.
    if (isFresh) this.#receipts.add(block.cid, receipt.holders.length);
    return { copies: receipt.holders.length, wanted };
  }

  async #load(cids: readonly CID[], signal: AbortSignal): Promise<readonly Block[]> {
    return Promise.all(
      cids.map((cid) =>
        this.#fetching.run(() =>
          fetchBlock(
            {
              placed: (each) => this.#ranked(each).map(({ peer }) => peer),
              holders: (each) => this.#holders(each),
              providers: async (each) => (await this.#find(each, signal)).map(({ peer }) => peer),
              fetch: (each, sources, stop) => this.#exchange.fetchBlock(each, sources, { signal: stop }),
            },
            cid,
            signal,
          ),
        ),
      ),
    );
  }

  #nodes(): PeerName[] {
    return peersWithRole(this.#peer.membership(), 'node');
  }

  /** Reachable nodes in placement order for a CID. */
  #ranked(cid: CID): PlacementMember[] {
    const membership = this.#peer.membership();
    const up = new Set(this.#peer.connected());
    const members = membership.members
      .filter(({ peer, roles }) => roles.includes('node') && up.has(peer))
      .map(({ peer, zone, host }) => ({ peer, zone, host, freeBytes: this.#free.get(peer) ?? 1 }));
    return rankMembers(cid.multihash.digest, members);
  }

  async #refreshFree(): Promise<void> {
    const now = systemClock.monotonic();
    if (now - this.#freeAt < 5 * second) return;
    this.#freeAt = now;
    try {
      const { nodes } = readStatus(await this.#callSteward('steward.status', {}));
      for (const node of nodes)
        this.#free.set(node.peer, node.state === 'read-only' ? 0 : (node.freeBytes ?? 1));
    } catch {
      // Without a steward nobody knows how full they are: a full node refuses, and the next one is asked.
    }
  }

  async #holders(cid: CID): Promise<PeerName[]> {
    const { holders } = readHolders(await this.#callSteward('steward.holders', { cids: [cid] }));
    return (holders[0] ?? []).filter(({ up }) => up).map(({ node }) => node);
  }

  #find(cid: CID, signal: AbortSignal): Promise<readonly ProviderInfo[]> {
    return findProviders(this.#peer, cid, { signal, enough: this.#nodes().length });
  }

  async #discover(cid: CID, signal: AbortSignal): Promise<readonly ProviderInfo[]> {
    return (await this.#find(cid, signal)).map(({ peer, addrs }) => ({ peer, addrs: addrs.map(String) }));
  }

  async #announce(cid: CID): Promise<number> {
    const asked = await Promise.allSettled(
      this.#ranked(cid).map(({ peer }) =>
        this.#peer.rpc.call(peer, 'block.announce', { head: { cids: [cid] } }, { timeoutMs: callMs }),
      ),
    );
    return asked.filter((each) => each.status === 'fulfilled' && fieldOf(each.value.head, 'announced') === 1)
      .length;
  }

  // Registry

  async #register(blocks: readonly Uint8Array[]): Promise<RegisteredObject> {
    const checked: CID[] = [];
    const registered = await registerObject(
      {
        beacon: {
          current: async (key) => {
            // In this order: what comes in between makes the append fail, never the version wrong.
            const subjectRevision = await this.#view.subjectRevision(`addr/${key}`);
            const head = await this.#view.head(key);
            return { version: head?.version ?? 0, subjectRevision };
          },
          knowsBranchKey: async (bkId, bkVer) => (await this.#view.branchKey(bkId, bkVer)) !== undefined,
          knowsKek: async (group, ver) => (await this.#view.kek(group, ver)) !== undefined,
          append: (subject, expected, records) =>
            this.#append({ subject, expected, records, at: systemClock.now() }),
        },
        copiesOf: (cids) => {
          checked.push(...cids.filter((cid) => this.#receipts.copies(cid) !== undefined));
          return this.#copiesOf(cids);
        },
        copiesFloor: () => Math.min(2, this.#nodes().length),
        load: async (cid) => {
          const [block] = await this.#load([cid], AbortSignal.timeout(minute));
          if (block === undefined)
            throw new HoldfastError('BLOCK_UNAVAILABLE', `index block ${cid.toString()} was not delivered`);
          return block.bytes;
        },
        storeRecord: async (block, policy) => {
          await this.#lease([block.cid]);
          return this.#storeBlock(block, policy.max, policy.min);
        },
      },
      blocks,
    );
    this.#receipts.settle(checked);
    return registered;
  }

  /** Appends, and waits until reads here see it. */
  async #append(append: Append): Promise<number> {
    try {
      const { revision } = await this.#log.append(append);
      await this.#visible(revision);
      return revision;
    } catch (error) {
      // A writer who retries must find the version that was in his way.
      const { head } = isHoldfastError(error, 'VERSION_CONFLICT')
        ? { head: await this.#log.head() }
        : { head: undefined };
      if (head !== undefined) await this.#visible(head.revision);
      throw error;
    }
  }

  async #visible(revision: number): Promise<void> {
    await this.#view.waitFor(revision, AbortSignal.timeout(10 * second));
  }

  async #copiesOf(cids: readonly CID[]): Promise<number[]> {
    const unknown = cids.filter((cid) => this.#receipts.copies(cid) === undefined);
    const counts = new Map<string, number>();
    await this.#lease(unknown); // first: what is counted must not be collected before it is registered
    await Promise.all(
      this.#nodes().map(async (node) => {
        if (unknown.length === 0) return;
        try {
          const { head } = await this.#peer.rpc.call(
            node,
            'block.has',
            { head: { cids: unknown } },
            { timeoutMs: callMs },
          );
          const have = fieldOf(head, 'have');
          if (!Array.isArray(have)) return;
          for (const [index, cid] of unknown.entries())
            if (have[index] === true) counts.set(cid.toString(), (counts.get(cid.toString()) ?? 0) + 1);
        } catch {
          // A node that does not answer does not vouch for anything.
        }
      }),
    );
    return cids.map((cid) => this.#receipts.copies(cid) ?? counts.get(cid.toString()) ?? 0);
  }

  /**
   * Leases blocks that no address names yet, before they are pushed. Requests of the same moment share a call.
   * Without a steward there is no lease, and nobody who collects either.
   */
  async #lease(cids: readonly CID[]): Promise<void> {
    this.#leaseNext.push(...cids);
    this.#leasing ??= new Promise<void>((resolve) => setImmediate(resolve)).then(() => {
      this.#leasing = undefined;
      return this.#leaseNow(this.#leaseNext.splice(0));
    });
    await this.#leasing;
  }

  async #leaseNow(cids: readonly CID[]): Promise<void> {
    for (let at = 0; at < cids.length; at += leaseCidsMax) {
      const some = cids.slice(at, at + leaseCidsMax);
      try {
        await this.#callSteward('steward.staged', { cids: some });
        this.#receipts.renewed(some);
      } catch (error) {
        console.error(`blocks of an upload have no lease: ${describeError(error)}`);
        return;
      }
    }
  }

  /** Renews the leases of uploads that take longer than one: they are content that no address names yet. */
  keepLeases(stack: AsyncDisposableStack): void {
    let renewing: Promise<void> = Promise.resolve();
    const timer = setInterval(() => {
      renewing = renewing.then(() => this.#lease(this.#receipts.due()));
    }, minute);
    stack.defer(async () => {
      clearInterval(timer);
      await renewing;
    });
  }

  // Sealing

  async #openSealing(stack: AsyncDisposableStack): Promise<DoorPorts['sealing']> {
    const path = devKeyPath(this.#config);
    let provider: KekProvider;
    try {
      provider = stack.use(await openDevFile({ path, clock: systemClock, create: false }));
    } catch (error) {
      console.error(`this door handles ciphertext only: ${describeError(error)}`);
      return undefined;
    }
    this.#seals = true;
    this.#kekPolicy = provider.id;
    const { signer } = await openIdentity(this.#config.writerKeyPath);
    const keys = stack.use(new BranchKeys({ provider, writer: signer.publicKey, random }));
    const put: PutPorts = {
      registry: {
        newest: async (key) => {
          const head = await this.#view.head(key);
          if (head === undefined) return undefined;
          const { cid, body } = head.record;
          return { version: head.version, manifest: cid, tombstone: body.type === 'tombstone' };
        },
        register: (blocks) => this.#register(blocks.map(({ bytes }) => bytes)),
      },
      store: (blocks, policy) => this.#storeBlocks(blocks, policy),
      writerKey: (scope) => keys.current(scope),
      kekPolicy: provider.id,
      kek: provider.kek(),
      signer,
      random,
      now: () => systemClock.now(),
      beat: async () => this.#beatIndex(),
    };
    const get = {
      load: (cids: readonly CID[], signal: AbortSignal) => this.#load(cids, signal),
      readerKey: (body: Parameters<BranchKeys['open']>[0], signal: AbortSignal) =>
        keys.open(body, {
          purpose: 'read' as const,
          requester: signer.publicKey,
          beat: this.#beatIndex(),
          signal,
        }),
    };
    return { put, get, text: provider.describe().text };
  }

  // Tempo

  #heard(head: unknown): void {
    const { frame } = parseBeat(fieldOf(head, 'beat'));
    this.#beat = { index: frame.beat_index, at: systemClock.monotonic(), beatMs: minute / frame.tempo_bpm };
  }

  /** The last beat heard, extrapolated while the steward is silent. */
  #beatIndex(): number {
    if (this.#beat === undefined) return 0;
    const { index, at, beatMs } = this.#beat;
    return index + Math.floor((systemClock.monotonic() - at) / beatMs);
  }

  #beatAnswer(): BeatAnswer | undefined {
    if (this.#beat === undefined) return undefined;
    const silent = systemClock.monotonic() - this.#beat.at > 3 * this.#beat.beatMs;
    return { index: this.#beatIndex(), state: silent ? 'degraded' : 'locked', kekPolicy: this.#kekPolicy };
  }

  // The Beacon as a whole

  async *#verify(signal: AbortSignal): AsyncGenerator {
    yield { progress: 'folding the log again and looking every block up' };
    const result = await this.#callSteward('beacon.verify', {}, { signal, timeoutMs: 60 * minute });
    yield { result };
  }

  async *#rebuild(signal: AbortSignal): AsyncGenerator {
    const options = { signal, timeoutMs: 60 * minute };
    for await (const { head } of this.#peer.rpc.stream(
      this.#stewardPeer(),
      'beacon.rebuild',
      { head: {} },
      options,
    )) {
      yield head;
      if (fieldOf(head, 'result') === undefined) continue;
      // This view tells the history of the log that was replaced: it is fetched anew at the next start.
      setTimeout(
        () =>
          void rm(join(viewDirectory(this.#member), 'born.json'), { force: true }).then(() =>
            this.#dropView(),
          ),
        100,
      );
    }
  }

  async #dropView(): Promise<void> {
    await rm(viewDirectory(this.#member), { recursive: true, force: true });
    this.#replace();
  }

  async *#export(signal: AbortSignal): AsyncGenerator<Uint8Array> {
    const path = await this.#scratchPath('export');
    try {
      await exportLog((from) => this.#view.entriesSince(from, { signal }), path, { signal });
      yield* fileBytes(path);
    } finally {
      await rm(path, { force: true });
    }
  }

  async #import(body: AsyncIterable<Uint8Array>, signal: AbortSignal): Promise<unknown> {
    const path = await this.#scratchPath('import');
    try {
      await pipeline(Readable.from(body, { objectMode: false }), createWriteStream(path));
      const begun = await this.#callSteward('beacon.importBegin', {}, { signal });
      const restored = fieldOf(begun, 'restoring') === true;
      if (restored) await this.#checkRestores(path, signal);
      const { entries, position } = await importLog(path, this.#importTarget(parsePosition(begun)), {
        signal,
      });
      await this.#callSteward('beacon.importEnd', {}, { signal });
      if (!restored) await this.#visible(position.revision);
      return { entries, revision: position.revision, restored };
    } finally {
      await rm(path, { force: true });
    }
  }

  /** A log in place of a damaged one must hold all that this view has seen acknowledged. Throws VERSION_CONFLICT. */
  async #checkRestores(path: string, signal: AbortSignal): Promise<void> {
    const seen = this.#view.position();
    let holds = seen.revision === 0;
    for await (const { revision, chain } of readLogFile(path, signal))
      if (revision === seen.revision) holds = sameBytes(chain, seen.chain);
    if (holds) return;
    throw new HoldfastError(
      'VERSION_CONFLICT',
      `the file does not hold the history that this door has seen up to revision ${seen.revision}; ` +
        '`holdfast beacon export` writes a file that does',
      { details: { current: seen.revision } },
    );
  }

  /** The log without the check against the current view: an import brings its own history, which the fold judges. */
  #importTarget(head: LogPosition) {
    const log = this.#log;
    return {
      head: async () => head,
      read: (from: number) => log.read(from),
      watch: (from: number, options: { readonly signal: AbortSignal }) => log.watch(from, options),
      append: async (append: Append): Promise<LogEntry> => {
        const payload = encodeAppend(append);
        const answer = await this.#peer.rpc.call(this.#stewardPeer(), 'beacon.import', {
          head: {},
          body: payload,
        });
        const position: LogPosition = parsePosition(answer.head);
        return { ...append, ...position, payload };
      },
      [Symbol.asyncDispose]: async () => undefined,
    };
  }

  async #scratchPath(name: string): Promise<string> {
    const directory = join(this.#member.config.dataDir, 'scratch');
    await mkdir(directory, { recursive: true });
    return join(directory, `${name}-${process.pid}-${Date.now()}`);
  }

  // Health

  async #health(): Promise<readonly HealthCheck[]> {
    const nodes = this.#nodes();
    const up = new Set(this.#peer.connected());
    const reachable = nodes.filter((node) => up.has(node)).length;
    const view = this.#view.health();
    const checks: HealthCheck[] = [
      {
        name: 'nodes',
        status:
          reachable === nodes.length ? 'ok' : reachable >= Math.min(2, nodes.length) ? 'degraded' : 'failed',
        text: `${reachable} of ${nodes.length} storage nodes reachable`,
      },
      {
        name: 'beacon',
        status: view.state === 'following' ? 'ok' : view.state === 'connecting' ? 'degraded' : 'failed',
        text: `view at revision ${view.revision}, ${view.state}${view.reason === '' ? '' : `: ${view.reason}`}`,
      },
      {
        name: 'tempo',
        status: this.#beatAnswer()?.state === 'locked' ? 'ok' : 'degraded',
        text: this.#beat === undefined ? 'no beat heard yet' : `beat ${this.#beatIndex()}`,
      },
      {
        name: 'sealing',
        status: 'ok',
        text: this.#seals
          ? 'this door seals for plain HTTP callers: plaintext and content keys are in its memory while a request lasts'
          : 'this door handles ciphertext only',
      },
    ];
    try {
      const { objects, alarms } = readStatus(await this.#callSteward('steward.status', {}));
      const bad = objects.lost > 0 ? 'failed' : objects.lastCopy + objects.belowMin > 0 ? 'degraded' : 'ok';
      checks.push({
        name: 'objects',
        status: bad,
        text: `${objects.total} objects: ${objects.lost} lost, ${objects.lastCopy} on their last copy, ${objects.belowMin} below minimum`,
      });
      // Collecting waits whenever the catalogue is being read; that is work, and only its lasting is a condition.
      const lasting = alarms.filter(
        ({ name, since }) => name !== 'suspended' || systemClock.now() - since > minute,
      );
      for (const alarm of lasting)
        checks.push({ name: `alarm:${alarm.name}`, status: 'degraded', text: alarm.text });
    } catch (error) {
      checks.push({ name: 'steward', status: 'degraded', text: `does not answer: ${describeError(error)}` });
    }
    return checks;
  }

  // Calls

  #stewardPeer(): PeerName {
    const [steward] = peersWithRole(this.#peer.membership(), 'steward');
    if (steward === undefined) throw new HoldfastError('PEER_UNREACHABLE', 'the membership names no steward');
    return steward;
  }

  async #callSteward(
    method: string,
    head: unknown,
    options: { readonly signal?: AbortSignal; readonly timeoutMs?: number } = {},
  ): Promise<unknown> {
    const answer = await this.#peer.rpc.call(
      this.#stewardPeer(),
      method,
      { head },
      { timeoutMs: callMs, ...options },
    );
    return answer.head;
  }
}

function delay(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener('abort', () => {
      clearTimeout(timer);
      reject(new HoldfastError('TIMEOUT', 'the wait was cut short'));
    });
  });
}

async function* fileBytes(path: string): AsyncGenerator<Uint8Array, void, undefined> {
  const chunks: AsyncIterable<Uint8Array> = createReadStream(path, { highWaterMark: 1024 * 1024 });
  yield* chunks;
}
