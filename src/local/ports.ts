// TCP ports on the loopback that stay ours over restarts.
//
// A port that the operating system hands out on request lies in its ephemeral range, where any outgoing
// connection may sit when the cluster starts again. So we pick below that range (Linux 32,768, others 49,152).

import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import { HoldfastError } from '../core/errors.ts';
import { errnoOf } from '../files/whole.ts';

const portMin = 20_000;
const portEnd = 32_000;
const triesMax = 200;

/** `count` different ports, all free at this moment and none of `taken`. Throws PORT_IN_USE when none is found. */
export async function choosePorts(count: number, taken: readonly number[]): Promise<number[]> {
  const used = new Set(taken);
  const chosen: number[] = [];
  for (let tries = 0; chosen.length < count; tries++) {
    if (tries >= triesMax + count) {
      throw new HoldfastError('PORT_IN_USE', `no free TCP port found between ${portMin} and ${portEnd}`);
    }
    const port = randomInt(portMin, portEnd);
    if (used.has(port) || !(await isPortFree(port))) continue;
    used.add(port);
    chosen.push(port);
  }
  return chosen;
}

/** True when nothing listens on `port` of 127.0.0.1. Throws FORBIDDEN when this user may not listen there. */
export async function isPortFree(port: number): Promise<boolean> {
  const server = createServer();
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen({ port, host: '127.0.0.1', exclusive: true }, resolve);
    });
  } catch (cause) {
    if (errnoOf(cause) === 'EADDRINUSE') return false;
    throw new HoldfastError('FORBIDDEN', `cannot listen on port ${port} of 127.0.0.1`, {
      details: { port },
      cause,
    });
  }
  await new Promise<void>((resolve) => server.close(() => resolve()));
  return true;
}

/**
 * True when something accepts connections on `port` of 127.0.0.1. A port that is neither free nor listened on
 * belongs to one end of an outgoing connection, which keeps it for up to a minute after it was closed.
 */
export async function isListening(port: number): Promise<boolean> {
  const socket = connect({ port, host: '127.0.0.1' });
  try {
    await once(socket, 'connect');
    return true;
  } catch (error) {
    // What is neither accepted nor refused is taken for a program that is busy.
    return errnoOf(error) !== 'ECONNREFUSED';
  } finally {
    socket.destroy();
  }
}

/** The error that names the port and who wanted it. */
export function portInUse(port: number, name: string): HoldfastError {
  return new HoldfastError(
    'PORT_IN_USE',
    `port ${port} of 127.0.0.1, which belongs to ${name}, is in use by another program; end that program${
      name === 'door' ? ' or choose another port with --port' : ''
    }`,
    { details: { port, process: name } },
  );
}
