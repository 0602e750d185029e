// The process in which one share out of the safe is used. It is started so that it can write no file and start no
// other process, gets its task over its channel, gives back partial decryptions, and ends: that wipes it.

import { asBuffer, keyOfHex } from '../core/bytes.ts';
import { asHoldfastError, describeError, HoldfastError } from '../core/errors.ts';
import { fieldOf } from '../core/shape.ts';
import { type ColdItem, coldPurposes, type ColdTask, useColdShare } from '../custody/cold-share.ts';
import { random } from '../custody/random.ts';
import { readSecretFile } from '../custody/secret-file.ts';
import { type ShareOpener, shareSealedTo } from '../custody/share-export.ts';
import { loadEd25519 } from '../threshold/ed25519-sodium.ts';
import { loadRistretto } from '../threshold/group-sodium.ts';

/** Answers one task from the channel to the parent. Returns the exit status. */
export async function runColdShare(): Promise<number> {
  const { promise, resolve } = Promise.withResolvers<unknown>();
  process.once('message', resolve);
  process.once('disconnect', () => process.exit(1)); // nobody waits any more
  const answer = await answerTo(await promise);
  await new Promise<void>((sent) => process.send?.(answer, undefined, {}, () => sent()));
  process.removeAllListeners('disconnect');
  process.disconnect();
  return 0;
}

async function answerTo(message: unknown): Promise<unknown> {
  try {
    const task = parseTask(fieldOf(message, 'task'));
    const path = fieldOf(message, 'secretPath');
    if (typeof path !== 'string')
      throw new HoldfastError('ARGUMENT_MISSING', 'the path of a secret expected');
    return { ok: true, partials: await solve(task, path) };
  } catch (error) {
    const { code } = asHoldfastError(error, 'INTERNAL', 'the share could not be tried');
    return { ok: false, code, message: describeError(error) };
  }
}

async function solve(task: ColdTask, secretPath: string) {
  const groups = { kek: await loadRistretto(), frost: await loadEd25519() };
  const opener = await openerFrom(task.message, secretPath);
  try {
    return await useColdShare(task, opener, groups, random);
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
function parseTask(value: unknown): ColdTask {
  const purpose = coldPurposes.find((each) => each === fieldOf(value, 'purpose'));
  const items = fieldOf(value, 'items');
  if (purpose === undefined || !Array.isArray(items))
    throw new HoldfastError('ARGUMENT_INVALID', 'task: a purpose and items expected');
  return {
    purpose,
    message: bytesIn(value, 'message'),
    by: bytesIn(value, 'by'),
    nonce: bytesIn(value, 'nonce'),
    Y: bytesIn(value, 'Y'),
    items: items.map(parseItem),
  };
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
