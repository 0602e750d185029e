// AES-256-GCM by OpenSSL itself: the functions that node:crypto calls, which a node binary exports, called through
// koffi with memory of ours. Ciphertext is written where it will be sent from, and opened where it lies.
//
// koffi is an optional dependency, and not every node exports its OpenSSL: then node:crypto does it (gcm.ts).
//
// What crosses into native code is bounded here: lengths are those of the arrays, the tag is checked by OpenSSL
// (EVP_DecryptFinal_ex), every return value is looked at, and no context is used after it was freed. Small arrays
// live in V8's heap, and handing out a pointer to one moves it; so whatever is small goes through one block of memory,
// which is zeroed after use. All calls are synchronous, so one block is enough.

import assert from 'node:assert/strict';
import type { KeyObject } from 'node:crypto';
import type * as KoffiModule from 'koffi';
import { sameBytes } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import { sha512, takeKey } from '../core/hash.ts';
import type { GcmEngine, GcmKey } from './gcm.ts';
import { keyBytes, nonceBytes, tagBytes } from './primitives.ts';

/** Binds OpenSSL and tries it. Throws ARGUMENT_INVALID saying what is missing, INTERNAL when it computes something else. */
export async function openOpensslGcm(): Promise<GcmEngine> {
  const evp = bind(await loadKoffi());
  const engine: GcmEngine = {
    text: 'AES-256-GCM by OpenSSL in place',
    over: (key) => new OpensslGcmKey(evp, key),
    sha512: (bytes) => sha512Of(evp, bytes),
  };
  selfTest(engine);
  return engine;
}

type Koffi = typeof KoffiModule.default;
/** Addresses are numbers: a process has far fewer than 2^53 of them, and big integers cost more than the call. */
type Address = number;

interface Evp {
  /** Fetched once: a name that OpenSSL must look up costs as much as a short encryption. */
  readonly cipher: Address;
  readonly sha512: Address;
  readonly newContext: () => Address;
  readonly freeContext: (context: Address) => void;
  readonly control: (context: Address, what: number, value: number, bytes: Address) => number;
  readonly clearErrors: () => void;
  readonly encrypt: Direction;
  readonly decrypt: Direction;
  readonly digest: (
    from: Uint8Array,
    length: number,
    out: Address,
    written: Address,
    hash: Address,
    engine: Address,
  ) => number;
}

/** The same calls, to encrypt or to decrypt. */
interface Direction {
  readonly init: (context: Address, cipher: Address, engine: Address, key: Address, iv: Address) => number;
  /** Within the block, or associated data of any length. */
  readonly short: (context: Address, out: Address, written: Address, from: Address, length: number) => number;
  readonly aad: (context: Address, out: null, written: Address, from: Uint8Array, length: number) => number;
  /** From one array into another, or the same. */
  readonly long: (
    context: Address,
    out: Uint8Array,
    written: Address,
    from: Uint8Array,
    length: number,
  ) => number;
  readonly final: (context: Address, out: Address, written: Address) => number;
}

const getTag = 0x10;
const setTag = 0x11;
/** Lengths are C ints. */
const lengthMax = 2 ** 30;
const none: Address = 0;

async function loadKoffi(): Promise<Koffi> {
  try {
    return (await import('koffi')).default;
  } catch (cause) {
    throw new HoldfastError('ARGUMENT_INVALID', 'the optional package koffi is not installed', { cause });
  }
}

function bind(koffi: Koffi): Evp {
  const [address, array] = ['uintptr_t', 'void *'];
  try {
    const library = koffi.load(null);
    const fetched = (what: 'CIPHER' | 'MD', name: string): Address => {
      const fetch = library.func(`EVP_${what}_fetch`, address, [address, 'str', address]);
      const found = Number(fetch(none, name, none));
      assert(found !== none, `OpenSSL has no ${name}`);
      return found;
    };
    const direction = (name: 'Encrypt' | 'Decrypt'): Direction => {
      const update = (out: string, from: string) =>
        library.func(`EVP_${name}Update`, 'int', [address, out, address, from, 'int']);
      return {
        init: library.func(`EVP_${name}Init_ex`, 'int', [address, address, address, address, address]),
        short: update(address, address),
        aad: update(array, array),
        long: update(array, array),
        final: library.func(`EVP_${name}Final_ex`, 'int', [address, address, address]),
      };
    };
    const newContext = library.func('EVP_CIPHER_CTX_new', address, []);
    blockAt = Number(koffi.address(block));
    return {
      cipher: fetched('CIPHER', 'AES-256-GCM'),
      sha512: fetched('MD', 'SHA512'),
      newContext: () => Number(newContext()),
      freeContext: library.func('EVP_CIPHER_CTX_free', 'void', [address]),
      control: library.func('EVP_CIPHER_CTX_ctrl', 'int', [address, 'int', 'int', address]),
      clearErrors: library.func('ERR_clear_error', 'void', []),
      encrypt: direction('Encrypt'),
      decrypt: direction('Decrypt'),
      digest: library.func('EVP_Digest', 'int', [array, 'size_t', address, address, address, address]),
    };
  } catch (cause) {
    throw new HoldfastError('ARGUMENT_INVALID', 'this node does not export an OpenSSL that fits', { cause });
  }
}

/** Memory that does not move, for what is short: nonce, associated data, tag, a count, and small texts. */
const shortBytesMax = 128;
const block = new Uint8Array(new ArrayBuffer(2048));
let blockAt: Address = none;
const place = { nonce: 0, tag: 64, count: 128, digest: 192, aad: 256, short: 384, hashed: 1024 } as const;
const nonceAt = block.subarray(place.nonce, place.nonce + nonceBytes);
const tagAt = block.subarray(place.tag, place.tag + tagBytes);
const count = new Int32Array(block.buffer, place.count, 1);
const digestAt = block.subarray(place.digest, place.digest + 64);
const aadAt = block.subarray(place.aad, place.aad + shortBytesMax);
const shortAt = block.subarray(place.short, place.short + shortBytesMax);
const hashedAt = block.subarray(place.hashed);

function sha512Of(evp: Evp, bytes: Uint8Array): Uint8Array {
  const isShort = bytes.length <= hashedAt.length;
  if (isShort) hashedAt.set(bytes);
  const from = isShort ? hashedAt : bytes;
  const { digest, sha512: hash } = evp;
  if (digest(from, bytes.length, blockAt + place.digest, none, hash, none) !== 1) throw refused();
  return digestAt;
}

/** Contexts that nobody disposed are freed with their key. */
const forgotten = new FinalizationRegistry<() => void>((free) => free());

class OpensslGcmKey implements GcmKey {
  readonly #evp: Evp;
  #key: KeyObject | undefined;
  /** Contexts with the key's schedule, made when they are first needed. */
  readonly #contexts: Contexts = { encrypt: none, decrypt: none };

  constructor(evp: Evp, key: KeyObject) {
    this.#evp = evp;
    this.#key = key;
  }

  sealInto(target: Uint8Array, nonce: Uint8Array, plaintext: Uint8Array, aad: Uint8Array): void {
    const { length } = plaintext;
    assert(target.length === length + tagBytes, 'target: plaintext and tag');
    const { encrypt, control } = this.#evp;
    const context = this.#begin('encrypt', nonce, aad);
    this.#run(encrypt, context, target, plaintext, length);
    this.#must(encrypt.final(context, blockAt + place.tag, blockAt + place.count));
    this.#must(control(context, getTag, tagBytes, blockAt + place.tag));
    target.set(tagAt, length);
  }

  openInto(target: Uint8Array, nonce: Uint8Array, sealed: Uint8Array, aad: Uint8Array): boolean {
    const length = sealed.length - tagBytes;
    assert(length >= 0 && target.length === length, 'target: the plaintext');
    const { decrypt, control, clearErrors } = this.#evp;
    const context = this.#begin('decrypt', nonce, aad);
    tagAt.set(sealed.subarray(length));
    this.#run(decrypt, context, target, sealed, length);
    this.#must(control(context, setTag, tagBytes, blockAt + place.tag));
    if (decrypt.final(context, blockAt + place.tag, blockAt + place.count) === 1) return true;
    clearErrors(); // or node:crypto would find it later and think it its own
    target.fill(0);
    return false;
  }

  [Symbol.dispose](): void {
    this.#key = undefined;
    forgotten.unregister(this);
    free(this.#contexts, this.#evp.freeContext);
  }

  #begin(name: keyof Contexts, nonce: Uint8Array, aad: Uint8Array): Address {
    assert(nonce.length === nonceBytes, 'nonce: 12 bytes');
    assert(aad.length <= lengthMax, 'aad: at most 1 GiB');
    const context = this.#contexts[name] || this.#newContext(name);
    const direction = this.#evp[name];
    nonceAt.set(nonce);
    this.#must(direction.init(context, none, none, none, blockAt + place.nonce));
    if (aad.length === 0) return context;
    const written = blockAt + place.count;
    if (aad.length > shortBytesMax) this.#must(direction.aad(context, null, written, aad, aad.length));
    else {
      aadAt.set(aad);
      this.#must(direction.short(context, none, written, blockAt + place.aad, aad.length));
    }
    return context;
  }

  #newContext(name: keyof Contexts): Address {
    assert(this.#key !== undefined, 'key: used after disposal');
    const { newContext, freeContext, cipher } = this.#evp;
    const context = newContext();
    if (context === none) throw refused();
    const contexts = this.#contexts;
    if (contexts.encrypt === none && contexts.decrypt === none)
      forgotten.register(this, () => free(contexts, freeContext), this);
    contexts[name] = context;
    const raw = this.#key.export();
    shortAt.set(raw);
    const status = this.#evp[name].init(context, cipher, none, blockAt + place.short, none);
    raw.fill(0);
    shortAt.fill(0, 0, keyBytes);
    this.#must(status);
    return context;
  }

  /** The first `length` bytes of `from`, into the first of `target`. */
  #run(direction: Direction, context: Address, target: Uint8Array, from: Uint8Array, length: number): void {
    assert(length <= lengthMax, 'text: at most 1 GiB');
    if (length === 0) return;
    const written = blockAt + place.count;
    if (length > shortBytesMax) {
      this.#must(direction.long(context, target, written, from, length));
    } else {
      const at = blockAt + place.short;
      shortAt.set(from.length === length ? from : from.subarray(0, length));
      this.#must(direction.short(context, at, written, at, length));
      for (let i = 0; i < length; i++) target[i] = shortAt[i] ?? 0;
      shortAt.fill(0, 0, length);
    }
    assert(count[0] === length, 'OpenSSL wrote less than it was given');
  }

  #must(status: number): void {
    if (status === 1) return;
    this.#evp.clearErrors();
    throw refused();
  }
}

interface Contexts {
  encrypt: Address;
  decrypt: Address;
}

/** Not a method: whoever waits for the end of a key must not hold it. */
function free(contexts: Contexts, freeContext: (context: Address) => void): void {
  for (const name of ['encrypt', 'decrypt'] as const) {
    if (contexts[name] !== none) freeContext(contexts[name]);
    contexts[name] = none;
  }
}

function refused(): HoldfastError {
  return new HoldfastError('INTERNAL', 'OpenSSL refused to encrypt or decrypt');
}

/**
 * Test case 16 of the specification of GCM (McGrew and Viega), both ways, by way of the short and of the long path; and
 * that a changed tag is refused.
 */
function selfTest(engine: GcmEngine): void {
  using key = engine.over(takeKey(bytesOf(known.key)));
  const [nonce, aad] = [bytesOf(known.nonce), bytesOf(known.aad)];
  const [plain, expected] = [bytesOf(known.plaintext), bytesOf(known.sealed)];
  const sealed = new Uint8Array(expected.length);
  key.sealInto(sealed, nonce, plain, aad);
  const opened = new Uint8Array(plain.length);
  const isRight = sameBytes(sealed, expected) && key.openInto(opened, nonce, sealed, aad);
  sealed[sealed.length - 1] = (sealed.at(-1) ?? 0) ^ 1;
  const long = new Uint8Array(2 * shortBytesMax);
  const sealedLong = new Uint8Array(long.length + tagBytes);
  key.sealInto(sealedLong, nonce, long, aad);
  const backLong = sealedLong.subarray(0, long.length);
  const isLongRight =
    sameBytes(sealedLong.subarray(0, 16), keystream(expected, plain)) &&
    key.openInto(backLong, nonce, sealedLong, aad) &&
    sameBytes(backLong, long);
  const isHashRight = sameBytes(engine.sha512(plain), sha512(plain));
  if (
    isRight &&
    isLongRight &&
    isHashRight &&
    sameBytes(opened, plain) &&
    !key.openInto(opened, nonce, sealed, aad)
  )
    return;
  throw new HoldfastError('INTERNAL', 'the OpenSSL of this node failed a known answer');
}

/** What zeros are encrypted to where the known plaintext is. */
function keystream(sealed: Uint8Array, plain: Uint8Array): Uint8Array {
  return sealed.slice(0, 16).map((byte, at) => byte ^ (plain[at] ?? 0));
}

function bytesOf(hex: string): Uint8Array {
  return new Uint8Array(Buffer.from(hex, 'hex'));
}

const known = {
  key: 'feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308',
  nonce: 'cafebabefacedbaddecaf888',
  aad: 'feedfacedeadbeeffeedfacedeadbeefabaddad2',
  plaintext:
    'd9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39',
  sealed:
    '522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f66276fc6ece0f4e1768cddf8853bb2d551b',
} as const;
