import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { HoldfastError } from '../core/errors.ts';
import { CustodyRelay } from './custody-relay.ts';
import type { RelayedAnswer } from './door-client.ts';

const request = Uint8Array.of(1);
const bytesOf = (peer: string): Uint8Array => new TextEncoder().encode(peer);
const overloaded = new HoldfastError('RATE_LIMITED', 'overloaded');

type Answering = (peers: readonly string[], signal: AbortSignal) => AsyncGenerator<RelayedAnswer>;

/** A door that answers as `answering` says; what it was asked in one call is in `calls`. */
function doorOf(answering: Answering): { readonly relay: CustodyRelay; readonly calls: string[][] } {
  const calls: string[][] = [];
  const custodyRelay = (peers: readonly string[], _: Uint8Array, { signal }: { signal?: AbortSignal }) => {
    calls.push([...peers]);
    assert.ok(signal !== undefined);
    return answering(peers, signal);
  };
  return { relay: new CustodyRelay({ custodyRelay }), calls };
}

async function* everybody(peers: readonly string[]): AsyncGenerator<RelayedAnswer> {
  for (const peer of peers.toReversed()) yield { peer, answer: bytesOf(peer) };
}

describe('custodians through a door', () => {
  const { signal } = new AbortController();

  it('are asked together by who asks the same in the same moment, and each has its own answer', async () => {
    const { relay, calls } = doorOf(everybody);
    const asked = ['a', 'b', 'c'].map((peer) => relay.ask(peer, request, signal));
    const other = relay.ask('d', Uint8Array.of(2), signal);
    assert.deepEqual(await Promise.all(asked), ['a', 'b', 'c'].map(bytesOf));
    assert.deepEqual(await other, bytesOf('d'));
    await relay.ask('a', request, signal);
    assert.deepEqual(calls, [['a', 'b', 'c'], ['d'], ['a']]);
  });

  it('have an answer as soon as it comes, whoever is silent', async () => {
    const silent = Promise.withResolvers<void>();
    const { relay } = doorOf(async function* ([first = '', ...rest]) {
      yield { peer: first, answer: bytesOf(first) };
      await silent.promise;
      yield* everybody(rest);
    });
    const asked = ['a', 'b'].map((peer) => relay.ask(peer, request, signal));
    assert.deepEqual(await asked[0], bytesOf('a'));
    silent.resolve();
    assert.deepEqual(await asked[1], bytesOf('b'));
  });

  it('fail one by one, and all that are left when the call fails or ends without them', async () => {
    const refusal = new HoldfastError('FORBIDDEN', 'no');
    const { relay } = doorOf(async function* (peers) {
      yield { peer: 'a', error: refusal };
      if (peers.includes('broken')) throw new HoldfastError('TIMEOUT', 'broke off');
    });
    for (const [second, code] of [
      ['broken', 'TIMEOUT'],
      ['left out', 'PEER_UNREACHABLE'],
    ] as const) {
      const asked = ['a', second].map((peer) => relay.ask(peer, request, signal));
      const [a, b] = await Promise.allSettled(asked);
      assert.ok(a?.status === 'rejected' && a.reason === refusal);
      assert.ok(b?.status === 'rejected' && b.reason instanceof HoldfastError && b.reason.code === code);
    }
  });

  it('are asked again when they have too much to do, and not for ever', async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] });
    let busy = 2;
    const { relay, calls } = doorOf(async function* ([peer = '']) {
      yield busy-- > 0 ? { peer, error: overloaded } : { peer, answer: bytesOf(peer) };
    });
    const soon = async <T>(work: Promise<T>): Promise<T> => {
      const over = work.then(
        () => true,
        () => true,
      );
      const turn = (): Promise<boolean> => new Promise((resolve) => setImmediate(() => resolve(false)));
      while (!(await Promise.race([over, turn()]))) t.mock.timers.tick(100);
      return work;
    };
    assert.deepEqual(await soon(relay.ask('a', request, signal)), bytesOf('a'));
    assert.equal(calls.length, 3);
    busy = 100;
    await assert.rejects(soon(relay.ask('a', request, signal)), { code: 'RATE_LIMITED' });
    assert.equal(calls.length, 3 + 5);
  });

  it('are given up together, but not after the last answer: the connection is read to its end', async () => {
    const seen: boolean[] = [];
    let gate = Promise.withResolvers<void>();
    const { relay } = doorOf(async function* (peers, stop) {
      yield { peer: 'a', answer: bytesOf('a') };
      await gate.promise;
      seen.push(stop.aborted);
      stop.throwIfAborted();
      yield* everybody(peers.slice(1));
    });
    const leave = async (peers: readonly string[]): Promise<readonly PromiseSettledResult<Uint8Array>[]> => {
      const enough = new AbortController();
      gate = Promise.withResolvers<void>();
      const asked = peers.map((peer) => relay.ask(peer, request, enough.signal));
      await asked[0];
      enough.abort(new HoldfastError('TIMEOUT', 'enough'));
      gate.resolve();
      return Promise.allSettled(asked);
    };
    assert.deepEqual(
      (await leave(['a', 'b'])).map(({ status }) => status),
      ['fulfilled', 'rejected'],
    );
    await leave(['a']);
    await new Promise((resolve) => setImmediate(resolve));
    assert.deepEqual(seen, [true, false]);
  });
});
