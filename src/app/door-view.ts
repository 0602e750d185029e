// A door's own copy of the registry, on its disk, and which log it was folded from.
//
//   view/                the copy
//   view-log             {follows, next}: the id of its log, and that of the log which has taken its place
//   view.replaced-<id>   a copy of a log that is not in force any more; kept until a person deletes it

import { mkdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { FollowedLog } from '../beacon/followed.ts';
import type { RemoteLog } from '../beacon/remote.ts';
import { BeaconView } from '../beacon/view.ts';
import { LevelKv } from '../beacon/view-level.ts';
import { isHoldfastError } from '../core/errors.ts';
import { fieldOf } from '../core/shape.ts';
import { errnoOf, fileError, readIfThere, syncDirectory, writeWhole } from '../files/whole.ts';

interface ViewLog {
  readonly follows?: string;
  readonly next?: string;
}

export class DoorView implements AsyncDisposable {
  readonly view: BeaconView;
  /** Resolves once another log is in force: the process is to start again, and folds that one. */
  readonly replaced: Promise<void>;
  readonly #dataDir: string;
  #log: ViewLog;
  #replace: () => void = () => undefined;

  private constructor(dataDir: string, view: BeaconView, log: ViewLog) {
    this.#dataDir = dataDir;
    this.view = view;
    this.#log = log;
    this.replaced = new Promise((resolve) => {
      this.#replace = resolve;
    });
  }

  /** Opens the copy below `dataDir`; one that cannot be opened is fetched again, one of a replaced log set aside. */
  static async open(dataDir: string): Promise<DoorView> {
    const log = await settled(dataDir, await readViewLog(dataDir));
    return new DoorView(dataDir, await openView(join(dataDir, 'view')), log);
  }

  /** `log` for this view to follow: notices when another one has taken its place. */
  over(log: RemoteLog): FollowedLog {
    return new FollowedLog(log, {
      position: () => this.view.position(),
      followed: () => this.#log.follows,
      onFollowed: (id) => this.#remember({ follows: id }),
      onReplaced: async ({ id }) => {
        console.error(`log ${id} has taken the place of the one that this view follows; it is folded anew`);
        await this.#remember({ ...this.#log, next: id });
        this.#replace();
      },
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.view[Symbol.asyncDispose]();
  }

  async #remember(log: ViewLog): Promise<void> {
    await writeWhole(viewLogPath(this.#dataDir), `${JSON.stringify(log)}\n`, 0o600);
    this.#log = log;
  }
}

/** Sets a copy of a replaced log aside. Before the new id is written, so that a crash in between repeats it. */
async function settled(dataDir: string, log: ViewLog): Promise<ViewLog> {
  if (log.next === undefined) return log;
  const path = join(dataDir, 'view');
  try {
    await rename(path, `${path}.replaced-${log.follows ?? 'unknown'}`);
    await syncDirectory(dataDir);
  } catch (cause) {
    if (errnoOf(cause) !== 'ENOENT') throw fileError(path, 'cannot be set aside', cause);
  }
  const now = { follows: log.next };
  await writeWhole(viewLogPath(dataDir), `${JSON.stringify(now)}\n`, 0o600);
  return now;
}

async function openView(directory: string): Promise<BeaconView> {
  await mkdir(directory, { recursive: true });
  try {
    // The steward's process opened every record before its log took it, and clients open what they read.
    return await BeaconView.open(await LevelKv.open(directory), { signatures: 'after' });
  } catch (error) {
    if (!isHoldfastError(error) || !['DATA_DIR_DAMAGED', 'RECORD_CORRUPT'].includes(error.code)) throw error;
    console.error(`the Beacon view is damaged and fetched again: ${error.message}`);
    await rm(directory, { recursive: true, force: true });
    await mkdir(directory, { recursive: true });
    return BeaconView.open(await LevelKv.open(directory));
  }
}

/** What cannot be read says nothing: the view then proves by its chain whether it follows the right log. */
async function readViewLog(dataDir: string): Promise<ViewLog> {
  const text = await readIfThere(viewLogPath(dataDir));
  try {
    const value: unknown = JSON.parse(text ?? '{}');
    const [follows, next] = [fieldOf(value, 'follows'), fieldOf(value, 'next')];
    return {
      ...(typeof follows === 'string' ? { follows } : {}),
      ...(typeof next === 'string' ? { next } : {}),
    };
  } catch (error) {
    console.error(`${viewLogPath(dataDir)} is damaged:`, error);
    return {};
  }
}

function viewLogPath(dataDir: string): string {
  return join(dataDir, 'view-log');
}
