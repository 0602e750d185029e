// The five messages of the Kademlia protocol that we speak ourselves, as protobuf bytes.
//
// kad-dht does not export its codec, and we need only ADD_PROVIDER, GET_PROVIDERS and PING. The schema is
// the public one (libp2p/specs, kad-dht): a message is length-prefixed by a varint on the stream.
//
//   Message  1 type (enum)  2 key (bytes)  8 closer (PeerInfo…)  9 providers (PeerInfo…)
//   PeerInfo 1 id (bytes)   2 multiaddr (bytes…)
//
// Unknown fields are skipped as protobuf demands; every count and length is bounded before memory is taken.

import { concat } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';

export const kadType = { addProvider: 2, getProviders: 3, ping: 5 } as const;

export interface KadPeer {
  /** Multihash of the peer id. */
  readonly id: Uint8Array;
  /** Multiaddrs, binary. */
  readonly addrs: readonly Uint8Array[];
}

export interface KadMessage {
  readonly type: number;
  readonly key: Uint8Array;
  readonly closer: readonly KadPeer[];
  readonly providers: readonly KadPeer[];
}

/** One message on the stream. An answer with 256 peers of 16 addresses stays below. */
const kadMessageBytesMax = 1_048_576;
/** Peers in one list of a message: the members of a cluster. */
const peersMax = 256;
/** Addresses of one peer that are kept; a message with more is refused. */
export const peerAddrsMax = 16;
/** Longest multiaddr taken: a DNS name of 253 bytes and its ports. */
export const addrBytesMax = 300;

/** `message` with its length in front, ready for the stream. */
export function encodeKadMessage(message: Partial<KadMessage> & { readonly type: number }): Uint8Array {
  const parts: Uint8Array[] = [tag(1, 0), varint(message.type)];
  if (message.key !== undefined && message.key.length > 0) parts.push(bytesField(2, message.key));
  for (const peer of message.closer ?? []) parts.push(bytesField(8, encodePeer(peer)));
  for (const peer of message.providers ?? []) parts.push(bytesField(9, encodePeer(peer)));
  const body = concat(...parts);
  return concat(varint(body.length), body);
}

/** Reads one message, without its length prefix. Throws PEER_REFUSED when it is malformed or over a bound. */
export function decodeKadMessage(bytes: Uint8Array): KadMessage {
  let type = 0;
  let key: Uint8Array = new Uint8Array(0);
  const closer: KadPeer[] = [];
  const providers: KadPeer[] = [];
  for (const field of fields(bytes)) {
    if (field.number === 1) type = field.value;
    else if (field.number === 2) key = field.bytes;
    else if (field.number === 8) pushBounded(closer, decodePeer(field.bytes), peersMax, 'closer peers');
    else if (field.number === 9) pushBounded(providers, decodePeer(field.bytes), peersMax, 'providers');
  }
  return { type, key, closer, providers };
}

/**
 * Cuts a stream of bytes into messages. Feed it with `push`, which returns the whole messages so far;
 * it keeps at most one unfinished message. Throws PEER_REFUSED on a length over `kadMessageBytesMax`.
 */
export class KadFrames {
  #rest: Uint8Array = new Uint8Array(0);

  push(chunk: Uint8Array): KadMessage[] {
    this.#rest = this.#rest.length === 0 ? chunk : concat(this.#rest, chunk);
    const messages: KadMessage[] = [];
    for (;;) {
      const length = readVarint(this.#rest, 0);
      if (length === undefined) {
        if (this.#rest.length >= varintBytesMax) throw malformed('length prefix too long');
        return messages;
      }
      if (length.value > kadMessageBytesMax) throw malformed(`message of ${length.value} bytes`);
      const end = length.next + length.value;
      if (this.#rest.length < end) return messages;
      messages.push(decodeKadMessage(this.#rest.subarray(length.next, end)));
      this.#rest = this.#rest.slice(end);
    }
  }
}

function encodePeer(peer: KadPeer): Uint8Array {
  return concat(bytesField(1, peer.id), ...peer.addrs.map((addr) => bytesField(2, addr)));
}

function decodePeer(bytes: Uint8Array): KadPeer {
  let id: Uint8Array = new Uint8Array(0);
  const addrs: Uint8Array[] = [];
  for (const field of fields(bytes)) {
    if (field.number === 1) id = field.bytes;
    else if (field.number === 2) {
      if (field.bytes.length > addrBytesMax) throw malformed(`multiaddr of ${field.bytes.length} bytes`);
      pushBounded(addrs, field.bytes, peerAddrsMax, 'addresses of one peer');
    }
  }
  return { id, addrs };
}

interface Field {
  readonly number: number;
  /** For varints; 0 otherwise. */
  readonly value: number;
  /** For bytes; empty otherwise. */
  readonly bytes: Uint8Array;
}

const none = new Uint8Array(0);

function* fields(bytes: Uint8Array): Generator<Field> {
  let at = 0;
  while (at < bytes.length) {
    const head = mustVarint(bytes, at);
    const number = Math.floor(head.value / 8);
    const wire = head.value % 8;
    if (wire === 0) {
      const { value, next } = mustVarint(bytes, head.next);
      yield { number, value, bytes: none };
      at = next;
    } else if (wire === 2) {
      const length = mustVarint(bytes, head.next);
      at = length.next + length.value;
      if (at > bytes.length) throw malformed('field longer than its message');
      yield { number, value: 0, bytes: bytes.subarray(length.next, at) };
    } else if (wire === 1 || wire === 5) {
      at = head.next + (wire === 1 ? 8 : 4);
      if (at > bytes.length) throw malformed('field longer than its message');
    } else throw malformed(`wire type ${wire}`);
  }
}

/** Varints of protobuf may have ten bytes (negative numbers); more is no varint. */
const varintBytesMax = 10;

function readVarint(bytes: Uint8Array, from: number): { value: number; next: number } | undefined {
  let value = 0;
  for (let i = 0; i < varintBytesMax; i++) {
    const byte = bytes[from + i];
    if (byte === undefined) return undefined;
    value += (byte & 0x7f) * 2 ** (7 * i);
    if (byte < 0x80) return { value, next: from + i + 1 };
  }
  throw malformed('varint too long');
}

function mustVarint(bytes: Uint8Array, from: number): { value: number; next: number } {
  const read = readVarint(bytes, from);
  if (read === undefined) throw malformed('ends inside a number');
  return read;
}

function varint(value: number): Uint8Array {
  const out: number[] = [];
  let rest = value;
  while (rest >= 0x80) {
    out.push((rest % 0x80) + 0x80);
    rest = Math.floor(rest / 0x80);
  }
  out.push(rest);
  return Uint8Array.from(out);
}

function tag(number: number, wire: number): Uint8Array {
  return varint(number * 8 + wire);
}

function bytesField(number: number, bytes: Uint8Array): Uint8Array {
  return concat(tag(number, 2), varint(bytes.length), bytes);
}

function pushBounded<T>(list: T[], item: T, max: number, what: string): void {
  if (list.length >= max) throw malformed(`more than ${max} ${what}`);
  list.push(item);
}

function malformed(why: string): HoldfastError {
  return new HoldfastError('PEER_REFUSED', `malformed Kademlia message: ${why}`);
}
