// What leaves the client is sealed: no plaintext and no content key in any data directory, in any message
// between processes, or in anything the client sends to the door.
//
// All roles run in this process, each on its own directory and its own port, so that every frame can be seen
// before it is encrypted for the network. The positive control puts the same plaintext through the sealing
// door: it must be seen on the way in, or the capture is blind.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { connect, createServer, type Server } from 'node:net';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { startCustodianRole } from '../../src/app/custodian-role.ts';
import { startDoorRole } from '../../src/app/door-role.ts';
import { systemClock } from '../../src/app/member.ts';
import { startNodeRole } from '../../src/app/node-role.ts';
import { startStewardRole } from '../../src/app/steward-role.ts';
import { HoldfastClient, openDevFile, type KekProvider } from '../../src/client/index.ts';
import { asBuffer } from '../../src/core/bytes.ts';
import { BranchKeys } from '../../src/custody/keyring.ts';
import { headerTagOf } from '../../src/envelope/floe.ts';
import { keyOfEnvelope, parseBranchKey, parseEnvelope } from '../../src/envelope/records.ts';
import { unwrapDek } from '../../src/envelope/wrap.ts';
import { createOrOpenLayout } from '../../src/local/layout-create.ts';
import { devKeyPath, layoutPaths, loadProcessConfig, readToken } from '../../src/local/layout.ts';
import { readCar } from '../../src/manifest/car.ts';
import { openManifest } from '../../src/manifest/manifest.ts';
import { openRecord } from '../../src/manifest/record.ts';
import { openIdentity } from '../../src/node/identity.ts';

/** Long enough not to occur by chance, and repeated, so that every segment holds it. */
const secret = randomBytes(64);
const plaintext = Buffer.concat(Array.from({ length: 10_000 }, () => secret));
const address = 'ucxl://alice:author@secrecy:test/*^/plan.bin';

const frames: Uint8Array[] = [];
const http: Uint8Array[] = [];
const stack = new AsyncDisposableStack();
let dir: string;
let client: HoldfastClient;
let provider: KekProvider;
let proxyUrl: string;
let token: string;

before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'holdfast-secrecy-'));
  stack.defer(() => rm(dir, { recursive: true, force: true, maxRetries: 5 }));
  const layout = await createOrOpenLayout(dir, { nodes: 3, zones: 3, custodians: 0, port: 0 });
  const paths = layoutPaths(dir);
  provider = stack.use(
    await openDevFile({ path: devKeyPath({ keysDir: paths.keys }), clock: systemClock, create: true }),
  );
  const tap = (_direction: string, _peer: string, frame: Uint8Array): void =>
    void frames.push(Uint8Array.from(frame));
  const starters = {
    node: startNodeRole,
    steward: startStewardRole,
    door: startDoorRole,
    custodian: startCustodianRole,
  } as const;
  const started = layout.file.processes.map(async ({ name, role }) =>
    starters[role](await loadProcessConfig(dir, name), { tap }),
  );
  for (const role of await Promise.all(started)) stack.use(role);
  proxyUrl = `http://127.0.0.1:${await recordingProxy(layout.file.doorPort)}`;
  token = await readToken(dir);
  const { signer } = await openIdentity(paths.writerKey);
  client = stack.use(new HoldfastClient({ url: proxyUrl, token, signer, provider }));
});

after(() => stack.disposeAsync());

test('neither plaintext nor content key leaves the client, on the wire or to a disk', async () => {
  const done = await client.put(address, [plaintext], { replication: { min: 3, max: 3, zones: 3 } });
  const { bytes } = await client.get(done.address);
  const parts: Uint8Array[] = [];
  for await (const part of bytes) parts.push(part);
  assert.ok(Buffer.concat(parts).equals(plaintext), 'the round trip works');

  const dek = await contentKey(done.address);
  assert.ok(
    frames.length > 20 && totalBytes(frames) > plaintext.length,
    'the frames of the put were captured',
  );
  assert.ok(totalBytes(http) > plaintext.length, 'the HTTP traffic was captured');
  for (const [what, needle] of [
    ['plaintext', secret.subarray(0, 32)],
    ['content key', dek],
  ] as const) {
    assert.equal(occurrences(frames, needle), 0, `${what} in messages between processes`);
    assert.equal(occurrences(http, needle), 0, `${what} in the client's traffic`);
    assert.deepEqual(await filesWith(dir, needle), [], `${what} in files`);
  }
  // The searches must be able to find something: the ciphertext that was stored is in frames and files alike.
  const ciphertext = await firstBlock(done.cid.toString());
  assert.ok(occurrences(frames, ciphertext) > 0);
  assert.notDeepEqual(await filesWith(dir, ciphertext), []);
});

test('a sealing door sees plaintext on the way in, and passes only ciphertext on', async () => {
  frames.length = 0;
  http.length = 0;
  const response = await fetch(`${proxyUrl}/ucxi/v1/put?address=${encodeURIComponent(`${address}.curl`)}`, {
    method: 'PUT',
    headers: { authorization: `Bearer ${token}` },
    body: plaintext,
  });
  assert.equal(response.status, 201, await response.text());
  assert.ok(occurrences(http, secret) > 0, 'the capture sees plaintext where there is some');
  assert.equal(occurrences(frames, secret.subarray(0, 32)), 0);
  assert.deepEqual(await filesWith(dir, secret.subarray(0, 32)), []);
});

async function contentKey(exact: string): Promise<Uint8Array> {
  const response = await fetch(`${proxyUrl}/ucxi/v1/records?address=${encodeURIComponent(exact)}`, {
    headers: { authorization: `Bearer ${token}` },
  });
  assert.ok(response.body !== null && response.status === 200);
  const [manifest, envelope, branchKey] = await Array.fromAsync(readCar(response.body));
  assert.ok(manifest !== undefined && envelope !== undefined && branchKey !== undefined);
  const { encryption } = openManifest(manifest.bytes).body;
  const body = parseEnvelope(openRecord(envelope.bytes).body);
  const { policy, wrap, objId } = body;
  const { bkId, bkVer } = keyOfEnvelope(body);
  assert.ok(encryption !== null);
  const random = (bytes: number): Uint8Array => new Uint8Array(randomBytes(bytes));
  await using keys = new BranchKeys({ provider, writer: new Uint8Array(32), random });
  const request = { purpose: 'read', requester: new Uint8Array(32), beat: 1 } as const;
  using loan = await keys.open(parseBranchKey(openRecord(branchKey.bytes).body), request);
  return unwrapDek(loan.key, wrap, { objId, headerTag: headerTagOf(encryption.hdr), bkId, bkVer, policy });
}

/** 32 bytes out of the middle of a stored content block. */
async function firstBlock(manifestCid: string): Promise<Uint8Array> {
  const headers = { authorization: `Bearer ${token}` };
  const manifest = await fetch(`${proxyUrl}/ucxi/v1/blocks/${manifestCid}`, { headers });
  const { cid } = openManifest(new Uint8Array(await manifest.arrayBuffer())).body;
  const root = await fetch(`${proxyUrl}/ucxi/v1/blocks/${cid?.toString() ?? ''}`, { headers });
  const bytes = new Uint8Array(await root.arrayBuffer());
  return bytes.slice(bytes.length / 2, bytes.length / 2 + 32);
}

async function recordingProxy(target: number): Promise<number> {
  const server: Server = createServer((inside) => {
    const outside = connect(target, '127.0.0.1');
    for (const [from, to] of [
      [inside, outside],
      [outside, inside],
    ] as const) {
      from.on('data', (chunk: Buffer) => {
        http.push(Uint8Array.from(chunk));
        to.write(chunk);
      });
      from.on('end', () => to.end());
      from.on('error', () => to.destroy());
    }
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  stack.defer(() => {
    server.close();
  });
  const found = server.address();
  assert.ok(typeof found === 'object' && found !== null);
  return found.port;
}

/** Over all chunks in order, so that nothing hides where one ends and the next begins. */
function occurrences(chunks: readonly Uint8Array[], needle: Uint8Array): number {
  const whole = Buffer.concat(chunks);
  let count = 0;
  for (let at = whole.indexOf(asBuffer(needle)); at >= 0; at = whole.indexOf(asBuffer(needle), at + 1))
    count++;
  return count;
}

async function filesWith(directory: string, needle: Uint8Array): Promise<string[]> {
  const found: string[] = [];
  for (const entry of await readdir(directory, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const path = join(entry.parentPath, entry.name);
    const bytes = await readFile(path).catch(() => Buffer.alloc(0)); // removed meanwhile by a compaction
    if (bytes.includes(asBuffer(needle))) found.push(path);
  }
  return found;
}

function totalBytes(chunks: readonly Uint8Array[]): number {
  return chunks.reduce((sum, chunk) => sum + chunk.length, 0);
}
