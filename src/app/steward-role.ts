// The steward role: the Beacon, the tempo, and the steward itself.

import { parseBeat } from '../backbeat/beat.ts';
import type { Tempo } from '../backbeat/tempo.ts';
import type { PeerName } from '../core/rpc.ts';
import { fieldOf } from '../core/shape.ts';
import { random } from '../custody/random.ts';
import type { ProcessConfig } from '../local/layout.ts';
import type { Membership } from '../node/membership.ts';
import { LevelLedgerStore } from '../steward/ledger-level.ts';
import type { StewardMember } from '../steward/node-watch.ts';
import { defaultStewardSettings, type StewardSettings } from '../steward/settings.ts';
import { ShareKeeper } from '../steward/share-keeper.ts';
import { Steward } from '../steward/steward.ts';
import { startBackbeat, startVoices } from './backbeat.ts';
import { membersWithViews } from './beacon-copies.ts';
import { BeaconHost } from './beacon-host.ts';
import { CustodyCoordinator } from './custody-coordinator.ts';
import type { RunningRole } from './daemon.ts';
import { BeaconFollower, hearBeats } from './steward-follower.ts';
import { type Member, peersWithRole, type RoleOptions, startMember, systemClock } from './member.ts';
import { ViewComparer, type ViewRoots } from './view-roots.ts';

export async function startStewardRole(
  config: ProcessConfig,
  options: RoleOptions = {},
): Promise<RunningRole> {
  await using stack = new AsyncDisposableStack();
  const member = stack.use(await startMember(config, 'client', options));
  const { peer, dir } = member;
  const stewards = (): StewardMember[] => stewardsOf(peer.membership());
  const [first] = stewards();
  // A log on a disk has one host; on servers, every steward is one.
  const host = config.settings.beacon?.engine === 'jetstream' ? undefined : first;
  const follows = host !== undefined && host.peer !== peer.name;
  const beacon = stack.use(follows ? await BeaconFollower.open(member, host) : await BeaconHost.open(member));
  const backbeat = stack.use(await startBackbeat(member, { isTold: follows }));
  if (follows)
    hearBeats(member, host.peer, (head) => backbeat.bus.publishBeat(parseBeat(fieldOf(head, 'beat')).frame));
  const comparer = beacon.roots && stack.use(compareViews(member, beacon.roots, backbeat.tempo));
  const ledger = stack.use(await LevelLedgerStore.open(dir.storePath('ledger')));
  const shares = stack.use(
    ShareKeeper.start({
      rpc: peer.rpc,
      clock: systemClock,
      self: peer.name,
      nodes: () => peersWithRole(peer.membership(), 'node'),
      stewards,
    }),
  );
  const steward = stack.use(
    await Steward.start(
      {
        rpc: peer.rpc,
        server: peer.rpc,
        tempo: backbeat.tempo,
        tempoReport: () => backbeat.report(),
        beaconReport: () => {
          const views = comparer?.report();
          return { ...beacon.report(), ...(views === undefined ? {} : { views }) };
        },
        catalogue: beacon.catalogue(),
        store: ledger,
        clock: systemClock,
        random,
        shares,
        // Where no NATS carries the beats the one that leads tells the other stewards too, and they tell nobody.
        tells: toldBy(follows, config.settings.nats === undefined),
      },
      stewardMembers(peer.membership(), peer.name),
      stewardSettings(config.settings),
    ),
  );
  const hasCustodians = peersWithRole(peer.membership(), 'custodian').length > 0;
  let custody: CustodyCoordinator | undefined;
  if (beacon instanceof BeaconHost) {
    const isHost = host !== undefined;
    custody = stack.use(
      CustodyCoordinator.start(member, beacon, backbeat.tempo, () => isHost || shares.mine(custodySlice)),
    );
    if (isHost || stewards().length === 1) await custody.begin();
  }
  stack.use(startVoices(member, backbeat, { steward, custody: hasCustodians ? custody : undefined }));
  member.onMembership((membership) => steward.setMembers(stewardMembers(membership, peer.name)));
  const owned = stack.move();
  return {
    info: { peer: peer.name, beacon: beacon.text(), revision: beacon.view?.position().revision ?? 0 },
    ended: beacon.replaced,
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

function compareViews({ peer, config }: Member, own: ViewRoots, tempo: Tempo): ViewComparer {
  const others = (): ReturnType<typeof membersWithViews> => membersWithViews(peer);
  return ViewComparer.start({ rpc: peer.rpc, name: config.name, own, others, clock: systemClock }, tempo);
}

function stewardSettings({ graceMs, leaseMs, collects }: ProcessConfig['settings']): StewardSettings {
  const { budget } = defaultStewardSettings;
  return { ...defaultStewardSettings, graceMs, budget: { ...budget, leaseMs, collects } };
}

/** The slice whose owner coordinates custody where several stewards could. */
const custodySlice = 0;

function toldBy(follows: boolean, isAlone: boolean): readonly string[] {
  if (follows && isAlone) return [];
  return isAlone ? ['door', 'custodian', 'steward'] : ['door', 'custodian'];
}

function stewardsOf({ members }: Membership): StewardMember[] {
  return members.filter(({ roles }) => roles.includes('steward'));
}

/** All whom this steward watches, tells the beat or lets ask. */
function stewardMembers({ members }: Membership, self: PeerName): StewardMember[] {
  const told = ['node', 'door', 'custodian', 'steward'];
  return members.filter(({ peer, roles }) => peer !== self && roles.some((role) => told.includes(role)));
}
