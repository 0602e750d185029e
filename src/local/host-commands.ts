// Commands to a process from its own machine and account, for what is nobody's business over the network: taking its
// share out for the safe, changing what it is sealed under. Whoever may read the data directory may give them.
//
//   <data directory>/host.json   600: {process: {pid, started}, port, token} while the process runs

import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { HoldfastError, isHoldfastError } from '../core/errors.ts';
import { isMap } from '../core/shape.ts';
import { readIfThere, writeWhole } from '../files/whole.ts';
import { callLoopback, type LoopbackRoute, serveLoopback } from './loopback.ts';
import { asProcessId, isAlive, processId } from './process-id.ts';

/** Takes commands for the process whose data directory this is, until disposed. `who` names it in messages. */
export async function serveHostCommands(
  dataDir: string,
  who: string,
  route: LoopbackRoute,
): Promise<AsyncDisposable> {
  await using stack = new AsyncDisposableStack();
  const { port, token } = stack.use(await serveLoopback(who, route));
  const path = fileOf(dataDir);
  const content = { process: await processId(process.pid), port, token };
  await writeWhole(path, JSON.stringify(content), 0o600);
  stack.defer(() => rm(path, { force: true }));
  const owned = stack.move();
  return { [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

/**
 * Gives one command to the process whose data directory this is.
 *
 * @throws PEER_UNREACHABLE when it does not run, FILE_UNREADABLE when the directory is another account's, and what the
 * process throws
 */
export async function callHost(
  dataDir: string,
  who: string,
  path: string,
  body: Readonly<Record<string, unknown>>,
): Promise<unknown> {
  const value = parse(await readIfThere(fileOf(dataDir)));
  const id = asProcessId(value['process']);
  const { port, token } = value;
  const isThere = id !== undefined && typeof port === 'number' && typeof token === 'string';
  if (!isThere || !(await isAlive(id))) throw notRunning(who, dataDir);
  try {
    return await callLoopback({ port, token }, 'POST', path, body);
  } catch (cause) {
    if (isHoldfastError(cause)) throw cause;
    throw notRunning(who, dataDir, cause);
  }
}

function fileOf(dataDir: string): string {
  return join(dataDir, 'host.json');
}

/** Means nothing after a crash, so a torn one is like an absent one. */
function parse(text: string | undefined): Readonly<Record<string, unknown>> {
  try {
    const value: unknown = text === undefined ? undefined : JSON.parse(text);
    return isMap(value) ? value : {};
  } catch {
    return {};
  }
}

function notRunning(who: string, dataDir: string, cause?: unknown): HoldfastError {
  return new HoldfastError(
    'PEER_UNREACHABLE',
    `${who} does not run on this machine with ${dataDir}: start it, and give this command where it runs`,
    { cause },
  );
}
