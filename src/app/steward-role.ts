// The steward role: the Beacon, the tempo, and the steward itself.

import type { ProcessConfig } from '../local/layout.ts';
import type { Membership } from '../node/membership.ts';
import { LevelLedgerStore } from '../steward/ledger-level.ts';
import type { StewardMember } from '../steward/node-watch.ts';
import { defaultStewardSettings, type StewardSettings } from '../steward/settings.ts';
import { Steward } from '../steward/steward.ts';
import { startBackbeat, startVoices } from './backbeat.ts';
import { BeaconHost } from './beacon-host.ts';
import { CustodyCoordinator } from './custody-coordinator.ts';
import { ViewCatalogue } from './catalogue.ts';
import type { RunningRole } from './daemon.ts';
import { peersWithRole, random, type RoleOptions, startMember, systemClock } from './member.ts';

export async function startStewardRole(
  config: ProcessConfig,
  options: RoleOptions = {},
): Promise<RunningRole> {
  await using stack = new AsyncDisposableStack();
  const member = stack.use(await startMember(config, 'client', options));
  const { peer, dir } = member;
  const beacon = stack.use(await BeaconHost.open(member));
  const backbeat = stack.use(await startBackbeat(member));
  const ledger = stack.use(await LevelLedgerStore.open(dir.storePath('ledger')));
  const steward = stack.use(
    await Steward.start(
      {
        rpc: peer.rpc,
        server: peer.rpc,
        tempo: backbeat.tempo,
        tempoReport: () => backbeat.report(),
        beaconReport: () => beacon.report(),
        catalogue:
          beacon.view === undefined ? beacon.emptyCatalogue() : new ViewCatalogue(beacon.view, systemClock),
        store: ledger,
        clock: systemClock,
        random,
      },
      stewardMembers(peer.membership()),
      stewardSettings(config.settings),
    ),
  );
  const custody = stack.use(CustodyCoordinator.start(member, beacon, backbeat.tempo));
  await custody.begin();
  const hasCustodians = peersWithRole(peer.membership(), 'custodian').length > 0;
  stack.use(startVoices(member, backbeat, { steward, custody: hasCustodians ? custody : undefined }));
  member.onMembership((membership) => steward.setMembers(stewardMembers(membership)));
  const owned = stack.move();
  return {
    info: { peer: peer.name, beacon: beacon.text(), revision: beacon.revision() },
    ended: beacon.replaced,
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

function stewardSettings({ graceMs, leaseMs, collects }: ProcessConfig['settings']): StewardSettings {
  const { budget } = defaultStewardSettings;
  return { ...defaultStewardSettings, graceMs, budget: { ...budget, leaseMs, collects } };
}

function stewardMembers(membership: Membership): StewardMember[] {
  return membership.members.filter(({ roles }) =>
    roles.some((role) => role === 'node' || role === 'door' || role === 'custodian'),
  );
}
