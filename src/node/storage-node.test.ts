import assert from 'node:assert/strict';
import { test } from 'node:test';
import { cborBlock, rawBlock } from '../core/block.ts';
import { concat, sameBytes, utf8 } from '../core/bytes.ts';
import { sha256, signerFromSeed } from '../core/hash.ts';
import type { RpcMessage } from '../core/rpc.ts';
import { type Cluster, startCluster } from '../../test/helpers/dht-cluster.ts';

const block = rawBlock(utf8('a decision'));

/** Two nodes, a steward and a door; `call` speaks to the first node as one of them. */
async function withCluster(
  work: (
    call: (
      who: 'steward' | 'door' | 'node',
      method: string,
      message: RpcMessage,
    ) => Promise<Record<string, unknown>>,
    cluster: Cluster,
  ) => Promise<void>,
): Promise<void> {
  const others = [
    { name: 'steward', role: 'steward' },
    { name: 'door', role: 'door' },
  ] as const;
  await using cluster = await startCluster({ names: ['first', 'second'], others });
  const [first, second] = cluster.nodes;
  const [steward, door] = cluster.others;
  assert.ok(first && second && steward && door);
  const callers = { steward, door, node: second.peer };
  await work(async (who, method, message) => {
    const { head, body } = await callers[who].rpc.call(first.peer.name, method, message, { lane: 'bulk' });
    return { ...Object(head), body };
  }, cluster);
}

test('who may do what: nodes obey stewards, take from doors, and show members', () =>
  withCluster(async (call) => {
    const put = { head: { cid: block.cid }, body: block.bytes };
    await assert.rejects(call('node', 'block.put', put), { code: 'FORBIDDEN' });
    assert.equal((await call('door', 'block.put', put))['result'], 'stored');
    assert.equal((await call('steward', 'block.put', put))['result'], 'present');
    for (const who of ['node', 'door', 'steward'] as const) {
      assert.deepEqual(
        (await call(who, 'block.get', { head: { cid: block.cid } }))['body'],
        Uint8Array.from(block.bytes),
      );
      assert.deepEqual((await call(who, 'block.has', { head: { cids: [block.cid] } }))['have'], [true]);
    }
    for (const who of ['node', 'door'] as const) {
      for (const [method, head] of [
        ['block.delete', { cids: [block.cid], reason: 'test' }],
        ['block.pull', { cid: block.cid, from: [] }],
        ['node.beat', { beat: { beat_index: 1 }, journal: { epoch: null, seq: 0 } }],
      ] as const) {
        await assert.rejects(call(who, method, { head }), { code: 'FORBIDDEN' }, `${who} ${method}`);
      }
    }
  }));

test('a block that was put is announced, a deleted one withdrawn', () =>
  withCluster(async (call, { nodes }) => {
    const [first, second] = nodes;
    assert.ok(first && second);
    await call('door', 'block.put', { head: { cid: block.cid }, body: block.bytes });
    await first.node.providers.settled();
    assert.deepEqual(
      (await second.node.providers.find(block.cid)).map(({ peer }) => peer),
      [first.peer.name],
    );
    assert.equal(
      (await call('steward', 'block.delete', { head: { cids: [block.cid], reason: 'test' } }))['deleted'],
      1,
    );
    await first.node.providers.settled();
    assert.deepEqual(await second.node.providers.find(block.cid), []);
    assert.equal((await call('node', 'block.get', { head: { cid: block.cid } }))['found'], false);
  }));

test('a pull fetches from the sources named, verifies and stores; a failure has a reason', () =>
  withCluster(async (call, { nodes }) => {
    const [first, second] = nodes;
    assert.ok(first && second);
    const head = { cid: block.cid, from: [second.peer.name] };
    const failed = await call('steward', 'block.pull', { head });
    assert.deepEqual([failed['result'], typeof failed['reason']], ['failed', 'string']);
    await second.blocks.put(block.cid, block.bytes);
    assert.equal((await call('steward', 'block.pull', { head }))['result'], 'stored');
    assert.equal((await call('steward', 'block.pull', { head }))['result'], 'present');
    assert.ok(sameBytes((await first.blocks.get(block.cid)) ?? utf8('absent'), block.bytes));
  }));

test('a challenge is answered from the bytes, or with null', () =>
  withCluster(async (call, { nodes }) => {
    const nonce = new Uint8Array(32).fill(3);
    const head = { cid: block.cid, nonce };
    assert.equal((await call('node', 'node.challenge', { head }))['answer'], null);
    await nodes[0]?.blocks.put(block.cid, block.bytes);
    const answer = (await call('node', 'node.challenge', { head }))['answer'];
    assert.deepEqual(answer, Uint8Array.from(sha256(concat(nonce, block.bytes))));
  }));

test('many challenges are answered in the order asked, to the steward only', () =>
  withCluster(async (call, { nodes }) => {
    const nonce = new Uint8Array(32).fill(3);
    await nodes[0]?.blocks.put(block.cid, block.bytes);
    const absent = rawBlock(utf8('not here')).cid;
    const head = { cids: [absent, block.cid, absent], nonce };
    const { answers } = await call('steward', 'node.challenges', { head });
    const answer = Uint8Array.from(sha256(concat(nonce, block.bytes)));
    assert.deepEqual(answers, [null, answer, null]);
    await assert.rejects(call('node', 'node.challenges', { head }), { code: 'FORBIDDEN' });
  }));

test('a beat brings the journal: reset, then the changes, then nothing', () =>
  withCluster(async (call, { nodes }) => {
    const beat = (index: number, journal: unknown) =>
      call('steward', 'node.beat', { head: { beat: { beat_index: index }, journal } });
    const first = await beat(1, { epoch: null, seq: 0 });
    assert.equal(first['reset'], true);
    await call('door', 'block.put', { head: { cid: block.cid }, body: block.bytes });
    const second = await beat(2, { epoch: first['epoch'], seq: first['seq'] });
    assert.deepEqual(
      [second['reset'], second['more'], JSON.stringify(second['changes'])],
      [false, false, JSON.stringify([{ op: 'add', cid: block.cid, size: block.bytes.length }])],
    );
    const third = await beat(3, { epoch: second['epoch'], seq: second['seq'] });
    assert.deepEqual([third['changes'], Object(third['digest']).count], [[], 1]);
    await nodes[0]?.node.providers.settled();
    const status = await nodes[0]?.node.status();
    assert.deepEqual([status?.beat?.index, status?.usage.blocks, status?.providers.own], [3, 1, 1]);
  }));

test('a list goes on where it ended; records are only signed records', () =>
  withCluster(async (call, { nodes, others }) => {
    const [first] = nodes;
    const steward = others[0];
    assert.ok(first && steward);
    const signer = signerFromSeed(new Uint8Array(32).fill(4));
    const signed = cborBlock({ r: { kind: 'kek' }, s: signer.sign(utf8('form only')) });
    for (const each of [block, rawBlock(utf8('another')), cborBlock({ t: 'index' }), signed]) {
      await first.blocks.put(each.cid, each.bytes);
    }
    const listed: string[] = [];
    for (let after: unknown = null, done: unknown = false; done !== true; ) {
      const page = await call('node', 'block.list', { head: { after, limit: 3 } });
      const cids: { cid: unknown }[] = Array.isArray(page['cids']) ? page['cids'] : [];
      listed.push(...cids.map(({ cid }) => String(cid)));
      after = cids.at(-1)?.cid;
      done = page['done'];
    }
    assert.equal(new Set(listed).size, 4);
    const records = [];
    for await (const { body } of steward.rpc.stream(first.peer.name, 'block.records', { head: {} }))
      records.push(body);
    assert.deepEqual(records, [Uint8Array.from(signed.bytes)]);
  }));

test('input out of bounds is refused by the name of the field', () =>
  withCluster(async (call) => {
    for (const [method, head, what] of [
      ['block.get', { cid: 'text' }, /cid/],
      ['block.has', { cids: Array.from({ length: 1025 }, () => block.cid) }, /cids/],
      ['block.list', { after: null, limit: 5000 }, /limit/],
      ['node.challenge', { cid: block.cid, nonce: new Uint8Array(8) }, /nonce/],
      ['provide.find', { digest: new Uint8Array(8) }, /digest/],
    ] as const) {
      await assert.rejects(call('node', method, { head }), { code: 'ARGUMENT_INVALID', message: what });
    }
    const batch = { head: { addrs: [] }, body: new Uint8Array(33) };
    await assert.rejects(call('node', 'provide.batch', batch), { code: 'ARGUMENT_INVALID' });
  }));

test('after a crash own records and blocks are brought together, and what was missed is announced', async () => {
  const lost = rawBlock(utf8('lost'));
  await using cluster = await startCluster({
    names: ['first', 'second'],
    prepare: async (name, blocks, records) => {
      if (name !== 'first') return;
      await blocks.put(block.cid, block.bytes);
      await records.addOwn([lost.cid]);
    },
  });
  const [first, second] = cluster.nodes;
  assert.ok(first && second);
  await first.node.reconciled;
  await first.node.providers.settled();
  assert.deepEqual(
    [await first.records.hasOwn(block.cid.multihash.digest), first.records.counts().own],
    [true, 1],
  );
  assert.equal((await second.node.providers.find(block.cid)).length, 1);
  assert.equal((await second.node.providers.find(lost.cid)).length, 0);
});
