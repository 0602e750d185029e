// Words of a command line into capabilities and revocations.

import { readFile } from 'node:fs/promises';
import { keyOfHex, sameBytes } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import type { Signer } from '../core/hash.ts';
import { capabilityLinksMax } from '../core/limits.ts';
import { capabilityId, type CapabilityLink, parseCapability, signCapability } from '../custody/capability.ts';
import { parseCapabilityFile } from '../custody/capability-file.ts';
import type { Revoked } from '../custody/revocation.ts';
import { type Operation, operations, scopeCovers } from '../custody/scope.ts';
import { fileError } from '../files/whole.ts';
import type { Context } from './command.ts';
import { keyOfPeer } from './connect.ts';

/** Who a capability is made out to. */
export class CapabilityAudience {
  readonly key: Uint8Array;

  private constructor(key: Uint8Array) {
    this.key = key;
  }

  /** Throws ARGUMENT_INVALID for a word that is neither a key nor a peer id. */
  static async parse(word: string): Promise<CapabilityAudience> {
    return new CapabilityAudience(await readKey(word));
  }
}

const classes = ['public', 'internal', 'confidential', 'restricted'] as const;
const defaultBeats = 86_400;
const defaultMax = 256;

/** The links of a new grant. Throws ARGUMENT_INVALID for options that cannot be, RECORD_INVALID for a damaged file. */
export async function grantChain(
  context: Context,
  given: {
    readonly group: string;
    readonly beat: number;
    readonly audience: CapabilityAudience;
    readonly signer: Signer;
  },
): Promise<readonly Uint8Array[]> {
  const { group, beat, audience, signer } = given;
  const under = context.text('under');
  const before = under === undefined ? [] : parseCapabilityFile(await readText(under));
  const beats = context.whole('beats', { min: 1, max: 1e12 }) ?? defaultBeats;
  const link: CapabilityLink = {
    v: 1,
    cg: group,
    iss: signer.publicKey,
    aud: audience.key,
    scope: {
      project: context.text('project') ?? '*',
      cls: oneOf('cls', context.text('cls') ?? 'internal', classes),
      prefix: context.text('prefix') ?? '',
    },
    ops: readOps(context.text('ops') ?? 'read'),
    nbf: Math.max(0, beat - 2), // custodians may not have heard this beat yet
    exp: beat + beats,
    max: context.whole('max', { min: 1, max: 1e9 }) ?? defaultMax,
  };
  const last = before.at(-1);
  const narrowed = last === undefined ? link : narrower(parseCapability(last), link);
  if (before.length >= capabilityLinksMax)
    throw new HoldfastError(
      'ARGUMENT_INVALID',
      `a capability is passed on at most ${capabilityLinksMax - 1} times`,
    );
  return [...before, signCapability(narrowed, signer)];
}

/** What was not said is as much as the link before allows; what was said and is more is refused. */
function narrower(before: CapabilityLink, link: CapabilityLink): CapabilityLink {
  if (!sameBytes(before.aud, link.iss))
    throw new HoldfastError(
      'ARGUMENT_INVALID',
      'the capability is made out to another key than the writer key of here',
    );
  const project = link.scope.project === '*' ? before.scope.project : link.scope.project;
  const scope = { ...link.scope, project, prefix: link.scope.prefix || before.scope.prefix };
  const widened = link.ops.find((op) => !before.ops.includes(op));
  if (!scopeCovers(before.scope, scope) || widened !== undefined)
    throw new HoldfastError('ARGUMENT_INVALID', 'more than the capability that it is to be passed on under');
  return {
    ...link,
    cg: before.cg,
    scope,
    nbf: Math.max(link.nbf, before.nbf),
    exp: Math.min(link.exp, before.exp),
    max: Math.min(link.max, before.max),
  };
}

/** A key, or the last link of a capability file. Throws ARGUMENT_INVALID, FILE_NOT_FOUND, RECORD_INVALID. */
export async function readRevoked(word: string): Promise<Revoked> {
  if (isKey(word)) return { what: 'key', id: await readKey(word) };
  const last = parseCapabilityFile(await readText(word)).at(-1);
  if (last === undefined) throw new HoldfastError('RECORD_INVALID', `${word} holds no capability`);
  return { what: 'capability', id: capabilityId(last) };
}

function isKey(word: string): boolean {
  return keyOfHex(word) !== undefined || isPeerId(word);
}

function isPeerId(word: string): boolean {
  return /^12D3KooW\w{44}$/.test(word);
}

async function readKey(word: string): Promise<Uint8Array> {
  const key = keyOfHex(word) ?? (isPeerId(word) ? await keyOfPeer(word) : undefined);
  if (key !== undefined) return key;
  throw new HoldfastError(
    'ARGUMENT_INVALID',
    `${word.slice(0, 80)}: 64 hex digits of an Ed25519 key, or a peer id, expected`,
  );
}

function readOps(text: string): readonly Operation[] {
  const words = text.split(',').map((word) => oneOf('ops', word.trim(), operations));
  return operations.filter((op) => words.includes(op));
}

function oneOf<T extends string>(name: string, word: string, allowed: readonly T[]): T {
  const found = allowed.find((each) => each === word);
  if (found !== undefined) return found;
  throw new HoldfastError(
    'ARGUMENT_INVALID',
    `--${name} takes ${allowed.join(', ')}, not ${JSON.stringify(word)}`,
  );
}

async function readText(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (cause) {
    throw fileError(path, 'cannot be read', cause);
  }
}
