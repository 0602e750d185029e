// A client that seals where a test or a bench runs, with the writer key and the key file of a cluster without custodians.

import { systemClock } from '../../src/app/member.ts';
import { type ClientOptions, HoldfastClient, openDevFile } from '../../src/client/index.ts';
import { devKeyPath, layoutPaths } from '../../src/local/layout.ts';
import { openIdentity } from '../../src/node/identity.ts';
import type { TestCluster } from './cluster.ts';

/** A client of the cluster's door, or of another one that stands before it. Dispose it after use. */
export async function sealingClient(
  cluster: TestCluster,
  url = cluster.url,
  options: Pick<ClientOptions, 'attemptsMax'> = {},
): Promise<HoldfastClient> {
  const paths = layoutPaths(cluster.dir);
  const path = devKeyPath({ keysDir: paths.keys });
  const provider = await openDevFile({ path, clock: systemClock, create: false });
  const { signer } = await openIdentity(paths.writerKey);
  return new ClientWithKeys({ url, token: await cluster.token(), signer, provider, ...options });
}

/** Nobody else has its provider. */
class ClientWithKeys extends HoldfastClient {
  readonly #provider: ClientOptions['provider'];

  constructor(options: ClientOptions) {
    super(options);
    this.#provider = options.provider;
  }

  override async [Symbol.asyncDispose](): Promise<void> {
    await super[Symbol.asyncDispose]();
    await this.#provider[Symbol.asyncDispose]();
  }
}
