import assert from 'node:assert/strict';
import { it } from 'node:test';
import * as fc from 'fast-check';
import { someAppend } from '../../test/suites/beacon-log.suite.ts';
import { decodeGroup, encodeGroup } from './jetstream-message.ts';
import { findPlace } from './jetstream-place.ts';
import { emptyPosition, type LogEntry, type LogPosition, nextEntry } from './log.ts';

/** A stream whose messages hold as many entries as `sizes` say. */
function streamOf(sizes: readonly number[], name = 'a'): { messages: Uint8Array[]; entries: LogEntry[] } {
  const entries: LogEntry[] = [];
  const messages: Uint8Array[] = [];
  for (const size of sizes) {
    const before: LogPosition = entries.at(-1) ?? emptyPosition;
    const group: LogEntry[] = [];
    for (let index = 0; index < size; index++)
      group.push(nextEntry(group.at(-1) ?? before, someAppend(`${name}/${before.revision + index}`)));
    messages.push(encodeGroup(messages.length + 1, before, group));
    entries.push(...group);
  }
  return { messages, entries };
}

const sizes = fc.array(fc.integer({ min: 1, max: 5 }), { minLength: 1, maxLength: 30 });

it('finds the message with which a copy ends, or the one in whose midst it does', async () => {
  await fc.assert(
    fc.asyncProperty(sizes, fc.nat(), async (lengths, pick) => {
      const { messages, entries } = streamOf(lengths);
      const end = entries[pick % entries.length] ?? emptyPosition;
      let reads = 0;
      const read = async (sequence: number) => {
        reads++;
        return decodeGroup(sequence, messages[sequence - 1] ?? new Uint8Array());
      };
      const place = await findPlace(read, messages.length, end);
      // The plain way: count messages that end at the revision or before it.
      let [sequence, revision] = [0, 0];
      for (const size of lengths) {
        if (revision + size > end.revision) break;
        [sequence, revision] = [sequence + 1, revision + size];
      }
      assert.deepEqual(place, { kind: 'at', sequence, revision });
      assert(reads <= 2 + Math.ceil(Math.log2(messages.length)));
      const shorter = await findPlace(read, messages.length, { ...end, revision: entries.length + 1 });
      assert.deepEqual(shorter, { kind: 'behind', revision: entries.length });
    }),
    { numRuns: 60 },
  );
});

it('tells another history from its own, and an empty stream from one that is behind', async () => {
  const mine = streamOf([2, 2, 2]);
  const other = streamOf([2, 2, 2], 'b');
  const read = async (sequence: number) =>
    decodeGroup(sequence, other.messages[sequence - 1] ?? new Uint8Array());
  for (const [index, entry] of mine.entries.entries()) {
    const sequence = Math.floor(index / 2) + 1;
    assert.deepEqual(await findPlace(read, 3, entry), { kind: 'other', sequence });
    assert.deepEqual(await findPlace(read, 0, entry), { kind: 'behind', revision: 0 });
  }
  assert.deepEqual(await findPlace(read, 3, emptyPosition), { kind: 'at', sequence: 0, revision: 0 });
});

it('reads a message at its own place only, whole and unchanged', () => {
  const { messages, entries } = streamOf([1, 3]);
  const [, message] = messages;
  assert(message !== undefined);
  const group = decodeGroup(2, message);
  assert.deepEqual(
    group.entries.map(({ revision, chain }) => [revision, Buffer.from(chain)]),
    entries.slice(1).map(({ revision, chain }) => [revision, Buffer.from(chain)]),
  );
  assert.equal(group.end.revision, 4);
  assert.throws(() => decodeGroup(1, message), { code: 'RECORD_CORRUPT' });
  for (let at = 0; at < message.length; at += 11) {
    const changed = Uint8Array.from(message, (byte, index) => (index === at ? byte ^ 1 : byte));
    assert.throws(() => decodeGroup(2, changed), { code: 'RECORD_CORRUPT' });
    assert.throws(() => decodeGroup(2, message.subarray(0, at)), { code: 'RECORD_CORRUPT' });
  }
});
