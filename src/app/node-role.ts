// The storage node role: blocks on this disk, records in the DHT.

import { describeError } from '../core/errors.ts';
import type { ProcessConfig } from '../local/layout.ts';
import { openBlockStore } from '../node/blockstore.ts';
import { StewardEpochs } from '../node/epochs.ts';
import { openProviderStore } from '../node/provider-store.ts';
import { startStorageNode, type StorageEvent } from '../node/storage-node.ts';
import { type RoleOptions, startMember, systemClock } from './member.ts';
import type { RunningRole } from './daemon.ts';

export async function startNodeRole(config: ProcessConfig, options: RoleOptions = {}): Promise<RunningRole> {
  await using stack = new AsyncDisposableStack();
  const member = stack.use(await startMember(config, 'server', options));
  const blockstore = stack.use(await openBlockStore(member.dir));
  const providerStore = stack.use(await openProviderStore(member.dir, { clock: systemClock }));
  const epochs = await StewardEpochs.open(config.dataDir, systemClock);
  const node = stack.use(
    await startStorageNode({
      peer: member.peer,
      blockstore,
      providerStore,
      epochs,
      clock: systemClock,
      beatMs: config.settings.beatMs,
      scrub: { periodMs: config.settings.scrubMs },
      onEvent: (event) => console.error(eventLine(event)),
    }),
  );
  const owned = stack.move();
  const { blocks, bytes } = blockstore.usage();
  return {
    info: { peer: node.name, blocks, bytes, addrs: member.peer.addrs() },
    ended: new Promise(() => undefined),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

function eventLine(event: StorageEvent): string {
  switch (event.kind) {
    case 'block-corrupt':
      return `corrupt blocks moved to quarantine: ${event.cids.map(String).join(', ')}`;
    case 'wrong-bytes':
      return `${event.peer} sent wrong bytes for ${event.cid.toString()}`;
    case 'announce-missed':
      return `could not announce to ${event.peer}: ${event.reason}`;
    case 'reconciled':
      return `provider records agree with the blocks: ${event.added} added, ${event.removed} removed`;
    case 'reconcile-failed':
      return `provider records could not be compared with the blocks: ${describeError(event.error)}`;
  }
}
