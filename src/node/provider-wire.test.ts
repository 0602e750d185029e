import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { concat } from '../core/bytes.ts';
import { isHoldfastError } from '../core/errors.ts';
import { decodeKadMessage, encodeKadMessage, KadFrames, kadType } from './provider-wire.ts';

test('an ADD_PROVIDER has the bytes of the public schema', () => {
  const bytes = encodeKadMessage({
    type: kadType.addProvider,
    key: Uint8Array.of(0x12, 0x01, 0xaa),
    providers: [{ id: Uint8Array.of(0x01), addrs: [Uint8Array.of(0x02, 0x03)] }],
  });
  assert.equal(
    Buffer.from(bytes).toString('hex'),
    ['10', '0802', '12031201aa', '4a07', '0a0101', '12020203'].join(''),
  );
});

test('a PING is three bytes', () => {
  assert.deepEqual([...encodeKadMessage({ type: kadType.ping })], [2, 8, 5]);
});

const peer = fc.record({ id: bytesOf(1, 40), addrs: fc.array(bytesOf(1, 60), { maxLength: 4 }) });
const message = fc.record({
  type: fc.integer({ min: 0, max: 5 }),
  key: bytesOf(1, 64),
  closer: fc.array(peer, { maxLength: 4 }),
  providers: fc.array(peer, { maxLength: 4 }),
});

test('messages survive any cutting of the stream', () => {
  fc.assert(
    fc.property(fc.array(message, { maxLength: 6 }), fc.integer({ min: 1, max: 50 }), (messages, step) => {
      const stream = concat(...messages.map(encodeKadMessage));
      const frames = new KadFrames();
      const read = [];
      for (let at = 0; at < stream.length; at += step)
        read.push(...frames.push(stream.subarray(at, at + step)));
      assert.deepEqual(read.map(plain), messages.map(plain));
    }),
  );
});

test('any bytes at all either decode or are refused with a reason', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      try {
        decodeKadMessage(bytes);
      } catch (error) {
        assert.ok(isHoldfastError(error, 'PEER_REFUSED'), String(error));
      }
    }),
  );
});

test('an announced length over the bound is refused before it is waited for', () => {
  assert.throws(() => new KadFrames().push(Uint8Array.of(0xff, 0xff, 0xff, 0xff, 0x0f)), /malformed/);
});

test('more addresses than a peer may have are refused', () => {
  const addrs = Array.from({ length: 17 }, () => Uint8Array.of(1));
  const bytes = encodeKadMessage({ type: 2, providers: [{ id: Uint8Array.of(1), addrs }] });
  assert.throws(() => new KadFrames().push(bytes), /more than 16/);
});

function bytesOf(minLength: number, maxLength: number): fc.Arbitrary<Uint8Array> {
  return fc.uint8Array({ minLength, maxLength }).map((bytes) => new Uint8Array(bytes));
}

// Plain arrays compare by content, whatever buffer the bytes are a view of.
function plain(value: unknown): unknown {
  return JSON.parse(JSON.stringify(value, (_, item) => (item instanceof Uint8Array ? [...item] : item)));
}
