// What a key of the small Transit server makes of one item: real ciphertexts, and OpenBao's words for what it refuses.

import { createCipheriv, createDecipheriv, hkdfSync, randomBytes } from 'node:crypto';

export interface Key {
  readonly fields: Record<string, unknown> & { derived: boolean };
  readonly versions: Buffer[];
  least: number;
  softDeleted: boolean;
}

export interface Item {
  readonly plaintext?: string;
  readonly ciphertext?: string;
  readonly context?: string;
  readonly associated_data?: string;
}

export type Result = Readonly<{
  plaintext?: string;
  ciphertext?: string;
  key_version?: number;
  error?: string;
}>;

export const authenticationFailed = 'cipher: message authentication failed';
const nonceBytes = 12;
const tagBytes = 16;

export function resultOf(operation: 'encrypt' | 'decrypt' | 'rewrap', key: Key, item: Item): Result {
  const { plaintext = '', ciphertext = '', context = '' } = item;
  for (const text of operation === 'encrypt' ? [plaintext, context] : [context])
    if (!isBase64(text))
      return { error: `illegal base64 data at input byte ${text.search(/[^A-Za-z0-9+/]/)}` };
  if (operation === 'encrypt') return encrypted(key, plaintext, context);
  const result = opened(key, ciphertext, context);
  if (operation === 'rewrap' && result.plaintext !== undefined && result.error === undefined)
    return encrypted(key, result.plaintext, context);
  if (operation === 'rewrap' || result.error === undefined) return result;
  return { plaintext: '', ...result };
}

function encrypted(key: Key, plaintext: string, context: string): Result {
  const refused = unusable(key, context);
  if (refused !== undefined) return { error: refused };
  const version = key.versions.length;
  const nonce = randomBytes(nonceBytes);
  const cipher = createCipheriv('aes-256-gcm', secretOf(key, version, context), nonce);
  const parts = [nonce, cipher.update(plaintext, 'base64'), cipher.final(), cipher.getAuthTag()];
  const text = Buffer.concat(parts).toString('base64');
  return { ciphertext: `vault:v${version}:${text}`, key_version: version };
}

/** In the order in which OpenBao looks. */
function opened(key: Key, ciphertext: string, context: string): Result {
  if (ciphertext === '') return { error: 'missing ciphertext to decrypt' };
  if (key.softDeleted) return { error: unusable(key, context) ?? '' };
  const rest = /^vault:v(.*)$/s.exec(ciphertext)?.[1];
  if (rest === undefined) return { error: 'invalid ciphertext: no prefix' };
  const colon = rest.indexOf(':');
  if (colon < 0) return { error: 'invalid ciphertext: wrong number of fields' };
  const digits = rest.slice(0, colon);
  if (!/^[+-]?\d{1,18}$/.test(digits))
    return { error: 'invalid ciphertext: version number could not be decoded' };
  const version = Number(digits) === 0 ? 1 : Number(digits);
  if (version > key.versions.length) return { error: 'invalid ciphertext: version is too new' };
  if (version < key.least)
    return { error: 'ciphertext or signature version is disallowed by policy (too old)' };
  const text = rest.slice(colon + 1);
  if (!isBase64(text)) return { error: 'invalid ciphertext: could not decode base64' };
  const refused = unusable(key, context);
  return refused === undefined
    ? decrypted(secretOf(key, version, context), Buffer.from(text, 'base64'))
    : { error: refused };
}

function decrypted(secret: Buffer, bytes: Buffer): Result {
  if (bytes.length < nonceBytes) return { error: 'invalid ciphertext length' };
  const nonce = bytes.subarray(0, nonceBytes);
  const decipher = createDecipheriv('aes-256-gcm', secret, nonce, { authTagLength: tagBytes });
  try {
    decipher.setAuthTag(bytes.subarray(-tagBytes));
    const text = Buffer.concat([decipher.update(bytes.subarray(nonceBytes, -tagBytes)), decipher.final()]);
    return { plaintext: text.toString('base64') };
  } catch {
    return { error: authenticationFailed };
  }
}

function unusable(key: Key, context: string): string | undefined {
  if (key.softDeleted) return 'refusing to use soft-deleted key';
  if (!key.fields.derived || context !== '') return undefined;
  return (
    "missing 'context' for key derivation; the key was created using a derived key, which means additional, " +
    'per-request information must be included in order to perform operations with the key'
  );
}

function secretOf(key: Key, version: number, context: string): Buffer {
  const secret = key.versions[version - 1] ?? Buffer.alloc(32);
  if (!key.fields.derived) return secret;
  return Buffer.from(hkdfSync('sha256', secret, '', Buffer.from(context, 'base64'), 32));
}

/** As Go reads it: padded, line ends do not count. */
function isBase64(text: string): boolean {
  return /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/.test(
    text.replaceAll(/[\r\n]/g, ''),
  );
}
