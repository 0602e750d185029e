// Permissions that are carried along: a chain of signed links from an authority of the policy to who asks.
//
//   authority ──link 1──▶ platform team ──link 2──▶ build service ──link 3──▶ one worker
//
// Each link names who may (aud), what (scope, ops), from when to when and how much, and can only narrow what the
// link before it gave. So a permission can be handed on without asking anybody, and never grows on the way.

import type { Signer } from '../core/hash.ts';
import { sameBytes, toHex } from '../core/bytes.ts';
import { sha256 } from '../core/hash.ts';
import { capabilityBytesMax, capabilityLinksMax } from '../core/limits.ts';
import { Memo } from '../core/memo.ts';
import { fieldsOf } from '../envelope/fields.ts';
import { readGroup } from '../envelope/label.ts';
import { type AccessScope, type Operation, readOperations, readScope, scopeCovers } from './scope.ts';
import { refusal, type Refusal } from './refusal.ts';
import type { Revocations } from './revocation.ts';
import { readSignedMap, signMap, verifyMessage } from './signed-map.ts';

export interface CapabilityLink {
  readonly v: 1;
  /** Custody group. */
  readonly cg: string;
  /** Ed25519 public key of who grants. */
  readonly iss: Uint8Array;
  /** Ed25519 public key of who is granted. */
  readonly aud: Uint8Array;
  readonly scope: AccessScope;
  readonly ops: readonly Operation[];
  /** First and last beat, both inside. */
  readonly nbf: number;
  readonly exp: number;
  /** Keys in one bar. */
  readonly max: number;
}

/** What a whole chain gives: what its last link says. */
export interface Grant extends Pick<CapabilityLink, 'scope' | 'ops' | 'max'> {
  /** Id of the first link: names the chain in an audit log. */
  readonly root: Uint8Array;
}

/** What a chain is held against. */
export interface ChainTerms {
  readonly cg: string;
  /** Ed25519 public key of who asks. */
  readonly requester: Uint8Array;
  /** Who may begin a chain. */
  readonly authorities: readonly Uint8Array[];
  readonly beat: number;
  readonly revocations: Revocations;
}

const domain = 'CHORUS-SLURP-CAP-v1';
const names = ['v', 'cg', 'iss', 'aud', 'scope', 'ops', 'nbf', 'exp', 'max'];

/** Signs a link; its `iss` must be the signer's key. Throws RECORD_INVALID for a link that nobody could read. */
export function signCapability(link: CapabilityLink, signer: Signer): Uint8Array {
  const message = signMap(domain, parseLink(link), signer);
  parseCapability(message);
  return message;
}

/** The same few come with every request. What a link gives is asked anew each time. */
const verified = new Memo<CapabilityLink>(1024);

/** Reads a link and verifies its signature. Throws RECORD_INVALID. */
export function parseCapability(message: Uint8Array): CapabilityLink {
  return verified.of(message, () => {
    const signed = readSignedMap(message, 'capability', capabilityBytesMax);
    const link = parseLink(signed.body);
    verifyMessage(domain, 'capability', signed, link.iss);
    return link;
  });
}

/** Names a link: SHA-256 of its bytes. */
export function capabilityId(message: Uint8Array): Uint8Array {
  return sha256(message);
}

/**
 * What the chain gives who asks, or why it gives nothing. `chain` has been read (`parseCapability`), outermost
 * first; `messages` are the same links as they came.
 */
export function checkChain(
  chain: readonly CapabilityLink[],
  messages: readonly Uint8Array[],
  terms: ChainTerms,
): Grant | Refusal {
  const [first] = chain;
  const [root] = messages;
  const last = chain.at(-1);
  if (first === undefined || last === undefined || root === undefined)
    return refusal(
      'capability',
      'the request brings no capability; an authority of the policy must grant one',
    );
  if (chain.length > capabilityLinksMax)
    return refusal(
      'capability',
      `a chain of ${chain.length} capabilities: at most ${capabilityLinksMax} count`,
    );
  if (!terms.authorities.some((key) => sameBytes(key, first.iss)))
    return refusal('capability', `${shown(first.iss)} begins the chain and is no authority of the policy`);
  if (!sameBytes(last.aud, terms.requester))
    return refusal('capability', `the chain ends at ${shown(last.aud)}, not at who asks`);
  for (const [index, link] of chain.entries()) {
    const problem =
      linkProblem(link, chain[index - 1], terms) ?? revokedProblem(link, messages[index], terms);
    if (problem !== undefined) return { ...problem, reason: `capability ${index + 1}: ${problem.reason}` };
  }
  return { scope: last.scope, ops: last.ops, max: last.max, root: capabilityId(root) };
}

function linkProblem(
  link: CapabilityLink,
  before: CapabilityLink | undefined,
  { cg, beat }: ChainTerms,
): Refusal | undefined {
  if (link.cg !== cg) return refusal('capability', `it is for custody group ${link.cg}`);
  if (beat < link.nbf) return refusal('capability', `it holds from beat ${link.nbf}, now is ${beat}`);
  if (beat > link.exp) return refusal('capability', `it ended with beat ${link.exp}, now is ${beat}`);
  if (before === undefined) return undefined;
  if (!sameBytes(before.aud, link.iss))
    return refusal('capability', `${shown(link.iss)} grants what was given to ${shown(before.aud)}`);
  const widened = widening(before, link);
  return widened === undefined
    ? undefined
    : refusal('capability', `it gives more ${widened} than the one before`);
}

function widening(before: CapabilityLink, link: CapabilityLink): string | undefined {
  if (!scopeCovers(before.scope, link.scope)) return 'scope';
  if (!link.ops.every((op) => before.ops.includes(op))) return 'operations';
  if (link.nbf < before.nbf || link.exp > before.exp) return 'time';
  return link.max > before.max ? 'keys' : undefined;
}

function revokedProblem(
  link: CapabilityLink,
  message: Uint8Array | undefined,
  { revocations }: ChainTerms,
): Refusal | undefined {
  if (message === undefined || revocations.has({ what: 'capability', id: capabilityId(message) }))
    return refusal('revoked', 'it was revoked');
  for (const key of [link.iss, link.aud])
    if (revocations.has({ what: 'key', id: key })) return refusal('revoked', `key ${shown(key)} was revoked`);
  return undefined;
}

function parseLink(value: unknown): CapabilityLink {
  const fields = fieldsOf(value, 'capability', names);
  const nbf = fields.integer('nbf', 0);
  return {
    v: fields.oneOf('v', [1]),
    cg: readGroup(fields, 'cg'),
    iss: fields.bytes('iss', 32),
    aud: fields.bytes('aud', 32),
    scope: readScope(fields.map('scope', ['project', 'cls', 'prefix'])),
    ops: readOperations(fields, 'ops'),
    nbf,
    exp: fields.integer('exp', nbf),
    max: fields.integer('max', 1),
  };
}

/** Enough of a public key to tell which. */
function shown(key: Uint8Array): string {
  return toHex(key.subarray(0, 8));
}
