// Custody by a hardware token: branch keys wrapped inside it by an AES key that never leaves it.
//
//   branch key ──CKM_AES_GCM, AAD = digest of the label──▶ wrapped key
//
// Nobody decides here but the token: whoever has its PIN can unwrap everything, and the token's own log, if it
// keeps one, is the only audit. The key is used only when the token itself says that it is a 256-bit AES key,
// sensitive and not extractable. A module that ignored the AAD would let a wrap serve under another label, so
// each new session is tried with a right and a wrong one before it is trusted.

import type { Clock } from '../core/clock.ts';
import { asHoldfastError } from '../core/errors.ts';
import type { Pkcs11Kek } from '../envelope/kek.ts';
import { encodeLabel } from '../envelope/label.ts';
import { keyBytes, nonceBytes, tagBytes } from '../envelope/primitives.ts';
import type { BkWrap, BranchKeyBody } from '../envelope/records.ts';
import type { Pkcs11Wrap } from '../envelope/wraps.ts';
import { assertBatch, refusedKey, takesSeveral } from './legs.ts';
import { isPkcs11Error, parametersRefused, Pkcs11Error, pinRefused } from './pkcs11-codes.ts';
import type { GcmLayout } from './pkcs11-binding.ts';
import { findOrMakeKey, findToken } from './pkcs11-key.ts';
import { gcm, login, openWrap, type Pkcs11Lease, tryKey, unavailable } from './pkcs11-lease.ts';
import type { Pkcs11Module, Pkcs11Session } from './pkcs11-module.ts';
import { openPkcs11Module } from './pkcs11-module.ts';
import { Pkcs11Sessions } from './pkcs11-sessions.ts';
import type {
  KekProvider,
  KeyWrapper,
  NewKey,
  NewKeyScope,
  ProviderDescription,
  ProviderHealth,
  Unwrapped,
  UnwrapRequest,
} from './provider.ts';
import { random } from './random.ts';

export interface Pkcs11Options {
  /** The module, a shared library: /usr/lib/softhsm/libsofthsm2.so. */
  readonly modulePath: string;
  /** Label of the token. */
  readonly token: string;
  /** Label of the AES key in it. */
  readonly key: string;
  /** File with the user PIN, closed to others. */
  readonly pinFile: string;
  /** Name of the custody group. */
  readonly group: string;
  readonly clock: Clock;
  /** Version of the group's key, from 1; another key in another token is another version. Default 1. */
  readonly kekVersion?: number;
  /** Makes the key in the token when there is none. True on the very first start only. Default false. */
  readonly create?: boolean;
  /** Sessions at a time, 1…16: what a token really does at once. Default 2. */
  readonly sessionsMax?: number;
  /** One operation with its wait for a session, milliseconds. Default 10,000. */
  readonly timeoutMs?: number;
  /** Shape of CK_GCM_PARAMS. Default: the one that the module takes. */
  readonly gcmLayout?: GcmLayout;
}

const mech = 'CKM_AES_GCM';
const layouts: readonly GcmLayout[] = ['iv-bits', 'no-iv-bits'];

/**
 * Opens the token, logs in and tries the key.
 *
 * @throws ARGUMENT_INVALID without koffi, for a token or key that is not there, is there twice, or that could leave
 *   the token; KEY_UNAVAILABLE when the module, the token or the PIN refuses; FILE_NOT_FOUND and FILE_UNREADABLE
 *   for the PIN file
 */
export async function openPkcs11(options: Pkcs11Options): Promise<KekProvider & KeyWrapper> {
  const module = await openPkcs11Module(options.modulePath);
  const provider = new Pkcs11Provider(options, module);
  try {
    await provider.start();
    return provider;
  } catch (error) {
    await provider[Symbol.asyncDispose]();
    throw error;
  }
}

class Pkcs11Provider implements KekProvider, KeyWrapper {
  readonly id: string;
  readonly kind = 'pkcs11';
  readonly #options: Pkcs11Options;
  readonly #module: Pkcs11Module;
  readonly #sessions: Pkcs11Sessions<Pkcs11Lease>;
  readonly #fields: Pkcs11Kek;
  #layout: GcmLayout | undefined;
  #pinRefused: Error | undefined;
  #mayCreate: boolean;

  constructor(options: Pkcs11Options, module: Pkcs11Module) {
    this.id = `pkcs11:${options.token}/${options.key}`;
    this.#options = options;
    this.#module = module;
    this.#layout = options.gcmLayout;
    this.#mayCreate = options.create ?? false;
    this.#fields = {
      cg: options.group,
      ver: options.kekVersion ?? 1,
      suite: 'pkcs11-1',
      state: 'active',
      createdAt: new Date(options.clock.now()).toISOString(),
      provider: 'pkcs11',
      token: options.token,
      key: options.key,
      mech,
    };
    const { sessionsMax = 2, timeoutMs = 10_000 } = options;
    this.#sessions = new Pkcs11Sessions({
      open: () => this.#openLease(),
      close: ({ session }) => session.close(),
      sessionsMax,
      timeoutMs,
      name: `token "${options.token}"`,
    });
  }

  /** Opens the first session, which finds out all that may be wrong. */
  async start(): Promise<void> {
    await this.#run(async () => undefined);
  }

  async createKey(scope: NewKeyScope): Promise<NewKey> {
    const branchKey = random(keyBytes);
    return { branchKey, wraps: await this.wrapKey(scope, branchKey), combiner: 'any' };
  }

  async wrapKey(scope: NewKeyScope, branchKey: Uint8Array): Promise<readonly BkWrap[]> {
    const { cg, ver: kekVer, token, key } = this.#fields;
    const label = encodeLabel({ v: 1, cg, kekVer, ...scope });
    const iv = random(nonceBytes);
    const ct = await this.#run((lease) => lease.session.gcmEncrypt(gcm(lease, iv, label), branchKey));
    if (ct.length !== keyBytes + tagBytes)
      throw unavailable(`${this.id} gave ${ct.length} bytes for a wrapped key, 48 expected`);
    return [{ t: 'pkcs11', token, key, mech, label, iv, ct }];
  }

  async unwrap(records: readonly BranchKeyBody[], request: UnwrapRequest): Promise<readonly Unwrapped[]> {
    assertBatch(records);
    request.signal?.throwIfAborted();
    return Promise.all(records.map((record) => this.#unwrapOne(record, request.signal)));
  }

  describe(): ProviderDescription {
    return {
      kind: this.kind,
      production: true,
      text:
        `Key "${this.#options.key}" in the PKCS#11 token "${this.#options.token}" wraps the branch keys of custody group ` +
        `"${this.#fields.cg}". The key does not leave the token. Whoever has the token and its PIN can read every object; ` +
        'a lost token without a copy or a recovery key loses every object. Audit is what the token itself keeps.',
    };
  }

  async health(): Promise<ProviderHealth> {
    try {
      await this.#run((lease) => tryKey(lease));
      return { ok: true, text: `token "${this.#options.token}" wraps and unwraps` };
    } catch (error) {
      return { ok: false, text: error instanceof Error ? error.message : 'the token does not answer' };
    }
  }

  kek(): Pkcs11Kek {
    return this.#fields;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#sessions[Symbol.asyncDispose]();
    await this.#module[Symbol.asyncDispose]();
  }

  async #unwrapOne(record: BranchKeyBody, signal: AbortSignal | undefined): Promise<Unwrapped> {
    if (takesSeveral(record))
      return refusedKey(record, 'KEY_UNAVAILABLE', 'it takes every one of its providers, this is one');
    const wrap = record.wraps.find((wrap): wrap is Pkcs11Wrap => wrap.t === 'pkcs11' && this.#isOurs(wrap));
    if (wrap === undefined)
      return refusedKey(record, 'KEY_UNAVAILABLE', `wrapped by other keys than ${this.id}`);
    if (wrap.iv.length !== nonceBytes || wrap.ct.length !== keyBytes + tagBytes)
      return refusedKey(record, 'DECRYPT_FAILED', 'its wrap has another form');
    try {
      const branchKey = await this.#run((lease) => openWrap(lease, wrap), signal);
      if (branchKey === undefined)
        return refusedKey(
          record,
          'DECRYPT_FAILED',
          'its wrap or label was changed, or the key is another one',
        );
      return { ok: true, branchKey };
    } catch (error) {
      signal?.throwIfAborted();
      const { code, message } = asHoldfastError(error, 'KEY_UNAVAILABLE', 'the token failed');
      return refusedKey(record, code, message, error);
    }
  }

  #isOurs(wrap: Pkcs11Wrap): boolean {
    return wrap.token === this.#fields.token && wrap.key === this.#fields.key && wrap.mech === mech;
  }

  async #run<T>(work: (lease: Pkcs11Lease) => Promise<T>, signal?: AbortSignal): Promise<T> {
    try {
      return await this.#sessions.run(work, signal);
    } catch (error) {
      if (isPkcs11Error(error, pinRefused)) this.#pinRefused = error;
      if (!(error instanceof Pkcs11Error)) throw error;
      throw unavailable(`${this.id}: ${error.message}`, error);
    }
  }

  async #openLease(): Promise<Pkcs11Lease> {
    // A wrong PIN sent again and again locks the token for everybody.
    if (this.#pinRefused !== undefined)
      throw unavailable(
        `${this.id}: the PIN was refused and is not sent again before a restart`,
        this.#pinRefused,
      );
    const { token, key } = this.#options;
    const { slot } = findToken(await this.#module.tokens(), token);
    const session = await this.#module.openSession(slot, this.#mayCreate ? 'write' : 'read');
    try {
      await login(session, this.#options.pinFile, token);
      const handle = await findOrMakeKey(session, token, key, this.#mayCreate);
      this.#mayCreate = false;
      return await this.#tried(session, handle);
    } catch (error) {
      await session.close().catch(() => undefined); // the first failure says more
      throw error;
    }
  }

  /** The lease with the shape of parameters that works. */
  async #tried(session: Pkcs11Session, key: bigint): Promise<Pkcs11Lease> {
    const candidates = this.#layout === undefined ? layouts : [this.#layout];
    let refusal: unknown;
    for (const layout of candidates) {
      const lease = { session, key, layout };
      try {
        await tryKey(lease);
        this.#layout = layout;
        return lease;
      } catch (error) {
        if (!isPkcs11Error(error, parametersRefused)) throw error;
        refusal = error;
      }
    }
    throw unavailable(`${this.id} does not do ${mech} with associated data`, refusal);
  }
}
