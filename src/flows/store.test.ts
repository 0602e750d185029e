import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import * as fc from 'fast-check';
import { rawBlock } from '../core/block.ts';
import { utf8 } from '../core/bytes.ts';
import { HoldfastError, isHoldfastError } from '../core/errors.ts';
import { type Candidate, storeBlock, type StorePorts } from './store.ts';

const block = rawBlock(utf8('content'));

/** How a node behaves: takes it, refuses it, or never answers. */
type Node = 'good' | 'bad' | 'frozen';

interface World extends StorePorts {
  readonly asked: string[];
  readonly aborted: string[];
  /** How often the hedge delay was waited for. */
  delays: number;
}

/** Nodes a, b, c… in placement order. Time passes only when nothing else can happen. */
function world(nodes: readonly Node[], existing = nodes.length): World {
  const asked: string[] = [];
  const aborted: string[] = [];
  const made: World = {
    asked,
    aborted,
    delays: 0,
    candidates: () => nodes.map((_, index): Candidate => ({ peer: nameOf(index), zone: `z${index % 3}` })),
    nodesCount: () => existing,
    push: async (peer, _block, signal) => {
      asked.push(peer);
      const node = nodes[indexOf(peer)];
      if (node === 'bad') throw new HoldfastError('DISK_FULL', 'full');
      if (node === 'frozen')
        await new Promise((_, reject) => {
          signal.addEventListener('abort', () => {
            aborted.push(peer);
            reject(new Error('aborted'));
          });
        });
    },
    delay: async (_ms, signal) => {
      await new Promise((resolve) => setImmediate(resolve));
      if (!signal.aborted) made.delays++;
      signal.throwIfAborted();
    },
  };
  return made;
}

const nameOf = (index: number): string => String.fromCharCode(97 + index);
const indexOf = (peer: string): number => peer.charCodeAt(0) - 97;
const store = (ports: StorePorts, copies: number, enough?: number) =>
  storeBlock(ports, block, copies, { hedgeAfterMs: 1, ...(enough === undefined ? {} : { enough }) });
const peersOf = (holders: readonly Candidate[]): string => holders.map(({ peer }) => peer).join('');

test('stores on the first nodes in their order, and asks no others', async () => {
  const ports = world(['good', 'good', 'good', 'good', 'good']);
  const receipt = await store(ports, 3);
  assert.equal(peersOf(receipt.holders), 'abc');
  assert.equal(receipt.wanted, 3);
  assert.deepEqual(ports.asked, ['a', 'b', 'c']);
});

describe('when nodes misbehave', () => {
  test('one that refuses is replaced by the next at once', async () => {
    const ports = world(['good', 'bad', 'good', 'good']);
    assert.equal(peersOf((await store(ports, 3)).holders), 'acd');
    assert.equal(ports.delays, 0);
  });

  test('one that is slow gets company, and is let go of when its place is taken', async () => {
    const ports = world(['frozen', 'good', 'good', 'good', 'good']);
    assert.equal(peersOf((await store(ports, 3)).holders), 'bcd');
    assert.equal(ports.delays, 1);
    assert.deepEqual(ports.aborted, ['a']);
    assert.ok(!ports.asked.includes('e'));
  });

  test('with nobody left to ask, a slow one costs one more delay beyond what is enough, not a time-out', async () => {
    const ports = world(['good', 'good', 'frozen', 'good', 'good']);
    const receipt = await store(ports, 5, 3);
    assert.equal(peersOf(receipt.holders), 'abde');
    assert.equal(receipt.wanted, 5);
    assert.equal(ports.delays, 1);
  });

  test('below what is enough a slow one is waited for', async () => {
    const ports = world(['good', 'good', 'frozen']);
    const outcome = await Promise.race([
      store(ports, 3).then(() => 'gave up'),
      new Promise((resolve) => setTimeout(resolve, 50, 'still waiting')),
    ]);
    assert.equal(outcome, 'still waiting');
  });
});

describe('too few nodes', () => {
  test('fewer than wanted, but two: short, and said so', async () => {
    const receipt = await store(world(['good', 'bad', 'good']), 3);
    assert.equal(receipt.holders.length, 2);
    assert.equal(receipt.wanted, 3);
  });

  test('one of many is no quorum; the error names who failed and why', async () => {
    await assert.rejects(store(world(['good', 'bad', 'bad']), 3), (error) => {
      assert.ok(isHoldfastError(error, 'QUORUM_UNAVAILABLE'));
      assert.match(error.message, /b: full; c: full/);
      assert.deepEqual(error.details['got'], 1);
      return true;
    });
  });

  test('one reachable of several is no quorum either', async () => {
    await assert.rejects(store(world(['good'], 5), 3), { code: 'QUORUM_UNAVAILABLE' });
  });

  test('one is enough where only one exists', async () => {
    assert.equal((await store(world(['good'], 1), 1)).holders.length, 1);
  });

  test('none is never enough', async () => {
    await assert.rejects(store(world([], 1), 1), /no storage node is reachable/);
  });
});

test('as many holders as nodes allow, each once, never one that failed', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.constantFrom<Node>('good', 'bad'), { maxLength: 8 }),
      fc.integer({ min: 1, max: 6 }),
      async (nodes, copies) => {
        const good = nodes.filter((node) => node === 'good').length;
        const floor = Math.max(1, Math.min(2, nodes.length, copies));
        const attempt = store(world(nodes), copies);
        if (good < floor) return assert.rejects(attempt, { code: 'QUORUM_UNAVAILABLE' });
        const { holders } = await attempt;
        assert.equal(holders.length, Math.min(good, copies));
        assert.equal(new Set(holders.map(({ peer }) => peer)).size, holders.length);
        for (const { peer } of holders) assert.equal(nodes[indexOf(peer)], 'good');
      },
    ),
  );
});
