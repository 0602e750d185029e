// The coordinator's part in giving a custodian its shares again: of every version of the key that is not destroyed. One
// that is left for another still opens what is wrapped under it, and has its own margin.

import { describeError, HoldfastError, isHoldfastError } from '../core/errors.ts';
import { ceremonyMessageBytesMax } from '../core/limits.ts';
import type { PeerName } from '../core/rpc.ts';
import { fieldsOf } from '../envelope/fields.ts';
import type { TdecKek } from '../envelope/kek.ts';
import type { Both } from './ceremony.ts';
import { standingOf } from './coordinate-place.ts';
import {
  activateAll,
  type Answers,
  type CeremonyResult,
  type CoordinatorPorts,
  type FiledKek,
  requireAnswers,
  Round,
  type Say,
} from './coordinator.ts';
import { holdsVersion } from './wire.ts';

/** What came of a repair; the generation and threshold are of the active version. */
export interface RepairResult extends CeremonyResult {
  readonly ceremony: 'repair';
  /** Versions of which the custodian has its shares again. */
  readonly restored: readonly number[];
  /** Of which it still lacks them, and why, in words. */
  readonly failed: readonly string[];
}

/**
 * Restores what custodian `lost` (its index in the active version) lacks of any version.
 * @throws NOT_FOUND when the group has no key, KEY_UNAVAILABLE when nothing could be restored or nothing is lost there
 */
export async function coordinateRepair(
  ports: CoordinatorPorts,
  cg: string,
  lost: number,
  say: Say,
): Promise<RepairResult> {
  const startedMs = ports.now();
  const { versions, active } = await standingOf(ports, cg);
  const { ver: kekVer, shareGen, t, n } = active.kek;
  const peer = active.kek.custodians.find(({ i }) => i === lost)?.peer;
  if (peer === undefined) throw new HoldfastError('NOT_FOUND', `the group has no custodian ${lost}`);
  const restored: number[] = [];
  const failures: { readonly ver: number; readonly error: HoldfastError }[] = [];
  for (const each of held(versions, peer)) {
    try {
      if (await repairVersion(ports, each, peer, say)) restored.push(each.kek.ver);
    } catch (error) {
      if (!isHoldfastError(error)) throw error;
      failures.push({ ver: each.kek.ver, error });
    }
  }
  const name = ports.custodians.nameOf(peer);
  const failed = failures.map(({ ver, error }) => `version ${ver} of the key: ${describeError(error)}`);
  if (restored.length === 0)
    throw new HoldfastError('KEY_UNAVAILABLE', failed.join('; ') || `${name}: nothing is lost here`, {
      cause: failures[0]?.error,
    });
  for (const why of failed) say(`${name} still lacks its shares of ${why}`);
  const isActive = !failures.some(({ ver }) => ver === kekVer);
  const who = { active: isActive ? [name] : [], behind: isActive ? [] : [name] };
  const tookMs = ports.now() - startedMs;
  return { ceremony: 'repair', cg, kekVer, shareGen, t, n, ...who, restored, failed, tookMs };
}

/** Repairs members that answer and lack shares, after they were shown the records. What cannot be done is said. */
export async function repairAll(ports: CoordinatorPorts, cg: string, say: Say): Promise<void> {
  const { versions, active } = await standingOf(ports, cg);
  const shares = await heldShares(ports, active.kek);
  for (const each of versions.filter(({ kek }) => kek.state !== 'destroyed')) {
    for (const peer of await lacking(ports, each, shares)) {
      try {
        await repairVersion(ports, each, peer, say);
      } catch (error) {
        if (!isHoldfastError(error)) throw error;
        say(`custody: ${describeError(error)}`);
      }
    }
  }
}

type Shares = Awaited<ReturnType<CoordinatorPorts['custodians']['status']>>['shares'];

/**
 * What the custodians of the active version say they hold. For one that does not answer nothing can be done now; one that
 * has left the group is given nothing again.
 */
async function heldShares(
  ports: CoordinatorPorts,
  { custodians }: TdecKek,
): Promise<ReadonlyMap<PeerName, Shares>> {
  const asked = await Promise.allSettled(
    custodians.map(async ({ peer }) => [peer, (await ports.custodians.status(peer)).shares] as const),
  );
  return new Map(asked.flatMap((outcome) => (outcome.status === 'fulfilled' ? [outcome.value] : [])));
}

async function lacking(
  ports: CoordinatorPorts,
  { kek, bytes }: FiledKek,
  shares: ReadonlyMap<PeerName, Shares>,
): Promise<readonly PeerName[]> {
  const lack = kek.custodians.filter(({ peer }) => {
    const own = shares.get(peer);
    return own !== undefined && !holdsVersion(own, kek);
  });
  if (lack.length === 0) return [];
  const { active } = await activateAll(ports, kek, bytes);
  return lack.map(({ peer }) => peer).filter((peer) => !active.includes(ports.custodians.nameOf(peer)));
}

/** Versions of which `peer` should have shares, the newest first: that is the one that is in use. */
function held(versions: readonly FiledKek[], peer: PeerName): readonly FiledKek[] {
  return versions
    .filter(({ kek }) => kek.state !== 'destroyed' && kek.custodians.some((each) => each.peer === peer))
    .toReversed();
}

/** Restores the shares of one version at `peer`; false when nothing is lost there. Throws KEY_UNAVAILABLE. */
async function repairVersion(
  ports: CoordinatorPorts,
  { kek, bytes }: FiledKek,
  peer: PeerName,
  say: Say,
): Promise<boolean> {
  const birth = await ports.registry.birth(kek.cg);
  if (birth === undefined) throw new HoldfastError('NOT_FOUND', `the birth of group ${kek.cg} is not known`);
  const lost = kek.custodians.findIndex((each) => each.peer === peer) + 1;
  const name = ports.custodians.nameOf(peer);
  const peers = kek.custodians.map((each) => each.peer);
  const round = new Round(ports, 'repair', peers);
  const payload = { attempt: round.session, kek: bytes, lost, birth };
  const own = await round.ask([lost], 'hello', payload, readOwnHello);
  const hello = own.given.get(lost);
  if (hello === null) return false;
  if (hello === undefined)
    throw new HoldfastError('KEY_UNAVAILABLE', own.missing.get(lost) ?? `${name} does not answer`);
  say(`asking ${kek.t} custodians to help ${name} with version ${kek.ver}`);
  const others = peers.map((_, at) => at + 1).filter((place) => place !== lost);
  const asked = await round.ask(others, 'hello', payload, readHello);
  const hellos = [hello, ...requireAnswers(asked, kek.t, 'repair').values()];
  const split = await round.ask([lost, ...asked.given.keys()], 'split', { hellos }, readPair);
  const splits = collected(split.given.values());
  const passed = await round.ask(helpers(split.given), 'pass', splits, readPair);
  const passes = collected(passed.given.values());
  requireHelp(kek, splits, passes, [...split.missing.values(), ...passed.missing.values()]);
  const restored = await round.ask([lost], 'restore', { splits, passes }, () => undefined);
  requireAnswers(restored, 1, 'repair');
  say(`${name} has its shares of generation ${kek.shareGen} of version ${kek.ver} again`);
  return true;
}

/** Null: nothing is lost there. */
function readOwnHello(answer: unknown): Uint8Array | null {
  return fieldsOf(answer, 'hello', ['hello']).any('hello') === null ? null : readHello(answer);
}

function readHello(answer: unknown): Uint8Array {
  return fieldsOf(answer, 'hello', ['hello']).bytesUpTo('hello', ceremonyMessageBytesMax);
}

function helpers(given: Answers<Both<Uint8Array> | undefined>['given']): number[] {
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
