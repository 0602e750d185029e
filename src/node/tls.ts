// TLS 1.3 between peers, as libp2p has it (libp2p specs, tls/tls.md): who is on the other side is told by its
// certificate (tls-certificate.ts), and the muxer is agreed on within the handshake.
//
//   MessageStream (TCP) ⇄ Duplex ⇄ TLSSocket ⇄ MessageStream (plain)
//
// One certificate serves all connections of a process, which the specification allows: every handshake has
// ephemeral keys of its own whatever signs it.

import { once } from 'node:events';
import { Duplex } from 'node:stream';
import { connect, createSecureContext, type SecureContext, TLSSocket } from 'node:tls';
import {
  type AbortOptions,
  type ConnectionEncrypter,
  type MessageStream,
  type PrivateKey,
  type SecureConnectionOptions,
  type SecuredConnection,
  serviceCapabilities,
  type StreamMuxerFactory,
  UnexpectedPeerError,
  type Upgrader,
} from '@libp2p/interface';
import { AbstractMessageStream } from '@libp2p/utils';
import { HoldfastError } from '../core/errors.ts';
import { makeCertificate, peerOfCertificate } from './tls-certificate.ts';

interface Components {
  readonly privateKey: PrivateKey;
  readonly upgrader: Upgrader;
}

/** What waits for a peer that reads nothing, before its connection is ended. All windows of its streams are less. */
const maxWriteBufferLength = 64 * 1024 * 1024;

/** Pieces from here on are written as they are. */
const gatheredBytesMax = 16_384;

/** Says in the handshake that the muxer is agreed on afterwards. */
const noMuxer = 'libp2p';

/** For `connectionEncrypters`. */
export function tls(): (components: Components) => ConnectionEncrypter {
  return (components) => new Tls(components);
}

class Tls implements ConnectionEncrypter {
  readonly protocol = '/tls/1.0.0';
  readonly [serviceCapabilities] = ['@libp2p/connection-encryption'];
  readonly #components: Components;
  #context: Promise<SecureContext> | undefined;

  constructor(components: Components) {
    this.#components = components;
  }

  async secureInbound(stream: MessageStream, options?: SecureConnectionOptions): Promise<SecuredConnection> {
    let streamMuxer: StreamMuxerFactory | undefined;
    const muxers = this.#muxers(options);
    const secureContext = await this.#ownContext();
    const duplex = duplexOf(stream);
    const socket = new TLSSocket(duplex, {
      secureContext,
      isServer: true,
      requestCert: true,
      rejectUnauthorized: false, // signed by itself: its extension is verified below
      ALPNCallback: ({ protocols }) => {
        const chosen = protocols.find((each) => each === noMuxer || muxers.has(each));
        streamMuxer = chosen === undefined ? undefined : muxers.get(chosen);
        return chosen;
      },
    });
    const secured = await handshake(stream, duplex, socket, options);
    return streamMuxer === undefined ? secured : { ...secured, streamMuxer };
  }

  async secureOutbound(stream: MessageStream, options?: SecureConnectionOptions): Promise<SecuredConnection> {
    const muxers = this.#muxers(options);
    const secureContext = await this.#ownContext();
    const duplex = duplexOf(stream);
    const socket = connect({
      socket: duplex,
      secureContext,
      rejectUnauthorized: false, // signed by itself: its extension is verified below
      ALPNProtocols: [...muxers.keys(), noMuxer],
    });
    const secured = await handshake(stream, duplex, socket, options);
    const streamMuxer = muxers.get(socket.alpnProtocol || noMuxer);
    return streamMuxer === undefined ? secured : { ...secured, streamMuxer };
  }

  #muxers(options: SecureConnectionOptions | undefined): ReadonlyMap<string, StreamMuxerFactory> {
    if (options?.skipStreamMuxerNegotiation === true) return new Map();
    return this.#components.upgrader.getStreamMuxers();
  }

  #ownContext(): Promise<SecureContext> {
    this.#context ??= makeContext(this.#components.privateKey).catch((error: unknown) => {
      this.#context = undefined; // the next connection tries again
      throw error;
    });
    return this.#context;
  }
}

async function makeContext(identity: PrivateKey): Promise<SecureContext> {
  const { cert, key } = await makeCertificate(identity, Date.now());
  const pem = key.export({ type: 'pkcs8', format: 'pem' });
  return createSecureContext({ cert, key: pem, minVersion: 'TLSv1.3', maxVersion: 'TLSv1.3' });
}

/** Resolves when both sides are known to each other. Whatever fails ends the connection. */
async function handshake(
  stream: MessageStream,
  duplex: Duplex,
  socket: TLSSocket,
  { remotePeer: expected, signal }: SecureConnectionOptions = {},
): Promise<SecuredConnection> {
  const fail = (error: Error): void => {
    socket.destroy();
    stream.abort(error);
  };
  duplex.on('error', fail);
  socket.on('error', fail);
  try {
    await Promise.race([
      once(socket, 'secure', { signal }),
      once(socket, 'close').then(() => {
        throw new HoldfastError('PEER_UNREACHABLE', 'closed within the TLS handshake');
      }),
    ]);
    const certificate = socket.getPeerX509Certificate();
    if (certificate === undefined)
      throw new HoldfastError('RECORD_INVALID', 'the other side showed no certificate');
    const remotePeer = await peerOfCertificate(certificate.raw, Date.now());
    signal?.throwIfAborted();
    if (expected !== undefined && !expected.equals(remotePeer)) throw new UnexpectedPeerError();
    return { remotePeer, connection: new SecuredStream(stream, socket) };
  } catch (error) {
    fail(asError(error));
    throw error;
  }
}

type Done = (error?: Error | null) => void;

/** What TLS writes and reads, over a message stream that says when it is full. */
function duplexOf(stream: MessageStream): Duplex {
  const send = (chunks: readonly Uint8Array[], done: Done): void => {
    try {
      // Each is taken, also after the first that says to wait.
      const isOpen = chunks.map((chunk) => stream.send(chunk)).every(Boolean);
      if (isOpen) done();
      else whenDrained(stream, done);
    } catch (error) {
      done(asError(error));
    }
  };
  stream.pause(); // until TLS asks for more
  const duplex = new Duplex({
    read: () => stream.resume(),
    write: (chunk, _encoding, done) => send([chunk], done),
    writev: (chunks, done) =>
      send(
        chunks.map(({ chunk }) => chunk),
        done,
      ),
    final: (done) => void settle(stream.close(), done),
  });
  stream.addEventListener('message', ({ data }) => {
    const chunks = data instanceof Uint8Array ? [data] : [...data];
    const wantsMore = chunks.map((chunk) => duplex.push(chunk)).every(Boolean);
    if (!wantsMore) stream.pause();
  });
  stream.addEventListener('close', ({ error }) => duplex.destroy(error));
  return duplex;
}

// Not by the stream's own `onDrain`: once it has resolved, it resolves at once for ever.
function whenDrained(stream: MessageStream, done: Done): void {
  const end = (error?: Error): void => {
    stream.removeEventListener('drain', onDrain);
    stream.removeEventListener('close', onClose);
    done(error);
  };
  const onDrain = (): void => end();
  const onClose = (): void =>
    end(new HoldfastError('PEER_UNREACHABLE', 'the connection closed while sending'));
  stream.addEventListener('drain', onDrain);
  stream.addEventListener('close', onClose);
}

async function settle(work: Promise<void>, done: Done): Promise<void> {
  try {
    await work;
  } catch (error) {
    return done(asError(error));
  }
  return done();
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error('the TLS connection failed', { cause: error });
}

/** The plain side. */
class SecuredStream extends AbstractMessageStream {
  readonly #socket: TLSSocket;
  readonly #below: MessageStream;
  #closing: Promise<void> | undefined;
  #isGathering = false;

  constructor(below: MessageStream, socket: TLSSocket) {
    const { log, inactivityTimeout, maxReadBufferLength, direction } = below;
    super({ log, inactivityTimeout, maxReadBufferLength, maxWriteBufferLength, direction });
    this.#socket = socket;
    this.#below = below;
    if (socket.closed) this.#closing = Promise.resolve();
    socket.on('data', (bytes) => this.onData(bytes));
    socket.on('error', (error) => below.abort(error));
    socket.on('close', () => {
      this.#closing = below.close().catch((error: Error) => below.abort(error));
    });
    socket.on('drain', () => this.safeDispatchEvent('drain'));
    below.addEventListener('close', ({ error, local }) => {
      socket.destroy();
      // Whether it failed here, there, or ended in order must reach whoever reads the plain side.
      if (error === undefined) this.onTransportClosed();
      else if (local === true) this.abort(error);
      else this.onRemoteReset();
    });
  }

  async close(options?: AbortOptions): Promise<void> {
    // The socket tells of its end once only.
    if (this.#closing === undefined) {
      const closed = once(this.#socket, 'close', { signal: options?.signal });
      this.#socket.destroySoon();
      await closed;
    }
    await this.#closing;
  }

  sendPause(): void {
    this.#socket.pause();
  }

  sendResume(): void {
    this.#socket.resume();
  }

  sendReset(error: Error): void {
    this.#socket.destroy(); // closes the transport in order only
    this.#below.abort(error);
  }

  sendData(data: Iterable<Uint8Array>): { sentBytes: number; canSendMore: boolean } {
    let sentBytes = 0;
    let canSendMore = true;
    for (const bytes of data) {
      sentBytes += bytes.byteLength;
      if (bytes.byteLength < gatheredBytesMax) this.#gather();
      else this.#release(); // joining large ones would copy them for nothing
      canSendMore = this.#socket.write(bytes);
      if (!canSendMore) break;
    }
    return { sentBytes, canSendMore };
  }

  /** What is written until the end of this turn leaves as one TLS record, in one system call. */
  #gather(): void {
    if (this.#isGathering) return;
    this.#isGathering = true;
    this.#socket.cork();
    process.nextTick(() => this.#release());
  }

  #release(): void {
    if (!this.#isGathering) return;
    this.#isGathering = false;
    this.#socket.uncork();
  }
}
