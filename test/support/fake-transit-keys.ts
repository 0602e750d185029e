// The keys of the small Transit server: made, read, rotated, and asked to encrypt, decrypt and rewrap. Answers and
// refusals are those of OpenBao 2.6, word for word where our provider reads them.
// src/custody/transit-protocol.test.ts holds them against a real server.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { authenticationFailed, type Item, type Key, type Result, resultOf } from './fake-transit-cipher.ts';

export interface Reply {
  readonly status: number;
  readonly body?: object;
}

export interface KeyRequest {
  readonly method: string;
  /** Of the key; two namespaces have keys of one name. */
  readonly namespace: string;
  /** Below the mount: `['keys', 'NAME', 'rotate']`. */
  readonly path: readonly string[];
  readonly body: Readonly<Record<string, unknown>>;
  readonly mayCreate: boolean;
  readonly mayConfigure: boolean;
  /** One text that is not authentic fails the whole request, as at Vault up to 1.9. */
  readonly failsWhole: boolean;
}

const stringsMax = 1000;

export class FakeTransitKeys {
  readonly #keys = new Map<string, Key>();

  answer(request: KeyRequest): Reply {
    const { path, body } = request;
    const [operation, name = ''] = path;
    if (stringsCount(body) > stringsMax)
      return failed(400, 'refused JSON input due to high complexity: exceeded maximum number of strings');
    if (operation === 'keys') return this.#keyPath(request, name, path[2]);
    if (operation === 'encrypt' || operation === 'decrypt' || operation === 'rewrap')
      return this.#batch(request, operation, name);
    return request.mayCreate ? failed(404, listed('unsupported path')) : denied();
  }

  #keyPath(request: KeyRequest, name: string, detail: string | undefined): Reply {
    const { method, body, namespace } = request;
    const id = `${namespace}/${name}`;
    const key = this.#keys.get(id);
    if (method === 'GET') return key === undefined ? failed(404) : stateOf(name, key);
    if (detail === undefined) return request.mayCreate ? this.#create(id, name, body) : denied();
    if (!request.mayConfigure) return denied();
    if (key === undefined)
      return failed(
        400,
        detail === 'config' ? `no existing key named ${name} could be found` : 'key not found',
      );
    if (detail === 'rotate') key.versions.push(randomBytes(32));
    if (detail === 'soft-delete') key.softDeleted = true;
    if (detail === 'soft-delete-restore') key.softDeleted = false;
    const refused = detail === 'config' ? configured(key, body) : undefined;
    return refused === undefined ? stateOf(name, key) : failed(400, refused);
  }

  #create(id: string, name: string, { type = 'aes256-gcm96', ...wanted }: KeyRequest['body']): Reply {
    if (type !== 'aes256-gcm96') return failed(400, `unknown key type ${String(type)}`);
    const derived = wanted['derived'] === true;
    const set = (field: string): boolean => wanted[field] === true;
    const fields = {
      type,
      derived,
      exportable: set('exportable'),
      allow_plaintext_backup: set('allow_plaintext_backup'),
      deletion_allowed: false,
      // Named for derived keys only.
      ...(derived ? { convergent_encryption: set('convergent_encryption') } : {}),
    };
    const key = this.#keys.get(id) ?? {
      fields,
      versions: [randomBytes(32)],
      least: 1,
      softDeleted: false,
    };
    this.#keys.set(id, key);
    return stateOf(name, key);
  }

  #batch(request: KeyRequest, operation: 'encrypt' | 'decrypt' | 'rewrap', name: string): Reply {
    const { body, namespace, mayCreate } = request;
    const items = body['batch_input'];
    if (!isItems(items))
      return failed(
        400,
        operation === 'encrypt' ? 'missing plaintext to encrypt' : 'missing ciphertext to decrypt',
      );
    if (items.length === 0) return failed(400, 'missing batch input to process');
    // A real server takes it, and then cannot rewrap: our provider must never send it.
    assert(items.every((item) => !('associated_data' in item)));
    const withContext = items.filter(({ context = '' }) => context !== '').length;
    if (withContext !== 0 && withContext !== items.length)
      return failed(400, 'context should be set either in all the request blocks or in none');
    const id = `${namespace}/${name}`;
    // Whoever may create makes a key by encrypting with its name, derived if there is a context.
    if (operation === 'encrypt' && !this.#keys.has(id)) {
      if (!mayCreate) return denied();
      this.#create(id, name, { derived: withContext > 0 });
    }
    const key = this.#keys.get(id);
    if (key === undefined) return failed(400, 'encryption key not found');
    const results = items.map((item) => resultOf(operation, key, item));
    if (request.failsWhole && results.some(({ error }) => error === authenticationFailed))
      return failed(500, listed(authenticationFailed));
    if (operation !== 'rewrap') return batchReply(results, body['partial_failure_response_code']);
    const warnings =
      'partial_failure_response_code' in body
        ? ['Endpoint ignored these unrecognized parameters: [partial_failure_response_code]']
        : null;
    return { status: 200, body: { data: { batch_results: results }, warnings } };
  }
}

/** The status that the caller wants for a batch that failed in part; one that failed altogether is 400 always. */
function batchReply(results: readonly Result[], wanted: unknown): Reply {
  const bad = results.filter(({ error }) => error !== undefined).length;
  const partly = typeof wanted === 'number' && bad < results.length ? wanted : 400;
  return { status: bad === 0 ? 200 : partly, body: { data: { batch_results: results } } };
}

/** What a change of settings is refused for; a refused one changes nothing. */
function configured(key: Key, body: KeyRequest['body']): string | undefined {
  const { min_decryption_version: least, ...settings } = body;
  if (typeof least === 'number') {
    if (least < 0) return 'min decryption version cannot be negative';
    if (least > key.versions.length)
      return `cannot set min decryption version of ${least}, latest key version is ${key.versions.length}`;
    key.least = Math.max(least, 1);
  }
  Object.assign(key.fields, settings);
  return undefined;
}

function stateOf(name: string, key: Key): Reply {
  const state = {
    latest_version: key.versions.length,
    min_decryption_version: key.least,
    soft_deleted: key.softDeleted,
  };
  return { status: 200, body: { data: { name, ...key.fields, ...state } } };
}

/** Names and values, as OpenBao counts them. */
function stringsCount(value: unknown): number {
  if (typeof value === 'string') return 1;
  if (typeof value !== 'object' || value === null) return 0;
  const names = Array.isArray(value) ? 0 : Object.keys(value).length;
  return Object.values(value).reduce<number>((sum, each) => sum + stringsCount(each), names);
}

function isItems(value: unknown): value is readonly Item[] {
  return Array.isArray(value);
}

export function failed(status: number, ...errors: string[]): Reply {
  return { status, body: { errors } };
}

/** Refused to a token that is good, but for other paths. */
export function denied(): Reply {
  return failed(403, listed('permission denied'));
}

function listed(error: string): string {
  return `1 error occurred:\n\t* ${error}\n\n`;
}
