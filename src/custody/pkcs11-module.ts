// A PKCS#11 module (a shared library) by the dozen functions that wrapping branch keys needs.
//
// The calls go through koffi, an optional dependency: a cluster without hardware does not need it. Each call runs
// on a thread of koffi's, so a slow token does not hold up the event loop; the module is told to do its own
// locking. One session may do one thing at a time: its owner sees to that.

import { type Attribute, type Binding, bindModule, type GcmCall, tagBytes } from './pkcs11-binding.ts';
import {
  alreadyLoggedIn,
  mechanism,
  normalUser,
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
/** Room for a block that a module may count into its estimate. */
const slackBytes = 64;

/**
 * Loads the module at `path`; one that is loaded already is shared. Dispose it when done: the last one finalizes it.
 *
 * @throws ARGUMENT_INVALID when koffi is not installed, KEY_UNAVAILABLE when the library cannot be loaded or initialized
 */
export async function openPkcs11Module(path: string): Promise<Pkcs11Module> {
  const present = loaded.get(path);
  const entry = present ?? { usersCount: 0, binding: bindModule(path) };
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

/** Label, manufacturer, model and serial number: fixed widths, padded with blanks. */
function tokenTexts(info: Buffer): Omit<Pkcs11Token, 'slot'> {
  const text = (from: number, to: number): string => info.toString('utf8', from, to).trimEnd();
  return { label: text(0, 32), manufacturer: text(32, 64), model: text(64, 80), serial: text(80, 96) };
}
