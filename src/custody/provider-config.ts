// Which providers of branch keys a cluster has beside its own, and which of all makes new keys: a JSON file.
//
//   {
//     "format": "holdfast-key-providers", "version": 1,
//     "providers": {
//       "vault": { "type": "transit", "address": "https://bao.example.org:8200", "mount": "transit", "key": "holdfast",
//                  "auth": { "method": "approle", "roleId": "…", "secretIdFile": "vault-secret-id" } },
//       "hsm":   { "type": "pkcs11", "module": "/usr/lib/softhsm/libsofthsm2.so", "token": "holdfast",
//                  "key": "branch-keys", "pinFile": "hsm-pin" }
//     },
//     "make": { "any": ["custodians", "hsm"] },
//     "recovery": { "publicKey": "64 hex digits" }
//   }
//
// No field holds a secret: a token, secret id or PIN is in a file of its own, and this says where. Paths are relative
// to the directory of the file. What reads a key is never chosen here: whoever wrapped it gives it back.

import { dirname, resolve } from 'node:path';
import { keyOfHex, toHex } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import { isMap } from '../core/shape.ts';
import type { VaultAuth } from './vault-auth.ts';

/** The names of what every cluster has by itself. */
const ownProviders = ['custodians', 'file'] as const;

interface EntryCommon {
  readonly name: string;
  /** Name of the custody group that its wraps are labelled with. */
  readonly group: string;
}

export interface TransitEntry extends EntryCommon {
  readonly type: 'transit';
  readonly url: string;
  readonly mount: string;
  readonly key: string;
  readonly auth: VaultAuth;
  readonly caFile?: string;
  readonly namespace?: string;
}

export interface Pkcs11Entry extends EntryCommon {
  readonly type: 'pkcs11';
  readonly modulePath: string;
  readonly token: string;
  readonly key: string;
  readonly pinFile: string;
}

export type ProviderEntry = TransitEntry | Pkcs11Entry;

/** Who makes new keys: one, or several taken together. */
export interface MakeChoice {
  readonly combiner: 'one' | 'any' | 'all';
  readonly names: readonly string[];
}

export interface ProviderConfig {
  readonly entries: readonly ProviderEntry[];
  /** Undefined: the custodians where there are any, else the key file of the cluster. */
  readonly make: MakeChoice | undefined;
  /** X25519 key that new keys are also sealed to, where the policy allows it. */
  readonly recoveryKey: Uint8Array | undefined;
  /** Ed25519 keys of those of whom two may order a recovery; undefined: the authorities of the policy. */
  readonly recoveryAuthorities: readonly Uint8Array[] | undefined;
}

/** What a cluster without such a file has. */
export const noProviderConfig: ProviderConfig = {
  entries: [],
  make: undefined,
  recoveryKey: undefined,
  recoveryAuthorities: undefined,
};

const format = 'holdfast-key-providers';
const version = 1;
const entriesMax = 16;

/**
 * Reads the text of the file at `path`. Throws ARGUMENT_INVALID naming the file, the field and what would be right,
 * DATA_DIR_NEWER for a later format.
 */
export function parseProviderConfig(text: string, path: string): ProviderConfig {
  const top = new Reader(parseJson(text, path), path, '');
  if (top.value['format'] !== format) top.refuse('format', `"${format}" expected`);
  const found = top.value['version'];
  if (typeof found === 'number' && found > version)
    throw new HoldfastError(
      'DATA_DIR_NEWER',
      `${path} has format ${found}; this program reads up to ${version}`,
    );
  if (found !== version) top.refuse('version', `${version} expected`);
  top.only(['format', 'version', 'providers', 'make', 'recovery']);
  const entries = readEntries(top);
  const make = top.value['make'] === undefined ? undefined : readMake(top, entries);
  return { entries, make, ...readRecovery(top) };
}

function parseJson(text: string, path: string): Readonly<Record<string, unknown>> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new HoldfastError('ARGUMENT_INVALID', `${path} is not valid JSON`, { cause });
  }
  if (isMap(value)) return value;
  throw new HoldfastError('ARGUMENT_INVALID', `${path}: an object {"format": "${format}", …} expected`);
}

function readEntries(top: Reader): readonly ProviderEntry[] {
  if (top.value['providers'] === undefined) return [];
  const all = top.map('providers');
  const names = Object.keys(all.value);
  if (names.length > entriesMax) top.refuse('providers', `at most ${entriesMax} expected`);
  const entries = names.map((name) => {
    if (!/^[a-z][a-z0-9-]{0,31}$/.test(name))
      all.refuse(name, 'a name of 1 to 32 small letters, digits and "-", beginning with a letter, expected');
    if (ownProviders.some((own) => own === name))
      all.refuse(name, 'every cluster has this one by itself; use another name');
    return readEntry(all.map(name), name);
  });
  for (const [index, { name, group }] of entries.entries()) {
    const isTaken = entries.findIndex((each) => each.group === group) < index;
    if (isTaken || group === 'dev' || group.startsWith('cg-'))
      all.map(name).refuse('group', `"${group}" is the group of another one; give this its own`);
  }
  return entries;
}

function readEntry(entry: Reader, name: string): ProviderEntry {
  const type = entry.value['type'];
  if (type === 'pkcs11') {
    entry.only(['type', 'group', 'module', 'token', 'key', 'pinFile', 'pin']);
    entry.noSecret('pin', 'pinFile');
    const [modulePath, pinFile] = [entry.file('module'), entry.file('pinFile')];
    const group = entry.group(name);
    return { type, name, group, modulePath, token: entry.text('token', 32), key: entry.text('key'), pinFile };
  }
  if (type === 'transit') return readTransit(entry, name);
  return entry.refuse('type', '"transit" or "pkcs11" expected (custodians and the key file need no entry)');
}

function readTransit(entry: Reader, name: string): TransitEntry {
  entry.only(['type', 'group', 'address', 'mount', 'key', 'auth', 'caFile', 'namespace', 'token']);
  entry.noSecret('token', 'auth.tokenFile');
  const url = entry.text('address', 2048);
  if (!/^https?:\/\/[^\s@]+$/.test(url))
    entry.refuse('address', 'an address like https://bao.example.org:8200 expected, without a user');
  const has = (field: string): boolean => entry.value[field] !== undefined;
  return {
    type: 'transit',
    name,
    group: entry.group(name),
    url,
    mount: has('mount') ? entry.text('mount') : 'transit',
    key: entry.text('key'),
    auth: readAuth(entry.map('auth')),
    ...(has('caFile') ? { caFile: entry.file('caFile') } : {}),
    ...(has('namespace') ? { namespace: entry.text('namespace') } : {}),
  };
}

function readAuth(auth: Reader): VaultAuth {
  const method = auth.value['method'];
  if (method === 'token-file') {
    auth.only(['method', 'tokenFile', 'token']);
    auth.noSecret('token', 'tokenFile');
    return { method, tokenFile: auth.file('tokenFile') };
  }
  if (method !== 'approle') return auth.refuse('method', '"approle" or "token-file" expected');
  auth.only(['method', 'roleId', 'secretIdFile', 'secretId', 'wrapped', 'mount']);
  auth.noSecret('secretId', 'secretIdFile');
  const wrapped = auth.value['wrapped'] ?? false;
  if (typeof wrapped !== 'boolean') return auth.refuse('wrapped', 'true or false expected');
  const mount = auth.value['mount'] === undefined ? 'approle' : auth.text('mount');
  return { method, roleId: auth.text('roleId'), secretIdFile: auth.file('secretIdFile'), wrapped, mount };
}

function readMake(top: Reader, entries: readonly ProviderEntry[]): MakeChoice {
  const value = top.value['make'];
  const known = [...ownProviders, ...entries.map(({ name }) => name)];
  const expected = `a name, or {"any": […]} or {"all": […]} of two or more, out of ${known.join(', ')} expected`;
  const [[combiner, list] = ['one', [value]], ...rest] = isMap(value)
    ? Object.entries(value)
    : [['one', [value]] as const];
  const names = Array.isArray(list)
    ? list.filter((name) => known.some((each) => each === name)).map(String)
    : [];
  const isGood =
    rest.length === 0 &&
    Array.isArray(list) &&
    names.length === list.length &&
    new Set(names).size === names.length &&
    (combiner === 'one' ? !isMap(value) && names.length === 1 : names.length >= 2);
  if (!isGood || (combiner !== 'one' && combiner !== 'any' && combiner !== 'all'))
    return top.refuse('make', expected);
  if (names.indexOf('custodians') > 0)
    top.refuse('make', '"custodians" must come first: the keys are bound to their policy');
  return { combiner, names };
}

function readRecovery(top: Reader): Pick<ProviderConfig, 'recoveryKey' | 'recoveryAuthorities'> {
  if (top.value['recovery'] === undefined) return { recoveryKey: undefined, recoveryAuthorities: undefined };
  const recovery = top.map('recovery');
  recovery.only(['publicKey', 'authorities']);
  const { authorities } = recovery.value;
  const listed: readonly unknown[] = Array.isArray(authorities) ? authorities : [];
  const keys = listed.map(keyOfHex).filter((key) => key !== undefined);
  if (authorities !== undefined && (new Set(keys.map(toHex)).size < 2 || keys.length !== listed.length))
    recovery.refuse('authorities', 'two or more Ed25519 public keys of 64 hex digits expected');
  const recoveryKey = keyOfHex(recovery.value['publicKey']);
  if (recoveryKey !== undefined)
    return { recoveryKey, recoveryAuthorities: authorities === undefined ? undefined : keys };
  return recovery.refuse('publicKey', 'an X25519 public key of 64 hex digits expected');
}

/** One object of the file, which knows where in it it stands. */
class Reader {
  readonly value: Readonly<Record<string, unknown>>;
  readonly #path: string;
  readonly #where: string;

  constructor(value: Readonly<Record<string, unknown>>, path: string, where: string) {
    this.value = value;
    this.#path = path;
    this.#where = where;
  }

  only(names: readonly string[]): void {
    const unknown = Object.keys(this.value).find((name) => !names.includes(name));
    if (unknown !== undefined) this.refuse(unknown, `unknown here; there are ${names.join(', ')}`);
  }

  /** A secret in the place of its file must not stay there, and never gets into the message. */
  noSecret(field: string, instead: string): void {
    if (this.value[field] !== undefined)
      this.refuse(
        field,
        `no secret may stand here: put it into a file of mode 600 and name that in ${instead}`,
      );
  }

  map(field: string): Reader {
    const value = this.value[field];
    if (!isMap(value)) return this.refuse(field, 'an object {…} expected');
    return new Reader(value, this.#path, `${this.#where}${field}.`);
  }

  text(field: string, sizeMax = 128): string {
    const value = this.value[field];
    if (
      typeof value !== 'string' ||
      value === '' ||
      Buffer.byteLength(value) > sizeMax ||
      /\p{Cc}/u.test(value)
    )
      return this.refuse(field, `text of 1 to ${sizeMax} bytes expected`);
    return value;
  }

  file(field: string): string {
    const value = this.value[field];
    if (typeof value !== 'string' || value === '' || value.length > 4096 || value.includes('\0'))
      return this.refuse(field, 'the path of a file expected, absolute or from the directory of this file');
    return resolve(dirname(this.#path), value);
  }

  group(name: string): string {
    if (this.value['group'] === undefined) return name;
    const group = this.text('group', 64);
    return /^[\w.-]+$/.test(group)
      ? group
      : this.refuse('group', 'letters, digits, ".", "_" and "-" expected');
  }

  refuse(field: string, expected: string): never {
    const where = `${this.#where}${field}`;
    throw new HoldfastError('ARGUMENT_INVALID', `${this.#path}: ${where}: ${expected}`, {
      details: { path: this.#path, field: where },
    });
  }
}
