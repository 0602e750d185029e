// Custody for development: the KEK is 32 bytes in a file. Whoever reads the file reads everything.
//
// It exists so that a cluster runs on a laptop before its custodians do, and refuses to be mistaken for more:
// others may not read the file, NODE_ENV=production is refused unless forced, and `describe` says what it is.
// A missing file is made only when the caller says that this is the first start: a new key in the place of a
// lost one would look healthy and open nothing.
//
//   key ──HKDF-Expand-SHA-512──▶ sealing key ──AES-256-GCM, AAD = digest of label and kid──▶ wrapped branch key
//       ──HMAC-SHA-512─────────▶ kid: names the key and tells a damaged file

import assert from 'node:assert/strict';
import { type KeyObject } from 'node:crypto';
import { toHex, utf8 } from '../core/bytes.ts';
import type { Clock } from '../core/clock.ts';
import { HoldfastError } from '../core/errors.ts';
import { preimage, takeKey } from '../core/hash.ts';
import { unwrapItemsMax } from '../core/limits.ts';
import { encodeLabel, labelDigest } from '../envelope/label.ts';
import {
  gcmOpen,
  gcmSealInto,
  hkdfExpand,
  hmacSha512,
  importKey,
  keyBytes,
  nonceBytes,
  tagBytes,
} from '../envelope/primitives.ts';
import type { DevKek } from '../envelope/kek.ts';
import type { BkWrap, BranchKeyBody, DevWrap, KekFields } from '../envelope/records.ts';
import { createKeyFile, type KeyFile, readKeyFile } from './key-file.ts';
import type {
  KekProvider,
  KeyWrapper,
  NewKey,
  NewKeyScope,
  ProviderDescription,
  ProviderHealth,
  Unwrapped,
} from './provider.ts';
import { random } from './random.ts';

export interface DevFileOptions {
  /** The key file; its directory must exist. */
  readonly path: string;
  readonly clock: Clock;
  /** Makes the file when it is missing. True on the very first start only. */
  readonly create: boolean;
  /** Name of the custody group of a new file. Default 'dev'. */
  readonly group?: string;
  /** Default: NODE_ENV. */
  readonly environment?: string | undefined;
  /** Accepts environment 'production'. Default false. */
  readonly forceInProduction?: boolean;
}

/**
 * Opens the key file, or makes it.
 * Throws ARGUMENT_INVALID in production, DATA_DIR_DAMAGED when it is missing, FILE_UNREADABLE when others may
 * read it or it is no plain file of ours, DATA_DIR_NEWER for a later format, RECORD_CORRUPT when damaged.
 */
export async function openDevFile(options: DevFileOptions): Promise<KekProvider> {
  refuseProduction(options);
  if (options.create) await makeKeyFile(options);
  const file = await readKeyFile(options.path);
  try {
    checkKid(options.path, file);
    return new DevFileProvider(options.path, file);
  } finally {
    file.key.fill(0);
  }
}

class DevFileProvider implements KekProvider, KeyWrapper {
  readonly id: string;
  readonly kind = 'dev-file';
  readonly #path: string;
  readonly #fields: DevKek;
  #sealingKey: KeyObject | undefined;

  constructor(path: string, file: KeyFile) {
    this.id = `dev-file:${file.kid}`;
    this.#path = path;
    this.#fields = {
      cg: file.group,
      ver: file.kekVersion,
      suite: 'dev-file-1',
      state: 'active',
      createdAt: file.createdAt,
      provider: 'dev-file',
      kid: file.kid,
    };
    const info = preimage('CHORUS-SLURP-DEV-WRAP-v1', utf8(file.kid));
    this.#sealingKey = takeKey(hkdfExpand('sha512', importKey(file.key), info, keyBytes));
  }

  async createKey(scope: NewKeyScope): Promise<NewKey> {
    const branchKey = random(keyBytes);
    return { branchKey, wraps: await this.wrapKey(scope, branchKey), combiner: 'any' };
  }

  async wrapKey(scope: NewKeyScope, branchKey: Uint8Array): Promise<readonly BkWrap[]> {
    const { cg, ver: kekVer, kid } = this.#fields;
    const label = encodeLabel({ v: 1, cg, kekVer, ...scope });
    const nonce = random(nonceBytes);
    const ct = new Uint8Array(keyBytes + tagBytes);
    gcmSealInto(ct, this.#key(), nonce, branchKey, labelDigest(label, utf8(kid)));
    return [{ t: 'dev', kid, label, nonce, ct }];
  }

  async unwrap(records: readonly BranchKeyBody[]): Promise<readonly Unwrapped[]> {
    assert(records.length >= 1 && records.length <= unwrapItemsMax, `records: 1 to ${unwrapItemsMax}`);
    return records.map((record) => this.#unwrapOne(record));
  }

  describe(): ProviderDescription {
    return {
      kind: this.kind,
      production: false,
      text:
        `DEVELOPMENT KEY FILE, NOT FOR PRODUCTION: ${this.#path} holds the key of custody group "${this.#fields.cg}" in the clear. ` +
        'Whoever can read this file can read every object; whoever loses it loses every object. ' +
        'No second person is needed, nothing is audited, nothing can be withdrawn.',
    };
  }

  async health(): Promise<ProviderHealth> {
    try {
      const file = await readKeyFile(this.#path);
      file.key.fill(0);
      if (file.kid !== this.#fields.kid)
        return { ok: false, text: `${this.#path} holds another key (${file.kid}) than at start` };
      return { ok: true, text: `development key file ${this.#path}, key ${file.kid}` };
    } catch (error) {
      return { ok: false, text: error instanceof Error ? error.message : 'the key file cannot be read' };
    }
  }

  kek(): KekFields {
    return this.#fields;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#sealingKey = undefined;
  }

  #unwrapOne(record: BranchKeyBody): Unwrapped {
    const bkId = toHex(record.bkId);
    if (record.combiner === 'all' && record.wraps.length > 1) {
      return refused('KEY_UNAVAILABLE', bkId, 'it takes every one of its providers, this is one');
    }
    const wrap = record.wraps.find(
      (wrap): wrap is DevWrap => wrap.t === 'dev' && wrap.kid === this.#fields.kid,
    );
    if (wrap === undefined) {
      return refused(
        'KEY_UNAVAILABLE',
        bkId,
        `wrapped by other keys than this key file's (${this.#fields.kid})`,
      );
    }
    const branchKey = gcmOpen(this.#key(), wrap.nonce, wrap.ct, wrapAad(wrap));
    if (branchKey === undefined) return refused('DECRYPT_FAILED', bkId, 'its wrap or label was changed');
    return { ok: true, branchKey };
  }

  #key(): KeyObject {
    assert(this.#sealingKey !== undefined, 'key file: used after disposal');
    return this.#sealingKey;
  }
}

function wrapAad(wrap: DevWrap): Uint8Array {
  return labelDigest(wrap.label, utf8(wrap.kid));
}

function refused(code: 'KEY_UNAVAILABLE' | 'DECRYPT_FAILED', bkId: string, reason: string): Unwrapped {
  return {
    ok: false,
    error: new HoldfastError(code, `branch key ${bkId}: ${reason}`, { details: { bkId } }),
  };
}

function refuseProduction(options: DevFileOptions): void {
  const environment = 'environment' in options ? options.environment : process.env['NODE_ENV'];
  if (environment !== 'production' || options.forceInProduction === true) return;
  throw new HoldfastError(
    'ARGUMENT_INVALID',
    `the development key file ${options.path} is refused with NODE_ENV=production: configure custody, or force it explicitly`,
    { details: { path: options.path } },
  );
}

async function makeKeyFile(options: DevFileOptions): Promise<void> {
  const key = random(keyBytes);
  const createdAt = new Date(options.clock.now()).toISOString();
  try {
    await createKeyFile(options.path, {
      group: options.group ?? 'dev',
      kekVersion: 1,
      createdAt,
      kid: kidOf(key),
      key,
    });
  } finally {
    key.fill(0);
  }
}

function checkKid(path: string, file: KeyFile): void {
  if (kidOf(file.key) === file.kid) return;
  throw new HoldfastError('RECORD_CORRUPT', `key file ${path}: its key is not the one its kid names`, {
    details: { path },
  });
}

function kidOf(key: Uint8Array): string {
  return toHex(hmacSha512(importKey(key), preimage('CHORUS-SLURP-DEV-KID-v1'), 16));
}
