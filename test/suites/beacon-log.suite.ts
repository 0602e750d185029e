// What every Beacon log must do: run by the tests of each engine, the memory engine being the model.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import * as fc from 'fast-check';
import {
  type Append,
  type BeaconLog,
  emptyPosition,
  expectAny,
  expectNone,
  type LogEntry,
  type RecallingLog,
  nextChain,
} from '../../src/beacon/log.ts';
import { MemoryLog } from '../../src/beacon/memory.ts';
import { sameBytes, utf8 } from '../../src/core/bytes.ts';
import { appendRecordsMax, recordBytesMax } from '../../src/core/limits.ts';

/** A new, empty log. `reopen`, where the engine keeps files: closes it and opens the same one again. */
export interface LogFixture extends AsyncDisposable {
  readonly log: BeaconLog;
  reopen?(): Promise<BeaconLog>;
}

/** An append with one small record; `more` replaces fields. */
export function someAppend(subject: string, more: Partial<Append> = {}): Append {
  return { subject, expected: expectAny, records: [{ key: subject, bytes: utf8(subject) }], at: 7, ...more };
}

/** All entries from `from` on. */
export async function entriesOf(log: BeaconLog, from = 1): Promise<LogEntry[]> {
  return collect(log.read(from));
}

export async function collect<Item>(items: AsyncIterable<Item>): Promise<Item[]> {
  const all: Item[] = [];
  for await (const item of items) all.push(item);
  return all;
}

function recalls(log: BeaconLog): log is RecallingLog {
  return 'recall' in log;
}

export function beaconLogSuite(name: string, create: () => Promise<LogFixture>): void {
  describe(`Beacon log: ${name}`, () => {
    it('starts empty', async () => {
      await using fixture = await create();
      assert.deepEqual(await fixture.log.head(), emptyPosition);
      assert.deepEqual(await entriesOf(fixture.log), []);
    });

    it('numbers entries from 1, chains them, and gives back what was appended', async () => {
      await using fixture = await create();
      const first = await fixture.log.append(someAppend('addr/a', { expected: expectNone, at: 1 }));
      const second = await fixture.log.append(someAppend('addr/b', { expected: expectNone, at: 2 }));
      assert.deepEqual([first.revision, second.revision], [1, 2]);
      assert(sameBytes(first.chain, nextChain(emptyPosition, first.payload)));
      assert(sameBytes(second.chain, nextChain(first, second.payload)));
      assert.deepEqual((await entriesOf(fixture.log)).map(comparable), [first, second].map(comparable));
      assert.deepEqual(await fixture.log.head(), { revision: 2, chain: second.chain });
    });

    it('refuses a writer whose picture of the subject is old, and says what is current', async () => {
      await using fixture = await create();
      const { revision } = await fixture.log.append(someAppend('addr/a', { expected: expectNone }));
      await assert.rejects(fixture.log.append(someAppend('addr/a', { expected: expectNone })), {
        code: 'VERSION_CONFLICT',
        details: { subject: 'addr/a', expected: 0, current: revision },
      });
      await assert.rejects(fixture.log.append(someAppend('addr/b', { expected: revision })), {
        code: 'VERSION_CONFLICT',
        details: { subject: 'addr/b', expected: 1, current: 0 },
      });
      await fixture.log.append(someAppend('addr/a', { expected: revision }));
      await fixture.log.append(someAppend('addr/a', { expected: expectAny }));
      assert.equal((await fixture.log.head()).revision, 3);
    });

    it('keeps up to 16 records of up to 64 KiB together', async () => {
      await using fixture = await create();
      const records = Array.from({ length: appendRecordsMax }, (_, index) => ({
        key: `env/${index}`,
        bytes: new Uint8Array(60_000).fill(index),
      }));
      await fixture.log.append({ subject: 'many', expected: expectAny, records, at: 1 });
      const [entry] = await entriesOf(fixture.log);
      assert.deepEqual(
        entry?.records.map(({ key, bytes }) => [key, bytes.length, bytes[0]]),
        records.map(({ key, bytes }) => [key, bytes.length, bytes[0]]),
      );
    });

    it('refuses malformed appends and stays as it was', async () => {
      await using fixture = await create();
      const record = { key: 'k', bytes: utf8('x') };
      const bad: [Partial<Append>, string][] = [
        [{ subject: '' }, 'ARGUMENT_INVALID'],
        [{ subject: 's'.repeat(5000) }, 'TOO_LARGE'],
        [{ expected: -2 }, 'ARGUMENT_INVALID'],
        [{ expected: 0.5 }, 'ARGUMENT_INVALID'],
        [{ at: -1 }, 'ARGUMENT_INVALID'],
        [{ id: new Uint8Array(15) }, 'ARGUMENT_INVALID'],
        [{ records: [] }, 'ARGUMENT_INVALID'],
        [{ records: Array.from({ length: appendRecordsMax + 1 }, () => record) }, 'ARGUMENT_INVALID'],
        [{ records: [{ key: '', bytes: utf8('x') }] }, 'ARGUMENT_INVALID'],
        [{ records: [{ key: 'k', bytes: new Uint8Array() }] }, 'ARGUMENT_INVALID'],
        [{ records: [{ key: 'k', bytes: new Uint8Array(recordBytesMax + 1) }] }, 'TOO_LARGE'],
        [
          {
            records: Array.from({ length: 16 }, () => ({ key: 'k', bytes: new Uint8Array(recordBytesMax) })),
          },
          'TOO_LARGE',
        ],
      ];
      for (const [fields, code] of bad) {
        await assert.rejects(
          fixture.log.append(someAppend('addr/a', fields)),
          { code },
          JSON.stringify(fields).slice(0, 80),
        );
      }
      assert.equal((await fixture.log.head()).revision, 0);
    });

    it('takes an append that is sent twice once', async () => {
      await using fixture = await create();
      const append = someAppend('addr/a', { expected: expectNone, id: new Uint8Array(16).fill(7) });
      const first = await fixture.log.append(append);
      await fixture.log.append(someAppend('addr/a'));
      assert.deepEqual(comparable(await fixture.log.append(append)), comparable(first));
      const [again, twin] = await Promise.all([
        fixture.log.append(someAppend('addr/c', { id: new Uint8Array(16).fill(8) })),
        fixture.log.append(someAppend('addr/c', { id: new Uint8Array(16).fill(8) })),
      ]);
      assert.equal(again.revision, twin.revision);
      assert.equal((await fixture.log.head()).revision, 3);
    });

    it('recalls what an append has made, where it can be asked', async () => {
      await using fixture = await create();
      const id = new Uint8Array(16).fill(7);
      const made = await fixture.log.append(someAppend('addr/a', { expected: expectNone, id }));
      await fixture.log.append(someAppend('addr/a', { expected: made.revision }));
      for (let log: BeaconLog | undefined = fixture.log; log !== undefined; ) {
        if (!recalls(log)) return;
        assert.equal((await log.recall(id))?.revision, made.revision);
        assert.equal(await log.recall(new Uint8Array(16).fill(8)), undefined);
        log = log === fixture.log ? await fixture.reopen?.() : undefined;
      }
    });

    it('reads from the middle and from beyond the end', async () => {
      await using fixture = await create();
      for (const subject of ['a', 'b', 'c']) await fixture.log.append(someAppend(subject));
      assert.deepEqual(
        (await entriesOf(fixture.log, 2)).map(({ subject }) => subject),
        ['b', 'c'],
      );
      assert.deepEqual(await entriesOf(fixture.log, 4), []);
      assert.deepEqual(await entriesOf(fixture.log, 9), []);
    });

    it('watches: what there is, then what comes, until the signal', async () => {
      await using fixture = await create();
      await fixture.log.append(someAppend('a'));
      const stop = new AbortController();
      const seen: string[] = [];
      const ready = Promise.withResolvers<void>();
      const watching = (async () => {
        for await (const { subject } of fixture.log.watch(1, { signal: stop.signal })) {
          seen.push(subject);
          if (seen.length === 1) ready.resolve();
          if (seen.length === 4) stop.abort();
        }
      })();
      await ready.promise;
      await fixture.log.append(someAppend('b'));
      await Promise.all([fixture.log.append(someAppend('c')), fixture.log.append(someAppend('d'))]);
      await watching;
      assert.deepEqual(seen, ['a', 'b', 'c', 'd']);
    });

    it('ends a watch that waits when its signal aborts', async () => {
      await using fixture = await create();
      const stop = new AbortController();
      const watching = collect(fixture.log.watch(1, { signal: stop.signal }));
      stop.abort();
      assert.deepEqual(await watching, []);
    });

    it('lets exactly one of 50 concurrent writers win each version of a subject', async () => {
      await using fixture = await create();
      for (let version = 0, expected = 0; version < 5; version++) {
        const outcomes = await Promise.allSettled(
          Array.from({ length: 50 }, (_, writer) =>
            fixture.log.append(someAppend('addr/hot', { expected, at: writer })),
          ),
        );
        const won = outcomes.filter((outcome) => outcome.status === 'fulfilled');
        assert.equal(won.length, 1);
        for (const outcome of outcomes) {
          if (outcome.status === 'rejected') assert.equal(outcome.reason.code, 'VERSION_CONFLICT');
        }
        expected = won[0]?.value.revision ?? -1;
      }
      assert.equal((await fixture.log.head()).revision, 5);
    });

    it('makes appends take effect in the order of the calls', async () => {
      await using fixture = await create();
      const subjects = Array.from({ length: 100 }, (_, index) => `s${index}`);
      await Promise.all(subjects.map((subject) => fixture.log.append(someAppend(subject))));
      assert.deepEqual(
        (await entriesOf(fixture.log)).map(({ subject }) => subject),
        subjects,
      );
    });

    it('behaves as the model does, restarts included', async () => {
      await fc.assert(
        fc.asyncProperty(fc.array(command, { maxLength: 25 }), (commands) =>
          agreesWithModel(create, commands),
        ),
        { numRuns: 12 },
      );
    });
  });
}

type Command = { readonly restart: true } | { readonly restart: false; readonly append: Append };

const command: fc.Arbitrary<Command> = fc.oneof(
  { weight: 1, arbitrary: fc.constant({ restart: true } as const) },
  {
    weight: 9,
    arbitrary: fc
      .record({
        subject: fc.constantFrom('addr/a', 'addr/ä', 'env/1'),
        expected: fc.integer({ min: -1, max: 6 }),
        at: fc.nat(),
        id: fc.option(fc.constantFrom(1, 2, 3), { nil: undefined }),
        size: fc.integer({ min: 1, max: 3000 }),
      })
      .map(({ subject, expected, at, id, size }) => ({
        restart: false as const,
        append: {
          subject,
          expected,
          at,
          records: [{ key: subject, bytes: new Uint8Array(size).fill(at % 251) }],
          ...(id === undefined ? {} : { id: new Uint8Array(16).fill(id) }),
        },
      })),
  },
);

async function agreesWithModel(
  create: () => Promise<LogFixture>,
  commands: readonly Command[],
): Promise<void> {
  await using fixture = await create();
  await using model = new MemoryLog();
  let log = fixture.log;
  for (const command of commands) {
    if (!command.restart) {
      assert.deepEqual(await outcomeOf(log, command.append), await outcomeOf(model, command.append));
    } else if (fixture.reopen !== undefined) {
      log = await fixture.reopen();
    }
  }
  assert.deepEqual((await entriesOf(log)).map(comparable), (await entriesOf(model)).map(comparable));
}

async function outcomeOf(log: BeaconLog, append: Append): Promise<unknown> {
  // Remote logs name every append; so does this, that all engines see the same payload.
  const id = append.id ?? Uint8Array.from({ length: 16 }, () => Math.trunc(append.at % 256));
  try {
    return comparable(await log.append({ ...append, id }));
  } catch (error) {
    return error instanceof Error && 'code' in error ? error.code : error;
  }
}

/** Plain values: engines may answer with Buffers. */
function comparable(entry: LogEntry): unknown {
  const hex = (bytes: Uint8Array | undefined): string =>
    bytes === undefined ? '' : Buffer.from(bytes).toString('hex');
  return {
    ...entry,
    id: hex(entry.id),
    chain: hex(entry.chain),
    payload: hex(entry.payload),
    records: entry.records.map(({ key, bytes }) => ({ key, bytes: hex(bytes) })),
  };
}
