import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isHoldfastError } from '../core/errors.ts';
import { Pkcs11Error } from './pkcs11-codes.ts';
import { Pkcs11Sessions } from './pkcs11-sessions.ts';

interface Lease {
  readonly number: number;
}

test('lends a session to one piece of work at a time, and keeps it for the next', async () => {
  const { sessions, log } = world(1);
  let inside = 0;
  const work = async (): Promise<void> => {
    assert.equal(++inside, 1);
    await Promise.resolve();
    inside--;
  };
  await Promise.all([sessions.run(work), sessions.run(work), sessions.run(work)]);
  await sessions[Symbol.asyncDispose]();
  assert.deepEqual(log, ['open 1', 'close 1']);
});

test('replaces a lost session and does the work once more, not twice', async () => {
  const { sessions, log } = world(1);
  const lost = (): never => {
    throw new Pkcs11Error('C_Encrypt', 0xb3);
  };
  assert.equal(await sessions.run(async ({ number }) => (number === 1 ? lost() : number)), 2);
  await assert.rejects(
    sessions.run(async () => lost()),
    /CKR_SESSION_HANDLE_INVALID/,
  );
  assert.deepEqual(log, ['open 1', 'close 1', 'open 2', 'close 2', 'open 3', 'close 3']);
});

test('keeps a session whose work failed for another reason', async () => {
  const { sessions, log } = world(1);
  const failure = new Pkcs11Error('C_Decrypt', 0x40);
  await assert.rejects(
    sessions.run(() => Promise.reject(failure)),
    failure,
  );
  assert.equal(await sessions.run(async ({ number }) => number), 1);
  assert.deepEqual(log, ['open 1']);
});

test('goes on without a token that hangs, but gives its place to nobody', async () => {
  const { sessions, log } = world(1, 20);
  const hanging = Promise.withResolvers<void>();
  await assert.rejects(
    sessions.run(() => hanging.promise),
    (error) =>
      isHoldfastError(error, 'TIMEOUT') && /token "t" did not answer within 20 ms/.test(error.message),
  );
  await assert.rejects(
    sessions.run(async () => assert.fail('two at once')),
    (error) => isHoldfastError(error, 'TIMEOUT'),
  );
  hanging.resolve();
  await sessions[Symbol.asyncDispose]();
  assert.deepEqual(log, ['open 1', 'close 1']);
});

test('a session that cannot be opened is no place lost', async () => {
  const { sessions, log } = world(1);
  log.refuse = true;
  await assert.rejects(
    sessions.run(async () => undefined),
    /no session/,
  );
  log.refuse = false;
  await sessions.run(async () => undefined);
  assert.deepEqual([...log], ['open 1']);
});

function world(
  sessionsMax: number,
  timeoutMs = 5000,
): { sessions: Pkcs11Sessions<Lease>; log: string[] & { refuse?: boolean } } {
  const log: string[] & { refuse?: boolean } = [];
  let count = 0;
  const sessions = new Pkcs11Sessions<Lease>({
    open: async () => {
      if (log.refuse === true) throw new Error('no session');
      log.push(`open ${++count}`);
      return { number: count };
    },
    close: async ({ number }) => {
      log.push(`close ${number}`);
    },
    sessionsMax,
    timeoutMs,
    name: 'token "t"',
  });
  return { sessions, log };
}
