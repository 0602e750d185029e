// The coordinator's part in making a group's keys. All members must be there: it is done once. What another
// coordinator has begun is finished or ended first, because it may be in the registry, or get there, at any moment.

import type { CID } from '../core/block.ts';
import { HoldfastError } from '../core/errors.ts';
import type { PeerName } from '../core/rpc.ts';
import { sameBytes, toHex } from '../core/bytes.ts';
import { fieldsOf } from '../envelope/fields.ts';
import type { UnsignedKek } from '../envelope/kek.ts';
import { openRecord } from '../manifest/record.ts';
import type { DkgSession } from '../threshold/dkg-message.ts';
import { schnorrVerify } from '../threshold/dkg-suite.ts';
import { transcriptOf } from '../threshold/dkg-transcript.ts';
import { sha512 } from '../core/hash.ts';
import { ceremonyMessageBytesMax } from '../core/limits.ts';
import { keySetOf } from '../threshold/key-set.ts';
import { readMessage, sumCommitments } from '../threshold/dkg-message.ts';
import { agreedRecords } from './agreed-records.ts';
import { firstHeads } from './ballot.ts';
import { birthPreimage } from './birth.ts';
import { attestedBy, type Both, broken, type CustodyGroups } from './ceremony.ts';
import {
  birthCertificate,
  firstKek,
  firstSeats,
  initSession,
  madeKeys,
  openInit,
  readDkgMessages,
  suitesOf,
} from './ceremony-init.ts';
import { type InitPlan, initPlan } from './ceremony-plan.ts';
import {
  type Agreed,
  agreeOn,
  type BallotPlace,
  readVoteOf,
  settlePlace,
  type Settled,
} from './coordinate-ballot.ts';
import { type FreeAttempt, votersOf } from './coordinate-place.ts';
import {
  activateAll,
  type CeremonyResult,
  type CoordinatorPorts,
  requireAnswers,
  Round,
  type Say,
} from './coordinator.ts';
import { type OpenedOrder, openOrder } from './order.ts';
import { parsePolicy } from './policy.ts';

/**
 * Makes the keys of the group that `order` names, or finishes what another coordinator has begun.
 * @throws VERSION_CONFLICT when it has one, KEY_UNAVAILABLE naming who is missing, RECORD_INVALID naming who lies
 */
export async function coordinateInit(
  ports: CoordinatorPorts,
  order: Uint8Array,
  say: Say,
): Promise<CeremonyResult> {
  const startedMs = ports.now();
  const opened = openOrder(order);
  const { cg } = opened.order;
  if ((await ports.registry.kek(cg)) !== undefined)
    throw new HoldfastError('VERSION_CONFLICT', `custody group ${cg} has its key already`);
  const plan = initPlan(opened.order);
  const seats = firstSeats(plan, cg, (peer) => ports.custodians.keyOf(peer));
  const place = { active: seats, heads: firstHeads(seats), leftOut: 0 };
  say(`asking ${seats.n} custodians`);
  const settled = await settle(ports, place, order);
  const task = { ports, order, opened, plan, place, say };
  const agreed =
    'attempt' in settled ? await make(task, settled) : { ...settled.agreed, beside: settled.beside };
  return file(task, agreed, startedMs);
}

interface Task {
  readonly ports: CoordinatorPorts;
  readonly order: Uint8Array;
  readonly opened: OpenedOrder;
  readonly plan: InitPlan;
  readonly place: BallotPlace;
  readonly say: Say;
}

/** The first record, signed, and records of which one is the policy that it names. */
interface First extends Agreed {
  readonly beside: readonly Uint8Array[];
}

async function settle(ports: CoordinatorPorts, place: BallotPlace, order: Uint8Array): Promise<Settled> {
  const { frost } = await ports.groups();
  const voters = votersOf(ports, place.active, { session: ports.random(32), protocol: 'birth' });
  const settled = await settlePlace(frost, place, voters, { order, onlyLocked: false });
  if (settled !== undefined) return settled;
  throw new HoldfastError('INTERNAL', 'a place is finished, or free');
}

async function make(task: Task, free: FreeAttempt): Promise<First> {
  const { ports, order, opened, plan, place, say } = task;
  const n = plan.seats.length;
  const round = new Round(
    ports,
    'init',
    plan.seats.map(({ peer }): PeerName => peer),
  );
  const { cg } = opened.order;
  const session = initSession(plan, cg, round.session, opened, (peer) => ports.custodians.keyOf(peer));
  const groups = await ports.groups();
  const places = plan.seats.map((_, at) => at + 1);

  const hello = await round.ask(places, 'hello', { attempt: round.session, order }, messageOf('hello'));
  const hellos = [...requireAnswers(hello, n, 'a key is made by all').values()];
  // Whoever was away when the attempt before came to nothing must know that before it takes part in this one.
  if (free.end !== null) await round.ask(places, 'end', free.end, () => undefined);
  const begun = openInit(groups, session, hellos);
  say('dealing shares of two keys: one that keys are wrapped for, one that the group signs with');
  const dealt = await round.ask(places, 'deal', { hellos }, messageOf('message'));
  const messages = [...requireAnswers(dealt, n, 'dealing').values()];
  const received = await round.ask(places, 'receive', { messages }, (answer) => {
    const fields = fieldsOf(answer, 'receive', ['kek', 'frost']);
    return { kek: fields.bytes('kek', 64), frost: fields.bytes('frost', 64) };
  });
  const signatures = [...requireAnswers(received, n, 'receiving').values()];
  const lists = { kek: signatures.map(({ kek }) => kek), frost: signatures.map(({ frost }) => frost) };
  const keys = session.participants.map(({ sigPk }) => sigPk);
  const made = publicKeys(groups, begun.session, readDkgMessages(keys, begun.sid, messages), lists);
  say(`all ${n} hold a share and saw the same`);

  const when = { createdAt: new Date(ports.now()).toISOString(), beat: ports.beat() };
  const kek = firstKek(session, begun.hellos, made, when);
  const attestations = await attested(round, kek, { ...lists, ...when });
  const birth = birthCertificate(kek, attestations, when.beat, plan.inPlaceOf && order);
  const proposal = { keks: [kek], certificates: [birth] };
  const voted = await round.ask(places, 'propose', { attestations, beat: when.beat }, readVoteOf);
  const voters = votersOf(ports, place.active, round);
  const agreed = await agreeOn(groups.frost, place, voters, free.attempt, proposal, voted);
  return { ...agreed, beside: [plan.policy] };
}

/** What all members sign about the record with their own keys. */
async function attested(
  round: Round,
  kek: UnsignedKek,
  payload: object,
): Promise<readonly { readonly i: number; readonly sig: Uint8Array }[]> {
  const places = kek.custodians.map(({ i }) => i);
  const concluded = await round.ask(places, 'conclude', payload, (answer) =>
    fieldsOf(answer, 'conclude', ['sig']).bytes('sig', 64),
  );
  const given = requireAnswers(concluded, kek.n, 'vouching');
  const attestations = [...given].map(([i, sig]) => ({ i, sig }));
  if (attestedBy(attestations, kek.custodians, birthPreimage(kek)).length === kek.n) return attestations;
  throw broken('conclude', [{ culprit: 0, reason: 'certificate' }]);
}

async function file(
  { ports, plan, say }: Task,
  { beside, ...agreed }: First,
  startedMs: number,
): Promise<CeremonyResult> {
  const [kek] = agreed.proposal.keks;
  if (kek === undefined) throw new HoldfastError('RECORD_INVALID', 'the first record of a key expected');
  const policy = [plan.policy, ...beside].map(policyRecord).find(({ record: { block } }) => {
    return kek.policyRoot !== null && sameBytes(block.cid.bytes, kek.policyRoot.bytes);
  });
  if (policy === undefined)
    throw new HoldfastError('KEY_UNAVAILABLE', 'nobody shows the policy that the first record names');
  const records = await agreedRecords(ports.signer, agreed, {
    kek: () => undefined,
    certificate: async () => undefined,
  });
  await ports.registry.file(`kek/${kek.cg}/1`, 0, [policy, ...records]);
  say('the key is registered');
  const active = await activateAll(ports, kek, records[0]?.record.block.bytes ?? new Uint8Array(0));
  const tookMs = ports.now() - startedMs;
  return { ceremony: 'init', cg: kek.cg, kekVer: 1, shareGen: 1, t: kek.t, n: kek.n, ...active, tookMs };
}

function policyRecord(bytes: Uint8Array): {
  key: string;
  record: { block: { cid: CID; bytes: Uint8Array } };
} {
  const { block, body } = openRecord(bytes);
  const { family, ver } = parsePolicy(body);
  return { key: `pol/${toHex(family)}/${ver}`, record: { block } };
}

/** The public keys as the messages make them, once all members have signed for them. */
function publicKeys(
  groups: CustodyGroups,
  session: Both<DkgSession>,
  messages: Both<readonly Uint8Array[]>,
  signatures: Both<readonly Uint8Array[]>,
) {
  const suites = suitesOf(groups);
  const one = (key: 'kek' | 'frost') => {
    const suite = suites[key];
    const { n, statics } = session[key];
    const read = messages[key].flatMap((bytes) => readMessage(session[key], bytes) ?? []);
    if (read.length !== n) throw broken('deal', [{ culprit: 0, reason: 'malformed' }]);
    const keys = keySetOf(suite.group, sumCommitments(suite, read), n);
    const transcript = transcriptOf(suite, session[key], read);
    const faults = statics.flatMap((point, at) => {
      const signature = signatures[key][at] ?? new Uint8Array(0);
      return schnorrVerify(suite, point, transcript, signature)
        ? []
        : [{ culprit: at + 1, reason: 'certificate' as const }];
    });
    if (faults.length > 0) throw broken('receive', faults);
    return { keys, transcriptHash: sha512(transcript) };
  };
  return madeKeys(one('kek'), one('frost'));
}

function messageOf(name: string): (answer: unknown) => Uint8Array {
  return (answer) => fieldsOf(answer, name, [name]).bytesUpTo(name, ceremonyMessageBytesMax);
}
