import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { concat } from '../core/bytes.ts';
import { HoldfastError, isHoldfastError } from '../core/errors.ts';
import { rpcBodyBytesMax } from '../core/limits.ts';
import {
  amountOf,
  decodeCall,
  decodeError,
  emptyBytes,
  encodeCall,
  encodeError,
  type Frame,
  frameBytes,
  frameHeader,
  FrameReader,
  frameTypes,
  helloFrame,
  parseHello,
  smallFrame,
} from './rpc-frames.ts';

const call: Frame = {
  type: frameTypes.request,
  id: 0xfedc_ba98,
  head: encodeCall('block.put', { a: 1 }),
  body: new Uint8Array(1000).fill(7),
};

function readAll(chunks: readonly Uint8Array[]): Frame[] {
  const reader = new FrameReader();
  return chunks.flatMap((chunk) => [...reader.push(chunk)]);
}

test('a frame is read back whole', () => {
  assert.deepEqual(readAll([frameBytes(call)]), [call]);
  assert.deepEqual(decodeCall(call.head), { method: 'block.put', head: { a: 1 } });
  assert.equal(amountOf(smallFrame(frameTypes.itemCredit, 3, 4_000_000_000)), 4_000_000_000);
  const hello = { v: 1, lane: 'bulk', link: 'ab'.repeat(16), requestWindow: 5, itemWindow: 6 } as const;
  assert.deepEqual(parseHello(helloFrame(hello)), hello);
});

test('the numbers of the types are their places in the table of bounds', () => {
  assert.deepEqual(
    Object.values(frameTypes),
    Object.values(frameTypes).map((_, index) => index),
  );
});

test('an error keeps code, message and details; an unknown code becomes PEER_REFUSED', () => {
  const error = new HoldfastError('VERSION_CONFLICT', 'newer', {
    details: { expected: 1, current: 2, keys: ['a'] },
  });
  const back = decodeError(encodeError(error));
  assert.deepEqual([back.code, back.message, back.details], [error.code, error.message, error.details]);
  const huge = new HoldfastError('INTERNAL', 'x'.repeat(50_000), { details: { note: 'y'.repeat(50_000) } });
  assert.equal(decodeError(encodeError(huge)).message.length, 2000);
});

test('a header that announces too much is refused before its bytes come', () => {
  const header = frameHeader(call);
  new DataView(header.buffer).setUint32(8, rpcBodyBytesMax + 1);
  assert.throws(
    () => readAll([header]),
    (error) => isHoldfastError(error, 'RECORD_INVALID'),
  );
  const ping = frameHeader({ ...call, type: frameTypes.ping, head: emptyBytes });
  assert.throws(() => readAll([ping]), /type 10 with a head of 0 and a body of 1000 bytes/);
});

const anyFrame: fc.Arbitrary<Frame> = fc.oneof(
  fc
    .tuple(
      fc.constantFrom(frameTypes.request, frameTypes.response, frameTypes.item, frameTypes.subscribe),
      fc.nat(0xffff_ffff),
      fc.uint8Array({ maxLength: 300 }),
      fc.uint8Array({ maxLength: 3000 }),
    )
    .map(([type, id, head, body]) => ({ type, id, head, body })),
  fc.nat(0xffff_ffff).map((id) => smallFrame(frameTypes.cancel, id)),
  fc.nat(0xffff_ffff).map((amount) => smallFrame(frameTypes.requestCredit, 0, amount)),
);

test('however the bytes are cut, the same frames come out', () => {
  fc.assert(
    fc.property(
      fc.array(anyFrame, { maxLength: 8 }),
      fc.array(fc.nat(400), { maxLength: 60 }),
      (frames, cuts) => {
        const bytes = concat(...frames.map(frameBytes));
        const chunks: Uint8Array[] = [];
        let at = 0;
        for (const cut of cuts) {
          chunks.push(bytes.subarray(at, at + cut));
          at += cut;
        }
        assert.deepEqual(readAll([...chunks, bytes.subarray(at)]), frames);
      },
    ),
  );
});

test('noise ends in RECORD_INVALID or in a wait for more, and nothing larger than one frame is held', () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 200 }), { maxLength: 20 }), (chunks) => {
      try {
        for (const frame of readAll(chunks)) assert.ok(frame.body.length <= rpcBodyBytesMax);
      } catch (error) {
        assert.ok(isHoldfastError(error, 'RECORD_INVALID'), String(error));
      }
    }),
    { numRuns: 1000 },
  );
});

test('noise in the heads is RECORD_INVALID too', () => {
  const parsers = [
    decodeCall,
    decodeError,
    (head: Uint8Array) => parseHello({ ...call, type: frameTypes.hello, head }),
  ];
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 100 }), fc.constantFrom(...parsers), (bytes, parse) => {
      try {
        parse(bytes);
      } catch (error) {
        assert.ok(isHoldfastError(error, 'RECORD_INVALID'), String(error));
      }
    }),
    { numRuns: 1000 },
  );
});
