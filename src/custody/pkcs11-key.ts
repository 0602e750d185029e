// Finding the token and the key, and refusing a key that could leave the token. Asked as searches, so that the
// token itself compares the attributes.

import { utf8 } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import { aesKeyType, attribute, secretKeyClass } from './pkcs11-codes.ts';
import type { Attribute } from './pkcs11-binding.ts';
import type { Pkcs11Session, Pkcs11Token } from './pkcs11-module.ts';

/** The only token labelled `label`. Throws KEY_UNAVAILABLE when it is not there, ARGUMENT_INVALID for several. */
export function findToken(tokens: readonly Pkcs11Token[], label: string): Pkcs11Token {
  const [token, ...others] = tokens.filter((token) => token.label === label);
  if (others.length > 0)
    throw new HoldfastError(
      'ARGUMENT_INVALID',
      `${others.length + 1} tokens are labelled "${label}"; give them names`,
    );
  if (token !== undefined) return token;
  const present = tokens
    .flatMap(({ label }) => (label === '' ? [] : `"${label}"`))
    .sort()
    .join(', ');
  throw new HoldfastError('KEY_UNAVAILABLE', `no token "${label}" is present; there is ${present || 'none'}`);
}

/**
 * The handle of the only AES key labelled `label`, made when there is none and `create` is true.
 *
 * @throws ARGUMENT_INVALID when it is missing, not the only one, or not a key that stays in the token
 */
export async function findOrMakeKey(
  session: Pkcs11Session,
  token: string,
  label: string,
  create: boolean,
): Promise<bigint> {
  const named: Attribute[] = [
    [attribute.class, secretKeyClass],
    [attribute.label, utf8(label)],
  ];
  let found = await session.find(named, 2);
  if (found.length === 0 && create) {
    await session.generateAesKey(newKey(label));
    found = await session.find(named, 2);
  }
  const where = `token "${token}", key "${label}"`;
  if (found.length === 0) throw refused(`${where}: there is no such key, and it is not made anew`);
  if (found.length > 1) throw refused(`${where}: there are several`);
  const [handle] = await session.find([...named, ...needed], 2);
  if (handle === undefined)
    throw refused(
      `${where}: a 256-bit AES key is needed that encrypts and decrypts, is sensitive and not extractable`,
    );
  return handle;
}

const needed: readonly Attribute[] = [
  [attribute.keyType, aesKeyType],
  [attribute.valueLen, 32],
  [attribute.sensitive, true],
  [attribute.extractable, false],
  [attribute.encrypt, true],
  [attribute.decrypt, true],
];

/** It wraps branch keys as data; wrapping objects of the token with it would be a way out for them. */
function newKey(label: string): readonly Attribute[] {
  return [
    [attribute.class, secretKeyClass],
    ...needed,
    [attribute.token, true],
    [attribute.private, true],
    [attribute.wrap, false],
    [attribute.unwrap, false],
    [attribute.label, utf8(label)],
  ];
}

function refused(message: string): HoldfastError {
  return new HoldfastError('ARGUMENT_INVALID', message);
}
