// What commands about key providers work with: the door, all providers, the registry of wrapped keys, and who signs.

import type { DoorClient } from '../client/door-client.ts';
import type { KeyRegistry } from '../client/key-registry.ts';
import { HoldfastError } from '../core/errors.ts';
import type { Signer } from '../core/hash.ts';
import type { KekProvider } from '../custody/provider.ts';
import type { ProviderSet } from '../custody/provider-set.ts';
import { doorUrl, readLayout, readToken } from '../local/layout.ts';
import type { Context } from './command.ts';
import { custodianKeys, openDoor, openOperator, openWriter } from './connect.ts';

export interface ProviderAccess extends AsyncDisposable {
  readonly door: DoorClient;
  readonly set: ProviderSet;
  readonly writer: Signer;
  /** Signs as the writer, and as the operator for others. */
  readonly registry: KeyRegistry;
}

/** Throws what reading the directory, the configuration and the door throw. */
export async function openedProviders(context: Context): Promise<ProviderAccess> {
  const { data, signal } = context;
  await using stack = new AsyncDisposableStack();
  const door = stack.use(await openDoor(context));
  const [{ openProvider }, { KeyRegistry: Registry }] = await Promise.all([
    import('./custody-provider.ts'),
    import('../client/key-registry.ts'),
  ]);
  const writer = await openWriter(data);
  const at = { url: doorUrl(await readLayout(data)), token: await readToken(data) };
  const set = stack.use(await openProvider(at, data, writer, () => custodianKeys(data)));
  const registry = new Registry({ door, signers: [writer, await openOperator(data)], signal });
  const owned = stack.move();
  return { door, set, writer, registry, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

/** The provider to move keys to, tried. Throws ARGUMENT_INVALID for another name, KEY_UNAVAILABLE when it does not answer. */
export async function usable(set: ProviderSet, name: string): Promise<KekProvider> {
  const provider = set.target(name) ?? provided(set, name);
  const { ok, text } = await provider.health();
  if (ok && set.groupOf(name) !== undefined) return provider;
  throw new HoldfastError('KEY_UNAVAILABLE', `nothing is moved to "${name}": ${text}`);
}

/** Throws ARGUMENT_INVALID for a name that is not configured. */
export function provided(set: ProviderSet, name: string): KekProvider {
  const provider = set.named(name);
  if (provider !== undefined) return provider;
  throw new HoldfastError('ARGUMENT_INVALID', `no key provider "${name}"; there are ${set.names.join(', ')}`);
}
