// Shares out of the safe as commands are given them: read from their files, and tried.

import { readFile } from 'node:fs/promises';
import type { DoorClient } from '../client/door-client.ts';
import { HoldfastError } from '../core/errors.ts';
import type { CustodyDirectory } from '../custody/directory.ts';
import type { DrilledExport, DrillReport, FoundExport, OpenExport } from '../custody/drill.ts';
import { random } from '../custody/random.ts';
import { parseShareFile } from '../custody/share-file.ts';
import { fileError } from '../files/whole.ts';
import { ColdProcess } from './cold-process.ts';
import type { Command, Context } from './command.ts';
import { isSuccessorName } from '../custody/group-name.ts';
import { believed, believedGroup, lastBelieved } from './custody-believed.ts';
import { type Paint, table } from './screen.ts';

/** Of a command that takes EXPORT[=SECRET-FILE]…. */
export const exportOptions = {
  'secret-file': {
    type: 'string',
    value: 'FILE',
    text: 'passphrase or key that opens the EXPORTs without one of their own',
  },
} as const satisfies Command['options'];

export interface TriedExports {
  readonly directory: CustodyDirectory;
  readonly exports: readonly FoundExport[];
  /** Opens one of them in a process of its own. */
  readonly open: OpenExport;
  readonly report: DrillReport;
  /** As `drillExit`. */
  readonly exit: 0 | 1 | 5;
}

/**
 * Reads the files `EXPORT[=SECRET-FILE]` among the words of a command and tries them all on canaries. Throws what is
 * wrong with a file, KEY_UNAVAILABLE when the group is not believed.
 */
export async function triedExports(context: Context, door: DoorClient): Promise<TriedExports> {
  const { json, screen, signal, mainPath } = context;
  const [{ drill, drillExit }, files, { index: beat }, { custodians }] = await Promise.all([
    import('../custody/drill.ts'),
    Promise.all(context.positionals.map((word) => readExports(context, word))),
    door.beat({ signal }),
    door.custodyStatus({ signal }),
  ]);
  const found = files.flat();
  const directory = await groupOf(context, door, found);
  const open: OpenExport = ({ from, message }, opening) => {
    const secret = found.find((each) => each.from === from && each.message === message)?.secretPath;
    if (!json && opening.purpose === 'drill') screen.say(`trying ${from}`);
    return ColdProcess.open(mainPath, opening, secret ?? '', signal);
  };
  const report = await drill({
    cg: directory.cg,
    versions: servingVersions(directory),
    exports: found,
    nameOf: (peer) => custodians.find((each) => each.peer === peer)?.name ?? peer,
    open,
    random,
    beat,
  });
  return { directory, exports: found, open, report, exit: drillExit(report) };
}

/** The group of now, or one before it that all of these are of. */
async function groupOf(
  { data }: Context,
  door: DoorClient,
  exports: readonly FoundExport[],
): Promise<CustodyDirectory> {
  const [{ readShareHead }, present] = await Promise.all([
    import('../custody/share-export.ts'),
    lastBelieved(door, data),
  ]);
  const groups = exports.map(({ message }) => readShareHead(message).cg);
  const earlier = groups.find((cg) => isSuccessorName(present.cg, cg));
  return groups.includes(present.cg) || earlier === undefined
    ? believed(door, data)
    : believedGroup(door, data, earlier);
}

/** Versions of the key that open documents, oldest first. */
export function servingVersions(directory: CustodyDirectory): ReturnType<CustodyDirectory['versions']> {
  return directory.versions().filter(({ state }) => state === 'active' || state === 'decrypt-only');
}

export function tellDrill({ json, screen }: Context, report: DrillReport): void {
  if (json) screen.value(report);
  else for (const line of drillLines(report, screen.paint)) screen.line(line);
}

async function readExports(
  context: Context,
  word: string,
): Promise<readonly (FoundExport & { readonly secretPath: string })[]> {
  const cut = word.indexOf('=');
  const [from, own] = cut < 0 ? [word, undefined] : [word.slice(0, cut), word.slice(cut + 1)];
  const secretPath = own ?? context.text('secret-file');
  if (secretPath === undefined || secretPath === '')
    throw new HoldfastError(
      'ARGUMENT_MISSING',
      `what opens ${from}? EXPORT=SECRET-FILE, or --secret-file FILE`,
    );
  let text: string;
  try {
    text = await readFile(from, 'utf8');
  } catch (cause) {
    throw fileError(from, 'cannot be read', cause);
  }
  return parseShareFile(text).map((message) => ({ from, message, secretPath }));
}

function drillLines({ group, versions, others }: DrillReport, paint: Paint): string[] {
  const lines = versions.flatMap(({ version, state, generation, needed, opened, text, exports }) => [
    `${paint('bold', `key ${version} of ${group}`)}  ${state}, generation ${generation}, ${needed} needed: ${opened ? paint('green', 'OPENED') : paint('red', 'NOT OPENED')}`,
    `  ${text}`,
    ...exportLines(exports, paint),
  ]);
  return [...lines, ...(others.length === 0 ? [] : ['of no use here:', ...exportLines(others, paint)])];
}

function exportLines(exports: readonly DrilledExport[], paint: Paint): string[] {
  const rows = exports.map(({ from, custodian, generation, good, text }) => [
    '  ',
    from,
    custodian,
    `generation ${generation}`,
    good ? paint('green', 'good') : paint('red', 'not good'),
    text,
  ]);
  return rows.length === 0 ? ['  no export of this version was given'] : table(rows, []);
}
