import assert from 'node:assert/strict';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { entriesOf, someAppend } from '../../test/suites/beacon-log.suite.ts';
import { jetStreamRoom, openWhenUp } from '../../test/support/jetstream-logs.ts';
import { freePort, natsSkip, natsStore, startNats } from '../../test/support/nats-server.ts';
import { JetStreamLog } from './jetstream.ts';

const shipped = fileURLToPath(new URL('../../deploy/nats/beacon.conf', import.meta.url));

it('is durable on three servers with the configuration that we ship', {
  skip: await natsSkip(),
}, async (t) => {
  const room = await jetStreamRoom();
  t.after(() => room.end());
  const directory = await natsStore(room);
  const ports = await Promise.all([1, 2, 3].map(async () => [await freePort(), await freePort()] as const));
  const routes = ports.map(([, route], index) => [`BEACON_ROUTE_${index + 1}`, `nats://127.0.0.1:${route}`]);
  const servers = ports.map(async ([port, route], index) => {
    const store = join(directory, String(index));
    await mkdir(store);
    const env = {
      BEACON_NAME: `beacon-${index}`,
      BEACON_STORE: store,
      BEACON_PORT: String(port),
      BEACON_ROUTE_PORT: String(route),
      BEACON_PASSWORD: 'stewards-password',
      BEACON_SYSTEM_PASSWORD: 'system-password',
      ...Object.fromEntries(routes),
    };
    return startNats(room, { port, args: ['-c', shipped], env });
  });
  await Promise.all(servers);
  const options = {
    servers: ports.map(([port]) => `127.0.0.1:${port}`),
    login: { user: 'beacon', password: 'stewards-password' },
    system: { user: 'system', password: 'system-password' },
    stream: 'holdfast',
    directory: join(directory, 'copy'),
    create: { replicas: 3, lineage: { id: 'ab'.repeat(16), replaces: [] } },
  };
  await using log = await openWhenUp(options);
  assert.deepEqual(log.durability(), { durable: true, problems: [] });
  await log.append(someAppend('addr/a'));
  // Another steward follows by the same permissions, with a copy that begins empty.
  const { create: _, ...plain } = options;
  await using other = await JetStreamLog.open({ ...plain, directory: join(directory, 'other') });
  assert.equal((await entriesOf(other)).length, 1);
  assert.deepEqual((await other.head()).lineage, options.create.lineage);
  const next = other.watch(2, { signal: AbortSignal.timeout(10_000) })[Symbol.asyncIterator]();
  const coming = next.next();
  await log.append(someAppend('addr/b'));
  assert.equal((await coming).value?.subject, 'addr/b');
  await next.return?.(undefined);
});
