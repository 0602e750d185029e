// A door that seals for plain HTTP callers: the same flows as in the client, with ports that need no HTTP.

import { dirname, join } from 'node:path';
import type { HealthCheck } from '../api/types.ts';
import type { BeaconView } from '../beacon/view.ts';
import type { Block, CID } from '../core/block.ts';
import { second } from '../core/clock.ts';
import { describeError } from '../core/errors.ts';
import { openDevFile } from '../custody/dev-file.ts';
import { BranchKeys } from '../custody/keyring.ts';
import type { KekProvider } from '../custody/provider.ts';
import { ProviderSet } from '../custody/provider-set.ts';
import { random } from '../custody/random.ts';
import { loadGcm } from '../envelope/gcm.ts';
import { readIfThere } from '../files/whole.ts';
import type { GetPorts } from '../flows/get.ts';
import type { PutPorts } from '../flows/put.ts';
import type { DoorConfig } from '../local/layout.ts';
import { devKeyPath } from '../local/layout.ts';
import { openIdentity } from '../node/identity.ts';
import type { DoorBlocks } from './door-blocks.ts';
import type { DoorCustody } from './door-custody.ts';
import type { DoorRegistry } from './door-registry.ts';
import { systemClock } from './member.ts';

export interface Sealing {
  readonly put: PutPorts;
  readonly get: GetPorts;
  /** What people should know of this provider. */
  readonly text: string;
  /** Name of the key policy: what branch keys are made under. */
  readonly kekPolicy: string;
  /** Whether the configured key providers answer; undefined where none is configured. Of a moment ago. */
  keysCheck(): Promise<HealthCheck | undefined>;
  /** The key providers that this door opens content by. */
  readonly providers: ProviderSet;
}

export interface SealingPorts {
  readonly view: BeaconView;
  readonly registry: DoorRegistry;
  readonly blocks: DoorBlocks;
  /** Undefined in a cluster without custodians. */
  readonly custody: DoorCustody | undefined;
  beatIndex(): number;
}

/** Undefined, with a line in the log, when there is no key provider here: then this door handles ciphertext only. */
export async function openSealing(
  config: DoorConfig,
  ports: SealingPorts,
  stack: AsyncDisposableStack,
): Promise<Sealing | undefined> {
  const provider = await openProvider(config, ports.custody, stack);
  if (provider === undefined) return undefined;
  console.error(`content: ${(await loadGcm()).text}`);
  const { signer } = await openIdentity(config.writerKeyPath);
  const keys = stack.use(new BranchKeys({ provider, writer: signer.publicKey, random }));
  const put: PutPorts = {
    registry: {
      newest: async (key) => {
        const head = await ports.view.head(key);
        if (head === undefined) return undefined;
        const { cid, body } = head.record;
        return { version: head.version, manifest: cid, tombstone: body.type === 'tombstone' };
      },
      register: (records: readonly Block[], content?: Block) =>
        ports.registry.register(
          records.map(({ bytes }) => bytes),
          content,
        ),
    },
    store: (blocks, policy) => ports.blocks.store(blocks, policy),
    writerKey: (scope) => keys.current(scope),
    // Asked for before a byte is taken: without a key there is nothing to seal under.
    get kekPolicy() {
      provider.kek();
      return provider.id;
    },
    get kek() {
      return provider.kek();
    },
    signer,
    random,
    now: () => systemClock.now(),
    beat: async () => ports.beatIndex(),
  };
  const get: GetPorts = {
    load: (cids: readonly CID[], signal: AbortSignal) => ports.blocks.load(cids, signal),
    readerKey: (body, signal) =>
      keys.open(body, { purpose: 'read', requester: signer.publicKey, beat: ports.beatIndex(), signal }),
  };
  return {
    put,
    get,
    get text() {
      return provider.describe().text;
    },
    get kekPolicy() {
      return provider.id;
    },
    keysCheck: keysCheckOf(provider, join(dirname(config.providersPath), 'recovery-alarms')),
    providers: provider,
  };
}

/** A server or token is not asked with every look at the health. */
function keysCheckOf(providers: ProviderSet, alarmsPath: string): Sealing['keysCheck'] {
  let asked: Promise<HealthCheck | undefined> | undefined;
  let untilMs = 0;
  return async () => {
    if (asked === undefined || systemClock.monotonic() >= untilMs) {
      untilMs = systemClock.monotonic() + keysCheckMs;
      asked = Promise.all([providers.health(), readIfThere(alarmsPath)]).then(([{ ok, text }, alarms]) => {
        const { combiner, names } = providers.making;
        const makers = combiner === 'one' ? names.join() : `${combiner} of ${names.join(', ')}`;
        const alarm = alarms?.trimEnd().split('\n').at(-1) ?? '';
        if (alarm === '' && !providers.isConfigured) return undefined;
        const said = alarm === '' ? '' : `; ALARM: keys were opened for a recovery: ${alarm}`;
        const status = ok && alarm === '' ? 'ok' : 'degraded';
        return { name: 'keys', status, text: `new keys by ${makers}: ${text}${said}` };
      });
    }
    return asked;
  };
}

const keysCheckMs = 10 * second;

/** All key providers that this door may use; undefined when there is none to make keys with. */
async function openProvider(
  config: DoorConfig,
  custody: DoorCustody | undefined,
  stack: AsyncDisposableStack,
): Promise<ProviderSet | undefined> {
  const mayAsk = custody !== undefined && (await custody.mayAsk());
  const file = await openFile(config, custody?.makes ?? false);
  try {
    const set = stack.use(
      await ProviderSet.open({
        path: config.providersPath,
        clock: systemClock,
        custodians: mayAsk ? custody.provider : undefined,
        file,
        lateFile: () => openFile(config, true),
        custodiansMake: () => mayAsk && custody.makes,
        recovery: () => custody?.recovery(),
      }),
    );
    set.maker();
    return set;
  } catch (error) {
    console.error(`this door handles ciphertext only: ${describeError(error)}`);
    return undefined;
  }
}

/** Undefined where it is not there or must not be used; that is said unless custodians make the keys. */
async function openFile(config: DoorConfig, isOptional: boolean): Promise<KekProvider | undefined> {
  try {
    return await openDevFile({ path: devKeyPath(config), clock: systemClock, create: false });
  } catch (error) {
    if (!isOptional) console.error(`no development key file: ${describeError(error)}`);
    return undefined;
  }
}
