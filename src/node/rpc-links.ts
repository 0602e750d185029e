// Links: the pair of lanes (control and bulk) to each peer, at most one link per peer.
//
// Of two peers the one with the smaller name opens the streams, always; so there is no race to resolve
// when both connect at once. The acceptor takes the newest link: the opener would not open another one if
// the old still served it. A link stands and falls as a whole: a lane that is lost takes the other along.

import { randomBytes } from 'node:crypto';
import type { Connection, Stream } from '@libp2p/interface';
import { YamuxStream } from '@libp2p/yamux/stream';
import { HoldfastError } from '../core/errors.ts';
import { streamWindowBytes } from '../core/limits.ts';
import type { PeerName } from '../core/rpc.ts';
import type { Handlers } from './rpc-answers.ts';
import { type Lane, LaneStream, lost, type RpcTap, type Wire } from './rpc-stream.ts';

export interface LinksOptions {
  readonly self: PeerName;
  readonly protocol: string;
  readonly handlers: Handlers;
  readonly tap?: RpcTap | undefined;
  /** A peer that was silent for so many heartbeats in a row is lost, with its connection. */
  readonly silentTicksMax: number;
  onUp(peer: PeerName): void;
  onDown(peer: PeerName, reason: HoldfastError): void;
}

interface Link {
  readonly id: string;
  readonly peer: PeerName;
  readonly connection: Connection;
  /** Lanes whose hello came. */
  readonly lanes: Map<Lane, LaneStream>;
  /** Everything opened or accepted for this link, hello or not. */
  readonly streams: LaneStream[];
  state: 'opening' | 'up' | 'closed';
  /** Set by the opener: resolves it when both lanes are up, rejects it when one is lost before. */
  settle: ((error: HoldfastError | undefined) => void) | undefined;
}

/** Incomplete inbound streams per peer: two lanes of an old link and two of a new one. */
const greetingsMax = 4;

export class Links {
  readonly #options: LinksOptions;
  /** Links that are up. */
  readonly #up = new Map<PeerName, Link>();
  /** Links that one lane is missing of. */
  readonly #half = new Map<PeerName, Link>();
  /** Inbound streams without a hello yet, and for how many ticks. */
  readonly #greeting = new Map<PeerName, Map<LaneStream, number>>();

  constructor(options: LinksOptions) {
    this.#options = options;
  }

  /** True when it is for us, not for `peer`, to open the streams. */
  opens(peer: PeerName): boolean {
    return this.#options.self < peer;
  }

  lane(peer: PeerName, lane: Lane): LaneStream | undefined {
    return this.#up.get(peer)?.lanes.get(lane);
  }

  isUp(peer: PeerName): boolean {
    return this.#up.has(peer);
  }

  connected(): readonly PeerName[] {
    return [...this.#up.keys()];
  }

  /** The connection that carries the link, when it is up. */
  connection(peer: PeerName): Connection | undefined {
    return this.#up.get(peer)?.connection;
  }

  /** Opens both lanes on `connection`. Throws PEER_UNREACHABLE, or what `signal` was aborted with. */
  async open(connection: Connection, signal: AbortSignal): Promise<void> {
    const peer = connection.remotePeer.toString();
    const link = newLink(randomBytes(16).toString('hex'), peer, connection);
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    link.settle = (error) => (error === undefined ? resolve() : reject(error));
    const onAbort = (): void => this.#closeLink(link, lost(peer, signal.reason));
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      signal.throwIfAborted();
      this.#half.set(peer, link);
      await Promise.all([
        promise,
        this.#openLane(link, 'control', signal),
        this.#openLane(link, 'bulk', signal),
      ]);
    } catch (cause) {
      const reason = lost(peer, cause);
      this.#closeLink(link, reason);
      throw reason;
    } finally {
      signal.removeEventListener('abort', onAbort);
    }
  }

  /** Takes a stream that the other side opened. */
  accept(stream: Stream, connection: Connection): void {
    const peer = connection.remotePeer.toString();
    const greeting = this.#greeting.get(peer) ?? new Map<LaneStream, number>();
    if (this.opens(peer) || greeting.size >= greetingsMax) {
      stream.abort(new Error(this.opens(peer) ? 'it is for this side to open streams' : 'too many streams'));
      return;
    }
    this.#greeting.set(peer, greeting);
    const lane: LaneStream = attach(
      peer,
      stream,
      (wire) =>
        new LaneStream({
          peer,
          wire,
          handlers: this.#options.handlers,
          tap: this.#options.tap,
          onHello: (hello) => {
            greeting.delete(lane);
            lane.greet(hello.lane, hello.link);
            const link = this.#halfLink(peer, hello.link, connection);
            link.streams.push(lane);
            this.#addLane(link, hello.lane, lane);
          },
          onClose: (reason) => {
            greeting.delete(lane);
            this.#closeLinkOf(peer, lane, reason);
          },
        }),
    );
    greeting.set(lane, 0);
    closeIfEnded(lane, stream, peer);
  }

  /**
   * One heartbeat on every link; a silent peer is lost, and its connection with it. A stream without a hello is too.
   * The control lane alone speaks for a link while we wait for nothing on the other one.
   */
  tick(): void {
    for (const [peer, greeting] of this.#greeting)
      for (const [lane, ticks] of greeting)
        if (ticks < this.#options.silentTicksMax) greeting.set(lane, ticks + 1);
        else lane.close(lost(peer, 'it opened a stream and said nothing'));
    for (const link of this.#up.values()) {
      let silent = 0;
      for (const [name, lane] of link.lanes)
        if (name === 'control' || lane.isAsking) silent = Math.max(silent, lane.tick());
      if (silent <= this.#options.silentTicksMax) continue;
      const reason = new HoldfastError('PEER_UNREACHABLE', `${link.peer} does not answer heartbeats`, {
        details: { peer: link.peer },
      });
      this.#closeLink(link, reason);
      link.connection.abort(reason);
    }
  }

  /** Ends whatever there is with `peer`. */
  drop(peer: PeerName, reason: HoldfastError): void {
    for (const lane of this.#greeting.get(peer)?.keys() ?? []) lane.close(reason);
    this.#greeting.delete(peer);
    for (const links of [this.#half, this.#up]) {
      const link = links.get(peer);
      if (link !== undefined) this.#closeLink(link, reason);
    }
  }

  close(reason: HoldfastError): void {
    for (const peer of [...this.#greeting.keys(), ...this.#half.keys(), ...this.#up.keys()])
      this.drop(peer, reason);
  }

  async #openLane(link: Link, name: Lane, signal: AbortSignal): Promise<void> {
    const stream = await link.connection.newStream(this.#options.protocol, { signal });
    if (link.state === 'closed') {
      stream.abort(new Error('the link was given up'));
      return;
    }
    const lane: LaneStream = attach(
      link.peer,
      stream,
      (wire) =>
        new LaneStream({
          peer: link.peer,
          wire,
          handlers: this.#options.handlers,
          tap: this.#options.tap,
          onHello: (hello) => {
            if (hello.link !== link.id || hello.lane !== name)
              lane.close(lost(link.peer, 'it answered another hello'));
            else this.#addLane(link, name, lane);
          },
          onClose: (reason) => this.#closeLink(link, reason),
        }),
    );
    link.streams.push(lane);
    closeIfEnded(lane, stream, link.peer);
    lane.greet(name, link.id);
  }

  #halfLink(peer: PeerName, id: string, connection: Connection): Link {
    const half = this.#half.get(peer);
    if (half?.id === id) return half;
    if (half !== undefined) this.#closeLink(half, lost(peer, 'it opened a newer link'));
    const link = newLink(id, peer, connection);
    this.#half.set(peer, link);
    return link;
  }

  #addLane(link: Link, name: Lane, lane: LaneStream): void {
    if (link.state !== 'opening' || link.lanes.has(name)) {
      lane.close(lost(link.peer, `it opened lane ${name} twice`));
      return;
    }
    link.lanes.set(name, lane);
    if (link.lanes.size < 2) return;
    const old = this.#up.get(link.peer);
    if (old !== undefined) this.#closeLink(old, lost(link.peer, 'it opened a newer link'));
    this.#half.delete(link.peer);
    link.state = 'up';
    this.#up.set(link.peer, link);
    link.settle?.(undefined);
    this.#options.onUp(link.peer);
  }

  #closeLinkOf(peer: PeerName, lane: LaneStream, reason: HoldfastError): void {
    for (const link of [this.#half.get(peer), this.#up.get(peer)]) {
      if (link?.streams.includes(lane) === true) this.#closeLink(link, reason);
    }
  }

  /** opening | up → closed. Again: nothing. */
  #closeLink(link: Link, reason: HoldfastError): void {
    if (link.state === 'closed') return;
    const wasUp = link.state === 'up';
    link.state = 'closed';
    if (this.#half.get(link.peer) === link) this.#half.delete(link.peer);
    if (this.#up.get(link.peer) === link) this.#up.delete(link.peer);
    for (const lane of link.streams) lane.close(reason);
    link.settle?.(reason);
    if (wasUp) this.#options.onDown(link.peer, reason);
  }
}

function newLink(id: string, peer: PeerName, connection: Connection): Link {
  return { id, peer, connection, lanes: new Map(), streams: [], state: 'opening', settle: undefined };
}

/**
 * Yamux gives window back for every piece that came, each time with a frame of its own: for small calls as many
 * frames as the calls. Half a window still lets the other side write on meanwhile.
 */
function giveWindowByHalves(stream: YamuxStream): void {
  const give = stream.sendWindowUpdate.bind(stream);
  let owed = 0;
  stream.addEventListener('message', ({ data }) => {
    owed += data.byteLength;
  });
  stream.sendWindowUpdate = () => {
    if (owed < streamWindowBytes / 2) return;
    owed = 0;
    give();
  };
}

/** A stream may have ended before anybody listened, with its connection: then no event tells of it any more. */
function closeIfEnded(lane: LaneStream, stream: Stream, peer: PeerName): void {
  if (stream.status !== 'open') lane.close(lost(peer, `the stream was ${stream.status} already`));
}

/** Joins a libp2p stream to a lane. */
function attach(peer: PeerName, stream: Stream, make: (wire: Wire) => LaneStream): LaneStream {
  if (stream instanceof YamuxStream) giveWindowByHalves(stream);
  const lane = make({
    write: (bytes) => stream.send(bytes),
    abort: (reason) => {
      if (stream.status === 'open' || stream.status === 'closing') stream.abort(reason);
    },
  });
  const ended = (cause: unknown): HoldfastError => lost(peer, cause);
  stream.addEventListener('drain', () => lane.drained());
  stream.addEventListener('remoteCloseWrite', () => lane.close(ended('closed by the other side')));
  stream.addEventListener('close', (event) => lane.close(ended(event.error ?? 'closed')));
  stream.addEventListener('message', ({ data }) => {
    if (data instanceof Uint8Array) lane.receive(data);
    else for (const chunk of data) lane.receive(chunk);
  });
  return lane;
}
