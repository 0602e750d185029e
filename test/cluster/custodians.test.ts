// Custodians as real processes: they witness each other, one may fail, and one may run outside of the cluster's supervisor.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { cosignaturesOf, openCheckpoint } from '../../src/custody/checkpoint.ts';
import { layoutPaths, readLayout } from '../../src/local/layout.ts';
import { publicKeyOfPeer } from '../../src/node/identity.ts';
import { TestCluster } from '../helpers/cluster.ts';
import { program } from '../helpers/command-line.ts';
import { endsWithUs } from '../support/ends-with-us.ts';

let cluster: TestCluster;
before(async () => {
  cluster = await TestCluster.start({ nodes: 1, custodians: 3, settings: { beatMs: 300 } });
});
after(() => cluster[Symbol.asyncDispose]());

async function keysOf() {
  const { file } = await readLayout(cluster.dir);
  return file.processes
    .filter(({ role }) => role === 'custodian')
    .map(({ name, peer }) => ({ name: `${file.cluster}/${name}`, publicKey: publicKeyOfPeer(peer) }));
}

/** Waits until the checkpoint of the first custodian is over `size` entries or more, vouched for by `witnesses`. */
async function untilCosigned(size: number, witnesses: number): Promise<number> {
  const [own, ...others] = await keysOf();
  assert.ok(own !== undefined);
  const path = join(layoutPaths(cluster.dir).data('custodian-1'), 'stores/audit/checkpoint');
  const deadline = AbortSignal.timeout(60_000);
  for (;;) {
    const note = await readFile(path, 'utf8').catch(() => undefined);
    if (note !== undefined) {
      const found = openCheckpoint(note, own).size;
      if (found >= size && cosignaturesOf(note, others).length === witnesses) return found;
    }
    assert.ok(!deadline.aborted, `not cosigned by ${witnesses}:\n${note ?? 'no checkpoint'}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

test('each log is vouched for by the others, and goes on over a crash', async () => {
  const before = await untilCosigned(1, 2);
  const control = await cluster.control();
  await control.killNode('custodian-1');
  await control.startNode('custodian-1');
  await untilCosigned(before + 1, 2);
  const key = await stat(layoutPaths(cluster.dir).sealingKey('custodian-1'));
  assert.equal(key.mode & 0o777, 0o600);
});

test('one runs by itself, from a configuration, and is the same custodian', async () => {
  const { file } = await readLayout(cluster.dir);
  const entry = file.processes.find(({ name }) => name === 'custodian-3');
  assert.ok(entry !== undefined);
  await (await cluster.control()).stopNode('custodian-3');
  const paths = layoutPaths(cluster.dir);
  const config = join(cluster.dir, 'custodian-3.json');
  await writeFile(
    config,
    JSON.stringify({
      format: 'holdfast-custodian',
      version: 1,
      cluster: file.cluster,
      operator: file.operator,
      name: entry.name,
      zone: entry.zone,
      host: '127.0.0.1',
      port: entry.port,
      dataDir: 'custodian-3/data',
      identity: 'custodian-3/identity.key',
      membership: 'membership.json',
      passphrase: 'custodian-3/passphrase',
      sealingKey: paths.sealingKey('custodian-3'),
    }),
  );
  const child = spawn(process.execPath, [program, 'custodian', '--config', config], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  endsWithUs(child);
  const [said] = await once(child.stdout, 'data');
  assert.equal(String(said).trim(), entry.peer);
  await (await cluster.control()).killNode('custodian-1');
  await (await cluster.control()).startNode('custodian-1');
  await untilCosigned(3, 2);
  child.kill('SIGTERM');
  assert.deepEqual(await once(child, 'exit'), [0, null]);
});
