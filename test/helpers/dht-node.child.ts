// One storage node in a process of its own, so that a test can freeze it or kill it. Spoken to by IPC.
//
// argv: directory, name, port, membership (JSON). Messages: {id, do: 'put' | 'find' | 'counts' | 'settle', …}.

import { identityOf } from './dht-cluster.ts';
import { clusterName } from './dht-cluster.ts';
import { parseCid, rawBlock } from '../../src/core/block.ts';
import { utf8 } from '../../src/core/bytes.ts';
import { openBlockStore } from '../../src/node/blockstore.ts';
import { StewardEpochs } from '../../src/node/epochs.ts';
import type { Membership } from '../../src/node/membership.ts';
import { startPeer } from '../../src/node/peer.ts';
import { openProviderStore } from '../../src/node/provider-store.ts';
import { startStorageNode } from '../../src/node/storage-node.ts';
import { openDataDir } from '../../src/node/stores.ts';

const [directory = '', name = '', port = '', membershipText = ''] = process.argv.slice(2);
const membership: Membership = JSON.parse(membershipText);
const clock = { now: () => Date.now(), monotonic: () => performance.now() };
const identity = identityOf(name);
const dir = await openDataDir(directory, { node: name, peer: identity.name, cluster: clusterName });
const blockstore = await openBlockStore(dir);
const providerStore = await openProviderStore(dir, { clock });
const peer = await startPeer({
  identity,
  membership,
  listen: { host: '127.0.0.1', port: Number(port) },
  dialPauseMsMax: 500,
});
const epochs = await StewardEpochs.open(dir.path, clock);
const node = await startStorageNode({ peer, blockstore, providerStore, epochs, clock });

interface Request {
  readonly id: number;
  readonly do: string;
  readonly text?: string;
  readonly cid?: string;
}

process.on('message', (request: Request) => {
  void answer(request).then(
    (result) => process.send?.({ id: request.id, result }),
    (error: unknown) => process.send?.({ id: request.id, error: String(error) }),
  );
});
process.once('disconnect', () => process.exit(0));

async function answer({ do: what, text, cid }: Request): Promise<unknown> {
  switch (what) {
    case 'put': {
      const block = rawBlock(utf8(text ?? ''));
      await blockstore.put(block.cid, block.bytes);
      await node.providers.add([block.cid]);
      return block.cid.toString();
    }
    case 'find':
      return (await node.providers.find(parseCid(cid ?? ''), { enough: 1 })).map((each) => each.peer);
    case 'held':
      return (await providerStore.find(parseCid(cid ?? '').multihash.digest)).map((each) => each.peer);
    case 'settle':
      return node.providers.settled();
    case 'connected':
      return peer.connected().length;
    default:
      throw new RangeError(`unknown request ${what}`);
  }
}

process.send?.({ id: 0, result: 'started' });
