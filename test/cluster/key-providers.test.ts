// Keys of a real cluster move between the key file, a token and custodians while documents are read and written.

import assert from 'node:assert/strict';
import { mkdir, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import type { WrappedKeysAnswer } from '../../src/api/types.ts';
import { openProvider } from '../../src/cli/custody-provider.ts';
import { custodianKeys } from '../../src/cli/connect.ts';
import { HoldfastClient } from '../../src/client/client.ts';
import { devKeyPath, layoutPaths } from '../../src/local/layout.ts';
import { openIdentity, openOrCreateIdentity } from '../../src/node/identity.ts';
import { TestCluster } from '../helpers/cluster.ts';
import { commandLine } from '../helpers/command-line.ts';
import { custodyAnswered, untilCustody } from '../helpers/custody.ts';
import { makeSoftTokens, softTokenSkip, type SoftTokens } from '../support/soft-token.ts';

const documents = 12;
let cluster: TestCluster | undefined;

/** The cluster of the test that is running. */
function the(): TestCluster {
  assert.ok(cluster !== undefined);
  return cluster;
}

const { run, json: holdfast } = commandLine(the);

async function configure(soft: SoftTokens, make?: string, recovery?: object): Promise<void> {
  const { dir } = the();
  const hsm = {
    type: 'pkcs11',
    module: soft.modulePath,
    token: 'holdfast',
    key: 'keys',
    pinFile: soft.pinFile,
  };
  const config = {
    format: 'holdfast-key-providers',
    version: 1,
    providers: { hsm },
    ...(make && { make }),
    ...(recovery && { recovery }),
  };
  await mkdir(layoutPaths(dir).custody, { recursive: true, mode: 0o700 });
  await writeFile(layoutPaths(dir).keyProviders, JSON.stringify(config), { mode: 0o600 });
}

async function firstKeys(): Promise<WrappedKeysAnswer> {
  const response = await the().fetch('/v1/custody/keys?limit=1');
  const body = (await response.json()) as { response: { data: WrappedKeysAnswer } };
  return body.response.data;
}

/** A client as the command line has it: its own keys, everything over HTTP. */
async function newClient(
  stack: AsyncDisposableStack,
  custodians: Custodians = new Map(),
): Promise<HoldfastClient> {
  const at = the();
  const door = { url: at.url, token: await at.token() };
  const { signer } = await openIdentity(layoutPaths(at.dir).writerKey);
  const provider = stack.use(await openProvider(door, at.dir, signer, async () => custodians));
  return stack.use(new HoldfastClient({ ...door, signer, provider }));
}

type Custodians = ReadonlyMap<string, Uint8Array>;

const addressOf = (index: number): string => `ucxl://agent:author@moved:keys/*^/doc-${index}`;
const restricted = 'ucxl://agent:author@moved:keys/*^/restricted';

async function putAll(): Promise<void> {
  await using stack = new AsyncDisposableStack();
  const client = await newClient(stack);
  for (let index = 0; index < documents; index++) {
    // A client has one branch key for all of them: some have one of their own.
    await using one = new AsyncDisposableStack();
    const writer = index % 4 === 0 ? await newClient(one) : client;
    await writer.put(addressOf(index), [Buffer.from(`document ${index}`)]);
  }
  await client.put(restricted, [Buffer.from('for few')], { cls: 'restricted' });
}

async function readAll(client: HoldfastClient): Promise<number> {
  for (let index = 0; index < documents; index++) {
    const opened = await client.get(addressOf(index));
    const parts: Uint8Array[] = [];
    for await (const part of opened.bytes) parts.push(part);
    assert.equal(Buffer.concat(parts).toString(), `document ${index}`);
  }
  const { bytes } = await client.get(restricted);
  for await (const part of bytes) assert.equal(Buffer.from(part).toString(), 'for few');
  // The door opens by its own providers.
  const response = await the().fetch(`/ucxi/v1/get?address=${encodeURIComponent(addressOf(0))}`);
  assert.equal(await response.text(), 'document 0');
  return documents + 2;
}

/** Writes one and reads everything again and again, each time by a new client that has no key open, until `work` is done. */
async function whileReading<T>(
  work: Promise<T>,
  custodians?: Custodians,
): Promise<{ readonly result: T; readonly reads: number }> {
  const done = new AbortController();
  const result = work.finally(() => done.abort());
  result.catch(() => undefined); // awaited below
  let reads = 0;
  do {
    await using stack = new AsyncDisposableStack();
    const client = await newClient(stack, custodians);
    await client.put(addressOf(documents), [Buffer.from('written meanwhile')]);
    reads += await readAll(client);
  } while (!done.signal.aborted);
  return { result: await result, reads };
}

/** What a move would find. */
async function count(
  to: string,
): Promise<{ readonly total: number; readonly under: Record<string, number> }> {
  return holdfast('custody', 'migrate', '--to', to, '--dry-run');
}

interface Moved {
  readonly moved: number;
  readonly dropped: number;
  readonly failed: number;
}

test('keys go from the key file into a token and back, and no read fails', {
  skip: softTokenSkip ?? false,
}, async () => {
  await using tokens = await makeSoftTokens(['holdfast']);
  await using at = await TestCluster.start({ nodes: 3, settings: { beatMs: 300 } });
  cluster = at;
  await putAll();
  await configure(tokens);
  await holdfast('custody', 'providers', '--create', 'hsm');
  assert.equal((await stat(layoutPaths(at.dir).keyProviders)).mode & 0o777, 0o600);
  await untilDoorOpens('hsm');

  const planned = await count('hsm');
  assert.deepEqual(planned.under, { file: planned.total, hsm: 0 });
  assert.ok(planned.total >= 4, `${planned.total} keys: one of each client, and one of an object`);

  await configure(tokens, 'hsm');
  const there = await whileReading(holdfast<Moved>('custody', 'migrate', '--to', 'hsm', '--wait'));
  assert.deepEqual(
    [there.result.moved, there.result.dropped, there.result.failed],
    [planned.total, planned.total, 0],
  );
  assert.ok(there.reads > 0);
  const { under } = await count('file');
  assert.equal(under['file'], 0);

  await configure(tokens, 'file');
  const back = await whileReading(holdfast<Moved>('custody', 'migrate', '--to', 'file'));
  assert.deepEqual(
    [back.result.moved, back.result.dropped, back.result.failed],
    [under['hsm'], under['hsm'], 0],
  );
  const verified = await holdfast<{ ok?: boolean }[] | { ok?: boolean }>('beacon', 'verify');
  assert.ok(JSON.stringify(verified).includes('"ok":true'), JSON.stringify(verified));
  await using stack = new AsyncDisposableStack();
  await readAll(await newClient(stack));
});

async function untilDoorOpens(group: string): Promise<void> {
  const deadline = AbortSignal.timeout(20_000);
  while ((await firstKeys()).opens?.includes(group) !== true) {
    assert.ok(!deadline.aborted, 'the door reads its configuration with each beat');
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

test('what is under the key file goes to custodians that came later, and then needs no key file', async () => {
  await using old = await TestCluster.start({ nodes: 3, settings: { beatMs: 300 } });
  cluster = old;
  await putAll();
  await old.down();
  await using grown = await TestCluster.start({ dir: old.dir, custodians: 3 });
  cluster = grown;
  await untilCustody(
    () => custodyAnswered(grown),
    'the custodians make their first key',
    ({ key }) => key !== null,
  );
  const custodians = await custodianKeys(grown.dir);
  const { result, reads } = await whileReading(
    holdfast<Moved>('custody', 'migrate', '--to', 'custodians', '--wait'),
    custodians,
  );
  assert.deepEqual([result.moved, result.failed, reads > 0], [documents + 1, 0, true]);
  await rm(devKeyPath({ keysDir: layoutPaths(grown.dir).keys }));
  await using stack = new AsyncDisposableStack();
  await readAll(await newClient(stack, custodians));
});

test('with the key file lost, the recovery key brings its keys into a token', {
  skip: softTokenSkip ?? false,
}, async () => {
  await using tokens = await makeSoftTokens(['holdfast']);
  await using at = await TestCluster.start({ nodes: 3, settings: { beatMs: 300 } });
  cluster = at;
  const paths = layoutPaths(at.dir);
  const [plan, secret, second] = ['plan.json', 'recovery.key', 'second.key'].map((name) =>
    join(at.dir, name),
  );
  assert.ok(plan !== undefined && secret !== undefined && second !== undefined);
  const { publicKey } = await holdfast<{ publicKey: string }>('custody', 'recovery', 'new-key', secret);
  const signers = [await openIdentity(paths.operatorKey), await openOrCreateIdentity(second)];
  const authorities = signers.map(({ signer }) => Buffer.from(signer.publicKey).toString('hex'));
  await configure(tokens, undefined, { publicKey, authorities });
  await holdfast('custody', 'providers', '--create', 'hsm');
  await putAll();
  await rm(devKeyPath({ keysDir: paths.keys }));
  await configure(tokens, 'hsm', { publicKey, authorities });
  await holdfast('custody', 'recovery', 'order', plan, '--reason', 'the disk with the key burnt');
  const open = ['custody', 'recovery', 'open', plan, secret, '--to', 'hsm'];
  const early = await run(...open, '--json');
  assert.deepEqual([early.status === 0, /1 of 2 authorities/.test(early.out)], [false, true], early.out);
  await holdfast('custody', 'recovery', 'order', plan, '--as', second);
  const { recovered, failures } = await holdfast<{ recovered: number; failures: object[] }>(...open);
  assert.deepEqual([recovered >= 4, failures], [true, []]);
  await untilDoorOpens('hsm');
  await using stack = new AsyncDisposableStack();
  await readAll(await newClient(stack));
  const health = await (await at.fetch('/health/checks')).text();
  assert.match(health, /ALARM: keys were opened for a recovery.*the disk with the key burnt/);
});
