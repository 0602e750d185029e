// A door's own copy of the registry, on its disk, and which log it was folded from.
//
//   view/                the copy
//   view-log             {follows, next, left, checked}: the id of its log; that of the log which takes its place at the
//                        next start; true when a person decided that, since it lacks something; true once the log
//                        brought a false record, and is never folded on trust again. {seen: {revision, chain}}: how
//                        far a copy of an earlier edition had come, which only a log that holds it may fill again
//   view.next-<id>       a copy of a log that is in the place of ours, while that is looked into
//   view.replaced-<id>   the copy before this one; all that it holds is in this one too
//   view.left-<id>       a copy that holds what its successor lacks: people delete it, nobody else; `.2`, `.3` … where
//                        there is one already
//   view.check           the copy, folded again to be compared: one taken from the steward, or one unlike others
//   view.damaged         the copy that was found damaged or false last
//   view.unfinished      one that broke off while it was taken from the steward, until there is another copy
//   view.earlier         the last copy of an earlier edition

import { mkdir, readdir, rename, rm } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { isEarlierEdition, isStoreDamage } from '../beacon/birth.ts';
import { proveRows } from '../beacon/copied.ts';
import { FollowedLog } from '../beacon/followed.ts';
import { isUnfinishedCopy } from '../beacon/late.ts';
import { holds, type LogLineage, type LogPosition } from '../beacon/log.ts';
import type { RemoteLog } from '../beacon/remote.ts';
import { foldUpTo, lostIn } from '../beacon/successor.ts';
import { BeaconView, type ViewOptions } from '../beacon/view.ts';
import { diverged } from '../beacon/view-follower.ts';
import { LevelKv, positionIn } from '../beacon/view-level.ts';
import { keyOfHex, toHex } from '../core/bytes.ts';
import { minute, second } from '../core/clock.ts';
import { HoldfastError } from '../core/errors.ts';
import { fieldOf } from '../core/shape.ts';
import { errnoOf, fileError, isThere, readIfThere, syncDirectory, writeWhole } from '../files/whole.ts';
import { answeredMs } from './member.ts';
import { ViewRoots } from './view-roots.ts';

interface ViewLog {
  readonly follows?: string;
  readonly next?: string;
  readonly left?: boolean;
  readonly checked?: boolean;
  readonly seen?: LogPosition;
}

/** A log in the place of ours that does not hold what we have. */
interface Refused {
  readonly id: string;
  readonly revision: number;
  readonly atMs: number;
  readonly error: unknown;
}

/** A log that may take the place of ours and gives nothing for so long is asked again later. */
const stallMs = 10 * second;
/** One that lacks something, and has grown since, is looked at again after so long. */
const againMs = minute;

export class DoorView implements AsyncDisposable {
  readonly view: BeaconView;
  /**
   * Resolves once the process is to start again: on a copy of another log, which has taken the place of ours, or from
   * nothing, because what we hold turned out to be false.
   */
  readonly replaced: Promise<void>;
  readonly #dataDir: string;
  #log: ViewLog;
  #refused: Refused | undefined;
  /** Until when no other log is looked at: whatever ids come, it takes no more than half of the time. */
  #restUntilMs = 0;
  #proving: Promise<void> = Promise.resolve();
  #isProving = false;
  #replace: () => void = () => undefined;

  private constructor(dataDir: string, view: BeaconView, log: ViewLog) {
    this.#dataDir = dataDir;
    this.view = view;
    this.#log = log;
    this.replaced = new Promise((resolve) => {
      this.#replace = resolve;
    });
    void view.condemned.then(() => this.#onCondemned());
  }

  /** Opens the copy below `dataDir`; one that cannot be opened is fetched again, one of a replaced log set aside. */
  static async open(dataDir: string): Promise<DoorView> {
    let log = await settled(dataDir, await readViewLog(dataDir));
    const path = join(dataDir, 'view');
    const view = await openView(path, log, {}, async () => {
      const seen = await positionIn(path);
      if (seen === undefined || seen.revision === 0) return;
      log = { ...log, seen };
      await writeViewLog(dataDir, log);
    });
    return new DoorView(dataDir, view, log);
  }

  /** `log` for this view to follow: notices when another one has taken its place. */
  over(log: RemoteLog, signal: AbortSignal): FollowedLog {
    this.#proving = this.#proveCopy(signal);
    return new FollowedLog(log, {
      position: () => this.view.position(),
      read: (from, options) => this.view.entriesSince(from, options),
      followed: () => this.#log.follows,
      seen: () => this.#unseen(),
      onLacking: (by, { revision }, error) => {
        if (by !== undefined) this.#refused = { id: by.id, revision, atMs: performance.now(), error };
      },
      onFollowed: (id) => this.#remember({ ...this.#log, follows: id }),
      onReplaced: async (by, head) => {
        await this.#prove(by, head, log, signal);
        console.error(
          `log ${by.id} has taken the place of the one that this view follows, and holds all of it`,
        );
        await this.#remember({ ...this.#log, next: by.id });
        this.#replace();
      },
    });
  }

  /** Id of the log in the place of ours that lacks something; a person may accept it. Undefined once ours is back. */
  get refused(): string | undefined {
    return this.view.health().state === 'following' ? undefined : this.#refused?.id;
  }

  /**
   * From the next start on follows the log `id`, although it lacks what the health says: a person has decided so. The
   * present copy is kept. `replaced` resolves a moment later. Does nothing when that log is followed already. Throws
   * VERSION_CONFLICT when there is no such log that could be taken.
   */
  async accept(id: string): Promise<void> {
    if (this.#log.follows === id || this.#log.next === id) return; // asked again, because the first answer was lost
    if (this.refused !== id)
      throw new HoldfastError(
        'VERSION_CONFLICT',
        `no log ${id} is waiting for this door to be accepted; the check \`beacon\` names the one that is`,
        { details: { waiting: this.refused ?? null } },
      );
    const why = this.#refused?.error;
    console.error(`log ${id} takes the place of the one that this view follows, as ordered:`, why);
    await this.#remember({ ...this.#log, next: id, left: true });
    setTimeout(this.#replace, answeredMs);
  }

  /** For comparing this view with others (view-roots.ts), until `signal` aborts. */
  roots(signal: AbortSignal): ViewRoots {
    return new ViewRoots(this.view, () => this.#proveAgain(signal), signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#proving;
    await this.view[Symbol.asyncDispose]();
  }

  /** Folds the other log beside ours, which goes on being served, and compares. Throws when it lacks something. */
  async #prove({ id }: LogLineage, head: LogPosition, log: RemoteLog, signal: AbortSignal): Promise<void> {
    const before = this.#refused?.id === id ? this.#refused : undefined;
    this.#refused = before; // nobody is to accept one that is not there any more
    if (before !== undefined) {
      const hasGrown = before.revision !== head.revision;
      if (!hasGrown || performance.now() - before.atMs < againMs) throw before.error;
    }
    const problem = await this.#atRest(signal, () => this.#problemOf(id, head, log, signal));
    if (problem === undefined) return;
    const error = diverged(`log ${id} has taken the place of the one that this view follows, and ${problem}`);
    this.#refused = { id, revision: head.revision, atMs: performance.now(), error };
    throw error;
  }

  /** Runs `look` once it is as long ago that the last one ended as that took. */
  async #atRest<Found>(signal: AbortSignal, look: () => Promise<Found>): Promise<Found> {
    await delay(Math.max(0, this.#restUntilMs - performance.now()), undefined, { signal });
    const beganMs = performance.now();
    try {
      return await look();
    } finally {
      this.#restUntilMs = 2 * performance.now() - beganMs;
    }
  }

  async #problemOf(
    id: string,
    head: LogPosition,
    log: RemoteLog,
    signal: AbortSignal,
  ): Promise<string | undefined> {
    const directory = nextPath(this.#dataDir, id);
    await removeSiblings(this.#dataDir, 'view.next-', (name) => name === basename(directory));
    await using next = await openNext(directory, head, log);
    await foldUpTo(next, log, head.revision, { signal, stallMs });
    return await lostIn(this.view, next, signal);
  }

  /** A copy of the steward's rows is folded again from its log and compared, until that was done once. */
  async #proveCopy(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        await rm(this.#checkPath, { recursive: true, force: true });
        await this.view.waitFor(1, signal);
        if (!this.view.isCopied) return await this.#forgetUnfinished();
        await this.#proveRows(signal);
      } catch (error) {
        if (signal.aborted || this.view.health().state === 'damaged') return;
        console.error('the copied view is not proven yet:', error);
        await delay(againMs, undefined, { signal }).catch(() => undefined);
      }
    }
  }

  async #forgetUnfinished(): Promise<void> {
    await rm(join(this.#dataDir, 'view.unfinished'), { recursive: true, force: true });
  }

  /** Folds the log of the view again and compares, in the background: where they differ, the view is condemned. */
  #proveAgain(signal: AbortSignal): void {
    if (this.#isProving) return;
    this.#isProving = true;
    this.#proving = this.#proving
      .then(() => this.#proveRows(signal))
      .catch((error: unknown) => {
        if (!signal.aborted) console.error('the view could not be folded again to be compared:', error);
      })
      .finally(() => {
        this.#isProving = false;
      });
  }

  async #proveRows(signal: AbortSignal): Promise<void> {
    await rm(this.#checkPath, { recursive: true, force: true });
    await using scratch = await LevelKv.open(this.#checkPath, { sync: false });
    await proveRows(this.view, scratch, signal);
  }

  get #checkPath(): string {
    return join(this.#dataDir, 'view.check');
  }

  /** What we hold is of no use any more; the next copy is folded with every signature checked first. */
  async #onCondemned(): Promise<void> {
    console.error(`the Beacon view is not served any more: ${this.view.health().reason}`);
    try {
      await this.#remember({ ...this.#log, checked: true });
    } catch (error) {
      console.error(error); // the rows say that they are false too
    }
    this.#replace();
  }

  #unseen(): LogPosition | undefined {
    const { seen } = this.#log;
    return seen === undefined || this.view.position().revision >= seen.revision ? undefined : seen;
  }

  async #remember(log: ViewLog): Promise<void> {
    await writeViewLog(this.#dataDir, log);
    this.#log = log;
  }
}

async function writeViewLog(dataDir: string, { seen, ...rest }: ViewLog): Promise<void> {
  const position = seen && { revision: seen.revision, chain: toHex(seen.chain) };
  const text = JSON.stringify({ ...rest, ...(position === undefined ? {} : { seen: position }) });
  await writeWhole(viewLogPath(dataDir), `${text}\n`, 0o600);
}

/** Puts the copy of the log that takes our place there. The new id is written last: a crash in between repeats it. */
async function settled(dataDir: string, log: ViewLog): Promise<ViewLog> {
  if (log.next === undefined) return log;
  const path = join(dataDir, 'view');
  const next = nextPath(dataDir, log.next);
  const aside = `view.${log.left === true ? 'left' : 'replaced'}-${log.follows ?? 'unknown'}`;
  if (await isThere(next)) {
    if (await isThere(path)) {
      // The copies before the last one go: what they hold is in the last one.
      await removeSiblings(dataDir, 'view.replaced-');
      await moveIfThere(path, await freePath(join(dataDir, aside)));
    }
    await moveIfThere(next, path);
    await syncDirectory(dataDir);
  }
  const now = { follows: log.next };
  await writeViewLog(dataDir, now);
  return now;
}

/** A copy of the log that ends at `head`, with what an earlier look left there, if that is its beginning. */
async function openNext(directory: string, head: LogPosition, log: RemoteLog): Promise<BeaconView> {
  // Its rows are what is looked at, and what a person may accept: they must be its own fold, and nothing false in it.
  const open = (): Promise<BeaconView> =>
    openView(directory, { checked: true }, { snapshotFrom: Number.POSITIVE_INFINITY });
  const left = await open();
  const position = left.position();
  try {
    if (position.revision <= head.revision && (await holds(log, position))) return left;
  } catch (error) {
    await left[Symbol.asyncDispose]();
    throw error;
  }
  await left[Symbol.asyncDispose]();
  await rm(directory, { recursive: true });
  return open();
}

async function openView(
  directory: string,
  { checked = false }: ViewLog,
  more: ViewOptions = {},
  beforeEarlierGoes: () => Promise<void> = async () => undefined,
): Promise<BeaconView> {
  // The steward's process opened every record before its log took it, and who is told of one has it opened first.
  const options: ViewOptions = { ...more, signatures: checked ? 'before' : 'after' };
  await mkdir(directory, { recursive: true });
  try {
    return await BeaconView.open(await LevelKv.open(directory), options);
  } catch (error) {
    const isEarlier = isEarlierEdition(error);
    if (!isEarlier && !isStoreDamage(error)) throw error;
    const isUnfinished = isUnfinishedCopy(error);
    const aside = `${directory}.${isEarlier ? 'earlier' : isUnfinished ? 'unfinished' : 'damaged'}`;
    // A copy that broke off speaks against no other one; where the next breaks off too, it may be what ends the process.
    const mayCopy = isUnfinished && !(await isThere(aside));
    console.error(`the Beacon view is now at ${aside}, and fetched again: ${error.message}`);
    if (isEarlier) await beforeEarlierGoes();
    await rm(aside, { recursive: true, force: true });
    await moveIfThere(directory, aside);
    await mkdir(directory, { recursive: true });
    return BeaconView.open(
      await LevelKv.open(directory),
      isEarlier || mayCopy ? options : { ...more, signatures: 'before' },
    );
  }
}

async function moveIfThere(from: string, to: string): Promise<void> {
  try {
    await rename(from, to);
  } catch (cause) {
    if (errnoOf(cause) !== 'ENOENT') throw fileError(from, 'cannot be set aside', cause);
  }
}

/** `path`, or the first of `path.2`, `path.3` … that is free. */
async function freePath(path: string): Promise<string> {
  let free = path;
  for (let count = 2; await isThere(free); count++) free = `${path}.${count}`;
  return free;
}

/** Removes what begins with `prefix` below `directory`, but for what `isKept`. */
async function removeSiblings(
  directory: string,
  prefix: string,
  isKept: (name: string) => boolean = () => false,
): Promise<void> {
  for (const name of await readdir(directory))
    if (name.startsWith(prefix) && !isKept(name))
      await rm(join(directory, name), { recursive: true, force: true });
}

/** What cannot be read says nothing: the view then proves by its chain whether it follows the right log. */
async function readViewLog(dataDir: string): Promise<ViewLog> {
  const text = await readIfThere(viewLogPath(dataDir));
  try {
    const value: unknown = JSON.parse(text ?? '{}');
    const [follows, next] = [fieldOf(value, 'follows'), fieldOf(value, 'next')];
    const seen = seenIn(fieldOf(value, 'seen'));
    return {
      ...(seen === undefined ? {} : { seen }),
      ...(fieldOf(value, 'checked') === true ? { checked: true } : {}),
      ...(fieldOf(value, 'left') === true ? { left: true } : {}),
      ...(typeof follows === 'string' ? { follows } : {}),
      ...(typeof next === 'string' ? { next } : {}),
    };
  } catch (error) {
    console.error(`${viewLogPath(dataDir)} is damaged:`, error);
    return {};
  }
}

function seenIn(value: unknown): LogPosition | undefined {
  const [revision, chain] = [fieldOf(value, 'revision'), keyOfHex(fieldOf(value, 'chain'))];
  return typeof revision === 'number' && chain !== undefined ? { revision, chain } : undefined;
}

function nextPath(dataDir: string, id: string): string {
  return join(dataDir, `view.next-${id}`);
}

function viewLogPath(dataDir: string): string {
  return join(dataDir, 'view-log');
}
