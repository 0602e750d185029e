import type { StatAnswer } from '../../api/types.ts';
import type { ObjectReport } from '../../steward/status.ts';
import type { Command } from '../command.ts';
import { openDoor } from '../connect.ts';
import { bytesText, type Paint, table } from '../screen.ts';

export const stat: Command = {
  name: 'stat',
  usage: 'ADDRESS',
  summary: 'Manifest, versions, holders and proofs of one version',
  positionals: [1, 1],
  notes: 'With --json the whole signed manifest.',
  async run({ positionals, json, screen, signal, ...context }) {
    await using door = await openDoor(context);
    const answer = await door.stat(positionals[0] ?? '', { signal });
    if (json) screen.value(answer);
    else for (const line of statLines(answer, screen.paint)) screen.line(line);
  },
};

function statLines(answer: StatAnswer, paint: Paint): string[] {
  const { version: facts, newest, replicas, replicasError } = answer;
  const rows = [
    ['address', facts.address],
    ['version', `${facts.version} of ${newest}`],
    ['type', facts.type],
    ['size', `${bytesText(facts.sizeBytes)} (${facts.sizeBytes} bytes)`],
    ['media', facts.media],
    ['class', facts.cls],
    ['tags', facts.tags.join(', ') || '-'],
    ['made', `${facts.generatedAt} by ${facts.generatedBy}`],
    ['manifest', facts.cid],
    ['content', facts.root ?? '- (removed)'],
    ['revision', String(facts.revision)],
  ];
  const report = isReport(replicas) ? replicas : undefined;
  return [
    ...table(rows.map(([name = '', value = '']) => [paint('dim', name), value])),
    '',
    ...(report === undefined
      ? [paint('yellow', `copies: the steward cannot say (${replicasError ?? 'no report'})`)]
      : copies(report, paint)),
  ];
}

function copies(report: ObjectReport, paint: Paint): string[] {
  const { status, policy, copiesFewest, zonesFewest, blocks, holders, reasons } = report;
  const style =
    status === 'healthy' ? 'green' : ['lost', 'lastCopy', 'belowMin'].includes(status) ? 'red' : 'yellow';
  return [
    `${paint(style, status)}: ${copiesFewest} copies in ${zonesFewest} zones of each of ${blocks} blocks at least; ` +
      `wanted ${policy.min} to ${policy.max} in ${policy.zones}`,
    ...reasons.map((reason) => paint('yellow', `  ${reason}`)),
    ...table([
      ['NODE', 'ZONE', 'UP', 'BLOCKS', 'PROVEN', 'LAST PROOF'].map((cell) => paint('dim', cell)),
      ...holders.map((holder) => [
        holder.name,
        holder.zone,
        holder.up ? 'yes' : paint('red', 'no'),
        String(holder.blocks),
        String(holder.provenBlocks),
        holder.provenNewest === null ? 'never' : new Date(holder.provenNewest).toISOString(),
      ]),
    ]),
  ];
}

function isReport(value: unknown): value is ObjectReport {
  return typeof value === 'object' && value !== null && 'holders' in value && Array.isArray(value.holders);
}
