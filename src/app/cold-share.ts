// The process in which one share out of the safe is used. It is started so that it can write no file and start no
// other process. Over its channel it gets the export and then tasks, one at a time, and gives back partial decryptions,
// until it is told to end or the channel is closed by the death of who started it. Then, and when nobody has asked for
// long, the share is zeroed and the process ends.
//
//   {open, secretPath} → {ok}      {task} → {ok, partials}      {end}           what is wrong → {ok: false, code, message}

import { asBuffer, keyOfHex } from '../core/bytes.ts';
import { minute } from '../core/clock.ts';
import { asHoldfastError, describeError, HoldfastError } from '../core/errors.ts';
import { unwrapItemsMax } from '../core/limits.ts';
import { fieldOf } from '../core/shape.ts';
import {
  type ColdItem,
  type ColdOpening,
  coldPurposes,
  ColdShare,
  type ColdTask,
} from '../custody/cold-share.ts';
import { random } from '../custody/random.ts';
import { readSecretFile } from '../custody/secret-file.ts';
import { type ShareOpener, shareSealedTo } from '../custody/share-export.ts';
import { loadEd25519 } from '../threshold/ed25519-sodium.ts';
import { loadRistretto } from '../threshold/group-sodium.ts';

/** A page of keys may take a registry that is busy a while to file; a share is not left open for longer. */
const idleMs = 10 * minute;

/** Answers what comes over the channel to the parent until that is closed. Returns the exit status. */
export async function runColdShare(): Promise<number> {
  const { promise: closed, resolve: close } = Promise.withResolvers<void>();
  let share: ColdShare | undefined;
  let turn: Promise<unknown> = Promise.resolve();
  const idle = setTimeout(close, idleMs);
  process.on('message', (message) => {
    if (fieldOf(message, 'end') === true) return close();
    turn = turn.then(async () => {
      await send(
        await answerTo(async () => {
          if (share !== undefined) return { partials: share.use(parseTask(fieldOf(message, 'task'))) };
          share = await opened(message);
          return {};
        }),
      );
      idle.refresh();
    });
  });
  process.once('disconnect', close); // nobody waits any more
  await closed;
  share?.[Symbol.dispose]();
  process.exit(0); // whatever is under way is for nobody
}

async function answerTo(work: () => Promise<object>): Promise<unknown> {
  try {
    return { ok: true, ...(await work()) };
  } catch (error) {
    const { code } = asHoldfastError(error, 'INTERNAL', 'the share could not be used');
    return { ok: false, code, message: describeError(error) };
  }
}

/** Resolves when it has left; a parent that is gone is told by the channel. */
async function send(answer: unknown): Promise<void> {
  await new Promise<void>((sent) => process.send?.(answer, undefined, {}, () => sent()));
}

async function opened(message: unknown): Promise<ColdShare> {
  const opening = parseOpening(fieldOf(message, 'open'));
  const path = fieldOf(message, 'secretPath');
  if (typeof path !== 'string') throw new HoldfastError('ARGUMENT_MISSING', 'the path of a secret expected');
  const groups = { kek: await loadRistretto(), frost: await loadEd25519() };
  const opener = await openerFrom(opening.message, path);
  try {
    return await ColdShare.open(opening, opener, groups, random);
  } finally {
    ('passphrase' in opener ? opener.passphrase : opener.secretKey).fill(0);
  }
}

async function openerFrom(message: Uint8Array, path: string): Promise<ShareOpener> {
  if (shareSealedTo(message) === 'passphrase')
    return { passphrase: await readSecretFile(path, 'passphrase') };
  const text = await readSecretFile(path, 'key');
  try {
    const secretKey = keyOfHex(asBuffer(text).toString('latin1'));
    if (secretKey !== undefined) return { secretKey };
    throw new HoldfastError('ARGUMENT_INVALID', `${path}: 64 hex digits of an X25519 key expected`);
  } finally {
    text.fill(0);
  }
}

/** From our own program: what is checked is that it is the same version. */
function parseOpening(value: unknown): ColdOpening {
  const purpose = coldPurposes.find((each) => each === fieldOf(value, 'purpose'));
  if (purpose === undefined) throw new HoldfastError('ARGUMENT_INVALID', 'open: a purpose expected');
  return {
    purpose,
    message: bytesIn(value, 'message'),
    by: bytesIn(value, 'by'),
    Y: bytesIn(value, 'Y'),
  };
}

function parseTask(value: unknown): ColdTask {
  const items = fieldOf(value, 'items');
  if (!Array.isArray(items) || items.length > unwrapItemsMax)
    throw new HoldfastError('ARGUMENT_INVALID', `task: up to ${unwrapItemsMax} items expected`);
  return { nonce: bytesIn(value, 'nonce'), items: items.map(parseItem) };
}

function parseItem(value: unknown): ColdItem {
  const wrap = fieldOf(value, 'wrap');
  const [label, U] = [bytesIn(value, 'label'), bytesIn(wrap, 'U')];
  if (fieldOf(wrap, 'Ubar') === undefined) return { label, wrap: { U } };
  const [Ubar, V, e, f] = [bytesIn(wrap, 'Ubar'), bytesIn(wrap, 'V'), bytesIn(wrap, 'e'), bytesIn(wrap, 'f')];
  return { label, wrap: { U, Ubar, V, e, f } };
}

function bytesIn(of: unknown, name: string): Uint8Array {
  const found = fieldOf(of, name);
  if (found instanceof Uint8Array) return new Uint8Array(found);
  throw new HoldfastError('ARGUMENT_INVALID', `task.${name}: bytes expected`);
}
