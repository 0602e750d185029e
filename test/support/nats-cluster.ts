// NATS servers with JetStream as the Beacon wants them, on loopback: one, or three that hold every message.

import { mkdir, writeFile } from 'node:fs/promises';
import { setPriority } from 'node:os';
import { join } from 'node:path';
import { jetstream, type JetStreamClient, type JetStreamManager, jetstreamManager } from '@nats-io/jetstream';
import { connect } from '@nats-io/transport-node';
import { fieldOf } from '../../src/core/shape.ts';
import { RouteProxy } from './route-proxy.ts';
import { type Ending, freePort, type NatsServer, natsStore, startNats } from './nats-server.ts';

export const beaconLogin = { user: 'beacon', password: 'beacon' } as const;
export const systemLogin = { user: 'system', password: 'system' } as const;

/** The two logins as files in `directory`: their paths, under the names that `settings.beacon` has for them. */
export async function writeLogins(
  directory: string,
): Promise<{ readonly credentials: string; readonly system: string }> {
  const paths = { credentials: join(directory, 'beacon'), system: join(directory, 'system') };
  for (const [path, { user, password }] of [
    [paths.credentials, beaconLogin],
    [paths.system, systemLogin],
  ] as const)
    await writeFile(path, `${user}:${password}\n`, { mode: 0o600 });
  return paths;
}

/** Does something to streams that the Beacon never does. */
export async function manage(
  cluster: NatsCluster,
  work: (manager: JetStreamManager, client: JetStreamClient) => Promise<unknown>,
): Promise<void> {
  const { user, password } = beaconLogin;
  const nats = await connect({ servers: [...cluster.urls], user, pass: password });
  try {
    await work(await jetstreamManager(nats), jetstream(nats));
  } finally {
    await nats.close();
  }
}

export interface NatsClusterOptions {
  /** Default 3. */
  readonly size?: number;
  /** Default `always`. */
  readonly syncInterval?: string;
  /** Default `4MB`. */
  readonly maxPayload?: string;
  /** Where server `index` keeps its streams. Default a directory that is made. */
  readonly storeOf?: (index: number) => string;
  /** True: servers reach each other through proxies that `isolate` cuts. */
  readonly proxied?: boolean;
}

export interface NatsCluster {
  readonly urls: readonly string[];
  /** Index of the server that leads `stream`; undefined while there is none. */
  leaderOf(stream: string): Promise<number | undefined>;
  /** Where server `index` keeps its streams. */
  storeOf(index: number): string;
  /** Process id of server `index`. */
  pidOf(index: number): number;
  /** Starts server `index` again after it ended, with its files, and this time with `changed` settings. */
  start(index: number, changed?: Pick<NatsClusterOptions, 'syncInterval'>): Promise<void>;
  /** Ends server `index` as a power cut would, or as `signal` says. */
  end(index: number, signal?: 'SIGTERM' | 'SIGKILL'): Promise<void>;
  /** Sends SIGSTOP or SIGCONT to server `index`. */
  signal(index: number, name: NodeJS.Signals): void;
  /** Cuts server `index` off from the other servers, until `join`; clients reach it as before. */
  isolate(index: number): void;
  join(): void;
}

/** Starts servers named `n0`, `n1`, …; they end with the test. Whether they have a leader yet is the caller's to wait for. */
export async function startNatsCluster(t: Ending, options: NatsClusterOptions = {}): Promise<NatsCluster> {
  const { size = 3 } = options;
  const directory = await natsStore(t);
  const members = await Promise.all(
    Array.from({ length: size }, async () => ({
      port: await freePort(),
      route: await freePort(),
      proxy: await freePort(),
      monitor: await freePort(),
    })),
  );
  const servers: NatsServer[] = [];
  const storeOf = options.storeOf ?? ((index: number): string => join(directory, `n${index}`));
  const routes =
    size === 1
      ? []
      : members.map(({ route, proxy }) => ({
          listen: route,
          reach: options.proxied === true ? proxy : route,
        }));
  const start = async (index: number, changed: Partial<NatsClusterOptions> = {}): Promise<void> => {
    await mkdir(storeOf(index), { recursive: true });
    await writeFile(
      join(directory, `n${index}.conf`),
      configOf(index, members[index]?.monitor ?? 0, storeOf(index), routes, { ...options, ...changed }),
    );
    const server = await startNats(t, {
      port: members[index]?.port ?? 0,
      args: ['-c', join(directory, `n${index}.conf`)],
    });
    setPriority(server.pid, 10); // the tests' own processes come first
    servers[index] = server;
  };
  const proxies: RouteProxy[] = [];
  if (options.proxied === true)
    for (const { proxy, route } of members) proxies.push(await RouteProxy.listen(t, proxy, route));
  await Promise.all(members.map((_, index) => start(index)));
  return {
    urls: members.map(({ port }) => `127.0.0.1:${port}`),
    leaderOf: async (stream) => {
      const answers = await Promise.all(members.map(({ monitor }) => leaderBy(monitor, stream)));
      const name = answers.find((answer) => answer !== undefined);
      return name === undefined ? undefined : Number(name.slice(1));
    },
    storeOf,
    pidOf: (index) => servers[index]?.pid ?? 0,
    start,
    end: async (index, signal) => servers[index]?.end(signal),
    signal: (index, name) => servers[index]?.signal(name),
    isolate: (index) => {
      for (const [at, proxy] of proxies.entries()) proxy.cut((from) => at === index || from === `n${index}`);
    },
    join: () => {
      for (const proxy of proxies) proxy.cut(() => false);
    },
  };
}

/** Name of the server that leads `stream`, if the one with this monitoring port lives and knows. */
async function leaderBy(monitor: number, stream: string): Promise<string | undefined> {
  try {
    const answer = await fetch(`http://127.0.0.1:${monitor}/jsz?streams=true`);
    for (const account of listOf(await answer.json(), 'account_details')) {
      for (const detail of listOf(account, 'stream_detail')) {
        const leader = fieldOf(fieldOf(detail, 'cluster'), 'leader');
        if (fieldOf(detail, 'name') === stream && typeof leader === 'string' && leader !== '') return leader;
      }
    }
  } catch {
    // It has ended, or is about to.
  }
  return undefined;
}

function listOf(value: unknown, name: string): readonly unknown[] {
  const list = fieldOf(value, name);
  return Array.isArray(list) ? list : [];
}

function configOf(
  index: number,
  monitor: number,
  store: string,
  routes: readonly { readonly listen: number; readonly reach: number }[],
  { syncInterval = 'always', maxPayload = '4MB' }: NatsClusterOptions,
): string {
  const user = ({ user, password }: typeof beaconLogin | typeof systemLogin): string =>
    `users: [{ user: ${user}, password: ${password} }]`;
  const cluster =
    routes.length === 0
      ? ''
      : `cluster { name: test, listen: "127.0.0.1:${routes[index]?.listen}", advertise: "127.0.0.1:${routes[index]?.reach}", routes: [${routes
          .map(({ reach }) => `"nats://127.0.0.1:${reach}"`)
          .join(', ')}] }`;
  return `
server_name: n${index}
http: "127.0.0.1:${monitor}"
max_payload: ${maxPayload}
jetstream { store_dir: ${JSON.stringify(store)}, sync_interval: ${JSON.stringify(syncInterval)} }
accounts {
  BEACON { jetstream: enabled, ${user(beaconLogin)} }
  SYSTEM { ${user(systemLogin)} }
}
system_account: SYSTEM
${cluster}
`;
}
