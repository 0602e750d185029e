import assert from 'node:assert/strict';
import { cp, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test, type TestContext } from 'node:test';
import { openIdentity } from '../node/identity.ts';
import { openMembership, signMembership } from '../node/membership.ts';
import { claimDirectory, claimHolder } from './claim.ts';
import { layoutPaths, loadProcessConfig, readLayout } from './layout.ts';
import { createOrOpenLayout } from './layout-create.ts';
import { choosePorts, isListening, isPortFree } from './ports.ts';
import { rotateLog, withLogFile } from './log-file.ts';
import { isAlive, processId } from './process-id.ts';
import { appendFileSync, writeSync } from 'node:fs';

async function directory(t: TestContext): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'holdfast-layout-'));
  t.after(() => rm(dir, { recursive: true, force: true }));
  return join(dir, 'cluster');
}

async function membershipIn(dir: string) {
  const { file } = await readLayout(dir);
  return openMembership(await readFile(layoutPaths(dir).membership), Buffer.from(file.operator, 'hex'));
}

describe('a layout', () => {
  test('is born with every process in its zone, keys for the owner only, and opens again unchanged', async (t) => {
    const dir = await directory(t);
    const born = await createOrOpenLayout(dir, { port: 0, custodians: 0 });
    const { processes } = born.file;
    assert.equal(
      processes.map(({ name, zone }) => `${name}:${zone}`).join(' '),
      'node-1:a node-2:a node-3:b node-4:b node-5:c steward:a door:a',
    );
    assert.equal(born.created, true);
    for (const path of ['operator.key', 'token', 'keys/writer.key', 'node-3/identity.key']) {
      assert.equal((await stat(join(dir, path))).mode & 0o777, 0o600, path);
    }
    assert.equal((await stat(dir)).mode & 0o777, 0o700);
    const membership = await membershipIn(dir);
    assert.deepEqual(
      membership.members.map(({ peer }) => peer),
      processes.map(({ peer }) => peer),
    );
    const again = await createOrOpenLayout(dir);
    assert.equal(again.created, false);
    assert.deepEqual(again.file, born.file);
    assert.deepEqual(await readdir(join(dir, 'run')), [], 'the claim was given back');
  });

  test('tells each process what it needs', async (t) => {
    const dir = await directory(t);
    const { file } = await createOrOpenLayout(dir, {
      nodes: 1,
      port: 0,
      custodians: 0,
      settings: { beatMs: 100 },
    });
    const node = await loadProcessConfig(dir, 'node-1');
    assert.equal(node.peer, (await openIdentity(node.identityPath)).name);
    assert.deepEqual(node.roles, ['node']);
    assert.deepEqual(node.listen, [`/ip4/127.0.0.1/tcp/${file.processes[0]?.port}`]);
    assert.equal(node.settings.beatMs, 100);
    assert.equal(node.settings.graceMs, 10_000);
    assert.equal(node.born, false);
    assert.equal(node.door, undefined);
    const { door } = await loadProcessConfig(dir, 'door');
    assert.equal(door?.port, file.doorPort);
    assert.equal(Buffer.from(door?.token ?? '', 'base64url').length, 32);
    await assert.rejects(loadProcessConfig(dir, 'node-2'), {
      code: 'ARGUMENT_INVALID',
      message: /node-1, steward, door/,
    });
    await rm(node.identityPath);
    await assert.rejects(loadProcessConfig(dir, 'node-1'), {
      code: 'DATA_DIR_DAMAGED',
      message: /identity\.key is gone/,
    });
  });

  test('grows by members under the next membership version, and keeps who was added by hand', async (t) => {
    const dir = await directory(t);
    const born = await createOrOpenLayout(dir, { nodes: 3, port: 0, custodians: 0 });
    const operator = (await openIdentity(layoutPaths(dir).operatorKey)).signer;
    const guest = {
      name: 'guest',
      peer: (await openIdentity(layoutPaths(dir).writerKey)).name,
      roles: [],
      zone: 'a',
      host: 'elsewhere',
      addrs: [],
    };
    const present = await membershipIn(dir);
    const extended = { ...present, version: 5, members: [guest, ...present.members] };
    await writeFile(layoutPaths(dir).membership, signMembership(extended, operator));
    const grown = await createOrOpenLayout(dir, { nodes: 5, zones: 4 });
    assert.deepEqual(grown.joined, ['node-4', 'node-5']);
    assert.deepEqual(grown.file.processes.slice(0, 5), born.file.processes);
    assert.equal(grown.file.processes.find(({ name }) => name === 'node-4')?.zone, 'd');
    const membership = await membershipIn(dir);
    assert.equal(membership.version, 6);
    assert.deepEqual(
      membership.members.map(({ name }) => name),
      ['guest', ...grown.file.processes.map(({ name }) => name)],
    );
  });

  test('keeps its Beacon where it is: settings alone move nothing', async (t) => {
    const beacon = { engine: 'jetstream', stream: 'a', servers: ['nats://127.0.0.1:4222'] } as const;
    const [embedded, replicated] = [await directory(t), await directory(t)];
    const options = { nodes: 1, port: 0, custodians: 0 };
    await createOrOpenLayout(embedded, options);
    await assert.rejects(createOrOpenLayout(embedded, { settings: { beacon } }), {
      code: 'ARGUMENT_INVALID',
      message: /kept in leveldb.*beacon migrate/,
    });
    await createOrOpenLayout(replicated, { ...options, settings: { beacon } });
    const elsewhere = { ...beacon, servers: ['nats://127.0.0.1:4333'] };
    const { file } = await createOrOpenLayout(replicated, { settings: { beacon: elsewhere } });
    assert.deepEqual(file.settings.beacon, elsewhere);
    await assert.rejects(createOrOpenLayout(replicated, { settings: { beacon: { engine: 'leveldb' } } }), {
      code: 'ARGUMENT_INVALID',
    });
  });

  test('has one steward unless told otherwise, and grows by others, which join the Beacon of the first', async (t) => {
    const dir = await directory(t);
    const names = ({ file }: { file: { processes: readonly { name: string; role: string }[] } }) =>
      file.processes.filter(({ role }) => role === 'steward').map(({ name }) => name);
    assert.deepEqual(names(await createOrOpenLayout(dir, { nodes: 3, port: 0, custodians: 0 })), ['steward']);
    const grown = await createOrOpenLayout(dir, { stewards: 3 });
    assert.deepEqual(grown.joined, ['steward-2', 'steward-3']);
    assert.deepEqual(names(await createOrOpenLayout(dir)), ['steward', 'steward-2', 'steward-3']);
    assert.equal((await loadProcessConfig(dir, 'steward')).joins, false);
    assert.equal((await loadProcessConfig(dir, 'steward-3')).joins, true);
    for (const stewards of [2, 0, 9])
      await assert.rejects(createOrOpenLayout(dir, { stewards }), { code: 'ARGUMENT_INVALID' });
  });

  test('never shrinks', async (t) => {
    const dir = await directory(t);
    await createOrOpenLayout(dir, { nodes: 3, port: 0, custodians: 0 });
    await assert.rejects(createOrOpenLayout(dir, { nodes: 2 }), {
      code: 'ARGUMENT_INVALID',
      message: /has 3 nodes; 2 would leave out/,
    });
    await assert.rejects(createOrOpenLayout(dir, { zones: 2 }), {
      code: 'ARGUMENT_INVALID',
      message: /has 3 zones/,
    });
    await assert.rejects(createOrOpenLayout(dir, { zones: 4 }), {
      code: 'ARGUMENT_INVALID',
      message: /3 nodes cannot fill 4 zones/,
    });
  });

  test('has five custodians in turn over its zones unless told otherwise, and a cluster from before gets them', async (t) => {
    const dir = await directory(t);
    const custodiansOf = (file: { processes: readonly { name: string; role: string; zone: string }[] }) =>
      file.processes.filter(({ role }) => role === 'custodian').map(({ name, zone }) => `${name}:${zone}`);
    const none = await createOrOpenLayout(dir, { nodes: 2, port: 0, custodians: 0 });
    assert.deepEqual(custodiansOf((await createOrOpenLayout(dir)).file), [], 'none stays none');
    const { custodians: _, ...before } = none.file;
    await writeFile(layoutPaths(dir).cluster, JSON.stringify({ ...before, version: 1 }));
    const grown = await createOrOpenLayout(dir);
    const five = ['custodian-1:a', 'custodian-2:b', 'custodian-3:a', 'custodian-4:b', 'custodian-5:a'];
    assert.deepEqual(custodiansOf(grown.file), five);
    assert.equal(grown.joined.length, 5);
    assert.deepEqual(
      (await membershipIn(dir)).members.flatMap(({ name, roles }) =>
        roles.includes('custodian') ? [name] : [],
      ),
      five.map((each) => each.replace(/:.*/, '')),
    );
    assert.deepEqual((await createOrOpenLayout(dir)).file, grown.file);
    const config = await loadProcessConfig(dir, 'custodian-2');
    assert.match(config.custodian?.sealingKeyPath ?? '', /custodian-2.sealing\.key$/);
    assert.equal((await createOrOpenLayout(dir, { custodians: 6 })).joined.length, 1);
    await assert.rejects(createOrOpenLayout(dir, { custodians: 5 }), {
      code: 'ARGUMENT_INVALID',
      message: /has 6 custodians/,
    });
    await assert.rejects(createOrOpenLayout(dir, { custodians: 33 }), { code: 'ARGUMENT_INVALID' });
  });

  test('takes another door port when told to', async (t) => {
    const dir = await directory(t);
    const { file } = await createOrOpenLayout(dir, { nodes: 1, port: 0, custodians: 0 });
    const [port = 0] = await choosePorts(1, [file.doorPort]);
    assert.equal((await createOrOpenLayout(dir, { port })).file.doorPort, port);
    assert.equal((await createOrOpenLayout(dir)).file.doorPort, port);
    const taken = file.processes[0]?.port ?? 0;
    await assert.rejects(createOrOpenLayout(dir, { port: taken }), { code: 'ARGUMENT_INVALID' });
    await assert.rejects(createOrOpenLayout(dir, { port: 65_536 }), { code: 'ARGUMENT_INVALID' });
  });

  test('a crash at any file of its birth is completed, with the keys that are there', async (t) => {
    const dir = await directory(t);
    await createOrOpenLayout(dir, { nodes: 2, port: 0, custodians: 0 });
    const paths = layoutPaths(dir);
    const key = await readFile(paths.operatorKey);
    for (const lost of [
      [],
      ['membership.json'],
      ['membership.json', 'door'],
      ['membership.json', 'door', 'token', 'keys'],
    ]) {
      for (const name of ['cluster.json', ...lost])
        await rm(join(dir, name), { recursive: true, force: true });
      await writeFile(paths.creating, '');
      assert.equal((await createOrOpenLayout(dir, { nodes: 2, port: 0, custodians: 0 })).created, true);
      assert.deepEqual(await readFile(paths.operatorKey), key);
      assert.ok(!(await readdir(dir)).includes('creating'));
    }
  });

  test('a crash while growing is completed', async (t) => {
    const dir = await directory(t);
    await createOrOpenLayout(dir, { nodes: 2, port: 0, custodians: 0 });
    const before = await readFile(layoutPaths(dir).membership);
    await createOrOpenLayout(dir, { nodes: 3 });
    await writeFile(layoutPaths(dir).membership, before);
    const { file } = await createOrOpenLayout(dir);
    assert.equal((await membershipIn(dir)).version, 2);
    assert.deepEqual(
      (await membershipIn(dir)).members.map(({ name }) => name),
      file.processes.map(({ name }) => name),
    );
  });
});

describe('a directory that is not ours to fill', () => {
  test('another one, a newer one, a damaged one: refused, and left as it was', async (t) => {
    const dir = await directory(t);
    await mkdir(dir);
    await writeFile(join(dir, 'thesis.tex'), 'years of work');
    await assert.rejects(createOrOpenLayout(dir), { code: 'DATA_DIR_FOREIGN', message: /not empty/ });
    assert.deepEqual(await readdir(dir), ['thesis.tex']);
    await rm(join(dir, 'thesis.tex'));
    await createOrOpenLayout(dir, { nodes: 1, port: 0, custodians: 0 });
    const path = layoutPaths(dir).cluster;
    const text = await readFile(path, 'utf8');
    await writeFile(path, text.replace('"version": 2', '"version": 7'));
    await assert.rejects(createOrOpenLayout(dir), { code: 'DATA_DIR_NEWER', message: /format 7/ });
    await rm(path);
    await assert.rejects(createOrOpenLayout(dir), {
      code: 'DATA_DIR_DAMAGED',
      message: /cluster\.json is gone/,
    });
    await assert.rejects(readLayout(dir), { code: 'FILE_NOT_FOUND' });
    await writeFile(path, text);
    await createOrOpenLayout(dir);
  });

  test('every file that a cluster cannot do without is missed, and a changed membership is seen', async (t) => {
    const dir = await directory(t);
    await createOrOpenLayout(dir, { nodes: 1, port: 0, custodians: 0 });
    for (const name of [
      'operator.key',
      'token',
      'membership.json',
      'keys/writer.key',
      'node-1/identity.key',
      'door/identity.key',
    ]) {
      await cp(join(dir, name), `${dir}-kept`);
      await rm(join(dir, name));
      await assert.rejects(createOrOpenLayout(dir), { code: 'DATA_DIR_DAMAGED' }, name);
      await cp(`${dir}-kept`, join(dir, name));
    }
    const path = layoutPaths(dir).membership;
    const text = await readFile(path, 'utf8');
    await writeFile(path, text.replace('"zone": "a"', '"zone": "b"'));
    await assert.rejects(createOrOpenLayout(dir), { code: 'DATA_DIR_DAMAGED', message: /membership/ });
  });

  test('a path that is a file is said to be one', async (t) => {
    const dir = await directory(t);
    await writeFile(dir, '');
    await assert.rejects(createOrOpenLayout(dir), { code: 'FILE_UNREADABLE' });
  });
});

describe('a claim', () => {
  test('is held by one of many that ask at once, and by the next when given back', async (t) => {
    const dir = await directory(t);
    await mkdir(dir);
    const asked = await Promise.allSettled(Array.from({ length: 8 }, () => claimDirectory('root', dir)));
    const claims = asked.filter((result) => result.status === 'fulfilled').map((result) => result.value);
    assert.ok(claims.length <= 1, `${claims.length} hold it`);
    for (const result of asked) {
      if (result.status === 'rejected') assert.equal(result.reason.code, 'DATA_DIR_LOCKED');
    }
    for (const claim of claims) await claim[Symbol.asyncDispose]();
    await using again = await claimDirectory('root', dir);
    assert.equal((await claimHolder(dir))?.pid, again.holder.pid);
    await assert.rejects(claimDirectory('root', dir), {
      code: 'DATA_DIR_LOCKED',
      message: new RegExp(`process ${process.pid}; stop it with .holdfast down --data root`),
    });
  });

  test('of a dead process, or torn by a power loss, is taken over', async (t) => {
    const dir = await directory(t);
    await mkdir(dir);
    // This pid runs, but it is not the process that claimed.
    await writeFile(join(dir, '1.claim'), JSON.stringify({ pid: process.pid, started: 'another time' }));
    await writeFile(join(dir, '2.claim'), '{"pid":');
    await using _claim = await claimDirectory('root', dir);
    assert.equal((await readdir(dir)).length, 1);
  });

  test('a process is told from another with the same pid', async () => {
    const self = await processId(process.pid);
    assert.ok(self !== undefined && (await isAlive(self)));
    assert.equal(await isAlive({ ...self, started: `${self.started}1` }), false);
    assert.equal(await processId(2 ** 22 + 1), undefined);
  });
});

describe('ports and logs', () => {
  test('chosen ports are free, different and outside the ephemeral range', async () => {
    const ports = await choosePorts(5, []);
    assert.equal(new Set(ports).size, 5);
    assert.ok(ports.every((port) => port >= 20_000 && port < 32_000));
    const server = createServer();
    await new Promise<void>((resolve) => server.listen({ port: ports[0], host: '127.0.0.1' }, resolve));
    assert.equal(await isPortFree(ports[0] ?? 0), false);
    server.close();
  });

  test('a log is cut at its bound while its writer goes on, and one before it is kept', async (t) => {
    const dir = await directory(t);
    const path = join(dir, 'a.log');
    const written = withLogFile(path, (descriptor) => {
      writeSync(descriptor, 'first\n');
      return 'first\n';
    });
    assert.equal(await rotateLog(path, written.length), false);
    appendFileSync(path, 'more\n');
    assert.equal(await rotateLog(path, written.length), true);
    withLogFile(path, (descriptor) => writeSync(descriptor, 'next\n'));
    assert.equal(await readFile(`${path}.1`, 'utf8'), 'first\nmore\n');
    assert.equal(await readFile(path, 'utf8'), 'next\n');
    assert.equal(await rotateLog(join(dir, 'none.log')), false);
  });
});

test('a port of an outgoing connection is neither free nor listened on', async (t) => {
  const server = createServer((socket) => socket.resume()).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  assert.ok(typeof address === 'object' && address !== null);
  const outgoing = connect(address.port, '127.0.0.1').resume();
  t.after(() => {
    outgoing.destroy();
    server.close();
  });
  await once(outgoing, 'connect');
  const port = outgoing.localPort ?? 0;
  assert.deepEqual([await isPortFree(port), await isListening(port)], [false, false]);
  assert.deepEqual([await isPortFree(address.port), await isListening(address.port)], [false, true]);
});
