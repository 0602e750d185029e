// What both ways of a recovery share: where keys may be brought to, and the alarm that comes first.

import { open } from 'node:fs/promises';
import { HoldfastError } from '../core/errors.ts';
import { wrapsGivenKeys } from '../custody/provider.ts';
import { fileError } from '../files/whole.ts';
import { layoutPaths } from '../local/layout.ts';
import type { Command, Context } from './command.ts';
import { type ProviderAccess, usable } from './provider-access.ts';

export const toOption = {
  to: { type: 'string', value: 'NAME', text: 'a provider that can wrap given keys: file, or one of yours' },
} as const satisfies Command['options'];

/** Throws as `usable`; ARGUMENT_INVALID for one that takes fresh keys only. */
export async function wrapperNamed({ set }: Pick<ProviderAccess, 'set'>, name: string) {
  const to = await usable(set, name);
  if (wrapsGivenKeys(to)) return to;
  throw new HoldfastError(
    'ARGUMENT_INVALID',
    `"${name}" cannot wrap given keys; move there by custody migrate afterwards`,
  );
}

export interface Alarm {
  readonly beat: number;
  /** What opens the keys. */
  readonly kid: string;
  readonly keysCount: number;
  readonly reason: string;
  /** Keys of those who ordered it, or whose shares they are, in hex. */
  readonly by: readonly string[];
}

/** Kept when it resolves: before that nothing is to be opened. */
export async function raiseAlarm({ data }: Context, alarm: Alarm): Promise<void> {
  const line = JSON.stringify({ at: new Date().toISOString(), ...alarm });
  await appendLine(layoutPaths(data).recoveryAlarms, line);
}

/** On the disk when it resolves. */
async function appendLine(path: string, line: string): Promise<void> {
  try {
    await using file = await open(path, 'a', 0o600);
    await file.write(`${line}\n`);
    await file.sync();
  } catch (cause) {
    throw fileError(path, 'cannot be written', cause);
  }
}
