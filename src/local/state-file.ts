// What must survive the supervisor: which processes the operator stopped, and which data directories were born.

import { HoldfastError } from '../core/errors.ts';
import { readIfThere, writeWhole } from '../files/whole.ts';

/** Why a process stays down until somebody starts it. */
export type DownReason = 'stop' | 'kill';

export interface ProcessMemory {
  /** Set while the process shall stay down; absent = it shall run. */
  readonly down?: { readonly by: DownReason /** Milliseconds since 1970. */; readonly since: number };
  /** When the process was first ready on its present data directory, milliseconds since 1970. Absent = never. */
  readonly bornAt?: number;
}

export interface StateFile {
  readonly v: 1;
  readonly processes: Readonly<Record<string, ProcessMemory>>;
}

/** Reads the file; an absent one means that nothing happened yet. Throws DATA_DIR_DAMAGED, FILE_UNREADABLE. */
export async function readStateFile(path: string): Promise<StateFile> {
  const text = await readIfThere(path);
  if (text === undefined) return { v: 1, processes: {} };
  try {
    return parseStateFile(JSON.parse(text));
  } catch (cause) {
    throw new HoldfastError('DATA_DIR_DAMAGED', `${path} is damaged; restore it from a backup`, {
      details: { path },
      cause,
    });
  }
}

export async function writeStateFile(path: string, state: StateFile): Promise<void> {
  await writeWhole(path, `${JSON.stringify(state, null, 2)}\n`, 0o600);
}

/** `state` with the memory of `name` replaced. */
export function remember(state: StateFile, name: string, memory: ProcessMemory): StateFile {
  return { ...state, processes: { ...state.processes, [name]: memory } };
}

function parseStateFile(value: unknown): StateFile {
  const { v, processes } = asObject(value);
  if (v !== 1) throw new TypeError(`v is ${JSON.stringify(v)}, 1 expected`);
  const entries = Object.entries(asObject(processes)).map(
    ([name, memory]) => [name, parseMemory(memory)] as const,
  );
  return { v: 1, processes: Object.fromEntries(entries) };
}

function parseMemory(value: unknown): ProcessMemory {
  const { down, bornAt } = asObject(value);
  return {
    ...(down === undefined ? {} : { down: parseDown(down) }),
    ...(bornAt === undefined ? {} : { bornAt: asInstant(bornAt) }),
  };
}

function parseDown(value: unknown): NonNullable<ProcessMemory['down']> {
  const { by, since } = asObject(value);
  if (by !== 'stop' && by !== 'kill')
    throw new TypeError(`by is ${JSON.stringify(by)}, stop or kill expected`);
  return { by, since: asInstant(since) };
}

function asInstant(value: unknown): number {
  if (typeof value !== 'number' || !Number.isFinite(value))
    throw new TypeError('a number of milliseconds expected');
  return value;
}

function asObject(value: unknown): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new TypeError('an object expected');
  return { ...value };
}
