// Storage nodes as real processes: started, asked, frozen, killed.

import { type ChildProcess, fork } from 'node:child_process';
import { createServer } from 'node:net';
import { fileURLToPath } from 'node:url';
import type { Membership } from '../../src/node/membership.ts';

export interface NodeProcess extends AsyncDisposable {
  readonly process: ChildProcess;
  ask(request: { readonly do: string; readonly text?: string; readonly cid?: string }): Promise<unknown>;
  /** Sends the signal and, if it ends the process, resolves when it has ended. */
  kill(): Promise<void>;
}

/** Starts `name` in `directory` and resolves when it serves. */
export async function startNodeProcess(
  directory: string,
  name: string,
  port: number,
  membership: Membership,
): Promise<NodeProcess> {
  const script = fileURLToPath(new URL('./dht-node.child.ts', import.meta.url));
  const child = fork(script, [directory, name, String(port), JSON.stringify(membership)], { execArgv: [] });
  const waiting = new Map<number, { resolve: (value: unknown) => void; reject: (error: Error) => void }>();
  let lastId = 0;
  const expect = (id: number) =>
    new Promise<unknown>((resolve, reject) => waiting.set(id, { resolve, reject }));
  child.on('message', (message: { id: number; result?: unknown; error?: string }) => {
    const waiter = waiting.get(message.id);
    waiting.delete(message.id);
    if (message.error === undefined) waiter?.resolve(message.result);
    else waiter?.reject(new Error(`${name}: ${message.error}`));
  });
  const ended = new Promise<void>((resolve) => {
    child.once('exit', () => {
      for (const waiter of waiting.values()) waiter.reject(new Error(`${name} ended`));
      resolve();
    });
  });
  await expect(0);
  const kill = async () => {
    child.kill('SIGKILL');
    await ended;
  };
  return {
    process: child,
    ask(request) {
      const id = ++lastId;
      const answer = expect(id);
      child.send({ id, ...request });
      return answer;
    },
    kill,
    [Symbol.asyncDispose]: kill,
  };
}

/** A port that was free a moment ago. */
export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === 'string') throw new RangeError('no port');
  return address.port;
}
