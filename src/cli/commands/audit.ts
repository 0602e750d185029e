import type { StrandedAct, StrandedFinding, StrandedOrder, StrandedResult } from '../../api/types.ts';
import { HoldfastError } from '../../core/errors.ts';
import type { Command, Context } from '../command.ts';
import { openDoor } from '../connect.ts';
import type { Screen } from '../screen.ts';
import { bytesText } from '../screen.ts';

export const auditStranded: Command = {
  name: 'audit stranded',
  usage: '[--adopt | --collect] [--yes PLAN]',
  summary: 'Find blocks that no entry reaches, and entries that lack blocks, keys or versions',
  options: {
    adopt: { type: 'boolean', text: 'register what is valid and complete, give a lease to the rest' },
    collect: { type: 'boolean', text: 'delete what no entry can need, by the rules of every deletion' },
    yes: {
      type: 'string',
      value: 'PLAN',
      text: 'carry out that plan; without it, only say what would be done',
    },
  },
  positionals: [0, 0],
  notes: [
    'Every node is asked for all it holds; nothing is taken from the ledger of a steward.',
    'Exit status: 0 nothing is stranded · 6 something is · 5 somebody could not be asked, and nothing else was found',
    'With --yes: 0 all of the plan was done · 1 something was refused. See docs/operating/stranded.md.',
  ].join('\n'),
  async run(context) {
    const { screen, json, signal } = context;
    const order = orderOf(context);
    const plan = context.text('yes');
    await using door = await openDoor(context);
    using watch = new Watch(screen);
    const result = await door.auditStranded({
      signal,
      ...(order === undefined ? {} : { order }),
      ...(plan === undefined ? {} : { plan }),
      onProgress: (progress) => watch.say(String(progress)),
      onFinding: (finding) => (json ? screen.value({ finding }) : screen.line(findingLine(finding))),
      onAct: (act) => (json ? screen.value({ act }) : screen.line(actLine(act))),
    });
    watch[Symbol.dispose]();
    if (json) screen.value({ result });
    else for (const line of resultLines(result, order, plan)) screen.line(line);
    return plan === undefined ? exitOf(result) : exitOfOrder(result);
  },
};

/** One line that changes where somebody watches; nothing otherwise: an audit says much. */
class Watch implements Disposable {
  readonly #screen: Screen;
  #shownMs = Number.NEGATIVE_INFINITY;

  constructor(screen: Screen) {
    this.#screen = screen;
  }

  say(text: string): void {
    const { stderr } = this.#screen.streams;
    if (stderr.isTTY !== true || performance.now() - this.#shownMs < 100) return;
    this.#shownMs = performance.now();
    stderr.write(`\r\u001B[2K${text}`);
  }

  [Symbol.dispose](): void {
    if (this.#shownMs > 0) this.#screen.streams.stderr.write('\r\u001B[2K');
    this.#shownMs = Number.NEGATIVE_INFINITY;
  }
}

function orderOf(context: Context): StrandedOrder | undefined {
  const [adopt, collect] = [context.flag('adopt'), context.flag('collect')];
  if (adopt && collect)
    throw new HoldfastError(
      'ARGUMENT_INVALID',
      'one of --adopt and --collect at a time: each is a plan of its own',
    );
  if (context.text('yes') !== undefined && !adopt && !collect)
    throw new HoldfastError('ARGUMENT_MISSING', '--yes needs --adopt or --collect');
  if (adopt) return 'adopt';
  return collect ? 'collect' : undefined;
}

function exitOf({ found, unsure, unasked }: StrandedResult): number {
  if (Object.values(found).some((count) => count > 0)) return 6;
  return unsure > 0 || unasked.length > 0 ? 5 : 0;
}

function exitOfOrder({ refused = 0 }: StrandedResult): number {
  return refused === 0 ? 0 : 1;
}

function findingLine({
  kind,
  sure,
  reason,
  cid,
  chain,
  version,
  sizeBytes,
  adoptable,
}: StrandedFinding): string {
  const what = [
    ...(chain === undefined ? [] : [`${chain} version ${version}`]),
    ...(cid === undefined ? [] : [cid]),
    ...(sizeBytes === undefined ? [] : [bytesText(sizeBytes)]),
  ].join('  ');
  const word = sure ? kind : `${kind}?`;
  return `${word.padEnd(10)}  ${what}  ${adoptable === true ? '(can be adopted) ' : ''}${reason}`;
}

function actLine({ act, cid, chain, version, outcome }: StrandedAct): string {
  const what = chain === undefined ? cid : `${chain} version ${version}  ${cid}`;
  return `${outcome === undefined ? 'would ' : ''}${act}  ${what}${outcome === undefined ? '' : `  ${outcome}`}`;
}

function resultLines(
  result: StrandedResult,
  order: StrandedOrder | undefined,
  plan: string | undefined,
): string[] {
  const { found, unsure, unasked, entries, blocks, leased, released, ofOrphans, plans } = result;
  const total = Object.values(found).reduce((sum, count) => sum + count, 0);
  const counts = Object.entries(found).map(([kind, count]) => `${count} ${kind}`);
  const lines = [
    ...unasked.map(({ who, reason }) => `not asked: ${who}: ${reason}`),
    `${blocks} blocks, ${entries} entries at revision ${result.revision}: ` +
      (total === 0 ? 'nothing is stranded for sure' : counts.join(', ')) +
      (unsure === 0 ? '' : `; ${unsure} not sure`),
    `${released} blocks of what was removed wait for their end, ${leased} are leased, ${ofOrphans} belong to orphans`,
  ];
  if (plan !== undefined) return [...lines, `${result.done} done, ${result.refused} refused`];
  for (const name of ['adopt', 'collect'] as const) {
    const { acts, hash } = plans[name];
    if (acts > 0 && (order === undefined || order === name))
      lines.push(
        order === undefined
          ? `--${name} would do ${acts} things`
          : `carry it out with: holdfast audit stranded --${name} --yes ${hash}`,
      );
  }
  return lines;
}
