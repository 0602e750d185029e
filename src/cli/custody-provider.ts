// Who makes and gives back branch keys for a command: the custodians of the cluster, reached through its door, beside
// the development key file where there is one.

import { CustodyRelay } from '../client/custody-relay.ts';
import { DoorClient } from '../client/door-client.ts';
import type { DoorOptions } from '../client/http.ts';
import { HoldfastError, isHoldfastError } from '../core/errors.ts';
import type { Signer } from '../core/hash.ts';
import { openDevFile } from '../custody/dev-file.ts';
import { groupNameOf } from '../custody/group-name.ts';
import { CustodyFeed } from '../custody/feed.ts';
import type { KekProvider } from '../custody/provider.ts';
import { ProviderSet } from '../custody/provider-set.ts';
import { random } from '../custody/random.ts';
import { ReceiptFile } from '../custody/receipts.ts';
import { type Approve, TdecProvider } from '../custody/tdec.ts';
import { isThere, makeDirectory, readIfThere, writeWhole } from '../files/whole.ts';
import { readCapability } from '../local/grants.ts';
import { devKeyPath, layoutPaths, readLayout } from '../local/layout.ts';

/**
 * All key providers of a local cluster. `custodians` gives those that the operator's membership names, `approve` the
 * approvals that their policy may want.
 * Throws what is wrong with their configuration, what opening the key file throws, where only that can serve, and
 * what the door throws.
 */
export async function openProvider(
  door: Pick<DoorOptions, 'url' | 'token'>,
  data: string,
  signer: Signer,
  custodians: () => Promise<ReadonlyMap<string, Uint8Array>>,
  approve?: Approve,
): Promise<ProviderSet> {
  await using stack = new AsyncDisposableStack();
  const custody = await openCustodians(door, data, signer, custodians, approve);
  if (custody !== undefined) stack.use(custody.provider);
  const keyFile = await openKeyFile(data).catch((error: unknown) => {
    if (isHoldfastError(error)) return error; // what it wrapped cannot be opened, and is said then
    throw error;
  });
  const file = keyFile instanceof HoldfastError ? undefined : stack.use(keyFile);
  const set = await ProviderSet.open({
    path: layoutPaths(data).keyProviders,
    clock: { now: Date.now, monotonic: () => performance.now() },
    custodians: custody?.provider,
    file,
    custodiansMake: () => custody !== undefined,
    recovery: () => custody?.feed.directory().policy()?.recovery,
    authorities: () => custody?.feed.directory().policy()?.authorities,
  });
  if (keyFile instanceof HoldfastError && set.making.names.includes('file')) throw keyFile;
  stack.move();
  return set;
}

/** The custodians once they are to make the keys; undefined before that, and where there are none. */
async function openCustodians(
  door: Pick<DoorOptions, 'url' | 'token'>,
  data: string,
  signer: Signer,
  custodians: () => Promise<ReadonlyMap<string, Uint8Array>>,
  approve: Approve | undefined,
): Promise<{ readonly provider: KekProvider; readonly feed: CustodyFeed } | undefined> {
  const { file } = await readLayout(data);
  if (!file.processes.some(({ role }) => role === 'custodian')) return undefined;
  const client = new DoorClient(door);
  const feed = await openFeed(client, data, await custodians());
  await feed.reload();
  const directory = feed.directory();
  const ordered = await isThere(layoutPaths(data).custodyInitOrder);
  const makes = ordered || directory.initialised || directory.problem !== undefined;
  if (!makes) {
    await client[Symbol.asyncDispose]();
    return undefined;
  }
  const nameOf = (peer: string): string => file.processes.find((each) => each.peer === peer)?.name ?? peer;
  const receipts = new ReceiptFile(layoutPaths(data).custodyReceipts);
  const relay = new CustodyRelay(client);
  const provider = new DoorTdec(client, {
    source: feed,
    transport: {
      ask: (peer, request, signal) => relay.ask(peer, request, signal),
      nameOf,
    },
    signer,
    chain: () => readCapability(layoutPaths(data).capability('writer')),
    approve,
    random,
    clock: { monotonic: () => performance.now() },
    beat: async (signal) => (await client.beat({ signal })).index,
    onOpened: ({ peers, ...opened }) => {
      const custodians = peers.map((peer) => `${file.cluster}/${nameOf(peer)}`);
      return receipts.append({ ...opened, custodians, at: Date.now() });
    },
  });
  return { provider, feed };
}

/** The records of custody as the door hands them out, verified here and remembered beside the cluster. */
export async function openFeed(
  client: DoorClient,
  data: string,
  custodians: ReadonlyMap<string, Uint8Array>,
): Promise<CustodyFeed> {
  const { file } = await readLayout(data);
  const paths = layoutPaths(data);
  return CustodyFeed.open({
    cg: groupNameOf(file.cluster),
    operator: new Uint8Array(Buffer.from(file.operator, 'hex')),
    custodians: () => custodians,
    read: (since, signal) => client.custodyPage(since, { signal }),
    pins: {
      load: () => readIfThere(paths.custodyPin),
      save: async (text) => {
        await makeDirectory(paths.custody);
        await writeWhole(paths.custodyPin, text, 0o600);
      },
    },
  });
}

/** Closes the connections to the door with itself. */
class DoorTdec extends TdecProvider {
  readonly #client: DoorClient;

  constructor(client: DoorClient, options: ConstructorParameters<typeof TdecProvider>[0]) {
    super(options);
    this.#client = client;
  }

  override async [Symbol.asyncDispose](): Promise<void> {
    await super[Symbol.asyncDispose]();
    await this.#client[Symbol.asyncDispose]();
  }
}

/** Makes the key file where there is none: on an operator's word, to bring keys to it. Throws what making it throws. */
export async function makeKeyFile(data: string): Promise<void> {
  await using _file = await openKeyFile(data, true);
}

function openKeyFile(data: string, create = false): Promise<KekProvider> {
  const clock = { now: Date.now, monotonic: () => performance.now() };
  const path = devKeyPath({ keysDir: layoutPaths(data).keys });
  return openDevFile({ path, clock, create });
}
