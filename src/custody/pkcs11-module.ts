// A PKCS#11 module (a shared library) by the dozen functions that wrapping branch keys needs.
//
// The calls go through koffi, an optional dependency: a cluster without hardware does not need it. Each call runs
// on a thread of koffi's, so a slow token does not hold up the event loop; the module is told to do its own
// locking. One session may do one thing at a time: its owner sees to that.
//
// CK_GCM_PARAMS exists in two shapes. The headers of 2.40 had lost `ulIvBits`, which the text of the specification
// and later headers have; modules were built from either, and know theirs by its size only. Which one a module
// takes is found out by trying (pkcs11.ts).
//
//   5 words   pIv  ulIvLen            pAAD  ulAADLen  ulTagBits
//   6 words   pIv  ulIvLen  ulIvBits  pAAD  ulAADLen  ulTagBits

import type * as KoffiModule from 'koffi';
import { asBuffer, concat } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import {
  alreadyInitialized,
  alreadyLoggedIn,
  mechanism,
  normalUser,
  osLocking,
  Pkcs11Error,
  session as sessionFlag,
} from './pkcs11-codes.ts';

/** A slot with a token in it. */
export interface Pkcs11Token {
  readonly slot: number | bigint;
  readonly label: string;
  readonly serial: string;
  readonly model: string;
  readonly manufacturer: string;
}

/** One attribute of a template: bytes as they are, a boolean as CK_BBOOL, a number as CK_ULONG. */
export type Attribute = readonly [type: number, value: Uint8Array | boolean | number];

export type GcmLayout = 'iv-bits' | 'no-iv-bits';

export interface GcmCall {
  readonly layout: GcmLayout;
  /** The object of the key in this session's token. */
  readonly key: bigint;
  /** 12 bytes. A module that chooses the nonce itself writes it here. */
  readonly iv: Uint8Array;
  readonly aad: Uint8Array;
}

/** A logged-in or public session; one call at a time. Throws Pkcs11Error for all that is not CKR_OK. */
export interface Pkcs11Session {
  /** `pin` stays the caller's to zero. Already being logged in is fine. */
  login(pin: Uint8Array): Promise<void>;
  /** Handles of at most `countMax` objects that match. */
  find(template: readonly Attribute[], countMax: number): Promise<readonly bigint[]>;
  generateAesKey(template: readonly Attribute[]): Promise<void>;
  /** ciphertext ‖ 16-byte tag. */
  gcmEncrypt(call: GcmCall, plaintext: Uint8Array): Promise<Uint8Array>;
  /** The plaintext; the caller zeroes it. */
  gcmDecrypt(call: GcmCall, sealed: Uint8Array): Promise<Uint8Array>;
  close(): Promise<void>;
}

const slotsMax = 64;
const tagBytes = 16;
/** Room for a block that a module may count into its estimate. */
const slackBytes = 64;

/**
 * Loads the module at `path`; one that is loaded already is shared. Dispose it when done: the last one finalizes it.
 *
 * @throws ARGUMENT_INVALID when koffi is not installed, KEY_UNAVAILABLE when the library cannot be loaded or initialized
 */
export async function openPkcs11Module(path: string): Promise<Pkcs11Module> {
  const present = loaded.get(path);
  const entry = present ?? { usersCount: 0, binding: initialize(path) };
  if (present === undefined) loaded.set(path, entry);
  entry.usersCount++;
  try {
    return new Pkcs11Module(path, await entry.binding);
  } catch (error) {
    if (loaded.get(path) === entry) loaded.delete(path);
    throw error;
  }
}

interface LoadedModule {
  usersCount: number;
  readonly binding: Promise<Binding>;
}

/** A library initializes once in a process, whoever uses it. */
const loaded = new Map<string, LoadedModule>();

export class Pkcs11Module implements AsyncDisposable {
  readonly path: string;
  readonly #binding: Binding;
  #open = true;

  constructor(path: string, binding: Binding) {
    this.path = path;
    this.#binding = binding;
  }

  /** Every token that is present. */
  async tokens(): Promise<readonly Pkcs11Token[]> {
    const { ulongs, call } = this.#binding;
    const slots = ulongs(slotsMax);
    const count = ulongs(1, [slotsMax]);
    await call('C_GetSlotList', 1, slots.bytes, count.bytes);
    const tokens: Pkcs11Token[] = [];
    for (let index = 0; index < Number(count.at(0)); index++) {
      const slot = slots.at(index);
      const info = Buffer.alloc(512); // CK_TOKEN_INFO is 208 bytes where a CK_ULONG has 8, the texts come first
      await call('C_GetTokenInfo', slot, info);
      tokens.push({ slot, ...tokenTexts(info) });
    }
    return tokens;
  }

  async openSession(slot: number | bigint, access: 'read' | 'write'): Promise<Pkcs11Session> {
    const { ulongs, call } = this.#binding;
    const flags = sessionFlag.serial | (access === 'write' ? sessionFlag.readWrite : 0);
    const handle = ulongs(1);
    await call('C_OpenSession', slot, flags, null, null, handle.bytes);
    return new Session(this.#binding, handle.at(0));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#open) return;
    this.#open = false;
    const entry = loaded.get(this.path);
    if (entry === undefined || --entry.usersCount > 0) return;
    loaded.delete(this.path);
    if (this.#binding.owned) await this.#binding.call('C_Finalize', null);
  }
}

class Session implements Pkcs11Session {
  readonly #binding: Binding;
  readonly #handle: bigint;

  constructor(binding: Binding, handle: bigint) {
    this.#binding = binding;
    this.#handle = handle;
  }

  async login(pin: Uint8Array): Promise<void> {
    try {
      await this.#binding.call('C_Login', this.#handle, normalUser, pin, pin.length);
    } catch (error) {
      if (!(error instanceof Pkcs11Error && error.value === alreadyLoggedIn)) throw error;
    }
  }

  async find(template: readonly Attribute[], countMax: number): Promise<readonly bigint[]> {
    const { ulongs, call } = this.#binding;
    await call('C_FindObjectsInit', this.#handle, this.#attributes(template), template.length);
    try {
      const handles = ulongs(countMax);
      const count = ulongs(1);
      await call('C_FindObjects', this.#handle, handles.bytes, countMax, count.bytes);
      return Array.from({ length: Number(count.at(0)) }, (_, index) => handles.at(index));
    } finally {
      await call('C_FindObjectsFinal', this.#handle);
    }
  }

  async generateAesKey(template: readonly Attribute[]): Promise<void> {
    const { ulongs, call } = this.#binding;
    const how = { mechanism: mechanism.aesKeyGen, pParameter: null, ulParameterLen: 0 };
    const key = ulongs(1);
    await call('C_GenerateKey', this.#handle, how, this.#attributes(template), template.length, key.bytes);
  }

  async gcmEncrypt(gcm: GcmCall, plaintext: Uint8Array): Promise<Uint8Array> {
    const { call } = this.#binding;
    await call('C_EncryptInit', this.#handle, this.#binding.gcmMechanism(gcm), gcm.key);
    return this.#finish('C_Encrypt', plaintext, plaintext.length + tagBytes);
  }

  async gcmDecrypt(gcm: GcmCall, sealed: Uint8Array): Promise<Uint8Array> {
    const { call } = this.#binding;
    await call('C_DecryptInit', this.#handle, this.#binding.gcmMechanism(gcm), gcm.key);
    return this.#finish('C_Decrypt', sealed, Math.max(0, sealed.length - tagBytes));
  }

  async close(): Promise<void> {
    await this.#binding.call('C_CloseSession', this.#handle);
  }

  async #finish(name: 'C_Encrypt' | 'C_Decrypt', input: Uint8Array, expected: number): Promise<Uint8Array> {
    const { ulongs, call } = this.#binding;
    const output = new Uint8Array(expected + slackBytes);
    const length = ulongs(1, [output.length]);
    try {
      await call(name, this.#handle, input, input.length, output, length.bytes);
      return output.slice(0, Number(length.at(0)));
    } finally {
      output.fill(0);
    }
  }

  #attributes(template: readonly Attribute[]): readonly unknown[] {
    return template.map(([type, value]) => {
      const bytes = this.#binding.valueBytes(value);
      return { type, pValue: bytes, ulValueLen: bytes.length };
    });
  }
}

/** A row of CK_ULONGs in memory that both sides see. */
interface Ulongs {
  readonly bytes: Buffer;
  at(index: number): bigint;
}

interface Binding {
  /** We initialized the library, so we finalize it. */
  readonly owned: boolean;
  /** Calls a function on another thread. Throws Pkcs11Error. */
  readonly call: (name: FunctionName, ...args: readonly unknown[]) => Promise<void>;
  readonly ulongs: (count: number, values?: readonly number[]) => Ulongs;
  readonly valueBytes: (value: Attribute[1]) => Uint8Array;
  readonly gcmMechanism: (call: GcmCall) => unknown;
}

type Shape = 'ulong' | 'bool' | 'memory' | 'mechanism' | 'attributes' | 'initArguments';

const signatures = {
  C_Initialize: ['initArguments'],
  C_Finalize: ['memory'],
  C_GetSlotList: ['bool', 'memory', 'memory'],
  C_GetTokenInfo: ['ulong', 'memory'],
  C_OpenSession: ['ulong', 'ulong', 'memory', 'memory', 'memory'],
  C_CloseSession: ['ulong'],
  C_Login: ['ulong', 'ulong', 'memory', 'ulong'],
  C_FindObjectsInit: ['ulong', 'attributes', 'ulong'],
  C_FindObjects: ['ulong', 'memory', 'ulong', 'memory'],
  C_FindObjectsFinal: ['ulong'],
  C_GenerateKey: ['ulong', 'mechanism', 'attributes', 'ulong', 'memory'],
  C_EncryptInit: ['ulong', 'mechanism', 'ulong'],
  C_Encrypt: ['ulong', 'memory', 'ulong', 'memory', 'memory'],
  C_DecryptInit: ['ulong', 'mechanism', 'ulong'],
  C_Decrypt: ['ulong', 'memory', 'ulong', 'memory', 'memory'],
} as const satisfies Record<string, readonly Shape[]>;

type FunctionName = keyof typeof signatures;

async function initialize(path: string): Promise<Binding> {
  const koffi = await loadKoffi();
  const types = pkcs11Types(koffi);
  const functions = bindAll(koffi, types, path);
  const call = async (name: FunctionName, ...args: readonly unknown[]): Promise<void> => {
    const value = await functions[name](args);
    if (value !== 0) throw new Pkcs11Error(name, value);
  };
  const locking = { create: null, destroy: null, lock: null, unlock: null, flags: osLocking, reserved: null };
  let owned = true;
  try {
    await call('C_Initialize', locking);
  } catch (cause) {
    owned = !(cause instanceof Pkcs11Error && cause.value === alreadyInitialized);
    if (owned) throw unusable(path, 'cannot be initialized', cause);
  }
  const ulongBytes = koffi.sizeof('ulong');
  return {
    owned,
    call,
    ulongs: (count, values = []) => ulongRow(ulongBytes, count, values),
    valueBytes: (value) => attributeBytes(ulongBytes, value),
    gcmMechanism: ({ layout, iv, aad }) => {
      const shape = layout === 'iv-bits' ? types.gcmWithIvBits : types.gcmWithoutIvBits;
      const tag = { pAAD: aad, ulAADLen: aad.length, ulTagBits: 8 * tagBytes };
      const nonce = { pIv: iv, ulIvLen: iv.length };
      const parameters =
        layout === 'iv-bits' ? { ...nonce, ulIvBits: 8 * iv.length, ...tag } : { ...nonce, ...tag };
      return {
        mechanism: mechanism.aesGcm,
        pParameter: koffi.as(parameters, koffi.pointer(shape)),
        ulParameterLen: koffi.sizeof(shape),
      };
    },
  };
}

type Koffi = typeof KoffiModule.default;

async function loadKoffi(): Promise<Koffi> {
  try {
    return (await import('koffi')).default;
  } catch (cause) {
    throw new HoldfastError(
      'ARGUMENT_INVALID',
      'custody by PKCS#11 needs the optional package koffi, which is not installed here: npm install koffi',
      { cause },
    );
  }
}

type Types = Readonly<
  Record<
    'mechanism' | 'attribute' | 'initArguments' | 'gcmWithIvBits' | 'gcmWithoutIvBits',
    KoffiModule.TypeObject
  >
>;

/** Structures of the specification. On Windows they are packed to one byte (2.40, section 2.1). */
export function pkcs11Types(koffi: Koffi): Types {
  const struct = process.platform === 'win32' ? koffi.pack : koffi.struct;
  const memory = 'void *';
  return {
    mechanism: struct({ mechanism: 'ulong', pParameter: memory, ulParameterLen: 'ulong' }),
    attribute: struct({ type: 'ulong', pValue: memory, ulValueLen: 'ulong' }),
    initArguments: struct({
      create: memory,
      destroy: memory,
      lock: memory,
      unlock: memory,
      flags: 'ulong',
      reserved: memory,
    }),
    gcmWithIvBits: struct({
      pIv: memory,
      ulIvLen: 'ulong',
      ulIvBits: 'ulong',
      pAAD: memory,
      ulAADLen: 'ulong',
      ulTagBits: 'ulong',
    }),
    gcmWithoutIvBits: struct({
      pIv: memory,
      ulIvLen: 'ulong',
      pAAD: memory,
      ulAADLen: 'ulong',
      ulTagBits: 'ulong',
    }),
  };
}

type NativeCall = (args: readonly unknown[]) => Promise<number>;

function bindAll(koffi: Koffi, types: Types, path: string): Readonly<Record<FunctionName, NativeCall>> {
  const shapes: Readonly<Record<Shape, KoffiModule.TypeObject | string>> = {
    ulong: 'ulong',
    bool: 'uint8',
    memory: 'void *',
    mechanism: koffi.pointer(types.mechanism),
    attributes: koffi.pointer(types.attribute),
    initArguments: koffi.pointer(types.initArguments),
  };
  try {
    const library = koffi.load(path);
    const bind = (name: FunctionName): NativeCall =>
      asynchronous(
        library.func(
          name,
          'ulong',
          signatures[name].map((shape) => shapes[shape]),
        ),
      );
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- the keys are those of `signatures`
    const names = Object.keys(signatures) as FunctionName[];
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- one entry for each of them
    return Object.fromEntries(names.map((name) => [name, bind(name)])) as Record<FunctionName, NativeCall>;
  } catch (cause) {
    throw unusable(path, 'cannot be loaded as a PKCS#11 module', cause);
  }
}

/** The native side works in memory of `args`: they are held until it has answered. */
function asynchronous(native: { readonly async: (...args: unknown[]) => unknown }): NativeCall {
  return async (args) => {
    const { promise, resolve, reject } = Promise.withResolvers<number>();
    held.add(args);
    native.async(...args, (error: unknown, value: number | bigint) => {
      if (error === null || error === undefined) resolve(Number(value));
      else reject(error instanceof Error ? error : new Error('the native call failed'));
    });
    try {
      return await promise;
    } finally {
      held.delete(args);
    }
  };
}

const held = new Set<readonly unknown[]>();

function ulongRow(ulongBytes: number, count: number, values: readonly number[]): Ulongs {
  const bytes = Buffer.alloc(count * ulongBytes);
  values.forEach((value, index) => asBuffer(ulongOf(ulongBytes, value)).copy(bytes, index * ulongBytes));
  const at = (index: number): bigint =>
    ulongBytes === 8 ? bytes.readBigUInt64LE(index * 8) : BigInt(bytes.readUInt32LE(index * 4));
  return { bytes, at };
}

function ulongOf(ulongBytes: number, value: number): Uint8Array {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes.subarray(0, ulongBytes);
}

function attributeBytes(ulongBytes: number, value: Attribute[1]): Uint8Array {
  if (typeof value === 'boolean') return Uint8Array.of(value ? 1 : 0);
  return typeof value === 'number' ? ulongOf(ulongBytes, value) : concat(value);
}

/** Label, manufacturer, model and serial number: fixed widths, padded with blanks. */
function tokenTexts(info: Buffer): Omit<Pkcs11Token, 'slot'> {
  const text = (from: number, to: number): string => info.toString('utf8', from, to).trimEnd();
  return { label: text(0, 32), manufacturer: text(32, 64), model: text(64, 80), serial: text(80, 96) };
}

function unusable(path: string, reason: string, cause: unknown): HoldfastError {
  return new HoldfastError('KEY_UNAVAILABLE', `PKCS#11 module ${path} ${reason}`, {
    details: { path },
    cause,
  });
}
