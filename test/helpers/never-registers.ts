// A door that stores what it is given and never registers it: a writer who dies at the worst moment. Behind it stands
// a real door; only the last step of a put is answered here, after its records were stored as blocks like any other.

import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export class NeverRegisters implements AsyncDisposable {
  readonly url: string;
  readonly #server: Server;

  private constructor(server: Server, port: number) {
    this.#server = server;
    this.url = `http://127.0.0.1:${port}`;
  }

  static async before(door: string): Promise<NeverRegisters> {
    const server = createServer((req, res) => void pass(door, req, res));
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return new NeverRegisters(server, (server.address() as AddressInfo).port);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, 'close');
  }
}

async function pass(door: string, req: IncomingMessage, res: ServerResponse): Promise<void> {
  const chunks: Buffer[] = [];
  for await (const chunk of req) chunks.push(chunk as Buffer);
  const path = (req.url ?? '').replace('/ucxi/v1/register', '/ucxi/v1/blocks');
  const isRegister = path !== req.url;
  const headers = new Headers();
  for (const name of ['authorization', 'content-type'] as const)
    if (req.headers[name] !== undefined) headers.set(name, req.headers[name]);
  const body = req.method === 'GET' ? {} : { body: Buffer.concat(chunks) };
  const answer = await fetch(`${door}${path}`, { method: req.method ?? 'GET', headers, ...body });
  const bytes = Buffer.from(await answer.arrayBuffer());
  if (!isRegister || !answer.ok) {
    res.writeHead(answer.status, { 'content-type': answer.headers.get('content-type') ?? '' }).end(bytes);
    return;
  }
  const data = { address: '', version: 0, cid: '', revision: 0 };
  res.writeHead(201, { 'content-type': 'application/json' });
  res.end(JSON.stringify({ response: { code: 201, message: 'as if', data } }));
}
