// The coordinator's part in giving a custodian its shares again.

import { HoldfastError } from '../core/errors.ts';
import { ceremonyMessageBytesMax } from '../core/limits.ts';
import { fieldsOf } from '../envelope/fields.ts';
import type { TdecKek } from '../envelope/kek.ts';
import type { Both } from './ceremony.ts';
import {
  type CeremonyResult,
  type CoordinatorPorts,
  requireAnswers,
  Round,
  type Say,
} from './coordinator.ts';

/**
 * Restores the shares of custodian `lost` (its index) in the present generation.
 * @throws NOT_FOUND when the group has no key, KEY_UNAVAILABLE when too few help or nothing is lost there
 */
export async function coordinateRepair(
  ports: CoordinatorPorts,
  cg: string,
  lost: number,
  say: Say,
): Promise<CeremonyResult> {
  const startedMs = ports.now();
  const base = await ports.registry.kek(cg);
  const birth = await ports.registry.birth(cg);
  if (base === undefined || birth === undefined)
    throw new HoldfastError('NOT_FOUND', `custody group ${cg} has no key yet`);
  const { kek } = base;
  const target = kek.custodians.find(({ i }) => i === lost);
  if (target === undefined) throw new HoldfastError('NOT_FOUND', `the group has no custodian ${lost}`);
  const name = ports.custodians.nameOf(target.peer);
  const round = new Round(
    ports,
    'repair',
    kek.custodians.map(({ peer }) => peer),
  );
  const places = kek.custodians.map(({ i }) => i);
  say(`asking ${kek.t} custodians to help ${name}`);
  const payload = { attempt: round.session, kek: base.bytes, lost, birth };
  const asked = await round.ask(places, 'hello', payload, (answer) =>
    fieldsOf(answer, 'hello', ['hello']).bytesUpTo('hello', ceremonyMessageBytesMax),
  );
  if (!asked.given.has(lost))
    throw new HoldfastError('KEY_UNAVAILABLE', asked.missing.get(lost) ?? `${name} does not answer`);
  const hellos = [...requireAnswers(asked, kek.t + 1, 'repair').values()];
  const split = await round.ask(asked.given.keys(), 'split', { hellos }, readPair);
  const splits = collected(split.given.values());
  const passed = await round.ask(helpers(split.given), 'pass', splits, readPair);
  const passes = collected(passed.given.values());
  requireHelp(kek, splits, passes, [...split.missing.values(), ...passed.missing.values()]);
  const restored = await round.ask([lost], 'restore', { splits, passes }, () => undefined);
  requireAnswers(restored, 1, 'repair');
  say(`${name} has its shares of generation ${kek.shareGen} again`);
  const { ver: kekVer, shareGen, t, n } = kek;
  const tookMs = ports.now() - startedMs;
  return { ceremony: 'repair', cg, kekVer, shareGen, t, n, active: [name], behind: [], tookMs };
}

function helpers(given: ReadonlyMap<number, Both<Uint8Array> | undefined>): number[] {
  return [...given].filter(([, pair]) => pair !== undefined).map(([place]) => place);
}

function requireHelp(
  { t }: TdecKek,
  splits: Both<readonly Uint8Array[]>,
  passes: Both<readonly Uint8Array[]>,
  why: readonly string[],
): void {
  const helped = Math.min(splits.kek.length, passes.kek.length);
  if (helped >= t) return;
  throw new HoldfastError(
    'KEY_UNAVAILABLE',
    `repair: ${helped} custodians helped, ${t} are needed: ${why.join('; ')}`,
    { details: { helped, needed: t } },
  );
}

function readPair(answer: unknown): Both<Uint8Array> | undefined {
  const fields = fieldsOf(answer, 'repair', ['kek', 'frost']);
  if (fields.any('kek') === null) return undefined;
  return {
    kek: fields.bytesUpTo('kek', ceremonyMessageBytesMax),
    frost: fields.bytesUpTo('frost', ceremonyMessageBytesMax),
  };
}

function collected(pairs: Iterable<Both<Uint8Array> | undefined>): Both<readonly Uint8Array[]> {
  const all = [...pairs].flatMap((pair) => pair ?? []);
  return { kek: all.map(({ kek }) => kek), frost: all.map(({ frost }) => frost) };
}
