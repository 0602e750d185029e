import assert from 'node:assert/strict';
import { generateKeyPairSync, sign, X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { connect } from 'node:net';
import { Duplex } from 'node:stream';
import { test, type TestContext } from 'node:test';
import { connect as connectTls } from 'node:tls';
import type { Connection, MessageStream, PeerId, Stream } from '@libp2p/interface';
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

async function start(
  t: TestContext,
  identity: typeof sender,
  { encrypters, transport = tcp() }: { encrypters: Encrypter[]; transport?: ReturnType<typeof tcp> },
): Promise<Libp2p> {
  const peer = await createLibp2p({
    privateKey: identity.privateKey,
    addresses: { listen: ['/ip4/127.0.0.1/tcp/0'] },
    transports: [transport],
    connectionEncrypters: encrypters,
    streamMuxers: [yamux()],
    connectionGater: { denyDialMultiaddr: () => false },
    connectionManager: { inboundConnectionThreshold: 1000 },
  });
  t.after(() => peer.stop());
  return peer;
}

async function echoes(stream: Stream): Promise<void> {
  for await (const chunk of stream) if (!stream.send(chunk)) await stream.onDrain();
  await stream.close();
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
    const [a, b] = await Promise.all([
      start(t, sender, { encrypters: [from] }),
      start(t, receiver, { encrypters: [to] }),
    ]);
    let seen: PeerId | undefined;
    await b.handle(protocol, (stream, connection) => {
      seen = connection.remotePeer;
      return echoes(stream);
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

/** TCP that shows what it hands to the encrypter when it dials. */
function watchedTcp(seen: MessageStream[], init?: Parameters<typeof tcp>[0]): ReturnType<typeof tcp> {
  return (components) => {
    const transport = tcp(init)(components);
    const dial = transport.dial.bind(transport);
    transport.dial = (address, options) => {
      const upgradeOutbound: typeof options.upgrader.upgradeOutbound = (connection, more) => {
        seen.push(connection);
        return options.upgrader.upgradeOutbound(connection, more);
      };
      return dial(address, { ...options, upgrader: { ...options.upgrader, upgradeOutbound } });
    };
    return transport;
  };
}

test('over TCP nothing that is encrypted passes through JavaScript', async (t) => {
  const seen: MessageStream[] = [];
  const [a, b] = await Promise.all([
    start(t, sender, { encrypters: [tls()], transport: watchedTcp(seen) }),
    start(t, receiver, { encrypters: [tls()] }),
  ]);
  await b.handle(protocol, echoes);
  const connection = await a.dial(b.getMultiaddrs());
  const [below] = seen;
  assert.ok(below !== undefined);
  let passed = 0;
  below.addEventListener('message', ({ data }) => (passed += data.byteLength));
  const send = below.send.bind(below);
  below.send = (data) => {
    passed += data.byteLength;
    return send(data);
  };
  assert.equal((await echo(connection, new Uint8Array(100_000))).length, 100_000);
  assert.equal(passed, 0);
});

test('a connection on which nothing moves is ended, as TCP alone would, and none on which something does', async (t) => {
  const seen: MessageStream[] = [];
  const transport = watchedTcp(seen, { outboundSocketInactivityTimeout: 2000 });
  const [a, b] = await Promise.all([
    start(t, sender, { encrypters: [tls()], transport }),
    start(t, receiver, { encrypters: [tls()] }),
  ]);
  await b.handle(protocol, echoes);
  const connection = await a.dial(b.getMultiaddrs());
  for (let round = 0; round < 8; round++) {
    await echo(connection, new Uint8Array(10));
    await new Promise((resolve) => setTimeout(resolve, 300));
  }
  assert.equal(connection.status, 'open');
  await once(connection, 'close', { signal: AbortSignal.timeout(20_000) });
  assert.equal(seen[0]?.status, 'aborted');
});

test('what is aborted while much is to be sent, or within the handshake, ends for both and harms nobody', async (t) => {
  const seen: MessageStream[] = [];
  const [a, b] = await Promise.all([
    start(t, sender, { encrypters: [tls()], transport: watchedTcp(seen) }),
    start(t, receiver, { encrypters: [tls()] }),
  ]);
  const ends: Promise<unknown>[] = [];
  await b.handle(protocol, (stream) => {
    ends.push(once(stream, 'close'));
    while (stream.send(new Uint8Array(65_536)));
  });
  const ways: ((connection: Connection, below: MessageStream) => void)[] = [
    (connection) => connection.abort(new Error('enough')),
    (connection, below) => below.abort(new Error(`enough of ${connection.id}`)),
  ];
  for (let round = 0; round < 40; round++) {
    const connection = await a.dial(b.getMultiaddrs());
    const stream = await connection.newStream(protocol);
    while (stream.send(new Uint8Array(65_536)));
    const below = seen.at(-1);
    assert.ok(below !== undefined);
    if (round % 3 === 0) await new Promise((resolve) => setTimeout(resolve, round));
    ways[round % 2]?.(connection, below);
    assert.notEqual(stream.status, 'open', `round ${round}`);
    while (b.getConnections().length > 0) await new Promise((resolve) => setTimeout(resolve, 5));
  }
  assert.equal((await Promise.all(ends)).length, 40);
  for (let round = 0; round < 20; round++) {
    const dialling = a.dial(b.getMultiaddrs());
    while (seen.length <= 40 + round) await new Promise(setImmediate);
    for (let turn = 0; turn < round; turn++) await new Promise(setImmediate);
    seen.at(-1)?.abort(new Error('enough'));
    const connection = await dialling.catch(() => undefined);
    connection?.abort(new Error('enough'));
  }
  await b.unhandle(protocol);
  await b.handle(protocol, echoes);
  assert.equal((await echo(await a.dial(b.getMultiaddrs()), new Uint8Array(1000))).length, 1000);
});

test('a peer that begins TLS together with the agreement on it is understood', async (t) => {
  const b = await start(t, receiver, { encrypters: [tls()] });
  const at = b.getMultiaddrs()[0]?.toString().split('/')[4];
  const socket = connect(Number(at), '127.0.0.1');
  t.after(() => socket.destroy());
  const agreement = Buffer.from('\x13/multistream/1.0.0\n\x0b/tls/1.0.0\n', 'latin1');
  let sent = agreement;
  let toSkip = agreement.length;
  const below = new Duplex({
    read: () => socket.resume(),
    write: (chunk: Uint8Array, _encoding, done) => {
      socket.write(concat(sent, chunk), done);
      sent = Buffer.alloc(0);
    },
  });
  socket.on('data', (chunk) => {
    const rest = chunk.subarray(toSkip);
    toSkip -= chunk.length - rest.length;
    if (rest.length > 0) below.push(rest);
  });
  const { cert, key } = await makeCertificate(sender.privateKey, Date.now());
  const plain = connectTls({
    socket: below,
    cert,
    key: key.export({ type: 'pkcs8', format: 'pem' }),
    rejectUnauthorized: false,
    ALPNProtocols: ['/yamux/1.0.0'],
  });
  await once(plain, 'secureConnect', { signal: AbortSignal.timeout(20_000) });
  assert.equal((await peerOfCertificate(plain.getPeerCertificate().raw, now)).toString(), receiver.name);
  assert.equal(plain.alpnProtocol, '/yamux/1.0.0');
});

test('a peer that speaks Noise only still finds one that offers both', async (t) => {
  const [a, b] = await Promise.all([
    start(t, sender, { encrypters: [noise()] }),
    start(t, receiver, { encrypters: [tls(), noiseLate()] }),
  ]);
  const [there, back] = [await a.dial(b.getMultiaddrs()), await b.dial(a.getMultiaddrs())];
  assert.deepEqual([there.encryption, back.encryption], ['/noise', '/noise']);
  assert.equal(there.remotePeer.toString(), receiver.name);
});

test('a peer that is not the one that was dialled is refused', async (t) => {
  const [a, b] = await Promise.all([
    start(t, sender, { encrypters: [tls()] }),
    start(t, receiver, { encrypters: [tls()] }),
  ]);
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
