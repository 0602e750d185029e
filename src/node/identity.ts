// The node's name for life: one Ed25519 seed in one file, readable by its owner only.
//
// A lost or damaged key is never replaced silently: the cluster's allow-list and every provider record
// name the old one, so a fresh key would be a stranger with the old node's disk. Creating is therefore a
// separate call from reading, and creating never overwrites.

import { randomBytes } from 'node:crypto';
import { readFile, stat } from 'node:fs/promises';
import { privateKeyFromRaw } from '@libp2p/crypto/keys';
import type { PrivateKey } from '@libp2p/interface';
import { peerIdFromPrivateKey, peerIdFromString } from '@libp2p/peer-id';
import { concat, fromUtf8, toHex } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import { sha256, type Signer, signerFromSeed } from '../core/hash.ts';
import type { PeerName } from '../core/rpc.ts';
import { createWhole } from '../files/whole.ts';
import type { Membership } from './membership.ts';

export interface Identity {
  /** Text peer id of the key. */
  readonly name: PeerName;
  /** Signs with the same key. */
  readonly signer: Signer;
  /** For libp2p, inside this folder only. */
  readonly privateKey: PrivateKey;
}

const magic = 'holdfast-identity-1';
const fileBytesMax = 4096;

/** Reads the key at `path`, or creates it when there is no such file. Throws like the two it is made of. */
export async function openOrCreateIdentity(path: string): Promise<Identity> {
  try {
    return await openIdentity(path);
  } catch (error) {
    if (!(error instanceof HoldfastError) || error.code !== 'FILE_NOT_FOUND') throw error;
  }
  return createIdentity(path);
}

/**
 * Reads the key at `path`. Throws FILE_NOT_FOUND when absent, FORBIDDEN when others may read or write it,
 * RECORD_CORRUPT when it is damaged. Never writes.
 */
export async function openIdentity(path: string): Promise<Identity> {
  const info = await stat(path).catch((cause: unknown) => {
    throw fileError(cause, path);
  });
  if (!info.isFile())
    throw new HoldfastError('FILE_UNREADABLE', `${path}: the identity key must be a regular file`);
  if ((info.mode & 0o077) !== 0) {
    throw new HoldfastError(
      'FORBIDDEN',
      `${path}: mode ${(info.mode & 0o777).toString(8)} lets others at the identity key; set it to 600`,
    );
  }
  if (info.size > fileBytesMax) throw damaged(path, `${info.size} bytes, far too large`);
  const bytes = await readFile(path).catch((cause: unknown) => {
    throw fileError(cause, path);
  });
  const seed = parseKeyFile(bytes, path);
  return identityFromSeed(seed);
}

/**
 * Writes a new key to `path`, complete or not at all, mode 600, on disk when it returns. Throws
 * FILE_UNREADABLE, also when a file is there already: two processes that create at once get one key.
 */
export async function createIdentity(path: string, seed: Uint8Array = randomBytes(32)): Promise<Identity> {
  try {
    await createWhole(path, keyFile(seed), 0o600);
  } catch (cause) {
    throw new HoldfastError('FILE_UNREADABLE', `${path}: cannot create the identity key`, { cause });
  }
  return identityFromSeed(seed);
}

/** An identity that lives in memory only: doors of a moment, and tests. */
export function identityFromSeed(seed: Uint8Array): Identity {
  const signer = signerFromSeed(seed);
  // libp2p itself would derive the public half in JavaScript, a tenth of a second while a machine is starting.
  const privateKey = privateKeyFromRaw(concat(seed, signer.publicKey));
  return { name: peerIdFromPrivateKey(privateKey).toString(), signer, privateKey };
}

/** The custodians that a membership names, with their Ed25519 keys. */
export function custodianKeysOf({ members }: Pick<Membership, 'members'>): ReadonlyMap<PeerName, Uint8Array> {
  const custodians = members.filter(({ roles }) => roles.includes('custodian'));
  return new Map(custodians.map(({ peer }) => [peer, publicKeyOfPeer(peer)] as const));
}

/** The Ed25519 public key that a text peer id spells, 32 bytes. Throws ARGUMENT_INVALID for any other text. */
export function publicKeyOfPeer(peer: PeerName): Uint8Array {
  try {
    const { publicKey } = peerIdFromString(peer);
    if (publicKey?.type === 'Ed25519') return new Uint8Array(publicKey.raw);
  } catch (cause) {
    throw new HoldfastError('ARGUMENT_INVALID', `${peer.slice(0, 80)} is no peer id`, { cause });
  }
  throw new HoldfastError('ARGUMENT_INVALID', `${peer} is not the peer id of an Ed25519 key`);
}

// Three lines: what it is, the seed, and a checksum over it, so that a flipped bit is damage, not another node.
function keyFile(seed: Uint8Array): string {
  return `${magic}\n${toHex(seed)}\n${checksum(seed)}\n`;
}

function parseKeyFile(bytes: Uint8Array, path: string): Uint8Array {
  const found = /^([^\n]*)\n([0-9a-f]{64})\n([0-9a-f]{16})\n$/.exec(decode(bytes, path));
  if (found?.[1] !== magic) throw damaged(path, `does not look like ${magic}`);
  const seed = new Uint8Array(Buffer.from(found[2] ?? '', 'hex'));
  if (checksum(seed) !== found[3]) throw damaged(path, 'the checksum does not match');
  return seed;
}

function decode(bytes: Uint8Array, path: string): string {
  try {
    return fromUtf8(bytes);
  } catch (cause) {
    throw new HoldfastError('RECORD_CORRUPT', `${path}: the identity key is damaged: not text`, { cause });
  }
}

function checksum(seed: Uint8Array): string {
  return toHex(sha256(seed)).slice(0, 16);
}

function fileError(cause: unknown, path: string): HoldfastError {
  const absent = cause instanceof Error && 'code' in cause && cause.code === 'ENOENT';
  return absent
    ? new HoldfastError('FILE_NOT_FOUND', `${path}: no identity key here`, { cause })
    : new HoldfastError('FILE_UNREADABLE', `${path}: the identity key cannot be read`, { cause });
}

function damaged(path: string, why: string): HoldfastError {
  return new HoldfastError(
    'RECORD_CORRUPT',
    `${path}: the identity key is damaged (${why}); restore it from a backup: a new key would be another node`,
  );
}
