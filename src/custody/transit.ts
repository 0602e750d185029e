// Custody by a Transit engine of OpenBao or Vault: branch keys wrapped by a key that does not leave the server.
//
//   branch key ──encrypt, context = base64(digest of the label)──▶ vault:vN:…
//
// The key is a derived one: the server makes a key of its own out of each context, so a wrap opens under its label
// only. `associated_data` would say the same, but the server cannot rewrap what was encrypted with it
// (hashicorp/vault#29532). The label stays when the server's key gets a new version; the wrap names that version.
//
// The server refuses item by item. Vault up to 1.9 fails a whole request over one bad item instead; such a request is
// halved until the bad one is alone, as is one with too many items.

import assert from 'node:assert/strict';
import { asBuffer } from '../core/bytes.ts';
import type { Clock } from '../core/clock.ts';
import { HoldfastError } from '../core/errors.ts';
import { fieldOf } from '../core/shape.ts';
import type { TransitKek } from '../envelope/kek.ts';
import { encodeLabel } from '../envelope/label.ts';
import { keyBytes } from '../envelope/primitives.ts';
import type { BkWrap, BranchKeyBody } from '../envelope/records.ts';
import type { TransitWrap } from '../envelope/wraps.ts';
import { assertBatch, refusedKey, takesSeveral } from './legs.ts';
import type {
  KekProvider,
  KeyWrapper,
  NewKey,
  NewKeyScope,
  ProviderDescription,
  ProviderHealth,
  Renewed,
  Unwrapped,
  UnwrapRequest,
  WrapRenewer,
} from './provider.ts';
import { random } from './random.ts';
import {
  authenticationFailed,
  ciphertextOf,
  contextOf,
  isItemsFault,
  notRenewed,
  openedFrom,
  versionIn,
  versionOf,
} from './transit-answers.ts';
import { checkKey, readKey, type TransitKeyState } from './transit-key.ts';
import { tokenSource, type VaultAuth } from './vault-auth.ts';
import { VaultClient } from './vault-client.ts';
import { openVaultHttp } from './vault-http.ts';

export interface TransitOptions {
  /** Like https://bao.example.org:8200; http:// for the loopback only. */
  readonly url: string;
  readonly auth: VaultAuth;
  /** Name of the key; it must be a derived aes256-gcm96. */
  readonly key: string;
  /** Where the engine is mounted. Default 'transit'. */
  readonly mount?: string;
  /** Name of the custody group. */
  readonly group: string;
  readonly clock: Clock;
  /** Version of the group's key, from 1; versions within the server do not count. Default 1. */
  readonly kekVersion?: number;
  /** Makes the key when there is none. True on the very first start only. Default false. */
  readonly create?: boolean;
  /** PEM file of certificate authorities to trust instead of the system's. */
  readonly caFile?: string;
  readonly namespace?: string;
  /** One attempt, milliseconds. Default 10,000. */
  readonly timeoutMs?: number;
  /** Attempts of one call in all, 1…10. Default 3. */
  readonly attemptsMax?: number;
  /** Before the second attempt, milliseconds; doubles with each one more. Default 250. */
  readonly pauseMs?: number;
}

export interface TransitProvider extends KekProvider, KeyWrapper, WrapRenewer {
  /** What the server says of the key now. */
  keyState(signal?: AbortSignal): Promise<TransitKeyState>;
  /**
   * Lets the server refuse wraps of key versions below `version`, for good once they are trimmed. Every record must
   * have been renewed before; nobody checks that here.
   */
  retireBelow(version: number, signal?: AbortSignal): Promise<void>;
}

/** Items in one request. OpenBao refuses JSON with over 1,000 strings by default; an item has four, names included. */
const batchItemsMax = 200;
const namePattern = /^\w([\w.-]*\w)?$/;
const mountPattern = /^\w[\w.-]*(\/\w[\w.-]*)*$/;

/**
 * Connects, logs in and looks at the key.
 *
 * @throws ARGUMENT_INVALID for a name, URL or key that cannot be used, FORBIDDEN when the server refuses us,
 *   KEY_UNAVAILABLE and TIMEOUT when it is not there, FILE_NOT_FOUND and FILE_UNREADABLE for the files
 */
export async function openTransit(options: TransitOptions): Promise<TransitProvider> {
  const { mount = 'transit', key, attemptsMax = 3, pauseMs = 250, timeoutMs = 10_000 } = options;
  if (!mountPattern.test(mount) || !namePattern.test(key))
    throw new HoldfastError(
      'ARGUMENT_INVALID',
      `Transit: "${mount}" or "${key}" is no name of a mount or key`,
    );
  assert(attemptsMax >= 1 && attemptsMax <= 10, 'attemptsMax: 1 to 10');
  const { url, caFile, namespace } = options;
  const http = await openVaultHttp({ url, caFile, namespace, timeoutMs });
  const tokens = tokenSource(options.auth, http, options.clock);
  const client = new VaultClient(http, tokens, { attemptsMax, pauseMs });
  try {
    await checkKey(client, mount, key, options.create ?? false);
    return new Transit(options, mount, client);
  } catch (error) {
    client[Symbol.dispose]();
    throw error;
  }
}

class Transit implements TransitProvider {
  readonly id: string;
  readonly kind = 'transit';
  readonly #fields: TransitKek;
  #client: VaultClient | undefined;

  constructor(options: TransitOptions, mount: string, client: VaultClient) {
    this.#client = client;
    this.id = `transit:${mount}/${options.key}`;
    this.#fields = {
      cg: options.group,
      ver: options.kekVersion ?? 1,
      suite: 'transit-1',
      state: 'active',
      createdAt: new Date(options.clock.now()).toISOString(),
      provider: 'transit',
      mount,
      key: options.key,
    };
  }

  async createKey(scope: NewKeyScope): Promise<NewKey> {
    const branchKey = random(keyBytes);
    return { branchKey, wraps: await this.wrapKey(scope, branchKey), combiner: 'any' };
  }

  /** The key passes through a JavaScript string, which cannot be zeroed: that is the server's protocol. */
  async wrapKey(scope: NewKeyScope, branchKey: Uint8Array): Promise<readonly BkWrap[]> {
    const { cg, ver: kekVer } = this.#fields;
    const label = encodeLabel({ v: 1, cg, kekVer, ...scope });
    const plaintext = asBuffer(branchKey).toString('base64');
    const results = await this.#batch('encrypt', [{ plaintext, context: contextOf(label) }]);
    return [this.#wrapOf(label, ciphertextOf(results?.[0]))];
  }

  async unwrap(records: readonly BranchKeyBody[], request: UnwrapRequest): Promise<readonly Unwrapped[]> {
    assertBatch(records);
    const wraps = records.map((record) => (takesSeveral(record) ? undefined : this.#wrapIn(record)));
    const ours = wraps.filter((wrap) => wrap !== undefined);
    const results = await this.#results('decrypt', ours.map(itemOf), request.signal);
    let next = 0;
    return records.map((record, index) =>
      wraps[index] === undefined ? this.#notOurs(record) : openedFrom(record, results[next++]),
    );
  }

  async renew(records: readonly BranchKeyBody[], signal?: AbortSignal): Promise<readonly Renewed[]> {
    assertBatch(records);
    const { latestVersion } = await this.keyState(signal);
    const answers: Renewed[] = records.map(() => ({ ok: true, wraps: undefined }));
    const due = records.flatMap((record, index): Due[] => {
      const wrap = this.#wrapIn(record);
      // By the text that the server reads: the field beside it is somebody's word.
      if (wrap === undefined || (versionIn(wrap.ct) ?? 0) >= latestVersion) return [];
      return [{ record, wrap, index }];
    });
    const results = await this.#results(
      'rewrap',
      due.map(({ wrap }) => itemOf(wrap)),
      signal,
    );
    for (const [at, each] of due.entries()) answers[each.index] = this.#renewedFrom(each, results[at]);
    return answers;
  }

  async keyState(signal?: AbortSignal): Promise<TransitKeyState> {
    return readKey(this.#open(), this.#fields.mount, this.#fields.key, signal);
  }

  async retireBelow(version: number, signal?: AbortSignal): Promise<void> {
    const { mount, key } = this.#fields;
    const body = { min_decryption_version: version };
    const call = { method: 'POST', path: `${mount}/keys/${key}/config`, body, signal } as const;
    const answer = await this.#open().call(call);
    if (answer.status >= 300) throw this.#open().failure('ARGUMENT_INVALID', call, answer);
  }

  describe(): ProviderDescription {
    const { mount, key, cg } = this.#fields;
    return {
      kind: this.kind,
      production: true,
      text:
        `Key "${key}" of the Transit engine at ${this.#client?.origin ?? 'a server'}/${mount} wraps the branch keys of custody group ` +
        `"${cg}". The key does not leave the server; its policies decide who may unwrap, its audit devices record it. Whoever ` +
        'administers that server can read every object; if it is lost without a backup or a recovery key, so is every object.',
    };
  }

  async health(): Promise<ProviderHealth> {
    try {
      const answer = await this.#open().ask('sys/health?standbyok=true&perfstandbyok=true');
      if (fieldOf(answer.body, 'sealed') === true)
        return { ok: false, text: `${this.id}: the server is sealed` };
      const { latestVersion, leastVersion } = await this.keyState();
      return {
        ok: true,
        text: `${this.id}: version ${latestVersion}, unwraps from version ${leastVersion} on`,
      };
    } catch (error) {
      return { ok: false, text: error instanceof Error ? error.message : 'the key server does not answer' };
    }
  }

  kek(): TransitKek {
    return this.#fields;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#client?.[Symbol.dispose]();
    this.#client = undefined;
  }

  /** The results of a request in the order of its items; undefined when the server failed all over one of them. */
  async #batch(
    operation: 'encrypt' | 'decrypt' | 'rewrap',
    items: readonly object[],
    signal?: AbortSignal,
  ): Promise<readonly unknown[] | undefined> {
    assert(items.length >= 1 && items.length <= batchItemsMax, `items: 1 to ${batchItemsMax}`);
    const { mount, key } = this.#fields;
    // Rewrapping does not know the second field, and warns of it.
    const body =
      operation === 'rewrap'
        ? { batch_input: items }
        : { batch_input: items, partial_failure_response_code: 200 };
    const call = { method: 'POST', path: `${mount}/${operation}/${key}`, body, signal } as const;
    const answer = await this.#open().call(call);
    const results = fieldOf(fieldOf(answer.body, 'data'), 'batch_results');
    if (Array.isArray(results) && results.length === items.length) return results as readonly unknown[];
    if (operation !== 'encrypt' && isItemsFault(answer)) return undefined;
    throw this.#open().failure('KEY_UNAVAILABLE', call, answer);
  }

  /**
   * The results of any number of items. A request that fails over one of them is halved until that one is alone, so
   * that no record keeps others from being opened.
   */
  async #results(
    operation: 'decrypt' | 'rewrap',
    items: readonly object[],
    signal: AbortSignal | undefined,
  ): Promise<readonly unknown[]> {
    if (items.length === 0) return [];
    const results = items.length > batchItemsMax ? undefined : await this.#batch(operation, items, signal);
    if (results !== undefined) return results;
    if (items.length === 1) return [{ error: authenticationFailed }];
    const half = Math.ceil(items.length / 2);
    return [
      ...(await this.#results(operation, items.slice(0, half), signal)),
      ...(await this.#results(operation, items.slice(half), signal)),
    ];
  }

  #renewedFrom({ record, wrap }: Due, result: unknown): Renewed {
    const said = fieldOf(result, 'error');
    if (typeof said === 'string' && said !== '') return notRenewed(record, said);
    const renewed = this.#wrapOf(wrap.label, ciphertextOf(result));
    return { ok: true, wraps: record.wraps.map((each) => (each === wrap ? renewed : each)) };
  }

  #wrapOf(label: Uint8Array, ct: string): TransitWrap {
    const { mount, key } = this.#fields;
    return { t: 'transit', mount, key, ver: versionOf(ct), label, ct };
  }

  #wrapIn(record: BranchKeyBody): TransitWrap | undefined {
    const { mount, key } = this.#fields;
    return record.wraps.find(
      (wrap): wrap is TransitWrap => wrap.t === 'transit' && wrap.mount === mount && wrap.key === key,
    );
  }

  #notOurs(record: BranchKeyBody): Unwrapped {
    const reason = takesSeveral(record)
      ? 'it takes every one of its providers, this is one'
      : `wrapped by other keys than ${this.id}`;
    return refusedKey(record, 'KEY_UNAVAILABLE', reason);
  }

  #open(): VaultClient {
    assert(this.#client !== undefined, 'Transit: used after disposal');
    return this.#client;
  }
}

function itemOf({ ct, label }: TransitWrap): object {
  return { ciphertext: ct, context: contextOf(label) };
}

interface Due {
  readonly record: BranchKeyBody;
  readonly wrap: TransitWrap;
  /** Its place in the request. */
  readonly index: number;
}
