import assert from 'node:assert/strict';
import { test } from 'node:test';
import { rawBlock } from '../core/block.ts';
import { utf8 } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import { fetchBlock, type FetchPorts } from './fetch.ts';

const block = rawBlock(utf8('content'));
const never = new AbortController().signal;

/** `has`: nodes with the block. What is asked of whom is written down. */
function world(
  has: readonly string[],
  overrides: Partial<FetchPorts> = {},
): FetchPorts & { asked: string[] } {
  const asked: string[] = [];
  return {
    asked,
    placed: () => ['a', 'b'],
    holders: async () => ['b', 'c'],
    providers: async () => ['c', 'd'],
    fetch: async (_cid, sources) => {
      asked.push(sources.join(''));
      return sources.some((source) => has.includes(source)) ? block : undefined;
    },
    ...overrides,
  };
}

test('placement first: nobody else is looked up', async () => {
  const lookup = async (): Promise<never> => assert.fail('looked up without need');
  const ports = world(['b'], { holders: lookup, providers: lookup });
  assert.equal(await fetchBlock(ports, block.cid, never), block);
  assert.deepEqual(ports.asked, ['ab']);
});

test('then the proven holders, then the DHT, each node once', async () => {
  const ports = world(['d']);
  assert.equal(await fetchBlock(ports, block.cid, never), block);
  assert.deepEqual(ports.asked, ['ab', 'c', 'd']);
});

test('a dead steward is one source fewer', async () => {
  const holders = async (): Promise<never> => {
    throw new HoldfastError('PEER_UNREACHABLE', 'the steward is away');
  };
  assert.equal(await fetchBlock(world(['d'], { holders }), block.cid, never), block);
});

test('nowhere: the error names the block, who was asked and what failed', async () => {
  const holders = async (): Promise<never> => {
    throw new HoldfastError('PEER_UNREACHABLE', 'the steward is away');
  };
  await assert.rejects(fetchBlock(world([], { holders }), block.cid, never), (error) => {
    assert.ok(error instanceof HoldfastError && error.code === 'BLOCK_UNAVAILABLE');
    assert.ok(error.message.includes(block.cid.toString()));
    assert.match(error.message, /steward: the steward is away/);
    assert.deepEqual(error.details['asked'], ['a', 'b', 'c', 'd']);
    return true;
  });
});

test('who leaves is not served: the reason of the signal is thrown, and no further source asked', async () => {
  const stop = new AbortController();
  const ports = world([], {
    fetch: async () => {
      stop.abort(new Error('left'));
      throw new Error('cut off');
    },
  });
  await assert.rejects(fetchBlock(ports, block.cid, stop.signal), /left/);
  await assert.rejects(fetchBlock(world(['a']), block.cid, stop.signal), /left/);
});
