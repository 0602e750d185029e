// The public transcript of a COCKTAIL-DKG, which all members sign, and the recovery of a share from it
// (c2sp.org/cocktail-dkg v0.2.1, Certification and Share Recovery).
//
// A backup of a member's share is its static secret key, the certificate (public) and the ciphertexts that were
// dealt to it. It is worth as much as the share for as long as the generation made by this DKG is in use.

import { concat, uint64, utf8 } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import { custodiansMax } from '../core/limits.ts';
import {
  contextBytesMax,
  type DkgMessage,
  type DkgSession,
  extBytesMax,
  openShare,
  readMessage,
  readSealed,
  sumCommitments,
  sumScalars,
} from './dkg-message.ts';
import { type DkgSuite, schnorrBytes, schnorrVerify } from './dkg-suite.ts';
import { type Point, pointBytes, type Scalar, samePoint } from './group.ts';
import { isThreshold, type KeySet, keySetOf } from './key-set.ts';
import { type ByteReader, parse, uint32le, uint64le } from './wire.ts';

const idBytesMax = 64;

type PublicDealing = Pick<DkgMessage, 'C' | 'pop' | 'E'>;

/** T: everything public that must be the same for all members. */
export function transcriptOf(
  suite: DkgSuite,
  session: DkgSession,
  dealt: readonly PublicDealing[],
): Uint8Array {
  const id = utf8(suite.id);
  return concat(
    uint64le(id.length),
    id,
    uint64le(session.context.length),
    session.context,
    uint32le(session.n),
    uint32le(session.t),
    ...session.statics,
    ...dealt.flatMap(({ C }) => C),
    ...dealt.map(({ pop }) => pop),
    ...dealt.map(({ E }) => E),
    uint64le(session.ext.length),
    session.ext,
  );
}

/** The ciphertexts for member `index` out of all messages, framed: its backup beside the certificate. */
export function recoveryBundle(
  session: Pick<DkgSession, 't' | 'n'>,
  messages: readonly Uint8Array[],
  index: number,
): Uint8Array {
  const sealed = messages.map((bytes) => readMessage(session, bytes)?.sealed[index - 1]);
  return concat(
    ...sealed.map((ciphertext) => {
      if (ciphertext === undefined) {
        throw new HoldfastError('ARGUMENT_INVALID', 'messages that passed `receive` expected');
      }
      return concat(uint64(ciphertext.length), ciphertext);
    }),
  );
}

export interface RecoveredShare {
  readonly index: number;
  /** Secret: the caller zeroes it. */
  readonly share: Scalar;
  readonly keys: KeySet;
  readonly session: DkgSession;
}

/**
 * The share and all public outputs again, from a backup.
 * @param secret the member's static secret key
 * @param signatures the certificate: of the members 1…n, in order
 * @throws HoldfastError RECORD_INVALID saying which part of the backup does not fit
 */
export function recover(
  suite: DkgSuite,
  secret: Scalar,
  transcript: Uint8Array,
  signatures: readonly Uint8Array[],
  bundle: Uint8Array,
): RecoveredShare {
  const read = parse(transcript, (reader) => readTranscript(suite, reader));
  if (read === undefined) throw broken('the transcript is malformed or of another suite');
  const { session, dealt } = read;
  const signed = session.statics.every((key, at) =>
    schnorrVerify(suite, key, transcript, signatures[at] ?? new Uint8Array(0)),
  );
  if (!signed || signatures.length !== session.n) throw broken('the certificate does not verify');
  const own = suite.group.base(secret);
  const index = session.statics.findIndex((key) => samePoint(key, own)) + 1;
  if (index === 0) throw broken('the secret key belongs to no member');
  const sealed = parse(bundle, (reader) => readSealed(reader, session.n));
  if (sealed === undefined) throw broken('the bundle of ciphertexts is malformed');
  const shares = dealt.map((dealing, at) => {
    const mine = Array.from({ length: session.n }, () => sealed[at] ?? new Uint8Array(0));
    const opened = openShare(suite, session, { index, secret }, at + 1, { ...dealing, sealed: mine });
    if ('reason' in opened) throw broken(`the share dealt by member ${at + 1} does not open`);
    return opened.share;
  });
  const keys = keySetOf(suite.group, sumCommitments(suite, dealt), session.n);
  return { index, share: sumScalars(suite, shares), keys, session };
}

function readTranscript(
  suite: DkgSuite,
  reader: ByteReader,
): { readonly session: DkgSession; readonly dealt: readonly PublicDealing[] } {
  const id = utf8(suite.id);
  const said = reader.take(reader.uint64le(1, idBytesMax));
  reader.require(said.length === id.length && said.every((byte, at) => byte === id[at]));
  const context = reader.take(reader.uint64le(0, contextBytesMax));
  const n = littleEndian(reader.take(4));
  const t = littleEndian(reader.take(4));
  reader.require(n <= custodiansMax && isThreshold(t, n));
  const points = (count: number): Point[] => {
    const list = reader.list(count, pointBytes);
    reader.require(list.every((point) => suite.group.isPoint(point)));
    return list;
  };
  const statics = points(n);
  const C = Array.from({ length: n }, () => points(t));
  const pops = reader.list(n, schnorrBytes);
  const E = points(n);
  const ext = reader.take(reader.uint64le(0, extBytesMax));
  const nothing = new Uint8Array(0);
  const dealt = C.map((own, at) => ({ C: own, pop: pops[at] ?? nothing, E: E[at] ?? nothing }));
  return { session: { t, n, statics, context, ext }, dealt };
}

function littleEndian(bytes: Uint8Array): number {
  return new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true);
}

function broken(what: string): HoldfastError {
  return new HoldfastError('RECORD_INVALID', `recovery of a share: ${what}`);
}
