// Transit providers for tests, over whichever server: each with a key of its own, as the operator or by the role.

import assert from 'node:assert/strict';
import { inspect } from 'node:util';
import { type ErrorCode, type HoldfastError, isHoldfastError } from '../../src/core/errors.ts';
import { openTransit, type TransitOptions, type TransitProvider } from '../../src/custody/transit.ts';
import type { AppRoleAuth, VaultAuth } from '../../src/custody/vault-auth.ts';
import type { TransitKek } from '../../src/envelope/kek.ts';
import type { TransitServer } from './transit-server.ts';

let keysCount = 0;

/** As the operator, with a key that is not there yet. */
export function someOptions(server: TransitServer, changes: Partial<TransitOptions> = {}): TransitOptions {
  const auth = { method: 'token-file', tokenFile: server.tokenFile } as const;
  const clock = { now: () => 1000, monotonic: () => 0 };
  return { url: server.url, auth, key: newKeyName(), group: 'org', clock, pauseMs: 1, ...changes };
}

/** Makes its key. */
export function openNew(
  server: TransitServer,
  changes: Partial<TransitOptions> = {},
): Promise<TransitProvider> {
  return openTransit(someOptions(server, { create: true, ...changes }));
}

/** Over a key that the operator made: the role may not. */
export async function openAs(
  server: TransitServer,
  auth: VaultAuth,
  changes: Partial<TransitOptions> = {},
): Promise<TransitProvider> {
  const key = newKeyName();
  await server.admin('POST', `transit/keys/${key}`, { derived: true });
  return openTransit(someOptions(server, { key, auth, ...changes }));
}

/** By the role, likewise. */
export function openRole(
  server: TransitServer,
  changes: Partial<TransitOptions> = {},
): Promise<TransitProvider> {
  return openAs(server, roleOf(server), changes);
}

export function roleOf({ roleId, secretIdFile }: TransitServer): AppRoleAuth {
  return { method: 'approle', roleId, secretIdFile };
}

export function transitKek(provider: TransitProvider): TransitKek {
  const kek = provider.kek();
  assert(kek.provider === 'transit');
  return kek;
}

export async function refuses(
  server: TransitServer,
  changes: Partial<TransitOptions>,
  code: ErrorCode,
  message: RegExp,
): Promise<HoldfastError> {
  return rejects(openTransit(someOptions(server, changes)), code, message);
}

export async function rejects(
  work: Promise<unknown>,
  code: ErrorCode,
  message: RegExp,
): Promise<HoldfastError> {
  const error: unknown = await work.then(
    () => assert.fail('it worked'),
    (error: unknown) => error,
  );
  assert(isHoldfastError(error, code), inspect(error));
  assert.match(error.message, message);
  return error;
}

export function newKeyName(): string {
  return `kek-${keysCount++}`;
}
