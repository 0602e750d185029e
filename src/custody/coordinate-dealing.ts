// The coordinator's part in a refresh or a reshare.

import { HoldfastError } from '../core/errors.ts';
import { ceremonyMessageBytesMax } from '../core/limits.ts';
import { fieldsOf } from '../envelope/fields.ts';
import type { TdecKek } from '../envelope/kek.ts';
import { attemptId, attestedBy, type Both, epochPreimage, readHellos } from './ceremony.ts';
import {
  epochCertificate,
  logsOf,
  openBoth,
  type OpenedDealing,
  type Outcome,
  settleBoth,
} from './ceremony-dealing.ts';
import { electorateOf, headsMax, quorumOf } from './ballot.ts';
import { dealingPlan, type DealingPlan, readDealArgs, requireSettled } from './ceremony-plan.ts';
import { agreeOn, readVoteOf } from './coordinate-ballot.ts';
import {
  clearPlace,
  fileAgreed,
  type FreeAttempt,
  type Standing,
  standingOf,
  votersOf,
} from './coordinate-place.ts';
import {
  activateAll,
  type CeremonyResult,
  type CoordinatorPorts,
  type NewestKek,
  requireAnswers,
  Round,
  type Say,
} from './coordinator.ts';
import { openOrder } from './order.ts';

type Messages = Both<readonly Uint8Array[]>;

/** What is to be dealt: as an order says, or the shares of a version whose time it is, to the same members. */
export type DealWhat = { readonly order: Uint8Array } | { readonly ver: number };

/**
 * Deals the shares of one version of a group's key anew.
 * @throws NOT_FOUND when the group has no key, KEY_UNAVAILABLE saying who is missing, RECORD_INVALID, VERSION_CONFLICT
 */
export async function coordinateDealing(
  ports: CoordinatorPorts,
  cg: string,
  what: DealWhat,
  say: Say,
): Promise<CeremonyResult> {
  const startedMs = ports.now();
  const order = 'order' in what ? what.order : undefined;
  const opened = order === undefined ? undefined : openOrder(order);
  const ver = 'ver' in what ? what.ver : readDealArgs(openOrder(what.order).order).ver;
  const standing = await standingOf(ports, cg, opened);
  const base = versionIn(standing, ver);
  const { kek, bytes, cid } = base;
  const active = standing.active.kek;
  const plan = dealingPlan({ kek, active }, opened?.order, (peer) => ports.custodians.keyOf(peer));
  requireSettled(
    plan,
    standing.versions.map((each) => each.kek),
    active,
  );
  const shown = await activateAll(ports, kek, bytes);
  const free = await clearPlace(ports, standing, order ?? null, say);
  // What was begun before is what was wanted, or stands in its way: then the order is for a generation that is past.
  if (free === undefined && order !== undefined) return coordinateDealing(ports, cg, what, say);
  if (free === undefined) return resultOf(plan, base, shown, ports.now() - startedMs);
  const round = new Round(
    ports,
    'deal',
    plan.participants.map(({ peer }) => peer),
  );
  const attempt = attemptId(plan.kind, cg, round.session, opened?.hash ?? new Uint8Array(0), cid);
  const deal = { standing, base, plan, free };
  const begun = await begin(round, deal, attempt, order ?? null, say);
  const agreed = await settleDealing(round, deal, begun, say);
  const done = await finish(round, deal, { ...begun, ...agreed }, say);
  return { ...done, tookMs: ports.now() - startedMs };
}

/** What is dealt, from where, and in which attempt. */
interface Deal {
  readonly standing: Standing;
  /** The version whose shares are dealt. */
  readonly base: NewestKek;
  readonly plan: DealingPlan;
  readonly free: FreeAttempt;
}

function resultOf(
  { kind }: DealingPlan,
  { kek }: NewestKek,
  shown: { readonly active: readonly string[]; readonly behind: readonly string[] },
  tookMs: number,
): CeremonyResult {
  const { cg, ver: kekVer, shareGen, t, n } = kek;
  return { ceremony: kind, cg, kekVer, shareGen, t, n, ...shown, tookMs };
}

interface Begun {
  readonly dealing: OpenedDealing;
  readonly messages: readonly Uint8Array[];
  /** Places of those that said hello, and of those among them that hold shares of the present generation. */
  readonly there: readonly number[];
  readonly holders: readonly number[];
}

async function begin(
  round: Round,
  { standing, base: { kek }, plan, free }: Deal,
  attempt: Uint8Array,
  order: Uint8Array | null,
  say: Say,
): Promise<Begun> {
  const places = plan.participants.map((_, at) => at + 1);
  const which = kek.ver === standing.active.kek.ver ? '' : ` of version ${kek.ver}`;
  say(`asking ${places.length} custodians for a ${plan.kind}${which}`);
  const records = standing.versions.toReversed().slice(0, headsMax);
  const shown = records.map(({ bytes }) => bytes);
  const payload = { attempt: round.session, records: shown, ver: kek.ver, order };
  const asked = await round.ask(places, 'hello', payload, (answer) =>
    fieldsOf(answer, 'hello', ['hello']).bytesUpTo('hello', ceremonyMessageBytesMax),
  );
  const messages = [...requireAnswers(asked, kek.t, plan.kind).values()];
  const hellos = readHellos(plan.participants, attempt, messages);
  const holders = [...hellos].filter(([, { gen }]) => gen === kek.shareGen).map(([place]) => place);
  requireEnough(kek, plan, asked, holders, round);
  // Whoever was away when the attempt before came to nothing must know that, before it deals in this one.
  if (free.end !== null) await round.ask(hellos.keys(), 'end', free.end, () => undefined);
  const dealing = openBoth(await round.ports.groups(), kek, plan, attempt, messages);
  return { dealing, messages, there: [...hellos.keys()], holders };
}

/** Fewer than a quorum cannot finish, so it is not begun: nothing is worn out, and the reason is said. */
function requireEnough(
  { t }: TdecKek,
  plan: DealingPlan,
  {
    given,
    missing,
  }: { readonly given: ReadonlyMap<number, unknown>; readonly missing: ReadonlyMap<number, string> },
  holders: readonly number[],
  round: Round,
): void {
  const able = plan.kind === 'refresh' ? holders : [...given.keys()];
  const recipients = able.filter((place) => plan.seats.some(({ peer }) => peer === round.peers[place - 1]));
  const needed = quorumOf(plan.t, plan.seats.length);
  if (holders.length >= t && recipients.length >= needed) return;
  const why = [...missing.values()].join('; ');
  throw new HoldfastError(
    'KEY_UNAVAILABLE',
    `${plan.kind}: ${holders.length} custodians hold the present shares (${t} are needed to deal), ` +
      `${recipients.length} can take new ones (${needed} are needed)${why === '' ? '' : `: ${why}`}`,
    { details: { holders: holders.length, recipients: recipients.length, needed } },
  );
}

interface Dealt {
  readonly outcome: Outcome;
  readonly attestations: readonly { readonly i: number; readonly sig: Uint8Array }[];
}

/** Dealings, complaints where there are any, and the signatures of those that stored their shares. */
async function settleDealing(
  round: Round,
  { standing, base: { kek }, plan, free }: Deal,
  { dealing, messages, there }: Begun,
  say: Say,
): Promise<Dealt> {
  const groups = await round.ports.groups();
  const dealt = await round.ask(there, 'deal', { hellos: messages }, readPair);
  const dealings = collected(dealt.given.values());
  let logs = logsOf(dealings);
  let certified = await round.ask(there, 'certify', logs, readComplaint);
  const complaints = collected(certified.given.values());
  if (complaints.kek.length + complaints.frost.length > 0) {
    say('a custodian complains about what was dealt to it; asking who dealt it');
    const replied = await round.ask(there, 'answer', complaints, readPair);
    logs = { dealings, complaints, answers: collected(replied.given.values()) };
    certified = await round.ask(there, 'certify', logs, readComplaint);
  }
  const { place } = electorateOf(standing.active.kek, standing.place.heads, 0);
  const outcome = settleBoth(groups, kek, plan, dealing, logs, { place, attempt: free.attempt });
  const stored = await round.ask(certified.given.keys(), 'store', {}, (answer) =>
    fieldsOf(answer, 'store', ['sig']).bytesOrNull('sig', 64),
  );
  const attestations = attestationsOf(round, kek, plan, outcome, stored.given);
  const needed = quorumOf(plan.t, plan.seats.length);
  if (attestations.length < needed)
    throw new HoldfastError(
      'KEY_UNAVAILABLE',
      `${attestations.length} custodians have stored their new shares, ${needed} are needed: ${[...certified.missing.values(), ...stored.missing.values()].join('; ')}`,
      { details: { certified: attestations.length, needed } },
    );
  say(`${attestations.length} custodians have verified and stored their new shares`);
  return { outcome, attestations };
}

function attestationsOf(
  round: Round,
  kek: TdecKek,
  plan: DealingPlan,
  { next, transcript }: Outcome,
  stored: ReadonlyMap<number, Uint8Array | null>,
): Dealt['attestations'] {
  const all = [...stored].flatMap(([place, sig]) => {
    const i = plan.seats.findIndex(({ peer }) => peer === round.peers[place - 1]) + 1;
    return sig === null || i === 0 ? [] : [{ i, sig }];
  });
  const good = new Set(attestedBy(all, next.custodians, epochPreimage(kek, next.shareGen, transcript)));
  return all.filter(({ i }) => good.has(i)).toSorted((a, b) => a.i - b.i);
}

/** The custodians agree and sign; the registry takes it, once; the custodians are shown it. */
async function finish(
  round: Round,
  { standing, base: { kek }, plan, free }: Deal,
  { outcome, attestations }: Begun & Dealt,
  say: Say,
): Promise<CeremonyResult> {
  const { ports } = round;
  const active = standing.active.kek;
  const { frost } = await ports.groups();
  const last = await ports.registry.lastCertificate(kek.cg, kek.ver);
  const place = { beat: ports.beat(), n: (last?.n ?? 0) + 1, prev: last?.cid ?? null };
  const certificate = epochCertificate(kek, plan, outcome, attestations, place);
  const voters = votersOf(ports, active, round);
  const places = active.custodians.map(({ peer }) => round.peers.indexOf(peer) + 1);
  const voted = await round.ask(places, 'propose', { attestations, ...place }, readVoteOf);
  const proposal = { keks: [outcome.next], certificates: [certificate] };
  const agreed = await agreeOn(frost, standing.place, voters, free.attempt, proposal, voted);
  const shown = await fileAgreed(ports, standing, agreed);
  const { cg, ver: kekVer, shareGen, t, n } = outcome.next;
  say(`generation ${shareGen} is registered`);
  return { ceremony: plan.kind, cg, kekVer, shareGen, t, n, ...shown, tookMs: 0 };
}

function versionIn({ versions, active }: Standing, ver: number): NewestKek {
  const found = versions.find(({ kek }) => kek.ver === ver);
  if (found !== undefined) return found.kek.ver === active.kek.ver ? active : found;
  throw new HoldfastError('NOT_FOUND', `version ${ver} of the key is not in the registry`);
}

/** A message for each key, or null for both. */
function readPair(answer: unknown): Both<Uint8Array> | undefined {
  const fields = fieldsOf(answer, 'step', ['kek', 'frost']);
  const one = (key: 'kek' | 'frost'): Uint8Array | undefined =>
    fields.any(key) === null ? undefined : fields.bytesUpTo(key, ceremonyMessageBytesMax);
  const [kek, frost] = [one('kek'), one('frost')];
  if (kek === undefined && frost === undefined) return undefined;
  const empty = new Uint8Array(0);
  return { kek: kek ?? empty, frost: frost ?? empty };
}

function readComplaint(answer: unknown): Both<Uint8Array> | undefined {
  const complaint = fieldsOf(answer, 'certify', ['complaint']).any('complaint');
  return complaint === null ? undefined : readPair(complaint);
}

function collected(pairs: Iterable<Both<Uint8Array> | undefined>): Messages {
  const all = [...pairs].flatMap((pair) => pair ?? []);
  const of = (key: 'kek' | 'frost'): Uint8Array[] =>
    all.map((pair) => pair[key]).filter(({ length }) => length > 0);
  return { kek: of('kek'), frost: of('frost') };
}
