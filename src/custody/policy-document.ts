// A policy as a person writes it: JSON, keys in hex, only what shall be another than it is now. What is wrong with it
// is said by the name of the field and what may stand there.

import { keyOfHex, sameBytes, toHex } from '../core/bytes.ts';
import { HoldfastError, isHoldfastError } from '../core/errors.ts';
import { isMap } from '../core/shape.ts';
import { type ContentClass, contentClasses } from '../envelope/aad.ts';
import { type ClassRule, classRules, type PolicyBody, parsePolicy, policyRules } from './policy.ts';
import type { PolicyHead, ProposedPolicy } from './policy-change.ts';

/** Fields of a document that say what it was made from; when they are there, they must fit. */
const origin = ['cg', 'family', 'ver', 'signedByGroup'] as const;

/**
 * The next version of a policy: `head` with what `document` says. `writer`: who orders it.
 *
 * @throws ARGUMENT_INVALID naming the field and what may stand there, VERSION_CONFLICT for a document made from
 * another version
 */
export function changedPolicy(head: PolicyHead, document: unknown, writer: Uint8Array): ProposedPolicy {
  const given = mapAt(document, 'policy', [...origin, ...policyRules]);
  requireOrigin(head.body, given);
  const { body, cid } = head;
  const { classes } = given;
  const next = {
    ...body,
    ...pick(given, policyRules),
    ...keysAt(given, 'policy', 'authorities'),
    ...keysAt(given, 'policy', 'keyAgents'),
    classes: classes === undefined ? body.classes : mergedClasses(body.classes, classes),
    ver: body.ver + 1,
    prev: cid,
    writer,
    frostSig: new Uint8Array(64),
  };
  try {
    const { frostSig: _, ...proposed } = parsePolicy(next);
    requireReaders(proposed);
    return proposed;
  } catch (error) {
    if (!isHoldfastError(error, 'RECORD_INVALID')) throw error;
    throw new HoldfastError('ARGUMENT_INVALID', error.message, { cause: error });
  }
}

/** Custodians give keys of such a class to agents only, and agents bring no approvals: nobody could read it any more. */
function requireReaders({ classes }: Pick<PolicyBody, 'classes'>): void {
  for (const name of contentClasses)
    if (classes[name].keyAgentOnly && classes[name].approvals.k > 0)
      throw refused(
        `policy.classes.${name}`,
        'keyAgentOnly or approvals expected, not both: key agents bring no approvals',
      );
}

/** The rules of a policy as `changedPolicy` takes them. */
export function policyDocument(policy: PolicyBody): Readonly<Record<string, unknown>> {
  const { kind: _, v: __, writer: ___, prev: ____, frostSig, ...rules } = policy;
  return Object(plain({ ...rules, signedByGroup: frostSig !== null }));
}

function plain(value: unknown): unknown {
  if (value instanceof Uint8Array) return toHex(value);
  if (Array.isArray(value)) return value.map(plain);
  if (!isMap(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, plain(each)]));
}

function requireOrigin({ cg, family, ver }: PolicyBody, given: Readonly<Record<string, unknown>>): void {
  if (given['cg'] !== undefined && given['cg'] !== cg)
    throw refused('policy.cg', `the document is of another group; this is ${cg}`);
  if (given['family'] !== undefined && given['family'] !== toHex(family))
    throw refused(
      'policy.family',
      'the document is of another family; what is sealed stays bound to this one',
    );
  if (given['ver'] !== undefined && given['ver'] !== ver)
    throw new HoldfastError(
      'VERSION_CONFLICT',
      `policy.ver: the document was made from another version, and version ${ver} is in force: begin with \`holdfast custody policy show --json\``,
      { details: { current: ver } },
    );
}

function mergedClasses(before: PolicyBody['classes'], given: unknown): Record<ContentClass, unknown> {
  const classes = mapAt(given, 'policy.classes', contentClasses);
  const merged = (name: ContentClass): unknown =>
    classes[name] === undefined
      ? before[name]
      : mergedRule(before[name], classes[name], `policy.classes.${name}`);
  return {
    public: merged('public'),
    internal: merged('internal'),
    confidential: merged('confidential'),
    restricted: merged('restricted'),
  };
}

function mergedRule(before: ClassRule, value: unknown, where: string): unknown {
  const given = mapAt(value, where, classRules);
  const approvals =
    given['approvals'] === undefined ? {} : mapAt(given['approvals'], `${where}.approvals`, ['k', 'of']);
  return {
    ...before,
    ...pick(given, classRules),
    approvals: {
      ...before.approvals,
      ...pick(approvals, ['k']),
      ...keysAt(approvals, `${where}.approvals`, 'of'),
    },
  };
}

/** `field` as bytes, in a map, where it is there. */
function keysAt(
  given: Readonly<Record<string, unknown>>,
  where: string,
  field: string,
): Readonly<Record<string, readonly Uint8Array[]>> {
  const value = given[field];
  if (value === undefined) return {};
  const at = `${where}.${field}`;
  if (!Array.isArray(value)) throw refused(at, 'a list of Ed25519 keys, 64 hex digits each, expected');
  const keys = value.map((key: unknown, index) => {
    const found = keyOfHex(key);
    if (found !== undefined) return found;
    throw refused(`${at}[${index}]`, '64 hex digits of an Ed25519 key expected');
  });
  const twice = keys.findIndex((key, index) => keys.slice(0, index).some((other) => sameBytes(key, other)));
  if (twice >= 0) throw refused(`${at}[${twice}]`, 'this key is in the list already');
  return { [field]: keys };
}

function pick(
  given: Readonly<Record<string, unknown>>,
  fields: readonly string[],
): Readonly<Record<string, unknown>> {
  return Object.fromEntries(
    fields.flatMap((field) => (given[field] === undefined ? [] : [[field, given[field]]])),
  );
}

function mapAt(value: unknown, where: string, names: readonly string[]): Readonly<Record<string, unknown>> {
  if (!isMap(value)) throw refused(where, `an object with some of ${names.join(', ')} expected`);
  const strange = Object.keys(value).find((name) => !names.includes(name));
  if (strange === undefined) return value;
  throw refused(`${where}.${strange.slice(0, 64)}`, `no such rule; there are ${names.join(', ')}`);
}

function refused(field: string, expected: string): HoldfastError {
  return new HoldfastError('ARGUMENT_INVALID', `${field}: ${expected}`, { details: { field } });
}
