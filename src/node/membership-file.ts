// The membership document on disk: read at start, taken over live when the operator replaces it.
//
// The file is polled rather than watched: it may lie on a network volume or be replaced by a rename, and
// both make watching miss changes. The newest version ever accepted is kept beside the node's data, so that
// an old document put in place later, even across a restart, does not let a removed member back in.

import { readFile, stat } from 'node:fs/promises';
import { second } from '../core/clock.ts';
import { HoldfastError, isHoldfastError } from '../core/errors.ts';
import { writeWhole } from '../files/whole.ts';
import { type Membership, membershipBytesMax, nextMembership, openMembership } from './membership.ts';

export interface MembershipFileOptions {
  /** The signed document. */
  readonly path: string;
  /** 32 bytes, pinned in the node's own configuration. */
  readonly operatorKey: Uint8Array;
  /** Where the newest accepted document is kept. Absent = versions are compared within this process only. */
  readonly seenPath?: string;
  /** Pause between two looks, milliseconds. Default 1,000. */
  readonly pollMs?: number;
  /** A newer document was accepted. Must not throw. */
  onChange?(membership: Membership): void;
  /** The file on disk cannot be used; the last good one stays in force. Told once per change of the file. */
  onRefused?(error: HoldfastError): void;
}

export interface MembershipFile extends AsyncDisposable {
  current(): Membership;
  /** Looks now instead of at the next poll. */
  refresh(): Promise<void>;
}

/** Reads and follows the file. Throws FILE_NOT_FOUND, FILE_UNREADABLE or RECORD_INVALID when it cannot be used at start. */
export async function openMembershipFile(options: MembershipFileOptions): Promise<MembershipFile> {
  const file = new FollowedFile(options);
  await file.start();
  return file;
}

class FollowedFile implements MembershipFile {
  readonly #options: MembershipFileOptions;
  #current: Membership | undefined;
  /** Identity of the file last read, whether it was accepted or not. */
  #fingerprint = '';
  #timer: NodeJS.Timeout | undefined;
  /** One look at a time. */
  #look: Promise<void> = Promise.resolve();

  constructor(options: MembershipFileOptions) {
    this.#options = options;
  }

  async start(): Promise<void> {
    const { path, seenPath, operatorKey, pollMs = second } = this.#options;
    this.#current = seenPath === undefined ? undefined : await readSeen(seenPath, operatorKey);
    this.#fingerprint = await fingerprint(path);
    await this.#accept();
    this.#timer = setInterval(() => void this.refresh(), pollMs);
  }

  current(): Membership {
    if (this.#current === undefined) throw new Error('the membership file is not open');
    return this.#current;
  }

  refresh(): Promise<void> {
    this.#look = this.#look.then(() => this.#lookAgain());
    return this.#look;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer);
    await this.#look;
  }

  /** Never rejects: what is wrong with the file is told to `onRefused`. */
  async #lookAgain(): Promise<void> {
    const { path } = this.#options;
    try {
      const found = await fingerprint(path);
      if (found === this.#fingerprint) return;
      this.#fingerprint = found;
      const before = this.#current;
      const after = await this.#accept();
      if (after !== before) this.#options.onChange?.(after);
    } catch (error) {
      // Gone or unreadable is told once too, not at every poll.
      if (isHoldfastError(error, 'FILE_NOT_FOUND') && this.#fingerprint === 'absent') return;
      if (isHoldfastError(error, 'FILE_NOT_FOUND')) this.#fingerprint = 'absent';
      this.#options.onRefused?.(error instanceof HoldfastError ? error : fileError(error, path));
    }
  }

  async #accept(): Promise<Membership> {
    const { path, seenPath, operatorKey } = this.#options;
    const bytes = await read(path);
    const candidate = openMembership(bytes, operatorKey);
    const accepted = this.#current === undefined ? candidate : nextMembership(this.#current, candidate);
    // On disk before it counts: after a crash the node must not know less than before.
    if (seenPath !== undefined && accepted !== this.#current) await writeSeen(seenPath, bytes);
    this.#current = accepted;
    return accepted;
  }
}

async function readSeen(path: string, operatorKey: Uint8Array): Promise<Membership | undefined> {
  try {
    return openMembership(await read(path), operatorKey);
  } catch (error) {
    if (isHoldfastError(error, 'FILE_NOT_FOUND')) return undefined;
    throw error;
  }
}

async function writeSeen(path: string, bytes: Uint8Array): Promise<void> {
  try {
    await writeWhole(path, bytes, 0o600);
  } catch (cause) {
    throw new HoldfastError('FILE_UNREADABLE', `${path}: cannot keep the accepted membership`, { cause });
  }
}

/** Changes whenever the file is replaced or written. */
async function fingerprint(path: string): Promise<string> {
  try {
    const { ino, size, mtimeNs } = await stat(path, { bigint: true });
    return `${ino}/${size}/${mtimeNs}`;
  } catch (cause) {
    throw fileError(cause, path);
  }
}

async function read(path: string): Promise<Uint8Array> {
  try {
    const { size } = await stat(path);
    if (size > membershipBytesMax) {
      throw new HoldfastError('RECORD_INVALID', `${path}: larger than ${membershipBytesMax} bytes`);
    }
    return await readFile(path);
  } catch (cause) {
    throw cause instanceof HoldfastError ? cause : fileError(cause, path);
  }
}

function fileError(cause: unknown, path: string): HoldfastError {
  const absent = cause instanceof Error && 'code' in cause && cause.code === 'ENOENT';
  return new HoldfastError(
    absent ? 'FILE_NOT_FOUND' : 'FILE_UNREADABLE',
    `${path}: ${absent ? 'no membership document here' : 'the membership document cannot be read'}`,
    { cause },
  );
}
