// The door role: HTTP on one side, the cluster on the other, and a Beacon view of its own in between.

import type { FollowedLog } from '../beacon/followed.ts';
import { RemoteLog } from '../beacon/remote.ts';
import type { BeaconView } from '../beacon/view.ts';
import { second } from '../core/clock.ts';
import { HoldfastError } from '../core/errors.ts';
import { fieldOf } from '../core/shape.ts';
import { doorRoutes } from '../http/door.ts';
import type { DoorPorts } from '../http/door-ports.ts';
import { DoorMetrics } from '../http/metrics.ts';
import { HttpDoor } from '../http/server.ts';
import type { DoorConfig, ProcessConfig } from '../local/layout.ts';
import type { ReplicationPolicy } from '../manifest/manifest.ts';
import { memberOf } from '../node/membership.ts';
import type { NodePeer } from '../node/peer.ts';
import type { RunningRole } from './daemon.ts';
import { serveCopy } from './beacon-copies.ts';
import { DoorAudit } from './door-audit.ts';
import { DoorBeacon } from './door-beacon.ts';
import { DoorBlocks } from './door-blocks.ts';
import { DoorCustody } from './door-custody.ts';
import { doorHealth } from './door-health.ts';
import { DoorRegistry } from './door-registry.ts';
import { openSealing, type Sealing } from './door-sealing.ts';
import { DoorTempo } from './door-tempo.ts';
import { DoorView } from './door-view.ts';
import { type Member, peersWithRole, type RoleOptions, startMember, systemClock } from './member.ts';
import { reachableNodes } from './node-blocks.ts';
import { Pins } from './pins.ts';
import { clearScratch, scratchDirectory } from './scratch.ts';
import { StewardClient } from './steward-client.ts';

const version = '0.1.0';
const defaultPolicy: ReplicationPolicy = { min: 3, max: 5, zones: 3 };
const objectBytesMax = 1024 ** 4;

export async function startDoorRole(config: ProcessConfig, options: RoleOptions = {}): Promise<RunningRole> {
  if (config.door === undefined)
    throw new HoldfastError('ARGUMENT_INVALID', `${config.name} is not configured as a door`);
  await using stack = new AsyncDisposableStack();
  const member = stack.use(await startMember(config, 'client', options));
  await clearScratch(config.dataDir);
  const view = stack.use(await DoorView.open(config.dataDir));
  const door = new Door(member, view);
  door.followBeacon(stack);
  const ports = await door.ports(config.door, stack);
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
    ended: view.replaced,
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

/** The parts of a door, joined. */
class Door {
  readonly blocks: DoorBlocks;
  readonly #member: Member;
  readonly #peer: NodePeer;
  readonly #view: BeaconView;
  readonly #doorView: DoorView;
  readonly #steward: StewardClient;
  readonly #log: RemoteLog;
  readonly #registry: DoorRegistry;
  readonly #tempo = new DoorTempo(systemClock);
  readonly #followed: FollowedLog;
  readonly #stop = new AbortController();
  #custody: DoorCustody | undefined;
  #sealing: Sealing | undefined;

  constructor(member: Member, doorView: DoorView) {
    const { view } = doorView;
    this.#member = member;
    this.#view = view;
    this.#doorView = doorView;
    this.#peer = member.peer;
    this.#steward = new StewardClient(member.peer, systemClock);
    this.#log = new RemoteLog(this.#steward.rpc, () => this.#steward.peer());
    this.blocks = new DoorBlocks(member.peer, this.#steward);
    this.#registry = new DoorRegistry(view, this.#log, this.blocks);
    this.#followed = doorView.over(this.#log, this.#stop.signal);
    member.peer.rpc.handle('door.beat', async ({ head }, { peer }) => {
      if (!memberOf(member.peer.membership(), peer)?.roles.includes('steward'))
        throw new HoldfastError('FORBIDDEN', `${peer} is no steward`);
      this.#tempo.hear(fieldOf(head, 'beat'));
      void this.#custody?.follow();
      void this.#sealing?.providers.reload();
      return { head: {} };
    });
  }

  followBeacon(stack: AsyncDisposableStack): void {
    serveCopy(this.#peer, this.#view, this.#doorView.roots(this.#stop.signal));
    const following = this.#view.follow(this.#followed, this.#stop.signal);
    stack.defer(async () => {
      this.#stop.abort();
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
      this.#tempo.isHeard &&
      (this.#view.health().state === 'following' || this.#followed.isRefused);
    while (!settled() && !deadline.aborted) await new Promise((resolve) => setTimeout(resolve, 50));
  }

  async ports(config: DoorConfig, stack: AsyncDisposableStack): Promise<DoorPorts> {
    this.#custody = await this.#openCustody(config);
    const pins = await Pins.open(this.#member.config.dataDir, () => systemClock.now());
    this.blocks.keepLeases(stack, () => pins.pinned());
    const sealing = await this.#openSealing(config, stack);
    return {
      cluster: this.#member.config.cluster,
      version,
      clock: systemClock,
      view: this.#view,
      metrics: new DoorMetrics(),
      defaults: defaultPolicy,
      objectBytesMax,
      storeBlocks: (blocks, policy) => this.blocks.store(blocks, policy),
      load: (cids, signal) => this.blocks.load(cids, signal),
      register: (records, content) => this.#registry.register(records, content),
      ...(sealing === undefined ? {} : { sealing }),
      steward: this.#steward,
      dht: this.blocks,
      beacon: this.#beacon(),
      audit: this.#audit(pins),
      ...(this.#custody === undefined ? {} : { custody: this.#custody }),
      keys: {
        file: (records) => this.#registry.rewrap(records, this.#member.config.operator),
        opens: () => sealing?.providers.groups ?? null,
      },
      beat: () => this.#beat(),
      peersConnected: () => this.#peer.connected().length,
      health: () => this.#health(),
    };
  }

  async #openSealing(config: DoorConfig, stack: AsyncDisposableStack): Promise<Sealing | undefined> {
    this.#sealing = await openSealing(
      config,
      {
        view: this.#view,
        registry: this.#registry,
        blocks: this.blocks,
        custody: this.#custody,
        beatIndex: () => this.#tempo.index(),
      },
      stack,
    );
    return this.#sealing;
  }

  /** Undefined in a cluster without custodians. */
  async #openCustody(config: DoorConfig): Promise<DoorCustody | undefined> {
    if (peersWithRole(this.#peer.membership(), 'custodian').length === 0) return undefined;
    return DoorCustody.open({
      member: this.#member,
      config,
      view: this.#view,
      log: this.#log,
      blocks: this.blocks,
      beatIndex: () => this.#tempo.index(),
      visible: (revision) => this.#registry.visible(revision),
    });
  }

  #audit(pins: Pins): DoorAudit {
    const { dataDir } = this.#member.config;
    return new DoorAudit({
      peer: this.#peer,
      view: this.#view,
      log: this.#log,
      registry: this.#registry,
      blocks: this.blocks,
      steward: this.#steward,
      pins,
      dataDir,
      scratch: scratchDirectory(dataDir),
    });
  }

  #beacon(): DoorBeacon {
    return new DoorBeacon({
      view: this.#view,
      log: this.#log,
      rpc: this.#steward.rpc,
      steward: this.#steward,
      scratch: scratchDirectory(this.#member.config.dataDir),
      successors: this.#doorView,
      visible: (revision) => this.#registry.visible(revision),
    });
  }

  #beat(): ReturnType<DoorPorts['beat']> {
    return this.#tempo.answer(this.#sealing?.kekPolicy ?? 'unknown');
  }

  async #health(): ReturnType<DoorPorts['health']> {
    return doorHealth({
      nodes: { total: this.blocks.nodes().length, reachable: reachableNodes(this.#peer).length },
      view: this.#view.health(),
      beat: this.#beat(),
      custody: await this.#custody?.check(),
      keys: await this.#sealing?.keysCheck(),
      seals: this.#sealing !== undefined,
      steward: () => this.#steward.status(),
    });
  }
}
