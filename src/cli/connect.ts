// From the directory of a cluster to a client of its door. Loads what a command needs and no more: a command
// that only asks never loads a cipher.

import { setFlagsFromString } from 'node:v8';
import { DoorClient } from '../client/door-client.ts';
import type { HoldfastClient, KeyAgentPort } from '../client/client.ts';
import { HoldfastError, isHoldfastError } from '../core/errors.ts';
import type { Signer } from '../core/hash.ts';
import type { Approve } from '../custody/tdec.ts';
import { keepPassingMemorySmall } from '../local/passing-memory.ts';
import { doorUrl, type Layout, layoutPaths, readLayout, readToken } from '../local/layout.ts';
import type { Context } from './command.ts';

/** A client that asks. Throws CLUSTER_NOT_RUNNING when there is no cluster in the directory. */
export async function openDoor({ data }: Pick<Context, 'data'>): Promise<DoorClient> {
  return new DoorClient(await doorOf(data));
}

/** A client that seals and opens with the keys of a local cluster. Dispose it after use. */
export async function openClient(
  { data, screen }: Pick<Context, 'data' | 'screen'>,
  generatedBy: string,
  { keyAgent, approve }: { readonly keyAgent?: KeyAgentPort; readonly approve?: Approve } = {},
): Promise<HoldfastClient> {
  const door = await doorOf(data);
  // Content is buffers that live for a moment. V8 frees them with the objects of its young generation, and lets
  // that grow until gigabytes have passed through: kept small, a put or get of any size stays below 200 MiB.
  setFlagsFromString('--max-semi-space-size=2');
  setFlagsFromString('--semi-space-growth-factor=1');
  keepPassingMemorySmall(); // until the command ends
  const [{ HoldfastClient }, custody, signer] = await Promise.all([
    import('../client/client.ts'),
    import('./custody-provider.ts'),
    openWriter(data),
  ]);
  const onRetry = (error: unknown): void => {
    if (error instanceof Error) screen.say(`retrying: ${error.message}`);
  };
  const provider = await custody.openProvider(door, data, signer, () => custodianKeys(data), approve);
  const agent = keyAgent === undefined ? {} : { keyAgent };
  return new HoldfastClient({ ...door, signer, provider, generatedBy, onRetry, ...agent });
}

/** The custodians that the operator's membership names, by peer id, with their Ed25519 keys. */
export async function custodianKeys(data: string): Promise<ReadonlyMap<string, Uint8Array>> {
  const [{ openMembership }, { custodianKeysOf }, { readFile }] = await Promise.all([
    import('../node/membership.ts'),
    import('../node/identity.ts'),
    import('node:fs/promises'),
  ]);
  const { file } = await runningLayout(data);
  const bytes = await readFile(layoutPaths(data).membership);
  return custodianKeysOf(openMembership(bytes, Buffer.from(file.operator, 'hex')));
}

/** The Ed25519 key of a peer id. Throws ARGUMENT_INVALID. */
export async function keyOfPeer(peer: string): Promise<Uint8Array> {
  const { publicKeyOfPeer } = await import('../node/identity.ts');
  return publicKeyOfPeer(peer);
}

/** The operator's key, of who made the cluster here. Throws DATA_DIR_DAMAGED or FILE_UNREADABLE when it cannot be had. */
export async function openOperator(data: string): Promise<Signer> {
  const { openIdentity } = await import('../node/identity.ts');
  return (await openIdentity(layoutPaths(data).operatorKey)).signer;
}

/** A key in a file of its own: of an authority. Throws FILE_NOT_FOUND, FILE_UNREADABLE. */
export async function openKeyOf(path: string): Promise<Signer> {
  const { openIdentity } = await import('../node/identity.ts');
  return (await openIdentity(path)).signer;
}

/** The key that signs what is put from here. */
export async function openWriter(data: string): Promise<Signer> {
  const { openIdentity } = await import('../node/identity.ts');
  return (await openIdentity(layoutPaths(data).writerKey)).signer;
}

async function doorOf(data: string): Promise<{ readonly url: string; readonly token: string }> {
  const layout = await runningLayout(data);
  return { url: doorUrl(layout), token: await readToken(data) };
}

/** For somebody who asks, "no cluster there" and "not running" call for the same command. */
async function runningLayout(data: string): Promise<Layout> {
  try {
    return await readLayout(data);
  } catch (error) {
    if (!isHoldfastError(error, 'FILE_NOT_FOUND')) throw error;
    throw new HoldfastError(
      'CLUSTER_NOT_RUNNING',
      `no cluster in ${layoutPaths(data).root}; create one with \`npx holdfast up\`, or name its directory with --data`,
      { details: error.details },
    );
  }
}
