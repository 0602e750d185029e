// A process of the memory bench: a storage node that takes blocks, told by its parent who the members are.

import { openBlockStore } from '../../src/node/blockstore.ts';
import { openOrCreateIdentity } from '../../src/node/identity.ts';
import { startPeer } from '../../src/node/peer.ts';
import { openProviderStore } from '../../src/node/provider-store.ts';
import { startStorageNode } from '../../src/node/storage-node.ts';
import { openDataDir } from '../../src/node/stores.ts';
import { type ChildStart, testMember, testMembership } from './peers.ts';

const [, , directory = '', port = '0'] = process.argv;
const identity = await openOrCreateIdentity(`${directory}.key`);
process.send?.({ name: identity.name });
const { members } = await new Promise<ChildStart>((resolve) => process.once('message', resolve));
const last = members.length - 1;
const membership = testMembership(
  members.map(({ name, addrs }, index) => ({
    ...testMember(name, index, addrs),
    roles: [index === last ? 'door' : 'node'],
  })),
);
const clock = { now: Date.now, monotonic: () => performance.now() };
const dir = await openDataDir(directory, { node: identity.name, peer: identity.name, cluster: 'test' });
const blockstore = await openBlockStore(dir);
const providerStore = await openProviderStore(dir, { clock });
const peer = await startPeer({ identity, membership, listen: { host: '127.0.0.1', port: Number(port) } });
await startStorageNode({ peer, blockstore, providerStore, clock });
process.on('message', () =>
  process.send?.({ memory: process.memoryUsage(), rssMax: process.resourceUsage().maxRSS * 1024 }),
);
process.once('disconnect', () => process.exit(0));
process.send?.({ started: true });
