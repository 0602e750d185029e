// TLS 1.3 between peers, as libp2p has it (libp2p specs, tls/tls.md): who is on the other side is told by its
// certificate (tls-certificate.ts), and the muxer is agreed on within the handshake.
//
//   TCP socket ⇄ TLSSocket ⇄ MessageStream (plain)
//
// Node does the lower part within itself: no byte that is encrypted passes through JavaScript.
//
// One certificate serves all connections of a process, which the specification allows: every handshake has
// ephemeral keys of its own whatever signs it.

import { once } from 'node:events';
import { Socket } from 'node:net';
import { connect, createSecureContext, type SecureContext, TLSSocket } from 'node:tls';
import {
  type AbortOptions,
  type ConnectionEncrypter,
  type MessageStream,
  type PrivateKey,
  type SecureConnectionOptions,
  type SecuredConnection,
  serviceCapabilities,
  type StreamMessageEvent,
  type StreamMuxerFactory,
  UnexpectedPeerError,
  type Upgrader,
} from '@libp2p/interface';
import { AbstractMessageStream } from '@libp2p/utils';
import { concat } from '../core/bytes.ts';
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
    const below = takenFrom(stream);
    const socket = new TLSSocket(below, {
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
    const secured = await handshake(stream, below, socket, options);
    return streamMuxer === undefined ? secured : { ...secured, streamMuxer };
  }

  async secureOutbound(stream: MessageStream, options?: SecureConnectionOptions): Promise<SecuredConnection> {
    const muxers = this.#muxers(options);
    const secureContext = await this.#ownContext();
    const below = takenFrom(stream);
    const socket = connect({
      socket: below,
      secureContext,
      rejectUnauthorized: false, // signed by itself: its extension is verified below
      ALPNProtocols: [...muxers.keys(), noMuxer],
    });
    const secured = await handshake(stream, below, socket, options);
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
  below: Socket,
  socket: TLSSocket,
  { remotePeer: expected, signal }: SecureConnectionOptions = {},
): Promise<SecuredConnection> {
  const fail = (error: Error): void => {
    stream.abort(error);
    socket.destroy();
  };
  endThrough(socket, below);
  below.on('error', fail);
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

/** The socket, for TLS to read and write from now on, instead of the stream of libp2p's TCP that did so far. */
function takenFrom(stream: MessageStream): Socket {
  const socket = 'socket' in stream ? stream.socket : undefined;
  if (!(socket instanceof Socket))
    throw new TypeError('TLS works on TCP only, and this stream shows no socket');
  const early: Uint8Array[] = [];
  const listen = ({ data }: StreamMessageEvent): void => {
    early.push(data.subarray());
  };
  stream.pause();
  stream.addEventListener('message', listen);
  stream.resume(); // gives at once what came behind the agreement on TLS
  stream.pause();
  stream.removeEventListener('message', listen);
  socket.removeAllListeners('data');
  socket.unshift(concat(...early));
  return socket;
}

/**
 * Whoever ends the socket ends TLS, which then ends the socket, with a reset where one was asked for. The other way
 * round Node 24 writes into memory that is free already when something is still to be sent, and dies of it.
 */
function endThrough(tlsSocket: TLSSocket, socket: Socket): void {
  socket.destroy = (error) => {
    Reflect.deleteProperty(socket, 'destroy'); // the next time it is Node's own
    if (tlsSocket.destroyed) socket.destroy(error);
    else tlsSocket.destroy(error);
    return socket;
  };
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
    this.#below.abort(error); // first: the end of the socket closes the transport in order
    this.#socket.destroy();
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
