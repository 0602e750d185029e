// The file in which a custodian's share store says what it is, whose, and, sealed, what it holds; and the keys it seals by.
//
// What it is and whose stands in the clear, so that every refusal can say what is wrong.

import type { KeyObject } from 'node:crypto';
import { decodeCbor, encodeCbor } from '../core/block.ts';
import { concat, sameBytes, utf8 } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import { preimage, sha256, takeKey } from '../core/hash.ts';
import { isMap } from '../core/shape.ts';
import {
  gcmOpen,
  gcmSealInto,
  hkdfExpand,
  hmacSha512,
  nonceBytes,
  tagBytes,
} from '../envelope/primitives.ts';
import { random } from './random.ts';
import { readMasterKey, type SealingConfig, type SealingSource, sealingSources } from './sealing-key.ts';

const format = 'holdfast-share-store';
const version = 1;
const checkBytes = 8;

/** What stands in the clear. */
export interface Header {
  readonly owner: string;
  readonly source: SealingSource;
  readonly salt: Uint8Array;
  /** Tells a wrong master key from damage. */
  readonly check: Uint8Array;
}

/** The bytes of a state file. `sealed`: the state under the master key. */
export function stateFile(header: Header, sealed: Uint8Array): Uint8Array {
  const fields = { format, version, ...header, sealed };
  return encodeCbor({ ...fields, digest: digestOf(fields) });
}

/**
 * Reads the state file of the store in `path`, which must be of `expectedOwner`. Throws DATA_DIR_FOREIGN, DATA_DIR_NEWER,
 * DATA_DIR_DAMAGED.
 */
export function parseStateFile(
  bytes: Uint8Array,
  path: string,
  expectedOwner: string,
): { header: Header; sealed: Uint8Array } {
  let value: unknown;
  try {
    value = decodeCbor(bytes, 'share store');
  } catch (cause) {
    throw damaged(path, 'its state is not readable', cause);
  }
  if (!isMap(value) || value['format'] !== format)
    throw new HoldfastError('DATA_DIR_FOREIGN', `${path} holds no share store`);
  const { digest, ...fields } = value;
  const found = fields['version'];
  if (typeof found === 'number' && found > version) {
    throw new HoldfastError(
      'DATA_DIR_NEWER',
      `${path} has format ${found}; this program reads up to ${version}`,
      { details: { found, known: version } },
    );
  }
  const { owner, source: kind, salt, check, sealed } = fields;
  const source = sealingSources.find((known) => known === kind);
  if (
    !(digest instanceof Uint8Array) ||
    !sameBytes(digest, digestOf(fields)) ||
    typeof owner !== 'string' ||
    source === undefined ||
    !(salt instanceof Uint8Array) ||
    !(check instanceof Uint8Array) ||
    !(sealed instanceof Uint8Array)
  ) {
    throw damaged(path, 'its checksum does not match');
  }
  if (owner !== expectedOwner) {
    throw new HoldfastError(
      'DATA_DIR_FOREIGN',
      `${path} holds the shares of ${owner}, not of ${expectedOwner}`,
      { details: { found: owner, expected: expectedOwner } },
    );
  }
  return { header: { owner, source, salt, check }, sealed };
}

function digestOf(fields: unknown): Uint8Array {
  return sha256(preimage('holdfast/share-store/v1', encodeCbor(fields))).subarray(0, 16);
}

/** What the sealed state is bound to. */
export function stateAad(header: Header): Uint8Array {
  return preimage('holdfast/share-state/v1', encodeCbor({ version, ...header }));
}

/** Keys derived from the sealing secret: for the state, for the sealing keys, and a check that tells it from another. */
export interface MasterKeys {
  readonly state: KeyObject;
  readonly keys: KeyObject;
  readonly check: Uint8Array;
}

/** Derives them anew, for a header that is to be. Throws as `readMasterKey`. */
export async function importMaster(sealing: SealingConfig, salt: Uint8Array): Promise<MasterKeys> {
  const master = takeKey(await readMasterKey(sealing, salt));
  return {
    state: takeKey(hkdfExpand('sha512', master, utf8('CHORUS-SLURP-SEAL-v1/state'), 32)),
    keys: takeKey(hkdfExpand('sha512', master, utf8('CHORUS-SLURP-SEAL-v1/keys'), 32)),
    check: hmacSha512(master, utf8('CHORUS-SLURP-SEAL-v1/check'), checkBytes),
  };
}

/** Derives them for a store that is there. Throws KEY_UNAVAILABLE or DECRYPT_FAILED for another sealing secret. */
export async function openMaster(sealing: SealingConfig, header: Header): Promise<MasterKeys> {
  if (sealing.source !== header.source) {
    throw new HoldfastError(
      'KEY_UNAVAILABLE',
      `the shares were sealed with a ${header.source}; this process is configured with a ${sealing.source}`,
      { details: { found: header.source, configured: sealing.source } },
    );
  }
  const keys = await importMaster(sealing, header.salt);
  if (sameBytes(keys.check, header.check)) return keys;
  throw new HoldfastError(
    'DECRYPT_FAILED',
    `${sealing.path} is not the secret that these shares were sealed with`,
    {
      details: { path: sealing.path },
    },
  );
}

/** AES-256-GCM: nonce ‖ ciphertext ‖ tag. */
export function seal(key: KeyObject, plain: Uint8Array, aad: Uint8Array): Uint8Array {
  const nonce = random(nonceBytes);
  const target = new Uint8Array(plain.length + tagBytes);
  gcmSealInto(target, key, nonce, plain, aad);
  return concat(nonce, target);
}

/** The plaintext of what `seal` made; undefined when it is another key's, for something else, or damaged. */
export function unseal(key: KeyObject, sealed: Uint8Array, aad: Uint8Array): Uint8Array | undefined {
  if (sealed.length < nonceBytes + tagBytes) return undefined;
  return gcmOpen(key, sealed.subarray(0, nonceBytes), sealed.subarray(nonceBytes), aad);
}

/** The error about a store that must not be replaced by an empty one. */
export function damaged(path: string, why: string, cause?: unknown): HoldfastError {
  return new HoldfastError(
    'DATA_DIR_DAMAGED',
    `${path} is damaged (${why}); restore it from a backup: it is not replaced by an empty one`,
    { details: { path }, cause },
  );
}
