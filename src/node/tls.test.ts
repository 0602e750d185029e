import assert from 'node:assert/strict';
import { generateKeyPairSync, sign, X509Certificate } from 'node:crypto';
import { test, type TestContext } from 'node:test';
import type { Connection, PeerId } from '@libp2p/interface';
import { noise } from '@libp2p/noise';
import { tcp } from '@libp2p/tcp';
import { tls as stockTls } from '@libp2p/tls';
import { yamux } from '@libp2p/yamux';
import { createLibp2p, type Libp2p, type Libp2pOptions } from 'libp2p';
import { concat, utf8 } from '../core/bytes.ts';
import { day } from '../core/clock.ts';
import { bitString, der, readAll, readDer, tags } from './der.ts';
import { identityFromSeed } from './identity.ts';
import { noiseLate } from './noise-late.ts';
import { makeCertificate, peerOfCertificate } from './tls-certificate.ts';
import { tls } from './tls.ts';

const now = Date.UTC(2026, 0, 1);
const sender = identityFromSeed(new Uint8Array(32).fill(1));
const receiver = identityFromSeed(new Uint8Array(32).fill(2));
const protocol = '/echo/1.0.0';
type Encrypter = NonNullable<Libp2pOptions['connectionEncrypters']>[number];

async function start(t: TestContext, identity: typeof sender, ...encrypters: Encrypter[]): Promise<Libp2p> {
  const peer = await createLibp2p({
    privateKey: identity.privateKey,
    addresses: { listen: ['/ip4/127.0.0.1/tcp/0'] },
    transports: [tcp()],
    connectionEncrypters: encrypters,
    streamMuxers: [yamux()],
    connectionGater: { denyDialMultiaddr: () => false },
  });
  t.after(() => peer.stop());
  return peer;
}

/** Sends `bytes` there and returns what comes back. */
async function echo(connection: Connection, bytes: Uint8Array): Promise<Uint8Array> {
  const stream = await connection.newStream(protocol);
  const parts: Uint8Array[] = [];
  const reading = (async () => {
    for await (const chunk of stream) parts.push(chunk.subarray());
  })();
  for (let at = 0; at < bytes.length; at += 65_536) {
    if (!stream.send(bytes.subarray(at, at + 65_536))) await stream.onDrain();
  }
  await stream.close();
  await reading;
  return concat(...parts);
}

for (const [name, from, to] of [
  ['ours with ours', tls(), tls()],
  ['ours with the stock one', tls(), stockTls()],
  ['the stock one with ours', stockTls(), tls()],
] as const) {
  test(`${name}: both are told whom they speak with, and bytes arrive`, async (t) => {
    const [a, b] = await Promise.all([start(t, sender, from), start(t, receiver, to)]);
    let seen: PeerId | undefined;
    await b.handle(protocol, async (stream, connection) => {
      seen = connection.remotePeer;
      for await (const chunk of stream) if (!stream.send(chunk)) await stream.onDrain();
      await stream.close();
    });
    const connection = await a.dial(b.getMultiaddrs());
    assert.equal(connection.remotePeer.toString(), receiver.name);
    assert.equal(connection.encryption, '/tls/1.0.0');
    assert.equal(connection.multiplexer, '/yamux/1.0.0');
    const bytes = new Uint8Array(3_000_001).map((_, index) => index % 251);
    const back = await echo(connection, bytes);
    assert.equal(seen?.toString(), sender.name);
    assert.ok(Buffer.from(bytes).equals(back), `${back.length} bytes came back`);
  });
}

test('a peer that speaks Noise only still finds one that offers both', async (t) => {
  const [a, b] = await Promise.all([start(t, sender, noise()), start(t, receiver, tls(), noiseLate())]);
  const [there, back] = [await a.dial(b.getMultiaddrs()), await b.dial(a.getMultiaddrs())];
  assert.deepEqual([there.encryption, back.encryption], ['/noise', '/noise']);
  assert.equal(there.remotePeer.toString(), receiver.name);
});

test('a peer that is not the one that was dialled is refused', async (t) => {
  const [a, b] = await Promise.all([start(t, sender, tls()), start(t, receiver, tls())]);
  const { name: third } = identityFromSeed(new Uint8Array(32).fill(3));
  const [address] = b.getMultiaddrs();
  assert.ok(address !== undefined);
  await assert.rejects(a.dial(address.decapsulate('/p2p').encapsulate(`/p2p/${third}`)), /unexpected peer/i);
});

/** The certificate with its signed part changed by `change`, signed again. */
async function forged(change: (parts: Uint8Array[]) => Uint8Array[]): Promise<Uint8Array> {
  const made = await makeCertificate(sender.privateKey, now);
  const raw = new Uint8Array(new X509Certificate(made.cert).raw);
  const [signed, algorithm] = readAll(readDer(raw, tags.sequence));
  assert.ok(signed !== undefined && algorithm !== undefined);
  const parts = readAll(signed.content).map(({ tag, content }) => der(tag, content));
  const body = der(tags.sequence, ...change(parts));
  return der(
    tags.sequence,
    body,
    der(tags.sequence, algorithm.content),
    bitString(sign('sha256', body, made.key)),
  );
}

test('a certificate tells the peer that vouches for it', async () => {
  const { cert } = await makeCertificate(sender.privateKey, now);
  const { raw } = new X509Certificate(cert);
  assert.equal((await peerOfCertificate(raw, now)).toString(), sender.name);
  assert.equal((await peerOfCertificate(await forged((parts) => parts), now)).toString(), sender.name);
});

test('a certificate out of its time is refused', async () => {
  const { cert } = await makeCertificate(sender.privateKey, now);
  const { raw } = new X509Certificate(cert);
  await assert.rejects(peerOfCertificate(raw, Date.UTC(1999, 11, 31)), /not valid yet/);
  await assert.rejects(peerOfCertificate(raw, now + 40_000 * day), /not valid any more/);
});

test('a certificate with one changed bit is refused, wherever it is', async () => {
  const { cert } = await makeCertificate(sender.privateKey, now);
  const { raw } = new X509Certificate(cert);
  for (let at = 0; at < raw.length; at++) {
    const changed = new Uint8Array(raw);
    changed[at] = (changed[at] ?? 0) ^ 1;
    await assert.rejects(peerOfCertificate(changed, now), `byte ${at}`);
  }
});

test('a certificate for a key that the peer did not sign is refused, also when it is signed by that key', async () => {
  const made = await makeCertificate(sender.privateKey, now);
  const raw = new Uint8Array(new X509Certificate(made.cert).raw);
  const [signed, algorithm] = readAll(readDer(raw, tags.sequence));
  assert.ok(signed !== undefined && algorithm !== undefined);
  const thief = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const parts = readAll(signed.content).map(({ tag, content }) => der(tag, content));
  parts[6] = new Uint8Array(thief.publicKey.export({ type: 'spki', format: 'der' }));
  const body = der(tags.sequence, ...parts);
  const bytes = der(
    tags.sequence,
    body,
    der(tags.sequence, algorithm.content),
    bitString(sign('sha256', body, thief.privateKey)),
  );
  assert.ok(new X509Certificate(bytes).verify(thief.publicKey));
  await assert.rejects(peerOfCertificate(bytes, now), /does not vouch/);
});

test('no peer key, two of them, or a critical extension that nobody knows', async () => {
  const withExtensions = (change: (extension: Uint8Array) => Uint8Array[]) =>
    forged((parts) => {
      const [list] = readAll(parts.at(-1) ?? new Uint8Array(0));
      const [only] = readAll(readDer(list?.content ?? new Uint8Array(0), tags.sequence));
      assert.ok(only !== undefined);
      const extensions = der(tags.sequence, ...change(der(only.tag, only.content)));
      return [...parts.slice(0, -1), der(0xa3, extensions)];
    });
  const other = (isCritical: boolean) =>
    der(
      tags.sequence,
      der(tags.oid, Uint8Array.of(0x2a, 0x03, 0x04)),
      ...(isCritical ? [der(tags.boolean, Uint8Array.of(0xff))] : []),
      der(tags.octetString, utf8('x')),
    );
  const peerOf = async (bytes: Uint8Array) => (await peerOfCertificate(bytes, now)).toString();
  assert.equal(await peerOf(await withExtensions((own) => [other(false), own])), sender.name);
  await assert.rejects(peerOf(await withExtensions(() => [other(false)])), /no peer key/);
  await assert.rejects(peerOf(await withExtensions((own) => [own, own])));
  await assert.rejects(peerOf(await withExtensions((own) => [own, other(true)])), /critical/);
});
