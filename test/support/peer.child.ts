// One peer in a process of its own, told by its parent who the members are. Killed or frozen by tests.

import { LevelDatastore } from 'datastore-level';
import { openOrCreateIdentity } from '../../src/node/identity.ts';
import { startPeer } from '../../src/node/peer.ts';
import { type ChildStart, testMember, testMembership } from './peers.ts';

const [, , dir = '', port = '0'] = process.argv;
const identity = await openOrCreateIdentity(`${dir}/identity.key`);
const datastore = new LevelDatastore(`${dir}/peers`);
await datastore.open();
process.send?.({ name: identity.name });
const { members } = await new Promise<ChildStart>((resolve) => process.once('message', resolve));
const membership = testMembership(members.map(({ name, addrs }, index) => testMember(name, index, addrs)));
const peer = await startPeer({
  identity,
  membership,
  datastore,
  listen: { host: '127.0.0.1', port: Number(port) },
});
peer.rpc.handle('echo', async (message) => message);
const bytes = new Uint8Array(262_144).fill(1);
peer.rpc.handle('bytes', async () => ({ head: null, body: bytes }));
const report = (): void => void process.send?.({ connected: peer.connected().length });
peer.onPeer(report);
report();
// Identify has told an address, and it is in the store.
peer.libp2p.addEventListener('peer:update', () => {
  void peer.libp2p.peerStore.all().then((all) => {
    const others = all.filter(({ id, addresses }) => !id.equals(peer.libp2p.peerId) && addresses.length > 0);
    process.send?.({ stored: others.length });
  });
});
