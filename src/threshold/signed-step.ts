// A message of a protocol, signed by the member who sends it: one member, one session, one step.
//
//   from (1 B) ‖ body ‖ Ed25519 signature (64 B) over session, step, from and body
//
// Whoever relays it can drop it and nothing else, and what it says can be shown to others as evidence.

import { concat, sameBytes, utf8 } from '../core/bytes.ts';
import { preimage, type Signer, verifySignature } from '../core/hash.ts';
import { custodiansMax } from '../core/limits.ts';
import type { Fault } from './fault.ts';
import { parse, uint8 } from './wire.ts';

const domain = 'CHORUS-SLURP-STEP-v1';
const signatureBytes = 64;
/** Far more messages than an honest log of one step holds; each costs one verification. */
const stepMessagesMax = custodiansMax * custodiansMax;

export interface SignedStep {
  readonly from: number;
  readonly body: Uint8Array;
  /** The whole message: evidence. */
  readonly bytes: Uint8Array;
}

/**
 * @param session what names the session and binds all its parameters, e.g. a hash of them
 * @param step name of the step: a message of one step is none of another
 */
export function signStep(
  signer: Signer,
  session: Uint8Array,
  step: string,
  from: number,
  body: Uint8Array,
): Uint8Array {
  return concat(uint8(from), body, signer.sign(signedPart(session, step, from, body)));
}

/** The message, when member `from` signed exactly this; undefined otherwise. `keys` are of the members 1…n. */
function openStep(
  keys: readonly Uint8Array[],
  session: Uint8Array,
  step: string,
  bytes: Uint8Array,
): SignedStep | undefined {
  const read = parse(bytes, (reader) => ({
    from: reader.uint8(1, keys.length),
    body: reader.take(Math.max(0, reader.rest - signatureBytes)),
    signature: reader.take(signatureBytes),
  }));
  const key = keys[(read?.from ?? 0) - 1];
  if (read === undefined || key === undefined) return undefined;
  const { from, body, signature } = read;
  return verifySignature(key, signedPart(session, step, from, body), signature)
    ? { from, body, bytes }
    : undefined;
}

/**
 * One message of each member out of a log that may hold anything. Who signed two different ones is in
 * `faults` and not in `steps`; what nobody signed is dropped and counted under culprit 0.
 */
export function collectSteps(
  keys: readonly Uint8Array[],
  session: Uint8Array,
  step: string,
  log: readonly Uint8Array[],
  as?: 'dealer' | 'member',
): { readonly steps: readonly SignedStep[]; readonly faults: readonly Fault[] } {
  const faults: Fault[] = [];
  const byMember = new Map<number, SignedStep>();
  const twice = new Set<number>();
  const role = as === undefined ? {} : { as };
  for (const bytes of log.slice(0, stepMessagesMax)) {
    const opened = openStep(keys, session, step, bytes);
    if (opened === undefined) {
      faults.push({ culprit: 0, reason: 'unsigned' });
      continue;
    }
    const first = byMember.get(opened.from);
    if (first === undefined) byMember.set(opened.from, opened);
    else if (!sameStep(first, opened) && !twice.has(opened.from)) {
      twice.add(opened.from);
      const evidence = concat(first.bytes, opened.bytes);
      faults.push({ culprit: opened.from, ...role, reason: 'equivocation', evidence });
    }
  }
  const steps = [...byMember.values()].filter(({ from }) => !twice.has(from));
  return { steps: steps.toSorted((a, b) => a.from - b.from), faults };
}

/** Bodies decide: Ed25519 signers may sign the same body with different bytes. */
function sameStep(a: SignedStep, b: SignedStep): boolean {
  return sameBytes(a.body, b.body);
}

function signedPart(session: Uint8Array, step: string, from: number, body: Uint8Array): Uint8Array {
  return preimage(domain, session, utf8(step), uint8(from), body);
}
