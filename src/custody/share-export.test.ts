import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { inspect } from 'node:util';
import { toHex, utf8 } from '../core/bytes.ts';
import { isHoldfastError } from '../core/errors.ts';
import { signerFromSeed } from '../core/hash.ts';
import { generateKeyPair } from '../threshold/hpke.ts';
import { exportShare, importShare, readShareHead, shareAge } from './share-export.ts';

const signer = signerFromSeed(fresh(32));
const pair = generateKeyPair(fresh);
const passphrase = utf8('correct horse battery staple');
const head = { cg: 'org', kekVer: 2, shareGen: 7, i: 3, beat: 840 } as const;
const secret = fresh(32);

test('a share comes back by passphrase and by key, with its stamp', async () => {
  for (const [to, opener] of [
    [{ passphrase }, { passphrase }],
    [{ publicKey: pair.publicKey }, { secretKey: pair.secretKey }],
  ] as const) {
    const message = await exportShare(head, secret, to, signer);
    assert(!toHex(message).includes(toHex(secret).slice(0, 16)));
    assert.deepEqual(readShareHead(message), { ...head, by: signer.publicKey });
    const share = await importShare(message, signer.publicKey, opener);
    assert.deepEqual(share, { head: { ...head, by: signer.publicKey }, secret });
  }
});

test('opens for nobody else', async () => {
  const byPassphrase = await exportShare(head, secret, { passphrase }, signer);
  const byKey = await exportShare(head, secret, { publicKey: pair.publicKey }, signer);
  const other = generateKeyPair(fresh);
  const refusals = [
    [byPassphrase, { passphrase: utf8('correct horse battery stable') }, 'DECRYPT_FAILED'],
    [byKey, { secretKey: other.secretKey }, 'DECRYPT_FAILED'],
    [byKey, { passphrase }, 'ARGUMENT_INVALID'],
    [byPassphrase, { secretKey: pair.secretKey }, 'ARGUMENT_INVALID'],
  ] as const;
  for (const [message, opener, code] of refusals) {
    const error: unknown = await importShare(message, signer.publicKey, opener).catch(
      (error: unknown) => error,
    );
    assert(isHoldfastError(error, code), inspect(error));
    assert(!inspect(error, { depth: 9, showHidden: true }).includes('horse'));
  }
  const weak = exportShare(head, secret, { passphrase: utf8('short') }, signer);
  await assert.rejects(weak, (error) => isHoldfastError(error, 'ARGUMENT_INVALID'));
});

test('is of one custodian: a share that somebody else signed is not taken', async () => {
  const stranger = signerFromSeed(fresh(32));
  const message = await exportShare(head, secret, { publicKey: pair.publicKey }, stranger);
  const taken = importShare(message, signer.publicKey, { secretKey: pair.secretKey });
  await assert.rejects(taken, (error) => isHoldfastError(error, 'RECORD_INVALID'));
});

test('no byte of it can be changed', async () => {
  const message = await exportShare(head, secret, { publicKey: pair.publicKey }, signer);
  for (let at = 0; at < message.length; at++) {
    const changed = new Uint8Array(message);
    changed[at] = (changed[at] ?? 0) ^ 1;
    const taken = importShare(changed, signer.publicKey, { secretKey: pair.secretKey });
    await assert.rejects(taken, (error) => isHoldfastError(error), `byte ${at}`);
  }
});

test('tells how old a share is', () => {
  assert.deepEqual(
    [8, 7, 6, 3, 2].map((gen) => shareAge(gen, 7)),
    ['ahead', 'current', 'behind', 'behind', 'stale'],
  );
});

function fresh(sizeBytes: number): Uint8Array {
  return new Uint8Array(randomBytes(sizeBytes));
}
