// A node that comes late. In a file of its own because it waits for a minute and does next to nothing meanwhile.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { test } from 'node:test';
import { startPeer } from '../../src/node/peer.ts';
import {
  freePorts,
  testIdentities,
  testMember,
  testMembership,
  untilConnected,
  untilPeers,
} from '../support/peers.ts';

/**
 * What is scaled: pauses between dials grow to 200 ms and not to 5 s, and "late" is counted in dials (18) and not in
 * a minute. With HOLDFAST_FULL=1 nothing is: the pauses are those of a real node, and the node comes 60 s late.
 */
const isFullTime = process.env['HOLDFAST_FULL'] === '1';

test('a bootstrap node that comes late, after many dials, joins all who know only its address', {
  timeout: isFullTime ? 180_000 : 60_000,
}, async (context) => {
  const identities = testIdentities(4);
  const ports = await freePorts(4);
  // As after a first start from one address: the three know where the bootstrap node is, and nobody else.
  const [bootstrap, ...waiting] = identities.map((identity, index) => ({
    identity,
    port: ports[index] ?? 0,
  }));
  assert.ok(bootstrap !== undefined);
  const knocks = await countKnocks(bootstrap.port, 3 * 6);
  const late60 = isFullTime ? new Promise((resolve) => setTimeout(resolve, 60_000)) : undefined;
  const membership = testMembership(
    identities.map(({ name }, index) =>
      testMember(name, index, index === 0 ? [`/ip4/127.0.0.1/tcp/${bootstrap.port}`] : []),
    ),
  );
  const start = ({ identity, port }: typeof bootstrap) =>
    startPeer({
      identity,
      membership,
      listen: { host: '127.0.0.1', port },
      ...(isFullTime ? {} : { dialPauseMsMax: 200 }),
    });
  const peers = await Promise.all(waiting.map(start));
  context.after(() => Promise.all(peers.map((peer) => peer[Symbol.asyncDispose]())));
  await knocks();
  await late60;
  assert.deepEqual(
    peers.map((peer) => peer.connected()),
    [[], [], []],
  );

  const late = await start(bootstrap);
  peers.push(late);
  await untilConnected(late, 3);
  for (const peer of peers.slice(0, 3)) {
    await untilPeers(peer, () => peer.connected().includes(late.name));
    late.rpc.handle(`for-${peer.name}`, async (message) => message);
    assert.equal((await peer.rpc.call(late.name, `for-${peer.name}`, { head: 1 })).head, 1);
  }
});

/** Listens on `port` and hangs up. What is returned resolves when somebody came `count` times and the port is free again. */
async function countKnocks(port: number, count: number): Promise<() => Promise<void>> {
  const { promise, resolve } = Promise.withResolvers<void>();
  let knocks = 0;
  const server = createServer((socket) => {
    socket.destroy();
    if (++knocks === count) resolve();
  });
  server.listen(port, '127.0.0.1');
  await once(server, 'listening');
  return async () => {
    await promise;
    server.close();
    await once(server, 'close');
  };
}
