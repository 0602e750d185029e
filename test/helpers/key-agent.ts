// A key agent beside a cluster, as an organisation sets one up, and a reader with an identity of its own.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { choosePorts } from '../../src/local/ports.ts';
import { endsWithUs } from '../support/ends-with-us.ts';
import type { TestCluster } from './cluster.ts';
import { type CommandLine, program } from './command-line.ts';

/** Files of an agent and of a reader, in a folder; nothing is granted yet. */
export interface AgentSite {
  /** The agent's configuration. */
  readonly config: string;
  /** Public keys, hex. */
  readonly key: string;
  readonly reader: string;
  /** Where their capabilities are looked for. */
  readonly capability: string;
  readonly readerCapability: string;
  /** Identity of the reader. */
  readonly readerKey: string;
  /** Words of a command by which the reader asks the agent. */
  readonly asked: readonly string[];
}

/** Makes both identities in `folder`, which must not be there. */
export async function keyAgentSite(
  cluster: TestCluster,
  { json }: CommandLine,
  folder: string,
): Promise<AgentSite> {
  await mkdir(folder);
  const layout: { cluster: string; operator: string } = JSON.parse(
    await readFile(join(cluster.dir, 'cluster.json'), 'utf8'),
  );
  const [port = 0] = await choosePorts(1, []);
  const written = {
    format: 'holdfast-key-agent',
    version: 1,
    cluster: layout.cluster,
    operator: layout.operator,
    name: 'agent-a',
    host: '127.0.0.1',
    port,
    door: cluster.url,
    token: join(cluster.dir, 'token'),
    identity: 'identity.key',
    membership: join(cluster.dir, 'membership.json'),
    capability: 'agent.cap',
    dataDir: 'data',
  };
  const made = async (name: string, identity: string): Promise<[string, string]> => {
    const path = join(folder, name);
    await writeFile(path, JSON.stringify({ ...written, identity }));
    return [path, (await json<{ key: string }>('key-agent', '--config', path, '--init')).key];
  };
  const [config, key] = await made('agent.json', 'identity.key');
  const [, reader] = await made('reader.json', 'reader.key');
  const readerKey = join(folder, 'reader.key');
  const readerCapability = join(folder, 'reader.cap');
  const agent = ['--agent', `http://127.0.0.1:${port}`, '--agent-key', key];
  return {
    config,
    key,
    reader,
    capability: join(folder, 'agent.cap'),
    readerCapability,
    readerKey,
    asked: [...agent, '--as', readerKey, '--capability', readerCapability],
  };
}

/** Runs the agent until it is disposed of. */
export async function runKeyAgent({ config }: AgentSite): Promise<AsyncDisposable> {
  const child = spawn(process.execPath, [program, 'key-agent', '--config', config, '--json'], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  endsWithUs(child);
  // What it says while its door is down is not ours to judge.
  let troubles = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    troubles = `${troubles}${text}`.slice(-4096);
  });
  let said = '';
  for await (const part of child.stdout) {
    said += String(part);
    if (said.includes('\n')) break;
  }
  assert.ok(said.includes('\n'), `the key agent did not start: ${said}${troubles}`);
  return {
    [Symbol.asyncDispose]: async () => {
      if (child.exitCode !== null || child.signalCode !== null) return;
      child.kill('SIGTERM');
      await once(child, 'exit');
    },
  };
}
