// The process of a key agent: joins its parts, serves until it is told to stop.

import { join } from 'node:path';
import { HoldfastClient } from '../client/client.ts';
import { CustodyRelay } from '../client/custody-relay.ts';
import { DoorClient } from '../client/door-client.ts';
import { toHex } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import { parseCapabilityFile } from '../custody/capability-file.ts';
import { AuditLog } from '../custody/audit-log.ts';
import { groupNameOf } from '../custody/group-name.ts';
import { CustodyFeed } from '../custody/feed.ts';
import { BranchKeys } from '../custody/keyring.ts';
import { random } from '../custody/random.ts';
import { ReceiptFile } from '../custody/receipts.ts';
import { TdecProvider } from '../custody/tdec.ts';
import { readIfThere, writeWhole } from '../files/whole.ts';
import { serveHostCommands } from '../local/host-commands.ts';
import { sayNowAndThen } from '../local/say-seldom.ts';
import { superviseChild } from '../local/supervise-child.ts';
import { custodianKeysOf, type Identity, openIdentity, openOrCreateIdentity } from '../node/identity.ts';
import { memberOf } from '../node/membership.ts';
import { type MembershipFile, openMembershipFile } from '../node/membership-file.ts';
import { openDataDir } from '../node/stores.ts';
import { parseAddress, withVersion } from '../ucxl/address.ts';
import { type AgentConfig, loadAgentConfig } from '../local/key-agent-config.ts';
import { KeyAgent } from './key-agent.ts';
import { logRoute } from './log-route.ts';
import { barBeats, Rules } from './rules.ts';
import { serveAgent } from './serve.ts';

/** Branch keys open at a time: each is a project, class and window that somebody reads from now. */
const keysOpenMax = 256;
const tickMs = 1000;

/**
 * Runs the key agent that the file `configPath` describes until it is told to stop. `init`: only makes its identity, for
 * a policy and a capability to name. Returns the exit status.
 */
export async function runKeyAgent(configPath: string, init: boolean): Promise<number> {
  using supervision = superviseChild();
  process.title = 'holdfast key-agent';
  process.on('uncaughtException', (error) => {
    console.error('uncaught', error);
    process.exit(1);
  });
  try {
    const config = await loadAgentConfig(configPath);
    if (init) {
      const { name, signer } = await openOrCreateIdentity(config.identityPath);
      await supervision.ready({ peer: name, key: toHex(signer.publicKey) });
      return 0;
    }
    await using agent = await startAgent(config);
    await supervision.ready(agent.info);
    await new Promise<void>((resolve) => {
      if (supervision.stop.aborted) resolve();
      supervision.stop.addEventListener('abort', () => resolve(), { once: true });
    });
    return 0;
  } catch (error) {
    console.error(error);
    await supervision.failed(error);
    return error instanceof HoldfastError ? 1 : 70;
  }
}

async function startAgent(config: AgentConfig) {
  await using stack = new AsyncDisposableStack();
  const identity = await openIdentity(config.identityPath);
  const owner = { node: config.name, peer: identity.name, cluster: config.cluster };
  const dir = stack.use(await openDataDir(config.dataDir, owner));
  const log = stack.use(
    await AuditLog.open({
      path: dir.storePath('audit'),
      origin: `${config.cluster}/${config.name}`,
      signer: identity.signer,
      create: !dir.isBorn('audit'),
    }),
  );
  await dir.markBorn('audit');
  const { agent, keys, rules, feed } = await joined(config, identity, log, stack);
  const onTrouble = sayNowAndThen('reading the rules of now');
  const timer = setInterval(() => {
    void rules.read(AbortSignal.timeout(tickMs)).then(({ now }) => keys.expire(now.beat), onTrouble);
  }, tickMs);
  stack.defer(() => clearInterval(timer));
  const info = {
    name: config.name,
    key: toHex(identity.signer.publicKey),
    peer: identity.name,
    get group() {
      return feed.directory().cg;
    },
  };
  const server = stack.use(
    await serveAgent(
      { info: () => info, release: (message, signal) => agent.release(message, signal) },
      config,
    ),
  );
  stack.use(await serveHostCommands(dir.path, config.name, logRoute(log)));
  const owned = stack.move();
  return {
    info: { ...info, port: server.port },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

/** The agent over the registry and the custodians, both reached through the door. */
async function joined(config: AgentConfig, { signer }: Identity, log: AuditLog, stack: AsyncDisposableStack) {
  const token = (await textOf(config.tokenPath)).trim();
  const registry = stack.use(new DoorClient({ url: config.door, token }));
  const membership = stack.use(await followMembership(config));
  const pinPath = join(config.dataDir, 'pin.json');
  const feed = await CustodyFeed.open({
    cg: groupNameOf(config.cluster),
    operator: config.operator,
    custodians: () => custodianKeysOf(membership.current()),
    read: (since, signal) => registry.custodyPage(since, { signal }),
    pins: {
      load: () => readIfThere(pinPath),
      save: (text) => writeWhole(pinPath, text, 0o600),
    },
  });
  const receipts = new ReceiptFile(join(config.dataDir, 'receipts'));
  const relay = new CustodyRelay(registry);
  const nameOf = (peer: string): string => memberOf(membership.current(), peer)?.name ?? peer;
  const provider = stack.use(
    new TdecProvider({
      source: feed,
      transport: {
        ask: (peer, request, signal) => relay.ask(peer, request, signal),
        nameOf,
      },
      signer,
      chain: async () => parseCapabilityFile(await textOf(config.capabilityPath)),
      beat: async (signal) => (await registry.beat({ signal })).index,
      random,
      clock: { monotonic: () => performance.now() },
      onOpened: ({ peers, ...opened }) => {
        const logs = peers.map((peer) => `${config.cluster}/${nameOf(peer)}`);
        return receipts.append({ ...opened, custodians: logs, at: Date.now() });
      },
    }),
  );
  const door = stack.use(new HoldfastClient({ url: config.door, token, signer, provider }));
  await feed.reload();
  const rules = new Rules({
    source: feed,
    beat: async (signal) => (await registry.beat({ signal })).index,
    now: () => performance.now(),
  });
  const keys = stack.use(
    new BranchKeys({
      provider,
      writer: signer.publicKey,
      random,
      windowBeats: barBeats,
      openMax: keysOpenMax,
    }),
  );
  const agent = new KeyAgent({
    signer,
    log,
    keys,
    rules: (signal) => rules.read(signal),
    records: (address, version, signal) => {
      const exact = withVersion(parseAddress(address, { profile: 'lenient' }), version);
      return door.records(parseAddress(exact, { profile: 'lenient' }), signal);
    },
    now: () => Date.now(),
  });
  return { agent, keys, rules, feed };
}

/**
 * As members of the cluster do: a newer document of the operator counts within a second, an older one never again. With it
 * the agent goes over to a group in the place of its own like every reader (custody/feed.ts).
 */
async function followMembership({ membershipPath, operator, dataDir }: AgentConfig): Promise<MembershipFile> {
  return openMembershipFile({
    path: membershipPath,
    operatorKey: operator,
    seenPath: join(dataDir, 'membership-seen'),
    onRefused: (error) => console.error(`membership refused: ${error.message}`),
  });
}

async function textOf(path: string): Promise<string> {
  const text = await readIfThere(path);
  if (text === undefined) throw new HoldfastError('FILE_NOT_FOUND', `${path} is not there`);
  return text;
}
