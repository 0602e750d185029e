// The most memory that processes ever had resident, as the kernel counted it, and the command line run under
// that count. Content is made as it is sent and compared as it comes back, so that it is nowhere as a whole.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createCipheriv, createHash } from 'node:crypto';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { ControlClient } from '../../src/local/control-types.ts';
import { program } from './command-line.ts';

const mebibyte = 1_048_576;

/** Peak resident set of a process in MiB (VmHWM), and what it holds now; undefined when it is gone. */
export async function residentOf(
  pid: number,
): Promise<{ readonly peak: number; readonly anonymous: number; readonly files: number } | undefined> {
  try {
    const status = await readFile(`/proc/${pid}/status`, 'utf8');
    const field = (name: string): number =>
      Number(new RegExp(`${name}:\\s+(\\d+)`).exec(status)?.[1] ?? Number.NaN) / 1024;
    const peak = field('VmHWM');
    return Number.isNaN(peak) ? undefined : { peak, anonymous: field('RssAnon'), files: field('RssFile') };
  } catch {
    return undefined;
  }
}

/** Peak resident set of each running process of a cluster, MiB, by name. */
export async function peaksOf(control: ControlClient): Promise<Map<string, number>> {
  const peaks = new Map<string, number>();
  for (const { name, pid } of (await control.state()).processes) {
    const resident = pid === undefined ? undefined : await residentOf(pid);
    if (resident !== undefined) peaks.set(name, resident.peak);
  }
  return peaks;
}

/** `totalBytes` of a key stream: nothing in it repeats, and it costs little to make. */
export function* madeContent(totalBytes: number): Generator<Uint8Array, void, undefined> {
  const cipher = createCipheriv('aes-128-ctr', Buffer.alloc(16, 7), Buffer.alloc(16));
  const zeros = Buffer.alloc(mebibyte);
  for (let left = totalBytes; left > 0; left -= mebibyte) yield cipher.update(zeros.subarray(0, left));
}

/** SHA-256 of `madeContent(totalBytes)`. */
export function madeDigest(totalBytes: number): string {
  const hash = createHash('sha256');
  for (const bytes of madeContent(totalBytes)) hash.update(bytes);
  return hash.digest('hex');
}

export interface CliRun {
  /** Peak resident set, MiB. */
  readonly peak: number;
  readonly seconds: number;
  /** SHA-256 of what it printed. */
  readonly digest: string;
}

/** Runs one command, its standard input from `input`. Rejects when it does not end with 0. */
export async function runCli(words: readonly string[], input?: Iterable<Uint8Array>): Promise<CliRun> {
  const started = performance.now();
  const child = spawn(process.execPath, [program, ...words], { stdio: ['pipe', 'pipe', 'inherit'] });
  const exited = once(child, 'exit');
  let peak = 0;
  const look = async (): Promise<void> => {
    peak = Math.max(peak, (await residentOf(child.pid ?? 0))?.peak ?? 0);
  };
  const watch = setInterval(() => void look(), 50);
  const hash = createHash('sha256');
  try {
    await Promise.all([
      pipeline(Readable.from(input ?? [], { objectMode: false }), child.stdin),
      pipeline(child.stdout, hash, { end: true }),
    ]);
    const [code] = await exited;
    assert.equal(code, 0, `${words.join(' ')} ended with ${String(code)}`);
  } finally {
    clearInterval(watch);
  }
  return { peak, seconds: (performance.now() - started) / 1000, digest: hash.digest('hex') };
}
