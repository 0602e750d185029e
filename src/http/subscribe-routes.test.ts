import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import type { BeaconQueries, RegistryChange } from '../beacon/queries.ts';
import { fromUtf8 } from '../core/bytes.ts';
import type { DoorPorts } from './door-ports.ts';
import type { Request } from './server.ts';
import { subscribeRoutes } from './subscribe-routes.ts';

test('a silent subscription shows that it lives, and spares who resumes what did not concern him', async (t) => {
  const view = new FakeView(7);
  const stream = await subscribed(t, view, {});
  assert.equal(await next(stream), 'retry: 1000\n\n');
  assert.equal(await next(stream), ': still here\nid: 7\n\n');
  assert.equal(await next(stream), ': still here\nid: 7\n\n');
  view.append(); // an entry that concerns nobody here
  assert.equal(await next(stream), ': still here\nid: 8\n\n');
});

test('a subscription resumes after the event that its caller has seen', async (t) => {
  const view = new FakeView(7);
  const stream = await subscribed(t, view, { 'last-event-id': '3' });
  await next(stream);
  await next(stream);
  assert.deepEqual(view.asked.slice(0, 1), [4]);
});

test('the heartbeat ends with the subscription', async (t) => {
  const view = new FakeView(7);
  const stop = new AbortController();
  const stream = await subscribed(t, view, {}, stop.signal);
  await next(stream);
  stop.abort();
  assert.deepEqual(await stream.next(), { done: true, value: undefined });
});

/** A registry in which nothing happens but what a test appends. */
class FakeView {
  #revision: number;
  readonly asked: number[] = [];

  constructor(revision: number) {
    this.#revision = revision;
  }

  append(): void {
    this.#revision++;
  }

  position(): ReturnType<BeaconQueries['position']> {
    return { revision: this.#revision, chain: new Uint8Array(32) };
  }

  async *changesSince(from: number): AsyncGenerator<RegistryChange> {
    this.asked.push(from);
    for (let revision = from; revision <= this.#revision; revision++) yield { revision, keys: [] };
  }

  /** What is there already is there at once; nothing else ever comes. */
  async waitFor(revision: number, signal: AbortSignal): Promise<void> {
    if (revision <= this.#revision) return;
    await new Promise<void>((_, reject) => {
      signal.addEventListener('abort', () => reject(new Error('aborted')), { once: true });
      if (signal.aborted) reject(new Error('aborted'));
    });
  }
}

async function subscribed(
  t: TestContext,
  view: FakeView,
  headers: Readonly<Record<string, string>>,
  signal: AbortSignal = new AbortController().signal,
): Promise<AsyncIterator<Uint8Array>> {
  // oxlint-disable-next-line no-unsafe-type-assertion -- the route uses these two and nothing else
  const ports = { view, heartbeatMs: 1 } as unknown as DoorPorts;
  const [route] = subscribeRoutes(ports);
  assert.ok(route !== undefined);
  // oxlint-disable-next-line no-unsafe-type-assertion -- as above
  const request = {
    query: () => undefined,
    header: (name: string) => headers[name],
    signal,
  } as unknown as Request;
  const reply = await route.handle(request);
  assert.ok('bytes' in reply && !(reply.bytes instanceof Uint8Array));
  const stream = reply.bytes[Symbol.asyncIterator]();
  t.after(() => stream.return?.());
  return stream;
}

async function next(stream: AsyncIterator<Uint8Array>): Promise<string> {
  const { value, done } = await stream.next();
  assert.notEqual(done, true);
  return fromUtf8(value);
}
