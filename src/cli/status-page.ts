// One screen that says how the cluster is: what a person looks at first when something is wrong.
// Pure: from the door's answer to lines.

import type { StatusAnswer } from '../api/types.ts';
import type { BeaconReport, NodeStatus, StewardStatus, ViewsReport } from '../steward/status.ts';
import { custodyLine } from './custody-page.ts';
import { bytesText, durationText, type Paint, table } from './screen.ts';

/** `problem`: lost, last copy or below the minimum. `unknown`: the steward cannot be asked, or has no Beacon to go by. */
export type Verdict = 'well' | 'problem' | 'unknown';

export function verdictOf({ steward }: StatusAnswer<StewardStatus>): Verdict {
  if (steward === null) return 'unknown';
  const { lost, lastCopy, belowMin } = steward.objects;
  if (lost + lastCopy + belowMin > 0) return 'problem';
  return steward.catalogue.fresh ? 'well' : 'unknown';
}

/** Lines of the page. `url` is where the door was reached. */
export function statusPage(status: StatusAnswer<StewardStatus>, url: string, paint: Paint): string[] {
  const { steward, door } = status;
  return [
    `${paint('bold', status.cluster)}  ${new Date(status.at).toISOString()}${beatText(steward)}`,
    '',
    ...(steward === null
      ? [paint('red', `The steward does not answer: ${status.stewardError ?? 'no reason given'}`)]
      : headline(steward, paint)),
    '',
    beaconLine(door, paint),
    ...(steward?.beacon === undefined ? [] : [logLine(steward.beacon, paint)]),
    `Door     ${url} · ${door.peersConnected} peers connected`,
    ...(door.sealing
      ? [
          `         ${paint('yellow', 'seals for plain HTTP callers: their plaintext and keys are in its memory while a request lasts')}`,
          ...wrapped(door.sealingText, 96).map((line) => `         ${paint('yellow', line)}`),
        ]
      : ['         handles ciphertext only']),
    ...(status.custody === undefined ? [] : [custodyLine(status.custody, paint)]),
    ...(steward === null ? [] : stewardLines(steward, paint)),
    ...(steward === null ? [] : ['', ...nodeTable(steward, paint), '', ...work(steward, paint)]),
  ];
}

function beatText(steward: StewardStatus | null): string {
  if (steward === null) return '';
  const { index, tempo, intervalMs } = steward.beat;
  return `  beat ${index ?? '-'} (${durationText(intervalMs / 1000)}${tempo === 'locked' ? '' : `, ${tempo}`})`;
}

function headline({ objects, catalogue }: StewardStatus, paint: Paint): string[] {
  const { total, healthy, healing, short, belowMin, lastCopy, lost, unchecked } = objects;
  const count = (style: 'red' | 'yellow' | 'green' | 'bold', number: number, text: string): string =>
    number === 0 ? paint('dim', `0 ${text}`) : paint(style, `${number} ${text}`);
  const counts = [
    count('red', lost, 'lost'),
    count('red', lastCopy, 'last copy'),
    count('red', belowMin, 'below minimum'),
    count('yellow', short, 'short'),
    count('yellow', healing, 'healing'),
    ...(unchecked === 0 ? [] : [count('yellow', unchecked, 'not checked yet')]),
    count('green', healthy, 'healthy'),
  ].join(' · ');
  const loud =
    lost === 0
      ? []
      : [
          paint(
            'red',
            `!!! ${lost} of ${total} objects are LOST: no node that answers has all of their blocks.`,
          ),
          paint('red', '!!! Bring stopped or missing nodes back before anything else; do not wipe anything.'),
        ];
  const blind = catalogue.fresh
    ? []
    : [paint('red', `The steward cannot know what ought to exist now: ${catalogue.reason}`)];
  return [...loud, ...blind, `${total} objects: ${counts}`];
}

function beaconLine({ beacon }: StatusAnswer['door'], paint: Paint): string {
  const { revision, state, reason, addresses, removed, versions, sizeBytes, missing } = beacon;
  const facts = [
    `revision ${revision}`,
    state === 'following' ? state : paint('red', `${state}${reason === '' ? '' : `: ${reason}`}`),
    `${addresses} addresses, ${removed} removed, ${versions} versions, ${bytesText(sizeBytes)}`,
    ...(missing === 0 ? [] : [paint('red', `${missing} versions missing`)]),
  ];
  return `Beacon   ${facts.join(' · ')}`;
}

/** What keeps the log, and what speaks against calling it durable. */
function logLine({ text, state, reason, durable, problems, views }: BeaconReport, paint: Paint): string {
  const facts = [
    text,
    ...(state === 'ready' ? [] : [paint('red', `${state}${reason === '' ? '' : `: ${reason}`}`)]),
    ...(durable || problems.length === 0 ? [] : [paint('yellow', `not durable: ${problems.join('; ')}`)]),
    ...(views === undefined ? [] : [viewsFact(views, paint)]),
  ];
  return `Log      ${facts.join(' · ')}`;
}

function viewsFact({ revision, equal, differing }: ViewsReport, paint: Paint): string {
  if (differing.length === 0) return `${equal.length} views alike at revision ${revision}`;
  return paint('red', `unlike at revision ${revision}: ${differing.map(({ name }) => name).join(', ')}`);
}

/** How the stewards have divided the work, as the one that answers knows it. */
function stewardLines({ shares, backbeat }: StewardStatus, paint: Paint): string[] {
  if (shares === undefined) return [];
  const { epoch, leaseMs, waitMs, stewards } = shares;
  const each = stewards.map(({ name, isSelf, slices, heardMs }) => {
    const words = [
      `${name}${isSelf ? ' (answers)' : ''}`,
      `${slices} of 256`,
      ...(isSelf && backbeat?.isLeading === true ? ['leads the Pulse'] : []),
      ...(heardMs === null ? ['never heard'] : []),
      ...(heardMs !== null && heardMs > silentMs ? [`silent for ${durationText(heardMs / 1000)}`] : []),
    ].join(', ');
    return slices > 0 ? words : paint('yellow', words);
  });
  const lease =
    waitMs > 0 ? `begins in ${durationText(waitMs / 1000)}` : `lease ${durationText(leaseMs / 1000)}`;
  const state = leaseMs === 0 ? paint('red', 'does nothing: no majority of the nodes confirms it') : lease;
  return [`Stewards ${each.join(' · ')} · epoch ${epoch ?? '-'}, ${state}`];
}

/** A steward is called every second. */
const silentMs = 5000;

function nodeTable({ nodes }: StewardStatus, paint: Paint): string[] {
  const rows = nodes.map((node) => [
    node.name,
    node.zone,
    nodeState(node, paint),
    String(node.blocks),
    bytesText(node.bytes),
    node.freeBytes === null ? '-' : bytesText(node.freeBytes),
    node.lastBeatMs === null ? 'never' : `${durationText(node.lastBeatMs / 1000)} ago`,
    node.reason === '' && node.lastError === '' ? '' : paint('dim', node.reason || node.lastError),
  ]);
  const head = ['NODE', 'ZONE', 'STATE', 'BLOCKS', 'BYTES', 'FREE', 'HEARD', ''];
  return table([head.map((cell) => paint('dim', cell)), ...rows], [3, 4, 5]);
}

function nodeState({ liveness, state }: NodeStatus, paint: Paint): string {
  if (liveness === 'up') return state === 'read-only' ? paint('yellow', 'read-only') : paint('green', 'up');
  return paint(liveness === 'down' ? 'red' : 'yellow', liveness);
}

function work(steward: StewardStatus, paint: Paint): string[] {
  const { healing, queue, alarms, unable, unableTotal, blocks } = steward;
  const lines: string[] = [];
  const idle = queue.waiting + queue.underway + queue.backingOff === 0 && healing.pendingBytes === 0;
  const eta = healing.etaMs === null ? '' : `, ${durationText(healing.etaMs / 1000)} left`;
  lines.push(
    idle
      ? `Healing  nothing to do · ${healing.copiesDone} copies made so far`
      : `Healing  ${bytesText(healing.pendingBytes)} to go at ${bytesText(healing.bytesPerSecond)}/s${eta} · ` +
          `${queue.underway} copies under way, ${queue.waiting} waiting, ${queue.backingOff} after a failure`,
  );
  if (blocks.unreferenced > 0)
    lines.push(`         ${blocks.unreferenced} blocks are referenced by nothing and wait to be reclaimed`);
  for (const alarm of alarms) lines.push(paint('red', `Alarm    ${alarm.name}: ${alarm.text}`));
  for (const { address, cid, state, reason } of unable.slice(0, unableShown))
    lines.push(paint(state === 'lost' ? 'red' : 'yellow', `Cannot   ${state}: ${address ?? cid}: ${reason}`));
  if (unableTotal > unableShown)
    lines.push(
      `         and ${unableTotal - Math.min(unable.length, unableShown)} more that cannot be healed now`,
    );
  return lines;
}

/** The page stays one screen. */
const unableShown = 5;

function wrapped(text: string, width: number): string[] {
  const lines: string[] = [''];
  for (const word of text.split(' ')) {
    const line = lines.at(-1) ?? '';
    if (line !== '' && line.length + word.length >= width) lines.push(word);
    else lines[lines.length - 1] = line === '' ? word : `${line} ${word}`;
  }
  return lines;
}
