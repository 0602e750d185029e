// Opens what the configuration names. Each kind of provider is loaded only where it is used.

import type { Clock } from '../core/clock.ts';
import { isHoldfastError } from '../core/errors.ts';
import type { Pkcs11Kek, TransitKek } from '../envelope/kek.ts';
import { DeferredProvider } from './deferred.ts';
import type { Pkcs11Entry, ProviderEntry, TransitEntry } from './provider-config.ts';
import { readSecretFile } from './secret-file.ts';

/**
 * The text of the configuration; undefined when there is none.
 * Throws FILE_UNREADABLE when others may write or read it, ARGUMENT_INVALID when it is empty or too long.
 */
export async function readProviderConfig(path: string): Promise<string | undefined> {
  try {
    return Buffer.from(await readSecretFile(path, 'configuration of the key providers')).toString('utf8');
  } catch (error) {
    if (isHoldfastError(error, 'FILE_NOT_FOUND')) return undefined;
    throw error;
  }
}

/** One of them. Its server or token is not asked before it is needed. `create` makes the key where there is none: on an operator's word only. */
export function openEntry(entry: ProviderEntry, clock: Clock, create = false): DeferredProvider {
  return entry.type === 'transit' ? deferTransit(entry, clock, create) : deferPkcs11(entry, clock, create);
}

function deferTransit(entry: TransitEntry, clock: Clock, create: boolean): DeferredProvider {
  const { group, url, mount, key, auth, caFile, namespace } = entry;
  const fields: TransitKek = { ...common(group, clock), provider: 'transit', suite: 'transit-1', mount, key };
  return new DeferredProvider({
    id: `transit:${mount}/${key}`,
    fields,
    text: `Key "${key}" of the Transit engine at ${url}/${mount} wraps the branch keys of custody group "${group}".`,
    clock,
    open: async () => {
      const { openTransit } = await import('./transit.ts');
      const optional = {
        ...(caFile === undefined ? {} : { caFile }),
        ...(namespace === undefined ? {} : { namespace }),
      };
      return openTransit({ url, mount, key, auth, group, clock, create, ...optional });
    },
  });
}

function deferPkcs11(entry: Pkcs11Entry, clock: Clock, create: boolean): DeferredProvider {
  const { group, modulePath, token, key, pinFile } = entry;
  const mech = 'CKM_AES_GCM';
  const fields: Pkcs11Kek = {
    ...common(group, clock),
    provider: 'pkcs11',
    suite: 'pkcs11-1',
    token,
    key,
    mech,
  };
  return new DeferredProvider({
    id: `pkcs11:${token}/${key}`,
    fields,
    text: `Key "${key}" in the PKCS#11 token "${token}" wraps the branch keys of custody group "${group}".`,
    clock,
    open: async () => {
      const { openPkcs11 } = await import('./pkcs11.ts');
      return openPkcs11({ modulePath, token, key, pinFile, group, clock, create });
    },
  });
}

function common(group: string, clock: Clock) {
  const createdAt = new Date(clock.now()).toISOString();
  return { cg: group, ver: 1, state: 'active', createdAt } as const;
}
