// Reading the memory of another process (Linux, /proc/PID/mem) and looking for secrets in it. Needs the right to
// trace that process: root, or the same user where the system allows it.

import { type FileHandle, open, readFile } from 'node:fs/promises';

/** What is looked for. */
export interface Needle {
  readonly name: string;
  readonly bytes: Uint8Array;
}

/** What was found, where, in how many places. */
export type Found = ReadonlyMap<string, number>;

const pieceBytes = 4 * 2 ** 20;

/** Why the memory of `pid` cannot be read, or undefined. */
export async function cannotRead(pid: number): Promise<string | undefined> {
  try {
    const memory = await open(`/proc/${pid}/mem`, 'r');
    await memory.close();
    return undefined;
  } catch (error) {
    return `the memory of another process cannot be read here: ${String(error)}`;
  }
}

/** The forms a 32-byte number takes in memory: bytes and digits of a big integer, reversed, as text. */
export function formsOf(name: string, secret: Uint8Array): Needle[] {
  const bytes = Buffer.from(secret);
  const reversed = Buffer.from(secret.toReversed());
  return [
    { name, bytes },
    { name: `${name} (reversed)`, bytes: reversed },
    { name: `${name} (hex)`, bytes: Buffer.from(bytes.toString('hex')) },
    { name: `${name} (reversed, hex)`, bytes: Buffer.from(reversed.toString('hex')) },
    { name: `${name} (base64)`, bytes: Buffer.from(bytes.toString('base64').slice(0, 42)) },
  ];
}

/** Looks through all memory of a process that is backed by no file, or was changed. The process goes on meanwhile. */
export async function searchProcess(pid: number, needles: readonly Needle[]): Promise<Found> {
  const search = new Search(needles);
  const memory = await open(`/proc/${pid}/mem`, 'r');
  try {
    for (const region of await regionsOf(pid))
      for (const run of await presentIn(pid, region)) await searchRun(memory, run, search);
  } finally {
    await memory.close();
  }
  return search.found;
}

/** As `searchProcess`, in bytes that are there. */
export function searchBytes(bytes: Uint8Array, needles: readonly Needle[]): Found {
  const search = new Search(needles);
  search.look(bytes, bytes.length);
  return search.found;
}

interface Region {
  readonly from: number;
  readonly to: number;
}

/** Readable regions with pages in memory that are private to the process. */
async function regionsOf(pid: number): Promise<Region[]> {
  const text = await readFile(`/proc/${pid}/smaps`, 'latin1');
  const regions: Region[] = [];
  let region: Region | undefined;
  let touched = 0;
  const close = (): void => {
    if (region !== undefined && touched > 0) regions.push(region);
  };
  for (const line of text.split('\n')) {
    const head = /^([0-9a-f]+)-([0-9a-f]+) (r)..p /.exec(line);
    if (head !== null || /^[0-9a-f]+-[0-9a-f]+ /.test(line)) {
      close();
      touched = 0;
      region =
        head === null ? undefined : { from: parseInt(head[1] ?? '', 16), to: parseInt(head[2] ?? '', 16) };
    }
    touched += Number(/^(?:Anonymous|Swap): +(\d+) kB/.exec(line)?.[1] ?? 0);
  }
  close();
  return regions;
}

const pageBytes = 4096;

/** The parts of a region that have pages: regions are reserved far larger than they are used (Linux, pagemap). */
async function presentIn(pid: number, { from, to }: Region): Promise<Region[]> {
  const file = await open(`/proc/${pid}/pagemap`, 'r');
  const entries = Buffer.alloc((8 * (to - from)) / pageBytes);
  try {
    await file.read(entries, 0, entries.length, (8 * from) / pageBytes);
  } finally {
    await file.close();
  }
  const runs: { from: number; to: number }[] = [];
  for (let page = 0; 8 * page < entries.length; page++) {
    // The highest bits: in memory, in swap.
    if (((entries[8 * page + 7] ?? 0) & 0xc0) === 0) continue;
    const at = from + page * pageBytes;
    const last = runs.at(-1);
    if (last?.to === at) last.to = at + pageBytes;
    else runs.push({ from: at, to: at + pageBytes });
  }
  return runs;
}

async function searchRun(memory: FileHandle, { from, to }: Region, search: Search): Promise<void> {
  const buffer = Buffer.alloc(Math.min(pieceBytes, to - from) + search.overlap);
  let kept = 0;
  for (let at = from; at < to; at += pieceBytes) {
    const length = Math.min(pieceBytes, to - at);
    let count: number;
    try {
      ({ bytesRead: count } = await memory.read(buffer, kept, length, at));
    } catch {
      return; // it was unmapped meanwhile
    }
    const filled = kept + count;
    search.look(buffer, filled);
    // The end is looked at again with what follows: a needle may lie across.
    kept = Math.min(search.overlap, filled);
    buffer.copyWithin(0, filled - kept, filled);
    if (count < length) return;
  }
}

class Search {
  readonly overlap: number;
  readonly found = new Map<string, number>();
  readonly #byStart = new Map<number, Needle[]>();
  /** A bit for each pair of first bytes that some needle begins with. */
  readonly #starts = new Uint8Array(65_536);

  constructor(needles: readonly Needle[]) {
    for (const needle of needles) {
      const start = startOf(needle.bytes, 0);
      this.#starts[start] = 1;
      this.#byStart.set(start, [...(this.#byStart.get(start) ?? []), needle]);
    }
    this.overlap = Math.max(2, ...needles.map(({ bytes }) => bytes.length)) - 1;
  }

  look(bytes: Uint8Array, length: number): void {
    const starts = this.#starts;
    let before = bytes[0] ?? 0;
    for (let at = 1; at < length; at++) {
      const byte = bytes[at] ?? 0;
      if (starts[(before << 8) | byte] === 1) this.#compare(bytes, at - 1, length);
      before = byte;
    }
  }

  #compare(bytes: Uint8Array, at: number, length: number): void {
    for (const { name, bytes: wanted } of this.#byStart.get(startOf(bytes, at)) ?? []) {
      if (at + wanted.length > length) continue;
      if (Buffer.compare(bytes.subarray(at, at + wanted.length), wanted) !== 0) continue;
      this.found.set(name, (this.found.get(name) ?? 0) + 1);
    }
  }
}

function startOf(bytes: Uint8Array, at: number): number {
  return ((bytes[at] ?? 0) << 8) | (bytes[at + 1] ?? 0);
}
