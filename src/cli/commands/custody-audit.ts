// Who opened what, out of logs that are verified here: each whole, each what its witnesses saw, and each a
// continuation of what was seen at the last audit.

import { join } from 'node:path';
import type { DoorClient } from '../../client/door-client.ts';
import { toHex } from '../../core/bytes.ts';
import { describeError, isHoldfastError } from '../../core/errors.ts';
import {
  type Finding,
  type Opening,
  openings,
  reconcile,
  type VerifiedLog,
  verifyLog,
} from '../../custody/audit-verify.ts';
import { withoutLost } from '../../custody/audit-lost.ts';
import { type NoteKey, openCheckpoint } from '../../custody/checkpoint.ts';
import { type DatedReceipt, parseReceipts } from '../../custody/receipts.ts';
import type { Succession } from '../../custody/succession.ts';
import { makeDirectory, readIfThere, writeWhole } from '../../files/whole.ts';
import { layoutPaths, readLayout } from '../../local/layout.ts';
import type { Command, Context } from '../command.ts';
import { custodianKeys, keyOfPeer, openDoor, openWriter } from '../connect.ts';
import { lastBelieved } from '../custody-believed.ts';
import { table } from '../screen.ts';

const pageLeaves = 64;
const shownDefault = 20;
/** How far the clocks of custodians may be apart from ours, and how long a receipt may be on its way. */
const slackMs = 10_000;

/** What became of one log. */
interface Audited {
  readonly name: string;
  readonly log?: VerifiedLog;
  /** Others that vouch for it, and up to which entry. */
  readonly vouched: readonly string[];
  readonly vouchedEntries: number;
  /** Undefined when all is well. */
  readonly problem?: string;
  readonly isReached: boolean;
}

export const custodyAudit: Command = {
  name: 'custody audit',
  usage: '[--key BRANCH-KEY] [--all]',
  summary: 'Verify the logs of all custodians and tell who opened what',
  options: {
    key: { type: 'string', value: 'HEX', text: 'only openings of this branch key' },
    all: { type: 'boolean', text: `every opening (default the last ${shownDefault})` },
  },
  positionals: [0, 0],
  notes:
    'Exit status: 0 all logs verify · 5 a custodian could not be asked · 6 a log is damaged, is not what was seen before, or misses\nwhat the receipts of this machine tell of.',
  async run(context) {
    const { data, json, screen } = context;
    await using door = await openDoor(context);
    const keys = await logKeys(data);
    const [receipts, readAt] = [await readReceipts(data), Date.now()];
    const audited = await Promise.all(keys.map((key) => auditOne(context, door, key, keys)));
    const logs = audited.flatMap(({ log }) => (log === undefined ? [] : [log]));
    const opened = openings(logs, context.text('key'));
    const names = await namesOf(data);
    const { cg, inPlaceOf } = await lastBelieved(door, data);
    const found = reconciled(logs, receipts, new Set(names.keys()), readAt);
    const { findings, lost } =
      inPlaceOf === undefined ? { findings: found, lost: 0 } : withoutLost(found, logs, receipts, cg);
    if (json) screen.value({ logs: audited.map(summaryOf), openings: opened, findings, lost });
    else show(context, audited, opened, names);
    if (!json && inPlaceOf !== undefined) screen.line(endedText(inPlaceOf, lost));
    if (!json) for (const finding of findings) screen.line(screen.paint('red', findingText(finding)));
    if (audited.some(({ isReached, problem }) => isReached && problem !== undefined)) return 6;
    if (findings.some(({ kind }) => kind !== 'receipt-missing')) return 6;
    return audited.some(({ isReached }) => !isReached) ? 5 : 0;
  },
};

/** The logs of the custodians that the operator's membership names. */
async function logKeys(data: string): Promise<readonly (NoteKey & { readonly custodian: string })[]> {
  const { file } = await readLayout(data);
  const keys = await custodianKeys(data);
  return file.processes.flatMap(({ name, peer }) => {
    const publicKey = keys.get(peer);
    return publicKey === undefined ? [] : [{ custodian: name, name: `${file.cluster}/${name}`, publicKey }];
  });
}

async function auditOne(
  context: Context,
  door: DoorClient,
  key: NoteKey & { readonly custodian: string },
  all: readonly NoteKey[],
): Promise<Audited> {
  const nothing = { name: key.custodian, vouched: [], vouchedEntries: 0 };
  let fetched: Awaited<ReturnType<typeof fetchLog>>;
  try {
    fetched = await fetchLog(context, door, key);
  } catch (error) {
    context.signal.throwIfAborted();
    // What is signed wrongly was reached; what did not answer was not.
    const isReached = isHoldfastError(error, 'RECORD_INVALID');
    return { ...nothing, isReached, problem: describeError(error) };
  }
  const { note, cosigned, leaves } = fetched;
  try {
    const log = verifyLog(key, note, leaves);
    await checkSeen(context.data, key, note, leaves);
    const witnesses = all.filter(({ name }) => name !== key.name);
    const vouched = cosigned === null ? undefined : vouchedBy(key, cosigned, leaves, witnesses);
    return {
      name: key.custodian,
      log,
      vouched: vouched?.names ?? [],
      vouchedEntries: vouched?.entries ?? 0,
      isReached: true,
    };
  } catch (error) {
    if (!isHoldfastError(error)) throw error;
    return { ...nothing, isReached: true, problem: describeError(error) };
  }
}

async function fetchLog(
  { signal }: Context,
  door: DoorClient,
  key: NoteKey & { readonly custodian: string },
) {
  const leaves: Uint8Array[] = [];
  const first = await door.custodyLog(key.custodian, { from: 0, count: pageLeaves }, { signal });
  const { size } = openCheckpoint(first.note, key);
  let page = first;
  for (;;) {
    leaves.push(...page.leaves.map((leaf) => new Uint8Array(Buffer.from(leaf, 'base64'))));
    if (page.leaves.length === 0 || leaves.length >= size) break;
    page = await door.custodyLog(key.custodian, { from: leaves.length, count: pageLeaves }, { signal });
  }
  // Entries that came while the pages were read are for the next audit.
  return { note: first.note, cosigned: first.cosigned, leaves: leaves.slice(0, size) };
}

function vouchedBy(
  key: NoteKey,
  cosigned: string,
  leaves: readonly Uint8Array[],
  witnesses: readonly NoteKey[],
): { readonly names: readonly string[]; readonly entries: number } {
  const { size } = openCheckpoint(cosigned, key);
  const seen = verifyLog(key, cosigned, leaves.slice(0, size), witnesses);
  return { names: seen.witnesses.map(({ name }) => name), entries: size };
}

/** What was seen at the last audit must be the beginning of what is there now. */
async function checkSeen(
  data: string,
  key: NoteKey & { readonly custodian: string },
  note: string,
  leaves: readonly Uint8Array[],
): Promise<void> {
  const directory = join(layoutPaths(data).custody, 'audited');
  await makeDirectory(layoutPaths(data).custody);
  await makeDirectory(directory);
  // Another identity that the operator's membership gives the name to has a log of its own.
  const path = join(directory, `${key.custodian}.${toHex(key.publicKey).slice(0, 16)}.note`);
  const seen = (await readIfThere(path)) ?? (await seenByName(join(directory, `${key.custodian}.note`), key));
  if (seen !== undefined) verifyLog(key, seen, leaves.slice(0, openCheckpoint(seen, key).size));
  await writeWhole(path, note, 0o600);
}

/** As it was kept before names could be given to others; undefined when it is not of this one. */
async function seenByName(path: string, key: NoteKey): Promise<string | undefined> {
  const seen = await readIfThere(path);
  if (seen === undefined) return undefined;
  try {
    openCheckpoint(seen, key);
    return seen;
  } catch (error) {
    if (isHoldfastError(error, 'RECORD_INVALID')) return undefined;
    throw error;
  }
}

/** Receipts of this machine: of its door and its command line. */
async function readReceipts(data: string): Promise<readonly DatedReceipt[]> {
  const { file } = await readLayout(data);
  const paths = layoutPaths(data);
  const doors = file.processes.filter(({ role }) => role === 'door').map(({ name }) => paths.data(name));
  const files = [paths.custodyReceipts, ...doors.map((directory) => join(directory, 'custody-receipts'))];
  const texts = await Promise.all(files.flatMap((path) => [`${path}.old`, path]).map(readIfThere));
  return texts.flatMap((text) => parseReceipts(text ?? ''));
}

/**
 * What does not fit between logs and receipts. The receipts were read before the logs, so each has its entries there.
 * Openings by others than `own` keys, from before the first receipt that is kept, or of the last moments are not missed.
 */
function reconciled(
  logs: readonly VerifiedLog[],
  receipts: readonly DatedReceipt[],
  own: ReadonlySet<string>,
  readAt: number,
): readonly Finding[] {
  const first = Math.min(...receipts.map(({ at }) => at));
  const threshold = Math.max(0, ...receipts.map((each) => each.threshold));
  return reconcile(logs, receipts, threshold).filter(
    (finding) =>
      finding.kind !== 'receipt-missing' ||
      (own.has(finding.opening.requester) &&
        finding.opening.at >= first &&
        finding.opening.at < readAt - slackMs),
  );
}

function endedText({ of, to, beat, reason }: Succession, lost: number): string {
  const openings =
    lost === 0
      ? ''
      : `; ${lost} openings of before cannot be checked: logs of custodians that helped went with them`;
  return `group ${of} ended at beat ${beat}, ${to} is in its place: ${reason}${openings}`;
}

function findingText(finding: Finding): string {
  if (finding.kind === 'leaf-missing')
    return `${finding.custodian} helped to open ${finding.bkId} and has not written it down`;
  if (finding.kind === 'too-few-leaves')
    return `${finding.bkId} was opened, and only ${finding.leaves} logs tell of it`;
  const { bkId, at } = finding.opening;
  return `${bkId} was opened at ${new Date(at).toISOString()} with a key of this machine, and there is no receipt`;
}

/** Keys whose owners are known here. */
async function namesOf(data: string): Promise<ReadonlyMap<string, string>> {
  const { file } = await readLayout(data);
  const writer = await openWriter(data);
  const processes = await Promise.all(
    file.processes.map(async ({ name, peer }) => [toHex(await keyOfPeer(peer)), name] as const),
  );
  return new Map([...processes, [toHex(writer.publicKey), 'writer'] as const]);
}

function summaryOf({ name, log, vouched, vouchedEntries, problem }: Audited): object {
  const entries = log?.checkpoint.size ?? null;
  return { name, entries, vouched, vouchedEntries, problem: problem ?? null };
}

function show(
  context: Context,
  audited: readonly Audited[],
  opened: readonly Opening[],
  names: ReadonlyMap<string, string>,
): void {
  const { screen } = context;
  const { paint } = screen;
  for (const { name, log, vouched, vouchedEntries, problem } of audited) {
    if (problem !== undefined) screen.line(paint('red', `${name}: ${problem}`));
    else
      screen.line(
        `${name}: ${log?.checkpoint.size ?? 0} entries, whole; ${vouchedEntries} vouched for by ${vouched.length} others`,
      );
  }
  const shown =
    context.flag('all') || context.text('key') !== undefined ? opened : opened.slice(-shownDefault);
  screen.line('');
  if (shown.length === 0) screen.line('Nothing was opened.');
  else if (shown.length < opened.length)
    screen.line(`The last ${shown.length} of ${opened.length} openings:`);
  const rows = shown.map((each) => [
    new Date(each.at).toISOString(),
    String(each.beat),
    each.purpose,
    names.get(each.requester) ?? `${each.requester.slice(0, 16)}…`,
    each.bkId,
    each.custodians.map((origin) => origin.slice(origin.lastIndexOf('/') + 1)).join(' '),
  ]);
  if (rows.length === 0) return;
  const head = ['AT', 'BEAT', 'FOR', 'WHO', 'BRANCH KEY', 'OPENED BY'];
  for (const line of table([head.map((cell) => paint('dim', cell)), ...rows], [1])) screen.line(line);
}
