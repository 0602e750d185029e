// The coordinator's part in a refresh or a reshare.

import { HoldfastError } from '../core/errors.ts';
import { fieldsOf } from '../envelope/fields.ts';
import type { TdecKek } from '../envelope/kek.ts';
import {
  attemptId,
  attestedBy,
  type Both,
  certificateQuorum,
  epochPreimage,
  readHellos,
} from './ceremony.ts';
import {
  epochCertificate,
  logsOf,
  openBoth,
  type OpenedDealing,
  type Outcome,
  settleBoth,
} from './ceremony-dealing.ts';
import { dealingPlan, type DealingPlan } from './ceremony-plan.ts';
import {
  activateAll,
  type CeremonyResult,
  type CoordinatorPorts,
  type FiledKek,
  readCommitted,
  requireAnswers,
  Round,
  type Say,
  signedRecords,
  signTogether,
  toSign,
} from './coordinator.ts';
import { openOrder } from './order.ts';

const messageBytesMax = 65_536;
type Messages = Both<readonly Uint8Array[]>;

/**
 * Deals the shares of a group anew: to the same members, or as `order` says.
 * @throws NOT_FOUND when the group has no key, KEY_UNAVAILABLE saying who is missing, RECORD_INVALID, VERSION_CONFLICT
 */
export async function coordinateDealing(
  ports: CoordinatorPorts,
  cg: string,
  order: Uint8Array | undefined,
  say: Say,
): Promise<CeremonyResult> {
  const startedMs = ports.now();
  const base = await ports.registry.kek(cg);
  if (base === undefined) throw new HoldfastError('NOT_FOUND', `custody group ${cg} has no key yet`);
  const opened = order === undefined ? undefined : openOrder(order);
  const plan = dealingPlan(base.kek, opened?.order, (peer) => ports.custodians.keyOf(peer));
  await activateAll(ports, base.kek, base.bytes);
  const round = new Round(
    ports,
    'deal',
    plan.participants.map(({ peer }) => peer),
  );
  const attempt = attemptId(plan.kind, cg, round.session, opened?.hash ?? new Uint8Array(0), base.cid);
  const begun = await begin(round, base, plan, attempt, order ?? null, say);
  const agreed = await agree(round, base.kek, plan, begun, say);
  const done = await finish(round, base, plan, { ...begun, ...agreed }, say);
  return { ...done, tookMs: ports.now() - startedMs };
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
  base: FiledKek,
  plan: DealingPlan,
  attempt: Uint8Array,
  order: Uint8Array | null,
  say: Say,
): Promise<Begun> {
  const places = plan.participants.map((_, at) => at + 1);
  say(`asking ${places.length} custodians for a ${plan.kind}`);
  const payload = { attempt: round.session, kek: base.bytes, order };
  const asked = await round.ask(places, 'hello', payload, (answer) =>
    fieldsOf(answer, 'hello', ['hello']).bytesUpTo('hello', messageBytesMax),
  );
  const messages = [...requireAnswers(asked, base.kek.t, plan.kind).values()];
  const hellos = readHellos(plan.participants, attempt, messages);
  const holders = [...hellos].filter(([, { gen }]) => gen === base.kek.shareGen).map(([place]) => place);
  requireEnough(base.kek, plan, asked, holders, round);
  const dealing = openBoth(await round.ports.groups(), base.kek, plan, attempt, messages);
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
  const needed = certificateQuorum(plan.t, plan.seats.length);
  if (holders.length >= t && recipients.length >= needed) return;
  const why = [...missing.values()].join('; ');
  throw new HoldfastError(
    'KEY_UNAVAILABLE',
    `${plan.kind}: ${holders.length} custodians hold the present shares (${t} are needed to deal), ` +
      `${recipients.length} can take new ones (${needed} are needed)${why === '' ? '' : `: ${why}`}`,
    { details: { holders: holders.length, recipients: recipients.length, needed } },
  );
}

interface Agreed {
  readonly outcome: Outcome;
  readonly attestations: readonly { readonly i: number; readonly sig: Uint8Array }[];
}

/** Dealings, complaints where there are any, and the signatures of those that stored their shares. */
async function agree(
  round: Round,
  kek: TdecKek,
  plan: DealingPlan,
  { dealing, messages, there }: Begun,
  say: Say,
): Promise<Agreed> {
  const groups = await round.ports.groups();
  const dealt = await round.ask(there, 'deal', { hellos: messages }, readPair);
  const dealings = collected(dealt.given.values());
  let logs = logsOf(dealings);
  let certified = await round.ask(there, 'certify', logs, readCertified);
  const complaints = collected([...certified.given.values()].flatMap(({ complaint }) => complaint ?? []));
  if (complaints.kek.length + complaints.frost.length > 0) {
    say('a custodian complains about what was dealt to it; asking who dealt it');
    const replied = await round.ask(there, 'answer', complaints, readPair);
    logs = { dealings, complaints, answers: collected(replied.given.values()) };
    certified = await round.ask(there, 'certify', logs, readCertified);
  }
  const outcome = settleBoth(groups, kek, plan, dealing, logs);
  const attestations = attestationsOf(round, kek, plan, outcome, certified.given);
  const needed = certificateQuorum(plan.t, plan.seats.length);
  if (attestations.length < needed)
    throw new HoldfastError(
      'KEY_UNAVAILABLE',
      `${attestations.length} custodians have stored their new shares, ${needed} are needed: ${[...certified.missing.values()].join('; ')}`,
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
  certified: ReadonlyMap<number, Certified>,
): Agreed['attestations'] {
  const all = [...certified].flatMap(([place, { sig }]) => {
    const i = plan.seats.findIndex(({ peer }) => peer === round.peers[place - 1]) + 1;
    return sig === null || i === 0 ? [] : [{ i, sig }];
  });
  const good = new Set(attestedBy(all, next.custodians, epochPreimage(kek, next.shareGen, transcript)));
  return all.filter(({ i }) => good.has(i)).toSorted((a, b) => a.i - b.i);
}

/** The group signs; the registry takes it, once; the custodians are shown it. */
async function finish(
  round: Round,
  base: FiledKek,
  plan: DealingPlan,
  { dealing, holders, outcome, attestations }: Begun & Agreed,
  say: Say,
): Promise<CeremonyResult> {
  const { ports } = round;
  const { cg, ver } = base.kek;
  const groups = await ports.groups();
  const last = await ports.registry.lastCertificate(cg, ver);
  const place = { beat: ports.beat(), n: (last?.n ?? 0) + 1, prev: last?.cid ?? null };
  const certificate = epochCertificate(base.kek, plan, outcome, attestations, place);
  const committed = await round.ask(holders, 'commit', { attestations, ...place }, readCommitted);
  const messages = toSign(outcome.next, certificate);
  const sigs = await signTogether(round, groups.frost, dealing.base.frost, messages, committed);
  const records = signedRecords(ports.signer, outcome.next, certificate, sigs, base.cid);
  await ports.registry.file(`kek/${cg}/${ver}`, base.revision, records.filed);
  say(`generation ${outcome.next.shareGen} is registered`);
  const active = await activateAll(ports, outcome.next, records.kek.block.bytes);
  const { shareGen, t, n } = outcome.next;
  return { ceremony: plan.kind, cg, kekVer: ver, shareGen, t, n, ...active, tookMs: 0 };
}

/** A message for each key, or null for both. */
function readPair(answer: unknown): Both<Uint8Array> | undefined {
  const fields = fieldsOf(answer, 'step', ['kek', 'frost']);
  const one = (key: 'kek' | 'frost'): Uint8Array | undefined =>
    fields.any(key) === null ? undefined : fields.bytesUpTo(key, messageBytesMax);
  const [kek, frost] = [one('kek'), one('frost')];
  if (kek === undefined && frost === undefined) return undefined;
  const empty = new Uint8Array(0);
  return { kek: kek ?? empty, frost: frost ?? empty };
}

interface Certified {
  readonly complaint: Both<Uint8Array> | undefined;
  readonly sig: Uint8Array | null;
}

function readCertified(answer: unknown): Certified {
  const fields = fieldsOf(answer, 'certify', ['complaint', 'sig']);
  const complaint = fields.any('complaint');
  return {
    complaint: complaint === null ? undefined : readPair(complaint),
    sig: fields.bytesOrNull('sig', 64),
  };
}

function collected(pairs: Iterable<Both<Uint8Array> | undefined>): Messages {
  const all = [...pairs].flatMap((pair) => pair ?? []);
  const of = (key: 'kek' | 'frost'): Uint8Array[] =>
    all.map((pair) => pair[key]).filter(({ length }) => length > 0);
  return { kek: of('kek'), frost: of('frost') };
}
