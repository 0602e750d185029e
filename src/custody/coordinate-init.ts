// The coordinator's part in making a group's keys. All members must be there: it is done once.

import type { CID } from '../core/block.ts';
import { HoldfastError } from '../core/errors.ts';
import type { PeerName } from '../core/rpc.ts';
import { fieldsOf } from '../envelope/fields.ts';
import { openRecord } from '../manifest/record.ts';
import type { DkgSession } from '../threshold/dkg-message.ts';
import { schnorrVerify } from '../threshold/dkg-suite.ts';
import { transcriptOf } from '../threshold/dkg-transcript.ts';
import { sha512 } from '../core/hash.ts';
import { toHex } from '../core/bytes.ts';
import { keySetOf } from '../threshold/key-set.ts';
import { readMessage, sumCommitments } from '../threshold/dkg-message.ts';
import { birthPreimage } from './birth.ts';
import { attestedBy, type Both, broken, type CustodyGroups } from './ceremony.ts';
import {
  birthCertificate,
  firstKek,
  initSession,
  madeKeys,
  openInit,
  readDkgMessages,
  suitesOf,
} from './ceremony-init.ts';
import { initPlan } from './ceremony-plan.ts';
import {
  activateAll,
  type CeremonyResult,
  type CoordinatorPorts,
  readCommitted,
  requireAnswers,
  Round,
  type Say,
  signedRecords,
  signTogether,
  toSign,
} from './coordinator.ts';
import { openOrder } from './order.ts';
import { parsePolicy } from './policy.ts';

const messageBytesMax = 65_536;

/**
 * Makes the keys of the group that `order` names.
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
  const n = plan.seats.length;
  const round = new Round(
    ports,
    'init',
    plan.seats.map(({ peer }): PeerName => peer),
  );
  const session = initSession(plan, cg, round.session, opened, (peer) => ports.custodians.keyOf(peer));
  const groups = await ports.groups();
  const places = plan.seats.map((_, at) => at + 1);

  say(`asking ${n} custodians`);
  const hello = await round.ask(places, 'hello', { attempt: round.session, order }, messageOf('hello'));
  const hellos = [...requireAnswers(hello, n, 'a key is made by all').values()];
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
  const concluded = await round.ask(places, 'conclude', { ...lists, ...when }, (answer) =>
    fieldsOf(answer, 'conclude', ['sig']).bytes('sig', 64),
  );
  const attestations = [...requireAnswers(concluded, n, 'vouching').entries()].map(([i, sig]) => ({
    i,
    sig,
  }));
  if (attestedBy(attestations, kek.custodians, birthPreimage(kek)).length !== n)
    throw broken('conclude', [{ culprit: 0, reason: 'certificate' }]);
  const certificate = birthCertificate(kek, attestations, when.beat);
  const payload = { attestations, beat: when.beat };
  const committed = await round.ask(places, 'sign', payload, readCommitted);
  const sigs = await signTogether(round, groups.frost, made.keys.frost, toSign(kek, certificate), committed);
  const records = signedRecords(ports.signer, kek, certificate, sigs, null);
  await ports.registry.file(`kek/${cg}/1`, 0, [policyRecord(plan.policy), ...records.filed]);
  say('the key is registered');
  const active = await activateAll(ports, kek, records.kek.block.bytes);
  const tookMs = ports.now() - startedMs;
  return { ceremony: 'init', cg, kekVer: 1, shareGen: 1, t: plan.t, n, ...active, tookMs };
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
  return (answer) => fieldsOf(answer, name, [name]).bytesUpTo(name, messageBytesMax);
}
