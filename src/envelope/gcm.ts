// AES-256-GCM under one key that is used many times, into memory that the caller owns.
//
// Two engines give the same bytes. node:crypto is always there; it allocates whatever it returns, which costs as much
// as encrypting it. The other one (gcm-openssl.ts) calls the same OpenSSL without that detour, where it can be had.
// Which one it is matters for speed only, so it is chosen once for a process (`loadGcm`) and not by who encrypts.

import assert from 'node:assert/strict';
import type { KeyObject } from 'node:crypto';
import { describeError } from '../core/errors.ts';
import { sha512, takeKey } from '../core/hash.ts';
import { gcmOpenInto, gcmSealInto } from './primitives.ts';

/** One key. Disposing it cleanses what the engine made of it; every use after that is a fault of ours. */
export interface GcmKey extends Disposable {
  /** Encrypts `plaintext` into `target` as ciphertext ‖ 16-byte tag. `target` is exactly 16 bytes longer. */
  sealInto(target: Uint8Array, nonce: Uint8Array, plaintext: Uint8Array, aad: Uint8Array): void;
  /**
   * Decrypts ciphertext ‖ tag into `target`, which is exactly 16 bytes shorter: memory of its own, or the ciphertext's.
   * False when it does not authenticate: then `target` is zeroed.
   */
  openInto(target: Uint8Array, nonce: Uint8Array, sealed: Uint8Array, aad: Uint8Array): boolean;
}

export interface GcmEngine {
  /** For people: what encrypts. */
  readonly text: string;
  /** Over a key that stays in `key`. */
  over(key: KeyObject): GcmKey;
  /** SHA-512, for associated data; good until the next call of anything here. */
  sha512(bytes: Uint8Array): Uint8Array;
}

/** A key from `bytes`, which are zeroed: the caller gives them away. */
export function takeGcmKey(bytes: Uint8Array): GcmKey {
  return engine.over(takeKey(bytes));
}

/** SHA-512 of `bytes` as associated data for a key: good until the next call of anything here. */
export function aadDigest(bytes: Uint8Array): Uint8Array {
  return engine.sha512(bytes);
}

/** By node:crypto alone. */
export const nodeGcm: GcmEngine = {
  text: 'AES-256-GCM by node:crypto',
  over: (key) => new NodeGcmKey(key),
  sha512,
};

let engine = nodeGcm;
let loading: Promise<GcmEngine> | undefined;

/**
 * Chooses the engine of this process, the first time it is called, for keys that are made from then on. Never rejects:
 * what cannot be had is said in the `text` of the engine that stands in.
 */
export function loadGcm(): Promise<GcmEngine> {
  loading ??= choose();
  return loading;
}

async function choose(): Promise<GcmEngine> {
  try {
    const { openOpensslGcm } = await import('./gcm-openssl.ts');
    engine = await openOpensslGcm();
  } catch (error) {
    engine = { ...nodeGcm, text: `${nodeGcm.text} (in place it would be quicker: ${describeError(error)})` };
  }
  return engine;
}

class NodeGcmKey implements GcmKey {
  #key: KeyObject | undefined;

  constructor(key: KeyObject) {
    this.#key = key;
  }

  sealInto(target: Uint8Array, nonce: Uint8Array, plaintext: Uint8Array, aad: Uint8Array): void {
    gcmSealInto(target, this.#used(), nonce, plaintext, aad);
  }

  openInto(target: Uint8Array, nonce: Uint8Array, sealed: Uint8Array, aad: Uint8Array): boolean {
    return gcmOpenInto(target, this.#used(), nonce, sealed, aad);
  }

  [Symbol.dispose](): void {
    this.#key = undefined;
  }

  #used(): KeyObject {
    assert(this.#key !== undefined, 'key: used after disposal');
    return this.#key;
  }
}
