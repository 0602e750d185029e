// The native side of a PKCS#11 module: its functions, its structures, and memory that both sides see.
//
// The calls go through koffi, an optional dependency: a cluster without hardware does not need it. Each call runs
// on a thread of koffi's, so a slow token does not hold up the event loop; the module is told to do its own locking.
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
import { alreadyInitialized, mechanism, osLocking, Pkcs11Error } from './pkcs11-codes.ts';

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

export const tagBytes = 16;

/** A row of CK_ULONGs in memory that both sides see. */
interface Ulongs {
  readonly bytes: Buffer;
  at(index: number): bigint;
}

export interface Binding {
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

/** Loads and initializes the library at `path`. Throws ARGUMENT_INVALID without koffi, KEY_UNAVAILABLE when it cannot be used. */
export async function bindModule(path: string): Promise<Binding> {
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

function unusable(path: string, reason: string, cause: unknown): HoldfastError {
  return new HoldfastError('KEY_UNAVAILABLE', `PKCS#11 module ${path} ${reason}`, {
    details: { path },
    cause,
  });
}
