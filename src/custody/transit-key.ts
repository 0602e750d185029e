// What a Transit key must be before branch keys are wrapped by it. Encrypting with a name that does not exist makes
// a key on some servers, of whatever kind: so it is looked at first.

import { HoldfastError } from '../core/errors.ts';
import { fieldOf } from '../core/shape.ts';
import type { VaultClient } from './vault-client.ts';
import { answerErrors } from './vault-http.ts';

export interface TransitKeyState {
  /** The version that new wraps get. */
  readonly latestVersion: number;
  /** The oldest version whose wraps are still opened. */
  readonly leastVersion: number;
}

/** What the key must say of itself; a field that an older server does not send is taken for what is wanted. */
const demands: readonly (readonly [field: string, wanted: unknown, meaning: string])[] = [
  ['type', 'aes256-gcm96', 'of type aes256-gcm96'],
  ['derived', true, 'derived'],
  ['convergent_encryption', false, 'not convergent'],
  ['exportable', false, 'not exportable'],
  ['allow_plaintext_backup', false, 'without plaintext backup'],
  ['deletion_allowed', false, 'protected from deletion'],
];

/**
 * Makes the key when it is missing and `create` is true, and checks that it is what it must be.
 *
 * @throws ARGUMENT_INVALID when it is missing or of another kind, KEY_UNAVAILABLE when it is soft-deleted or its engine is
 *   missing, FORBIDDEN, TIMEOUT
 */
export async function checkKey(
  client: VaultClient,
  mount: string,
  key: string,
  create: boolean,
): Promise<void> {
  const data =
    (await readFields(client, mount, key)) ?? (create ? await makeKey(client, mount, key) : undefined);
  if (data === undefined)
    throw refused(`Transit key "${key}" does not exist at ${client.origin}/${mount}, and is not made anew`);
  const broken = demands.filter(([field, wanted]) => (fieldOf(data, field) ?? wanted) !== wanted);
  if (broken.length === 0) return;
  const wanted = broken.map(([, , meaning]) => meaning).join(', ');
  throw refused(`Transit key "${key}" at ${client.origin}/${mount} must be ${wanted}`);
}

/** Throws KEY_UNAVAILABLE when the key is gone or soft-deleted, FORBIDDEN, TIMEOUT. */
export async function readKey(
  client: VaultClient,
  mount: string,
  key: string,
  signal?: AbortSignal,
): Promise<TransitKeyState> {
  const data = await readFields(client, mount, key, signal);
  const latestVersion = fieldOf(data, 'latest_version');
  const leastVersion = fieldOf(data, 'min_decryption_version');
  if (typeof latestVersion === 'number' && typeof leastVersion === 'number')
    return { latestVersion, leastVersion };
  throw new HoldfastError('KEY_UNAVAILABLE', `Transit key "${key}" at ${client.origin}/${mount} is gone`);
}

async function readFields(
  client: VaultClient,
  mount: string,
  key: string,
  signal?: AbortSignal,
): Promise<unknown> {
  const call = { method: 'GET', path: `${mount}/keys/${key}`, signal } as const;
  const answer = await client.call(call);
  if (answer.status === 404 && answerErrors(answer) === '') return undefined;
  // With a text, it is the engine or the namespace that is missing.
  if (answer.status !== 200) throw client.failure('KEY_UNAVAILABLE', call, answer);
  const data = fieldOf(answer.body, 'data');
  if (fieldOf(data, 'soft_deleted') !== true) return data;
  throw new HoldfastError(
    'KEY_UNAVAILABLE',
    `Transit key "${key}" at ${client.origin}/${mount} is soft-deleted: POST ${mount}/keys/${key}/soft-delete-restore brings it back`,
  );
}

async function makeKey(client: VaultClient, mount: string, key: string): Promise<unknown> {
  const body = { type: 'aes256-gcm96', derived: true, exportable: false, allow_plaintext_backup: false };
  const call = { method: 'POST', path: `${mount}/keys/${key}`, body } as const;
  const answer = await client.call(call);
  if (answer.status >= 300) throw client.failure('ARGUMENT_INVALID', call, answer);
  return readFields(client, mount, key);
}

function refused(message: string): HoldfastError {
  return new HoldfastError('ARGUMENT_INVALID', message);
}
