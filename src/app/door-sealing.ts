// A door that seals for plain HTTP callers: the same flows as in the client, with ports that need no HTTP.

import type { BeaconView } from '../beacon/view.ts';
import type { Block, CID } from '../core/block.ts';
import { describeError } from '../core/errors.ts';
import { byTag } from '../custody/by-tag.ts';
import { openDevFile } from '../custody/dev-file.ts';
import { BranchKeys } from '../custody/keyring.ts';
import type { KekProvider } from '../custody/provider.ts';
import type { GetPorts } from '../flows/get.ts';
import type { PutPorts } from '../flows/put.ts';
import type { DoorConfig } from '../local/layout.ts';
import { devKeyPath } from '../local/layout.ts';
import { openIdentity } from '../node/identity.ts';
import type { DoorBlocks } from './door-blocks.ts';
import type { DoorCustody } from './door-custody.ts';
import type { DoorRegistry } from './door-registry.ts';
import { random, systemClock } from './member.ts';

export interface Sealing {
  readonly put: PutPorts;
  readonly get: GetPorts;
  /** What people should know of this provider. */
  readonly text: string;
  /** Name of the key policy: what branch keys are made under. */
  readonly kekPolicy: string;
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
      register: (blocks: readonly Block[]) => ports.registry.register(blocks.map(({ bytes }) => bytes)),
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
  };
}

/** Custodians where this door may ask them, a development key file where there is one, or both. */
async function openProvider(
  config: DoorConfig,
  custody: DoorCustody | undefined,
  stack: AsyncDisposableStack,
): Promise<KekProvider | undefined> {
  const mayAsk = custody !== undefined && (await custody.mayAsk());
  const file = await openFile(config, mayAsk && custody.makes);
  if (!mayAsk) return file === undefined ? undefined : stack.use(file);
  if (file === undefined && !custody.makes) return undefined;
  const custodiansMake = (): boolean => custody.makes;
  return stack.use(byTag({ custodians: custody.provider, file, custodiansMake }));
}

async function openFile(config: DoorConfig, isOptional: boolean): Promise<KekProvider | undefined> {
  try {
    return await openDevFile({ path: devKeyPath(config), clock: systemClock, create: false });
  } catch (error) {
    if (!isOptional) console.error(`this door handles ciphertext only: ${describeError(error)}`);
    return undefined;
  }
}
