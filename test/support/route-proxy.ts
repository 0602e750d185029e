// The way to one NATS server for the others, in user space, which can be cut for some of them.
//
// Everybody comes from the same address, so who it is is read from the first thing that he says.

import { connect, createServer, type Socket } from 'node:net';
import type { Ending } from './nats-server.ts';

export class RouteProxy {
  readonly #open = new Map<Socket, string>();
  #isCut: (from: string) => boolean = () => false;

  /** Listens on `port` and passes on to `target`, until the end of `t`. */
  static async listen(t: Ending, port: number, target: number): Promise<RouteProxy> {
    const proxy = new RouteProxy();
    const server = createServer((socket) => proxy.#accept(socket, target));
    await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve));
    t.after(async () => {
      for (const socket of proxy.#open.keys()) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    });
    return proxy;
  }

  /** Ends the connections of those for whom `isCut` holds, and lets none of them in. */
  cut(isCut: (from: string) => boolean): void {
    this.#isCut = isCut;
    for (const [socket, from] of this.#open) if (from !== '' && isCut(from)) socket.destroy();
  }

  #accept(socket: Socket, port: number): void {
    const target = connect(port, '127.0.0.1');
    this.#open.set(socket, '');
    const end = (): void => {
      this.#open.delete(socket);
      socket.destroy();
      target.destroy();
    };
    for (const each of [socket, target]) each.on('error', end).on('close', end);
    target.on('data', (bytes) => socket.write(bytes));
    socket.on('data', (bytes) => {
      const said =
        this.#open.get(socket) === '' ? /"(?:server_)?name":"(n\d)"/.exec(bytes.toString('latin1')) : null;
      if (said?.[1] !== undefined) this.#open.set(socket, said[1]);
      if (this.#isCut(this.#open.get(socket) ?? '')) end();
      else target.write(bytes);
    });
  }
}
