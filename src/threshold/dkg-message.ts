// Message 1 of COCKTAIL-DKG (c2sp.org/cocktail-dkg v0.2.1): its layout, and opening the share in it.
//
//   C (t points) ‖ proof of possession ‖ E ‖ n × (8-byte big-endian length ‖ ciphertext)

import { copied } from '../core/bytes.ts';
import { dkgCiphertextBytesMax } from '../core/limits.ts';
import { type DkgSuite, schnorrBytes, sealingKey } from './dkg-suite.ts';
import type { Fault } from './fault.ts';
import { type Point, pointBytes, type Scalar, samePoint, scalarBytes } from './group.ts';
import { evaluateCommitment } from './polynomial.ts';
import { type ByteReader, parse } from './wire.ts';
import { openXChaCha } from './xchacha.ts';

const tagBytes = 16;
/** What goes with a share at most: the ciphertext must stay below its bound. */
export const payloadBytesMax = dkgCiphertextBytesMax - scalarBytes - tagBytes;
/** The recommended context has 64 bytes, an extension is a hash or a little more; the transcript carries both. */
export const contextBytesMax = 1024;
export const extBytesMax = 65_536;

/** What all members agree on beforehand. Public. */
export interface DkgSession {
  readonly t: number;
  readonly n: number;
  /** Members' static public keys in the order of their indices 1…n, all different. */
  readonly statics: readonly Point[];
  /** Unique to the session and bound to suite and members: `dkgContext`. */
  readonly context: Uint8Array;
  /** What the certificate shall also attest, e.g. the hash of the group's policy. May be empty. */
  readonly ext: Uint8Array;
}

export interface DkgMessage {
  /** Commitments, constant first. */
  readonly C: readonly Point[];
  readonly pop: Uint8Array;
  readonly E: Point;
  /** Ciphertexts for the members 1…n. */
  readonly sealed: readonly Uint8Array[];
}

/** The fields of message 1; undefined when the bytes are no message of this session. Points are not checked yet. */
export function readMessage(session: Pick<DkgSession, 't' | 'n'>, bytes: Uint8Array): DkgMessage | undefined {
  return parse(bytes, (reader) => ({
    C: reader.list(session.t, pointBytes),
    pop: reader.take(schnorrBytes),
    E: reader.take(pointBytes),
    sealed: readSealed(reader, session.n),
  }));
}

/** `n` ciphertexts, each behind its length. */
export function readSealed(reader: ByteReader, n: number): Uint8Array[] {
  return Array.from({ length: n }, () =>
    reader.take(reader.uint64(scalarBytes + tagBytes, dkgCiphertextBytesMax)),
  );
}

/** Opens the share that dealer `from` sealed for member `own.index` and checks it against the commitments. */
export function openShare(
  suite: DkgSuite,
  session: Pick<DkgSession, 'statics' | 'context'>,
  own: { readonly index: number; readonly secret: Scalar },
  from: number,
  message: Pick<DkgMessage, 'C' | 'E'> & { readonly sealed: readonly Uint8Array[] },
): { readonly share: Scalar; readonly payload: Uint8Array } | Fault {
  const { group } = suite;
  const sender = session.statics[from - 1];
  const recipient = session.statics[own.index - 1];
  const ciphertext = message.sealed[own.index - 1];
  if (sender === undefined || recipient === undefined || ciphertext === undefined) {
    return { culprit: from, reason: 'malformed' };
  }
  const shared = { ephemeral: group.mul(own.secret, message.E), fixed: group.mul(own.secret, sender) };
  const keys = sealingKey(suite, shared, message.E, sender, recipient, session.context);
  const plaintext = openXChaCha(keys.key, keys.nonce, ciphertext);
  for (const used of [shared.ephemeral, shared.fixed, keys.key, keys.nonce]) used.fill(0);
  if (plaintext === undefined) return { culprit: from, reason: 'sealed' };
  const share = copied(plaintext.subarray(0, scalarBytes));
  const payload = plaintext.slice(scalarBytes);
  plaintext.fill(0);
  if (!group.scalar.isScalar(share)) return { culprit: from, reason: 'share' };
  if (samePoint(group.base(share), evaluateCommitment(group, message.C, own.index))) {
    return { share, payload };
  }
  // A share off the committed polynomial protects nothing, and shown it proves the dealer wrong.
  return { culprit: from, reason: 'share', evidence: share };
}

/** Σ of the shares, which are zeroed. */
export function sumScalars(suite: Pick<DkgSuite, 'group'>, shares: readonly Scalar[]): Scalar {
  const { scalar } = suite.group;
  let total = scalar.fromInt(0);
  for (const share of shares) {
    const next = scalar.add(total, share);
    total.fill(0);
    share.fill(0);
    total = next;
  }
  return total;
}

/** Term by term Σ of the commitments. */
export function sumCommitments(
  suite: Pick<DkgSuite, 'group'>,
  dealt: readonly Pick<DkgMessage, 'C'>[],
): Point[] {
  const length = dealt[0]?.C.length ?? 0;
  return Array.from({ length }, (_, k) =>
    suite.group.sum(dealt.map(({ C }) => C[k] ?? suite.group.identity)),
  );
}
