// What the custodians decide by, and changing it: an order that each of them judges, and a version that t of them sign.

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { encodeCbor } from '../../core/block.ts';
import { HoldfastError } from '../../core/errors.ts';
import type { Signer } from '../../core/hash.ts';
import type { PolicyHead, PolicyStep } from '../../custody/policy-change.ts';
import { fileError, makeDirectory, writeWhole } from '../../files/whole.ts';
import { layoutPaths } from '../../local/layout.ts';
import type { Command, Context } from '../command.ts';
import { openDoor, openKeyOf, openOperator } from '../connect.ts';
import { believed } from '../custody-believed.ts';
import { give, signed } from './custody-ceremonies.ts';

const documentBytesMax = 65_536;

const custodyPolicyShow: Command = {
  name: 'custody policy show',
  usage: '',
  summary: 'What the custodians decide by',
  positionals: [0, 0],
  notes: 'With --json it is a document that `custody policy set` takes.',
  async run(context) {
    await using door = await openDoor(context);
    const { policyDocument } = await import('../../custody/policy-document.ts');
    const { body } = headOf((await believed(door, context.data)).policyHead());
    const shown = policyDocument(body);
    if (context.json) context.screen.value(shown);
    else for (const line of JSON.stringify(shown, null, 2).split('\n')) context.screen.line(line);
  },
};

const custodyPolicySet: Command = {
  name: 'custody policy set',
  usage: 'FILE [--dry-run] [--as KEY-FILE]',
  summary: 'Change what the custodians decide by; holds for old content too',
  options: {
    'dry-run': { type: 'boolean', text: 'say what would change, and give no order' },
    as: {
      type: 'string',
      value: 'KEY-FILE',
      text: 'identity key of an authority of the policy (default the operator)',
    },
  },
  positionals: [1, 1],
  notes: [
    'FILE is JSON (- for standard input): `custody policy show --json`, edited, or only the rules that shall be others,',
    'for example {"classes": {"restricted": {"approvals": {"k": 2}}}}. What is not said stays. Each custodian checks the',
    'order and that the version follows the one it knows; T of them sign it. Every change is said as one that tightens or',
    'widens. The document is kept as custody/policy-VERSION.json: should a change be interrupted when some have signed',
    'it, give the same one again.',
  ].join('\n'),
  async run(context) {
    const { json, screen, data } = context;
    await using door = await openDoor(context);
    const [{ changedPolicy, policyDocument }, { policySteps }] = await Promise.all([
      import('../../custody/policy-document.ts'),
      import('../../custody/policy-change.ts'),
    ]);
    const directory = await believed(door, data);
    const head = headOf(directory.policyHead());
    const signer = await authority(context);
    const { writer, ...next } = changedPolicy(head, await readDocument(context), signer.publicKey);
    const steps = policySteps(head.body, { ...next });
    const dry = context.flag('dry-run');
    if (steps.length === 0) {
      if (json) screen.value({ version: head.body.ver, changes: [] });
      else screen.line(`nothing would change: version ${head.body.ver} says all of this`);
      return 0;
    }
    if (dry && json) screen.value({ version: next.ver, changes: steps });
    if (!json) for (const line of stepLines(steps, next.ver, dry)) screen.line(line);
    if (dry) return 0;
    const paths = layoutPaths(data);
    await makeDirectory(paths.custody);
    const kept = JSON.stringify(policyDocument({ ...head.body, ...next, writer }), null, 2);
    await writeWhole(join(paths.custody, `policy-${next.ver}.json`), `${kept}\n`, 0o600);
    const args = { policy: encodeCbor(next) };
    return await give(context, door, await signed(context, door, directory.cg, 'policy', args, signer));
  },
};

export const policyCommands: readonly Command[] = [custodyPolicyShow, custodyPolicySet];

function headOf(head: PolicyHead | undefined): PolicyHead {
  if (head !== undefined) return head;
  throw new HoldfastError('KEY_UNAVAILABLE', 'the custody group has no key and no policy yet');
}

function authority(context: Context): Promise<Signer> {
  const path = context.text('as');
  return path === undefined ? openOperator(context.data) : openKeyOf(path);
}

async function readDocument({ positionals: [file = ''] }: Context): Promise<unknown> {
  const text = await textOf(file);
  try {
    return JSON.parse(text);
  } catch (cause) {
    const where = cause instanceof SyntaxError ? cause.message : 'it cannot be read';
    throw new HoldfastError('ARGUMENT_INVALID', `${file} is not JSON: ${where}`, { cause });
  }
}

async function textOf(file: string): Promise<string> {
  let text = '';
  try {
    if (file !== '-') text = await readFile(file, 'utf8');
    else for await (const part of process.stdin) text += String(part);
  } catch (cause) {
    throw fileError(file, 'cannot be read', cause);
  }
  if (text.length <= documentBytesMax) return text;
  throw new HoldfastError('TOO_LARGE', `${file}: a policy has at most ${documentBytesMax} bytes`);
}

function stepLines(steps: readonly PolicyStep[], version: number, dry: boolean): string[] {
  const head = dry ? `version ${version} would be another in` : `version ${version} is another in`;
  return [
    `${head} ${steps.length} rules:`,
    ...steps.map(
      ({ field, effect, from, to }) => `  ${effect.padEnd(8)}  ${field}: ${show(from)} → ${show(to)}`,
    ),
    ...(steps.some(({ effect }) => effect !== 'widens')
      ? ['What is tightened holds for what is stored already; keys that were given out stay given.']
      : []),
  ];
}

function show(value: PolicyStep['from']): string {
  if (!Array.isArray(value)) return String(value ?? 'none');
  return value.length === 0 ? 'none' : value.join(', ');
}
