import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Block, type CID, rawBlock } from '../core/block.ts';
import { utf8 } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import { blockBytesMax } from '../core/limits.ts';
import type { PeerName, RpcCallOptions, RpcClient, RpcMessage } from '../core/rpc.ts';
import { ByteWindow, createExchange } from './exchange.ts';

type Answer = (cid: CID, options: RpcCallOptions) => Promise<RpcMessage>;

/** An RpcClient whose peers are functions; it writes down who was asked. */
function peers(answers: Readonly<Record<PeerName, Answer>>): { rpc: RpcClient; asked: PeerName[] } {
  const asked: PeerName[] = [];
  const rpc: RpcClient = {
    async call(peer, _method, message, options = {}) {
      asked.push(peer);
      const answer = answers[peer];
      if (answer === undefined) throw new HoldfastError('PEER_UNREACHABLE', `no ${peer}`);
      const { head, body } = await answer(Reflect.get(Object(message.head), 'cid'), options);
      return { head, body: body ?? new Uint8Array(0) };
    },
    stream() {
      throw new HoldfastError('INTERNAL', 'the exchange uses no streams');
    },
  };
  return { rpc, asked };
}

const block = rawBlock(utf8('a decision'));
const gives =
  (bytes: Uint8Array): Answer =>
  async () => ({ head: { found: true }, body: bytes });
const hasNot: Answer = async () => ({ head: { found: false } });
const silent: Answer = (_cid, { signal }) =>
  new Promise((_resolve, reject) => {
    signal?.addEventListener('abort', () => reject(new HoldfastError('TIMEOUT', 'aborted')), { once: true });
  });

test('small blocks that come while a node is busy share its next call', async () => {
  const sizes: number[] = [];
  const answers: (() => void)[] = [];
  const rpc: RpcClient = {
    async call(_peer, method, { head }) {
      assert.equal(method, 'block.putMany');
      const listed: unknown = Reflect.get(Object(head), 'blocks');
      assert.ok(Array.isArray(listed));
      sizes.push(listed.length);
      await new Promise<void>((resolve) => answers.push(resolve));
      return { head: { results: listed.map(() => 'stored') }, body: new Uint8Array(0) };
    },
    stream() {
      throw new HoldfastError('INTERNAL', 'the exchange uses no streams');
    },
  };
  const exchange = createExchange(rpc);
  const pushed: Promise<unknown>[] = [];
  const push = async (text: string): Promise<void> => {
    pushed.push(exchange.pushBlock('a', rawBlock(utf8(text))));
    for (let turn = 0; turn < 3; turn++) await new Promise((resolve) => setImmediate(resolve));
  };
  for (let n = 0; n < 8; n++) await push(`block ${n}`);
  assert.deepEqual(sizes, [1, 1], 'two calls under way');
  answers.shift()?.();
  for (let turn = 0; turn < 3; turn++) await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(sizes, [1, 1, 6]);
  for (const answer of answers) answer();
  assert.deepEqual(new Set(await Promise.all(pushed)), new Set(['stored']));
});

test('one source is asked, and no other when it answers', async () => {
  const { rpc, asked } = peers({ a: gives(block.bytes), b: gives(block.bytes) });
  assert.deepEqual(await createExchange(rpc).fetchBlock(block.cid, ['a', 'b']), block);
  assert.deepEqual(asked, ['a']);
});

test('a source that has it not, or fails, is followed by the next at once', async () => {
  const { rpc, asked } = peers({ a: hasNot, c: gives(block.bytes) });
  const found = await createExchange(rpc).fetchBlock(block.cid, ['a', 'b', 'c'], { hedgeAfterMs: 60_000 });
  assert.deepEqual([found, asked], [block, ['a', 'b', 'c']]);
});

test('a silent source gets company after the hedge delay, and is let go when the other wins', async () => {
  let released = false;
  const { rpc, asked } = peers({
    a: (cid, options) => {
      options.signal?.addEventListener('abort', () => (released = true));
      return silent(cid, options);
    },
    b: gives(block.bytes),
  });
  const exchange = createExchange(rpc);
  assert.deepEqual(await exchange.fetchBlock(block.cid, ['a', 'b'], { hedgeAfterMs: 5 }), block);
  assert.deepEqual([asked, released, exchange.status().hedgedCount], [['a', 'b'], true, 1]);
});

test('wrong bytes are reported, replaced by another source, and never asked for again', async () => {
  const wrong: string[] = [];
  const { rpc, asked } = peers({ liar: gives(utf8('something else')), b: gives(block.bytes) });
  const exchange = createExchange(rpc, {
    onWrongBytes: ({ peer, cid }) => wrong.push(`${peer} ${cid.toString()}`),
  });
  assert.deepEqual(await exchange.fetchBlock(block.cid, ['liar', 'b']), block);
  assert.deepEqual(await exchange.fetchBlock(block.cid, ['liar', 'b']), block);
  assert.deepEqual([asked, wrong], [['liar', 'b', 'b'], [`liar ${block.cid.toString()}`]]);
  assert.equal(await exchange.fetchBlock(block.cid, ['liar']), undefined);
});

test('nobody has it: undefined, not an error', async () => {
  const { rpc } = peers({ a: hasNot });
  assert.equal(await createExchange(rpc).fetchBlock(block.cid, ['a', 'gone']), undefined);
  assert.equal(await createExchange(rpc).fetchBlock(block.cid, []), undefined);
});

test('two callers share one transfer and the sources of both; one may leave', async () => {
  const { rpc, asked } = peers({ a: silent, b: gives(block.bytes) });
  const exchange = createExchange(rpc);
  const leave = new AbortController();
  const first = exchange.fetchBlock(block.cid, ['a'], { signal: leave.signal, hedgeAfterMs: 5 });
  const second = exchange.fetchBlock(block.cid, ['b'], { hedgeAfterMs: 60_000 });
  leave.abort(new HoldfastError('TIMEOUT', 'left'));
  await assert.rejects(first, /left/);
  assert.deepEqual(await second, block);
  assert.deepEqual(asked, ['a', 'b']);
  assert.equal(exchange.status().fetchesCount, 0);
});

test('when the last caller leaves, the transfer ends and gives its bytes back', async () => {
  const { rpc } = peers({ a: silent });
  const exchange = createExchange(rpc);
  const leave = new AbortController();
  const only = exchange.fetchBlock(block.cid, ['a'], { signal: leave.signal });
  await new Promise(setImmediate);
  assert.ok(exchange.status().windowUsedBytes > 0);
  leave.abort(new HoldfastError('TIMEOUT', 'left'));
  await assert.rejects(only, /left/);
  await new Promise(setImmediate);
  assert.equal(exchange.status().windowUsedBytes, 0);
  assert.equal(await createExchange(peers({ a: hasNot }).rpc).fetchBlock(block.cid, ['a']), undefined);
});

test('5,000 wants at once all arrive, and no more are under way than the window holds', async () => {
  const blocks = new Map<string, Block>();
  for (let i = 0; i < 5000; i++) {
    const each = rawBlock(utf8(`block ${i}`));
    blocks.set(each.cid.toString(), each);
  }
  let underway = 0;
  let busiest = 0;
  const { rpc } = peers({
    a: async (cid) => {
      busiest = Math.max(busiest, ++underway);
      await new Promise(setImmediate);
      underway--;
      return { head: { found: true }, body: blocks.get(cid.toString())?.bytes ?? new Uint8Array(0) };
    },
  });
  const exchange = createExchange(rpc, { windowBytes: 16 * blockBytesMax });
  const found = await Promise.all([...blocks.values()].map(({ cid }) => exchange.fetchBlock(cid, ['a'])));
  assert.ok(found.every((each) => each !== undefined));
  assert.equal(busiest, 16);
  assert.equal(exchange.status().windowPeakBytes, 16 * blockBytesMax);
});

const large = rawBlock(new Uint8Array(70_000).fill(7));

test('a push says what the node did, and an answer that is none is an error', async () => {
  const { rpc } = peers({ a: async () => ({ head: { result: 'stored' } }), b: async () => ({ head: {} }) });
  const exchange = createExchange(rpc);
  assert.equal(await exchange.pushBlock('a', large), 'stored');
  for (const each of [large, block]) {
    await assert.rejects(exchange.pushBlock('b', each), { code: 'PEER_REFUSED' });
    await assert.rejects(exchange.pushBlock('gone', each), { code: 'PEER_UNREACHABLE' });
  }
  assert.equal(exchange.status().windowUsedBytes, 0);
});

test('small blocks of one moment share a call; each keeps its own answer', async () => {
  const seen: unknown[] = [];
  const answers = ['stored', { code: 'DISK_FULL', message: 'no space' }, 'present'];
  const rpc: RpcClient = {
    async call(peer, method, { head, body = new Uint8Array() }) {
      seen.push([peer, method, head, body.length]);
      return { head: { results: answers }, body: new Uint8Array() };
    },
    stream() {
      throw new HoldfastError('INTERNAL', 'the exchange uses no streams');
    },
  };
  const exchange = createExchange(rpc);
  const blocks = [1, 2, 3].map((n) => rawBlock(new Uint8Array(100 * n).fill(n)));
  const outcomes = await Promise.allSettled(blocks.map((each) => exchange.pushBlock('a', each)));
  assert.deepEqual(
    outcomes.map((each) => (each.status === 'fulfilled' ? each.value : each.reason.code)),
    ['stored', 'DISK_FULL', 'present'],
  );
  const listed = blocks.map(({ cid, bytes }) => ({ cid, size: bytes.length }));
  assert.deepEqual(seen, [['a', 'block.putMany', { blocks: listed }, 600]]);
  assert.equal(exchange.status().windowUsedBytes, 0);
});

test('the window lets in by order of arrival, one larger than itself alone, and forgets who left', async () => {
  const window = new ByteWindow(10);
  const release = await window.take(6);
  const order: string[] = [];
  const large = window.take(20).then((done) => (order.push('large'), done));
  const leave = new AbortController();
  const left = window.take(1, leave.signal);
  const small = window.take(2).then((done) => (order.push('small'), done));
  leave.abort(new HoldfastError('TIMEOUT', 'left'));
  await assert.rejects(left, /left/);
  assert.deepEqual(order, [], 'the small one would fit but came later');
  release();
  release();
  (await large)();
  (await small)();
  assert.deepEqual([order, window.usedBytes], [['large', 'small'], 0]);
});
