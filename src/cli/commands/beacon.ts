import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import type { DoorClient, WatchedRequest } from '../../client/door-client.ts';
import { minute } from '../../core/clock.ts';
import { describeError, HoldfastError, isHoldfastError } from '../../core/errors.ts';
import type { StewardStatus } from '../../steward/status.ts';
import { type BeaconSettings, defaultStream } from '../../local/beacon-settings.ts';
import { writeBeaconSettings } from '../../local/layout.ts';
import { streamSettings } from '../beacon-option.ts';
import type { Command, Context } from '../command.ts';
import { openDoor } from '../connect.ts';

export const beaconVerify: Command = {
  name: 'beacon verify',
  usage: '',
  summary: 'Prove that chain, view and blocks agree',
  positionals: [0, 0],
  notes: 'Exit status 6 when they do not.',
  async run(context) {
    const { ok } = await follow(context, (door, request) => door.beaconVerify(request));
    return ok ? 0 : 6;
  },
};

export const beaconRebuild: Command = {
  name: 'beacon rebuild',
  usage: '',
  summary: 'Reconstruct the registry from the records found in the blockstores alone',
  options: {
    without: { type: 'string', value: 'NODE,…', text: 'storage nodes that never come back' },
  },
  positionals: [0, 0],
  notes: [
    'Asks every storage node, because any of them may be the last one that holds some record.',
    'Returns when steward and door have started again on the new log. The old one stays beside it.',
  ].join('\n'),
  async run(context) {
    const without = context
      .text('without')
      ?.split(',')
      .map((name) => name.trim());
    await replaceLog(context, (door, request) => door.beaconRebuild(without, request));
  },
};

export const beaconReseed: Command = {
  name: 'beacon reseed',
  usage: '',
  summary: 'Begin a new log with what the views hold, in the place of one that lost something',
  positionals: [0, 0],
  notes: [
    'Takes the view, of a steward or a door, that holds most. Returns when steward and door have started again on the',
    'new log; the old one stays beside it. Refused when two views tell different histories: see `beacon rebuild`.',
  ].join('\n'),
  async run(context) {
    await replaceLog(context, (door, request) => door.beaconReseed(request));
  },
};

export const beaconAccept: Command = {
  name: 'beacon accept',
  usage: 'LOG-ID',
  summary: 'Have the door follow a rebuilt log although it lacks what the door has seen',
  positionals: [1, 1],
  notes: [
    'For a version that is not to be had any more. The Beacon line of `status` says which one is lacking, and the id.',
    'The door keeps its present copy beside the new one. Returns when it has started again and follows.',
  ].join('\n'),
  async run(context) {
    const [id = ''] = context.positionals;
    {
      await using door = await openDoor(context);
      await door.beaconAccept(id, { signal: context.signal });
    }
    await untilStartedAgain(context, { refused: id });
    if (context.json) context.screen.value({ log: id });
    else context.screen.line(`the door follows log ${id}`);
  },
};

export const beaconMigrate: Command = {
  name: 'beacon migrate',
  usage: '--to nats://HOST:PORT,…|leveldb',
  summary: 'Move the live registry to a stream on NATS servers, or back',
  options: {
    to: { type: 'string', value: 'WHERE', text: 'NATS servers with commas between, or leveldb' },
    stream: { type: 'string', value: 'NAME', text: `the stream (default ${defaultStream})` },
    login: { type: 'string', value: 'FILE', text: 'NATS credentials, or one line user:password' },
    system: { type: 'string', value: 'FILE', text: 'the same for the system account of the servers' },
    ca: { type: 'string', value: 'FILE', text: 'PEM file of the authority of their certificates' },
  },
  positionals: [0, 0],
  notes: [
    'Reads go on. Writes wait for the last step, which copies what came meanwhile. It can be interrupted anywhere and',
    'begun again. Returns when steward and door have started again on the new log; the old one stays where it is.',
  ].join('\n'),
  async run(context) {
    const to = targetOf(context);
    const before = await beforehand(context);
    const { already } = await follow(context, (door, request) => door.beaconMigrate(to, request));
    // Stewards that are there know it by themselves; this is for those that come.
    await writeBeaconSettings(context.data, to);
    if (already !== true) await untilStartedAgain(context, before);
  },
};

function targetOf(context: Context): BeaconSettings {
  const where = context.text('to');
  if (where === undefined)
    throw new HoldfastError('ARGUMENT_MISSING', '--to says where: nats://HOST:PORT,… or leveldb');
  if (where === 'leveldb') return { engine: 'leveldb' };
  const [stream, credentials] = [context.text('stream'), context.text('login')];
  return streamSettings(where, {
    stream,
    credentials,
    system: context.text('system'),
    ca: context.text('ca'),
  });
}

export const beaconExport: Command = {
  name: 'beacon export',
  usage: 'FILE',
  summary: 'Write the whole log to one checksummed file (- for standard output)',
  options: { force: { type: 'boolean', text: 'replace the file if it exists' } },
  positionals: [1, 1],
  async run(context) {
    const { positionals, json, screen, signal } = context;
    const [file = '-'] = positionals;
    await using door = await openDoor(context);
    let sizeBytes = 0;
    using progress = screen.progress('export', undefined);
    const bytes = counted(door.beaconExport({ signal }), (more) => {
      sizeBytes += more;
      progress.add(more);
    });
    if (file === '-') {
      await pipeline(Readable.from(bytes, { objectMode: false }), screen.streams.stdout, { end: false });
      return;
    }
    const { writeFileWhole } = await import('../../client/directory.ts');
    await writeFileWhole(file, bytes, { force: context.flag('force') });
    if (json) screen.value({ file, sizeBytes });
    else screen.line(`${file}: ${sizeBytes} bytes`);
  },
};

export const beaconImport: Command = {
  name: 'beacon import',
  usage: 'FILE',
  summary: 'Take an exported log into an empty Beacon, or go on with the same one',
  positionals: [1, 1],
  notes: [
    'A damaged Beacon is replaced by the one in the file, which must hold all that the door has seen of it: see',
    '`beacon export`. Then this returns when steward and door have started again on it.',
  ].join('\n'),
  async run(context) {
    const { positionals, json, screen, signal } = context;
    const { readFileBytes } = await import('../../client/directory.ts');
    await using door = await openDoor(context);
    const before = await beforehand(context);
    using progress = screen.progress('import', undefined);
    const source = counted(readFileBytes(positionals[0] ?? '', { follow: true }), (more) =>
      progress.add(more),
    );
    const report = await door.beaconImport(source, { signal });
    if (typeof report === 'object' && report !== null && 'restored' in report && report.restored === true)
      await untilStartedAgain(context, before);
    if (json) screen.value(report);
    else for (const line of reportLines(report)) screen.line(line);
  },
};

/** Says progress as it comes and prints the report. */
async function follow<Report>(
  context: Context,
  start: (door: DoorClient, request: WatchedRequest) => Promise<Report>,
): Promise<Report> {
  const { screen, json, signal } = context;
  await using door = await openDoor(context);
  const onProgress = (progress: unknown): void => screen.say(reportLines(progress).join(' · '));
  const report = await start(door, { signal, onProgress });
  if (json) screen.value(report);
  else for (const line of reportLines(report)) screen.line(line);
  return report;
}

/** The same of what puts another log into force: returns when steward and door have started again on it. */
async function replaceLog(
  context: Context,
  start: (door: DoorClient, request: WatchedRequest) => Promise<unknown>,
): Promise<void> {
  const before = await beforehand(context);
  await follow(context, start);
  await untilStartedAgain(context, before);
}

/** How it stood before. */
interface Before {
  /** When the steward started, ms since 1970; undefined when it did not answer. */
  readonly startedAt?: number | undefined;
  /** A log that the door did not follow then: that it says so still is no news. */
  readonly refused: string | null;
}

async function beforehand(context: Context): Promise<Before> {
  await using door = await openDoor(context);
  const { steward, door: facts } = await door.status<StewardStatus>({ signal: context.signal });
  return { startedAt: steward?.startedAt, refused: facts.beacon.refused };
}

const startedAgainMs = minute;
const pollMs = 200;
const ifDiverged =
  'A large registry takes it longer to compare: holdfast status says when it follows. If it stays so, see docs/operating/beacon-diverged.md';

/**
 * Waits for another steward than there was before, and a door whose view follows its log.
 * Throws VERSION_CONFLICT as soon as the door refuses that.
 */
async function untilStartedAgain(context: Context, before: Before): Promise<void> {
  const deadline = performance.now() + startedAgainMs;
  context.screen.say('the new log takes its place …');
  for (;;) {
    const lacking = await whatIsLacking(context, before);
    if (lacking === undefined) return;
    if (isHoldfastError(lacking, 'VERSION_CONFLICT')) throw lacking;
    if (performance.now() >= deadline)
      throw new HoldfastError('TIMEOUT', `the new log is in force, but ${describeError(lacking)}`, {
        cause: lacking,
      });
    await sleep(pollMs, undefined, { signal: context.signal });
  }
}

async function whatIsLacking(context: Context, before: Before): Promise<unknown> {
  try {
    await using door = await openDoor(context);
    const {
      steward,
      door: facts,
      stewardError,
    } = await door.status<StewardStatus>({ signal: context.signal });
    if (steward === null || steward.startedAt === before.startedAt)
      return new Error(`the steward has not started again: ${stewardError ?? 'the old one answers'}`);
    if (!steward.catalogue.fresh) return new Error(`the steward is behind: ${steward.catalogue.reason}`);
    const { state, reason, refused } = facts.beacon;
    if (state === 'following') return undefined;
    if (state === 'diverged' && refused !== null && refused !== before.refused)
      return new HoldfastError(
        'VERSION_CONFLICT',
        `the new log is in force, and the door does not follow it: ${reason}. Where that version is not to be had any more: holdfast beacon accept ${refused}`,
        { details: { refused } },
      );
    const hint = state === 'diverged' ? `. ${ifDiverged}` : '';
    return new Error(`the door is ${state}: ${reason}${hint}`);
  } catch (error) {
    context.signal.throwIfAborted();
    return error; // the door is starting
  }
}

/** Nested reports, one fact a line; long lists are cut. */
function reportLines(report: unknown): string[] {
  if (typeof report !== 'object' || report === null) return [String(report)];
  return Object.entries(report).flatMap(([name, value]: [string, unknown]) => {
    if (Array.isArray(value))
      return [
        `${name}: ${value.length}`,
        ...value
          .slice(0, 20)
          .map((each: unknown) => `  ${typeof each === 'string' ? each : JSON.stringify(each)}`),
      ];
    return [`${name}: ${typeof value === 'string' ? value : JSON.stringify(value)}`];
  });
}

async function* counted(
  bytes: AsyncIterable<Uint8Array>,
  tell: (more: number) => void,
): AsyncGenerator<Uint8Array, void, undefined> {
  for await (const part of bytes) {
    tell(part.length);
    yield part;
  }
}
