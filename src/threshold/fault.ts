// What the protocols say about a member who broke them.
//
// A wrong message is an expected event, not an exception: the functions that read messages return faults, and
// the service decides what becomes of whom. Arguments that only our own side can get wrong throw.

export type FaultReason =
  /** The bytes are no message of this protocol and session. */
  | 'malformed'
  /** The signature is not by the member it names: the relay may have done it, so nobody is named. */
  | 'unsigned'
  /** Two different messages where one is due. */
  | 'equivocation'
  /** A message that is due did not come. */
  | 'missing'
  /** What we sent came back changed. */
  | 'altered'
  /** No proof that the dealer knows the secret behind its commitment. */
  | 'possession'
  /** Not exactly as many commitments as the threshold asks for, the constant term not left out, or no points. */
  | 'commitments'
  /** The first commitment is not what the dealer's known share says. */
  | 'constant'
  /** The sealed share does not open. */
  | 'sealed'
  /** The share is not on the committed polynomial. */
  | 'share'
  /** The signature under the common transcript does not verify: another view, or no consent. */
  | 'certificate'
  /** A proof of right computation does not verify. */
  | 'proof'
  /** An accusation that the accused refuted. */
  | 'complaint';

export interface Fault {
  /** Index (1…n) of the member who did it; 0 when whoever carried the messages may have done it. */
  readonly culprit: number;
  /** Where members have two numberings: as a dealer of the old generation, or as a member of the new one. */
  readonly as?: 'dealer' | 'member';
  readonly reason: FaultReason;
  /** Bytes that convince others, e.g. the signed message; absent when it can only be seen with a secret. */
  readonly evidence?: Uint8Array;
}

/** Faults are never mixed with a usable result: either all went well, or `faults` has at least one row. */
export type Outcome<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly faults: readonly Fault[] };

export function success<T>(value: T): Outcome<T> {
  return { ok: true, value };
}

export function failure(faults: readonly Fault[]): { readonly ok: false; readonly faults: readonly Fault[] } {
  return { ok: false, faults };
}
