// Who may ask custodians for what: signed for a key, and signed anew when another group is in the place of the one before.

import { join, resolve } from 'node:path';
import type { DoorClient } from '../../client/door-client.ts';
import { toHex } from '../../core/bytes.ts';
import { describeError, HoldfastError, isHoldfastError } from '../../core/errors.ts';
import type { Signer } from '../../core/hash.ts';
import { formatCapabilityFile } from '../../custody/capability-file.ts';
import { type Anew, type AnewTerms, grantedAnew, type Granting } from '../../custody/carried.ts';
import type { CustodyDirectory } from '../../custody/directory.ts';
import { createWhole, makeDirectory, readIfThere, writeWhole } from '../../files/whole.ts';
import type { Command, Context } from '../command.ts';
import { openDoor, openOperator, openWriter } from '../connect.ts';
import { believedSuccession } from '../custody-believed.ts';
import { carryRevocations } from '../custody-carried.ts';
import { CapabilityAudience, grantChain } from '../custody-grants.ts';
import { type Granted, idOf, keepGranted, readGranted, readGrantedFile } from '../granted.ts';
import { table } from '../screen.ts';

/** Capability files named in one command. */
const filesMax = 256;

const custodyGrant: Command = {
  name: 'custody grant',
  usage: 'KEY [--project P] [--cls C] [--ops LIST] [--beats N] [--max N] [--under FILE] [--out FILE]',
  summary: 'Sign a capability: what the holder of KEY may ask custodians for',
  options: {
    project: { type: 'string', value: 'P', text: 'project, or the beginning of one and * (default *)' },
    cls: {
      type: 'string',
      value: 'C',
      text: 'highest class: public, internal, confidential, restricted (default internal)',
    },
    prefix: { type: 'string', value: 'PATH', text: 'UCXL path prefix; only a key agent can honour one' },
    ops: { type: 'string', value: 'LIST', text: 'some of read,write,pin,prune,audit (default read)' },
    beats: { type: 'string', value: 'N', text: 'for so many beats from now (default 86400)' },
    max: { type: 'string', value: 'N', text: 'branch keys in one bar (default 256)' },
    under: {
      type: 'string',
      value: 'FILE',
      text: 'pass on the capability in FILE, narrower, signed by the writer key; else the operator signs',
    },
    out: {
      type: 'string',
      value: 'FILE',
      text: 'where it is written (default capability-KEY.cap; - for standard output)',
    },
    force: { type: 'boolean', text: 'replace the file if it exists' },
  },
  positionals: [1, 1],
  notes:
    'KEY is an Ed25519 public key, 64 hex digits, or a peer id. The file is of use only with its private key.',
  async run(context) {
    const { screen, json, positionals } = context;
    await using door = await openDoor(context);
    const audience = await CapabilityAudience.parse(positionals[0] ?? '');
    const signer =
      context.text('under') === undefined ? openOperator(context.data) : openWriter(context.data);
    const { index: beat } = await door.beat({ signal: context.signal });
    const { group } = await door.custodyStatus({ signal: context.signal });
    if (context.text('under') === undefined) await carryIfPossible(context, door, await signer);
    const chain = await grantChain(context, { group, beat, audience, signer: await signer });
    const text = formatCapabilityFile(chain);
    const file = context.text('out') ?? `capability-${toHex(audience.key).slice(0, 8)}.cap`;
    if (file === '-') {
      await keepGranted(context.data, chain, { file: 'standard output', beat });
      if (json) screen.value({ file: null, key: toHex(audience.key), links: chain.length, capability: text });
      else screen.streams.stdout.write(text);
      return;
    }
    await (context.flag('force') ? writeWhole : createWhole)(file, text, 0o600);
    await keepGranted(context.data, chain, { file: resolve(file), beat });
    if (json) screen.value({ file, key: toHex(audience.key), links: chain.length });
    else screen.line(`${file}: ${text.split('\n')[0]?.replace('# holdfast capability: ', '') ?? ''}`);
  },
};

const custodyRegrant: Command = {
  name: 'custody regrant',
  usage: '[FILE…] [--dry-run] [--out DIR] [--force]',
  summary: 'Sign anew what was granted in the group that the one of now is in the place of',
  options: {
    'dry-run': { type: 'boolean', text: 'only show what would be signed, and what not and why' },
    out: { type: 'string', value: 'DIR', text: 'where the files are written (default capabilities-GROUP)' },
    force: { type: 'boolean', text: 'replace files that hold something else' },
  },
  positionals: [0, filesMax],
  notes: [
    'Everything that `custody grant` has signed from here, or what is in capability FILEs: for the same key, with the same',
    'words, to the same end, and only what the group before would still take now: nothing that ended or was revoked. Bring',
    'each file to where the one before lies: who uses it reads it anew, a key agent with its next request. Given again it',
    'signs the same. Exit status 1: something that was good is not signed anew, for the reason that is said.',
  ].join('\n'),
  async run(context) {
    await using door = await openDoor(context);
    if (!context.flag('dry-run')) await carryRevocations(context, door, await openOperator(context.data));
    const terms = await anewTerms(context, door);
    const made = (await given(context, terms.before.cg)).map((each) => ({
      ...each,
      anew: grantedAnew(each.chain, terms),
    }));
    const dir = context.text('out') ?? `capabilities-${terms.now.cg}`;
    const rows: Regranted[] = [];
    for (const each of made) rows.push(await regranted(context, each, dir, terms.beat));
    show(context, rows, terms);
    return made.some(({ anew }) => !anew.ok && anew.wasGood) ? 1 : 0;
  },
};

export const grantCommands: readonly Command[] = [custodyGrant, custodyRegrant];

/** Who grants by hand knows to whom: that the group before cannot be read any more keeps nobody from it. */
async function carryIfPossible(context: Context, door: DoorClient, operator: Signer): Promise<void> {
  try {
    await carryRevocations(context, door, operator);
  } catch (error) {
    if (!isHoldfastError(error)) throw error;
    context.screen.say(
      `what was revoked in the group before is not revoked in this one: ${describeError(error)}; see that this key was not`,
    );
  }
}

interface Regranted {
  readonly key: string;
  readonly what: string;
  readonly exp: number;
  /** Where the one before was written, or read from. */
  readonly before: string;
  /** Where the one of now is, or would be; null for none. */
  readonly file: string | null;
  /** Why there is none. */
  readonly problem: string | null;
}

/** Both groups as they are believed here. Throws VERSION_CONFLICT when there is nothing to grant anew. */
async function anewTerms(context: Context, door: DoorClient): Promise<AnewTerms> {
  const { now, before } = await believedSuccession(door, context.data);
  if (now.inPlaceOf === undefined)
    throw new HoldfastError(
      'VERSION_CONFLICT',
      `custody group ${now.cg} is in the place of no other: what was granted in it is good`,
    );
  if (before === undefined)
    throw new HoldfastError(
      'KEY_UNAVAILABLE',
      `custody group ${now.inPlaceOf.of} was never believed here, so what it revoked is not known: grant each anew (\`holdfast custody grant KEY\`), or do this where commands knew it (custody/pin.json)`,
    );
  const { index: beat } = await door.beat({ signal: context.signal });
  const signers = await Promise.all([openOperator(context.data), openWriter(context.data)]);
  const since = now.inPlaceOf.beat;
  return { before: grantingOf(before), now: grantingOf(now), beat, since, signers };
}

function grantingOf(directory: CustodyDirectory): Granting {
  const authorities = directory.policy()?.authorities ?? [];
  return { cg: directory.cg, authorities, revocations: directory.revocations() };
}

/** The files that are named, or all that was granted from here in group `cg`. */
async function given({ positionals, data, screen }: Context, cg: string): Promise<readonly Granted[]> {
  if (positionals.length > 0) return Promise.all(positionals.map(readGrantedFile));
  const granted = await readGranted(data, (text) => screen.say(text));
  return granted.filter(({ last }) => last.cg === cg);
}

/** Writes what was signed anew, unless it is only to be shown. */
async function regranted(
  context: Context,
  { last, chain, file: before, anew }: Granted & { readonly anew: Anew },
  dir: string,
  beat: number,
): Promise<Regranted> {
  const key = toHex(last.aud);
  const about = { key, what: scopeText(last), exp: last.exp, before };
  if (!anew.ok) return { ...about, file: null, problem: anew.reason };
  // By the id of the one before: two of one key do not get in each other's way, and given again it is the same file.
  const file = join(dir, `${key.slice(0, 8)}-${idOf(chain)}.cap`);
  if (context.flag('dry-run')) return { ...about, file, problem: null };
  const text = formatCapabilityFile(anew.chain);
  await makeDirectory(dir);
  if ((await readIfThere(file)) !== text)
    await (context.flag('force') ? writeWhole : createWhole)(file, text, 0o600);
  await keepGranted(context.data, anew.chain, { file: resolve(file), beat });
  return { ...about, file, problem: null };
}

function scopeText({ ops, scope: { project, cls, prefix } }: Granted['last']): string {
  return `${ops.join(',')} of ${project} up to ${cls}${prefix === '' ? '' : ` under ${prefix}`}`;
}

function show(context: Context, rows: readonly Regranted[], { before, now }: AnewTerms): void {
  const { screen, json } = context;
  if (json) {
    screen.value({ before: before.cg, now: now.cg, granted: rows });
    return;
  }
  const done = context.flag('dry-run') ? 'to be signed anew' : 'signed anew';
  const lines = rows.map(({ key, what, exp, before: was, file, problem }) => [
    `${key.slice(0, 16)}…`,
    what,
    `to beat ${exp}`,
    problem === null
      ? `${done} as ${file ?? ''}, in the place of ${was}`
      : screen.paint('yellow', `not signed: ${problem}; ${was}`),
  ]);
  for (const line of table(lines)) screen.line(line);
  const count = rows.filter(({ problem }) => problem === null).length;
  screen.line(`${count} of ${rows.length} capabilities of ${before.cg} ${done} in ${now.cg}`);
}
