// COCKTAIL-DKG (c2sp.org/cocktail-dkg v0.2.1): n members make a key that none of them ever holds.
//
//   begin      own polynomial, proof of possession, one sealed share for everybody   → message 1
//   receive    all n messages: check all of them, add up the shares                  → share, signature
//   conclude   all n signatures under the same transcript                            → certificate
//
// Whoever carries the messages is trusted with nothing: it can only keep them from arriving. If it shows
// different messages to different members, their transcripts differ and `conclude` fails for all of them.
// It can change a ciphertext, which no proof in the message covers: so messages travel as signed steps
// (signed-step.ts), and only what its sender signed is blamed on the sender.
// Between the steps nothing secret has to be kept: the own share waits sealed in the own message.

import { concat, sameBytes, uint64, utf8 } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import { sameSecret, sha512 } from '../core/hash.ts';
import {
  contextBytesMax,
  type DkgMessage,
  type DkgSession,
  extBytesMax,
  openShare,
  payloadBytesMax,
  readMessage,
  sumCommitments,
  sumScalars,
} from './dkg-message.ts';
import { type DkgSuite, schnorrSign, schnorrVerify, sealingKey } from './dkg-suite.ts';
import { transcriptOf } from './dkg-transcript.ts';
import { type Fault, failure, type Outcome, success } from './fault.ts';
import type { Point, RandomBytes, Scalar } from './group.ts';
import { type KeySet, keySetOf, requireMember, requireThreshold } from './key-set.ts';
import { commitments, evaluate } from './polynomial.ts';
import { uint32le } from './wire.ts';
import { sealXChaCha } from './xchacha.ts';

/** After `begin`. Public: may be stored as it is. */
export interface DkgDealt {
  readonly step: 'dealt';
  readonly index: number;
  /** SHA-512 of the own message. */
  readonly sent: Uint8Array;
}

/** After `receive`. Public; the share goes elsewhere. */
export interface DkgCertifying {
  readonly step: 'certifying';
  readonly index: number;
  readonly keys: KeySet;
  /** The canonical public transcript T that all members sign. */
  readonly transcript: Uint8Array;
  /** Our signature under it: what is sent to all. */
  readonly signature: Uint8Array;
}

/** The recommended context: unique by `sessionId` (any bytes never used before), bound to suite and members. */
export function dkgContext(suite: DkgSuite, sessionId: Uint8Array, statics: readonly Point[]): Uint8Array {
  const id = utf8(suite.id);
  return sha512(
    concat(
      utf8('COCKTAIL-DKG-CONTEXT'),
      uint64(sessionId.length),
      sessionId,
      uint64(id.length),
      id,
      uint32le(statics.length),
      ...statics,
    ),
  );
}

/**
 * Deals: message 1 for everybody.
 * @param secret the static secret key of member `index`; stays the caller's
 * @param payload bytes to send to everybody beside the share, sealed; default none
 * @throws HoldfastError ARGUMENT_INVALID for parameters out of bounds or a secret that is not this member's
 */
export function begin(
  suite: DkgSuite,
  session: DkgSession,
  index: number,
  secret: Scalar,
  random: RandomBytes,
  payload: Uint8Array = new Uint8Array(0),
): { readonly message: Uint8Array; readonly state: DkgDealt } {
  const { group } = suite;
  requireSession(suite, session);
  requireOwn(suite, session, index, secret);
  if (payload.length > payloadBytesMax) {
    throw new HoldfastError('ARGUMENT_INVALID', `a payload of at most ${payloadBytesMax} bytes expected`);
  }
  const coeffs = Array.from({ length: session.t }, () => group.scalar.random(random));
  const ephemeral = group.scalar.random(random);
  const C = commitments(group, coeffs);
  const E = group.base(ephemeral);
  const [constant = ephemeral] = coeffs;
  const pop = schnorrSign(suite, constant, concat(session.context, ...C, E));
  const sealed = session.statics.map((recipient, at) => {
    const share = evaluate(group, coeffs, at + 1);
    const plaintext = concat(share, payload);
    const keys = sharedKeys(suite, session, { index, secret, ephemeral, E }, recipient);
    const ciphertext = sealXChaCha(keys.key, keys.nonce, plaintext);
    for (const used of [share, plaintext, keys.key, keys.nonce]) used.fill(0);
    return concat(uint64(ciphertext.length), ciphertext);
  });
  for (const used of [...coeffs, ephemeral]) used.fill(0);
  const message = concat(...C, pop, E, ...sealed);
  return { message, state: { step: 'dealt', index, sent: sha512(message) } };
}

/**
 * Checks all messages and adds up our shares. Every member who did wrong is named, not only the first.
 * @param messages message 1 of the members 1…n in order, the own included
 * @returns the share (secret: the caller stores it and zeroes it), the next state and the payloads received
 */
export function receive(
  suite: DkgSuite,
  session: DkgSession,
  state: DkgDealt,
  secret: Scalar,
  messages: readonly Uint8Array[],
): Outcome<{
  readonly share: Scalar;
  readonly state: DkgCertifying;
  readonly payloads: readonly Uint8Array[];
}> {
  requireSession(suite, session);
  requireOwn(suite, session, state.index, secret);
  const own = messages[state.index - 1];
  if (messages.length !== session.n || own === undefined || !sameBytes(sha512(own), state.sent)) {
    return failure([{ culprit: 0, reason: 'altered' }]);
  }
  const read = messages.map((bytes, at) => readDealer(suite, session, at + 1, bytes));
  const shares: Scalar[] = [];
  const payloads: Uint8Array[] = [];
  const faults: Fault[] = [];
  const dealt: DkgMessage[] = [];
  for (const [at, message] of read.entries()) {
    if ('reason' in message) {
      faults.push(message);
      continue;
    }
    const opened = openShare(suite, session, { index: state.index, secret }, at + 1, message);
    if ('reason' in opened) faults.push(opened);
    else {
      dealt.push(message);
      shares.push(opened.share);
      payloads.push(opened.payload);
    }
  }
  if (faults.length > 0) {
    for (const share of shares) share.fill(0);
    return failure(faults);
  }
  const share = sumScalars(suite, shares);
  const keys = keySetOf(suite.group, sumCommitments(suite, dealt), session.n);
  const transcript = transcriptOf(suite, session, dealt);
  const signature = schnorrSign(suite, secret, transcript);
  const next: DkgCertifying = { step: 'certifying', index: state.index, keys, transcript, signature };
  return success({ share, state: next, payloads });
}

/**
 * Success, when all members signed the same transcript: only then may the share be used.
 * @param signatures of the members 1…n in order
 * @returns the certificate: transcript and signatures, public, to be kept for audit and recovery
 */
export function conclude(
  suite: DkgSuite,
  session: DkgSession,
  state: DkgCertifying,
  signatures: readonly Uint8Array[],
): Outcome<{ readonly keys: KeySet; readonly transcriptHash: Uint8Array }> {
  const faults = session.statics.flatMap((key, at): Fault[] => {
    const signature = signatures[at];
    if (signature === undefined || signature.length === 0) return [{ culprit: at + 1, reason: 'missing' }];
    // A relay that showed us other messages than the signer makes this fail too, so nobody is named.
    return schnorrVerify(suite, key, state.transcript, signature)
      ? []
      : [{ culprit: 0, reason: 'certificate' }];
  });
  if (signatures.length !== session.n) faults.push({ culprit: 0, reason: 'malformed' });
  if (faults.length > 0) return failure(faults);
  return success({ keys: state.keys, transcriptHash: sha512(state.transcript) });
}

/** What everybody can check of a dealer's message. */
function readDealer(
  suite: DkgSuite,
  session: DkgSession,
  from: number,
  bytes: Uint8Array,
): DkgMessage | Fault {
  const message = readMessage(session, bytes);
  if (message === undefined) return { culprit: from, reason: 'malformed', evidence: bytes };
  const [constant] = message.C;
  if (constant === undefined || ![...message.C, message.E].every((point) => suite.group.isPoint(point))) {
    return { culprit: from, reason: 'commitments', evidence: bytes };
  }
  const proven = concat(session.context, ...message.C, message.E);
  return schnorrVerify(suite, constant, proven, message.pop)
    ? message
    : { culprit: from, reason: 'possession', evidence: bytes };
}

function sharedKeys(
  suite: DkgSuite,
  session: DkgSession,
  own: { readonly index: number; readonly secret: Scalar; readonly ephemeral: Scalar; readonly E: Point },
  recipient: Point,
): { readonly key: Uint8Array; readonly nonce: Uint8Array } {
  const { group } = suite;
  const shared = { ephemeral: group.mul(own.ephemeral, recipient), fixed: group.mul(own.secret, recipient) };
  const sender = session.statics[own.index - 1] ?? group.identity;
  const keys = sealingKey(suite, shared, own.E, sender, recipient, session.context);
  shared.ephemeral.fill(0);
  shared.fixed.fill(0);
  return keys;
}

function requireSession(suite: DkgSuite, session: DkgSession): void {
  const { t, n, statics } = session;
  requireThreshold(t, n);
  if (statics.length !== n || !statics.every((key) => suite.group.isPoint(key))) {
    throw new HoldfastError('ARGUMENT_INVALID', `${n} static public keys expected, all group elements`);
  }
  if (session.context.length > contextBytesMax || session.ext.length > extBytesMax) {
    throw new HoldfastError('ARGUMENT_INVALID', 'the context or the extension is too long');
  }
  if (new Set(statics.map((key) => key.join())).size !== n) {
    throw new HoldfastError('ARGUMENT_INVALID', 'two members have the same static public key');
  }
}

function requireOwn(suite: DkgSuite, session: DkgSession, index: number, secret: Scalar): void {
  requireMember(index, session.n);
  const own = session.statics[index - 1];
  if (own === undefined || !sameSecret(own, suite.group.base(secret))) {
    throw new HoldfastError('ARGUMENT_INVALID', `the static secret key is not that of member ${index}`);
  }
}
