// A custody group in memory: members with their keys and shares, and every protocol run among them through the
// real functions, message by message.

import assert from 'node:assert/strict';
import { signerFromSeed, type Signer } from '../../src/core/hash.ts';
import { utf8 } from '../../src/core/bytes.ts';
import { deal, type Dealing, openDealt, readDealings } from '../../src/threshold/dealing.ts';
import { activate, certify, complete, type Settled, settle } from '../../src/threshold/dealing-agreement.ts';
import { answer, complain } from '../../src/threshold/dealing-complaints.ts';
import { type DealingSession, openDealing } from '../../src/threshold/dealing-session.ts';
import { begin, conclude, dkgContext, receive } from '../../src/threshold/dkg.ts';
import type { DkgSuite } from '../../src/threshold/dkg-suite.ts';
import type { Group, Scalar } from '../../src/threshold/group.ts';
import { generateKeyPair, type HpkeKeyPair } from '../../src/threshold/hpke.ts';
import type { KeySet } from '../../src/threshold/key-set.ts';
import { pass, restore, split } from '../../src/threshold/repair.ts';
import { openRepair } from '../../src/threshold/repair-session.ts';
import { random, the, valueOf } from './threshold.ts';

export interface Member {
  readonly signer: Signer;
  readonly prekey: HpkeKeyPair;
}

/** One generation of one key and who holds it. */
export interface World {
  readonly group: Group;
  readonly ver: number;
  readonly gen: number;
  readonly keys: KeySet;
  readonly members: readonly Member[];
  readonly shares: readonly Scalar[];
}

export function newMembers(count: number): Member[] {
  return Array.from({ length: count }, () => ({
    signer: signerFromSeed(random(32)),
    prekey: generateKeyPair(random),
  }));
}

/** Makes a key by the distributed key generation. */
export function generate(suite: DkgSuite, t: number, members: readonly Member[], ver = 1): World {
  const n = members.length;
  const secrets = members.map(() => suite.group.scalar.random(random));
  const statics = secrets.map((secret) => suite.group.base(secret));
  const session = { t, n, statics, context: dkgContext(suite, random(32), statics), ext: utf8('test') };
  const dealt = secrets.map((secret, at) => begin(suite, session, at + 1, secret, random));
  const messages = dealt.map(({ message }) => message);
  const received = dealt.map(({ state }, at) =>
    valueOf(receive(suite, session, state, the(secrets[at]), messages)),
  );
  const signatures = received.map(({ state }) => state.signature);
  for (const { state } of received) valueOf(conclude(suite, session, state, signatures));
  const keys = the(received[0]).state.keys;
  return { group: suite.group, ver, gen: 1, keys, members, shares: received.map(({ share }) => share) };
}

/** The session of a refresh, or of a reshare to other members. */
export function sessionFor(world: World, to?: { readonly t: number; readonly members: readonly Member[] }) {
  const { keys, members, gen, ver } = world;
  const next = to ?? { t: keys.t, members };
  return openDealing(world.group, {
    kind: to === undefined ? 'refresh' : 'reshare',
    cg: 'ops',
    ver,
    nonce: random(32),
    from: { gen, keys, sigPks: members.map(({ signer }) => signer.publicKey) },
    to: {
      t: next.t,
      recipients: next.members.map(({ signer, prekey }) => ({
        sigPk: signer.publicKey,
        prekey: prekey.publicKey,
      })),
    },
  });
}

/** What the members of `dealers` deal. */
export function dealBy(world: World, session: DealingSession, dealers: readonly number[]) {
  return dealers.map((index) => deal(world.group, session, dealerOf(world, index), random));
}

export function dealerOf(world: World, index: number) {
  return { index, share: the(world.shares[index - 1]), signer: the(world.members[index - 1]).signer };
}

/** All steps after dealing, by honest members who read the same log; the next generation. */
export function finish(
  world: World,
  session: DealingSession,
  recipients: readonly Member[],
  messages: readonly Uint8Array[],
  seeds: ReadonlyMap<number, Uint8Array> = new Map(),
): { readonly world: World; readonly settled: Settled; readonly dealings: readonly Dealing[] } {
  const { group } = world;
  const { dealings } = readDealings(group, session, messages);
  const opened = recipients.map(({ prekey }, at) =>
    openDealt(group, session, at + 1, prekey.secretKey, dealings),
  );
  const complaints = opened.flatMap(({ complaints: about }, at) =>
    about.length === 0 ? [] : [complain(session, at + 1, the(recipients[at]).signer, about)],
  );
  const answers = [...seeds].flatMap(([index, seed]) => {
    const given = answer(group, session, dealerOf(world, index), seed, complaints);
    return given === undefined ? [] : [given];
  });
  const settled = valueOf(settle(group, session, dealings, complaints, answers));
  const shares = opened.map(({ shares: dealt }, at) =>
    valueOf(
      complete(group, session, settled, {
        index: at + 1,
        shares: dealt,
        ...(session.kind === 'refresh' ? { present: the(world.shares[at]) } : {}),
      }),
    ),
  );
  const certificates = recipients.map(({ signer }, at) =>
    certify(session, at + 1, signer, settled.transcript),
  );
  const active = valueOf(activate(session, settled.transcript, certificates, recipients.length));
  assert.equal(active.length, recipients.length);
  return {
    world: { ...world, gen: world.gen + 1, keys: settled.keys, members: recipients, shares },
    settled,
    dealings,
  };
}

export function refreshed(world: World, dealers: readonly number[]): World {
  const session = sessionFor(world);
  const messages = dealBy(world, session, dealers).map(({ message }) => message);
  return finish(world, session, world.members, messages).world;
}

export function reshared(
  world: World,
  dealers: readonly number[],
  t: number,
  members: readonly Member[],
): World {
  const session = sessionFor(world, { t, members });
  const messages = dealBy(world, session, dealers).map(({ message }) => message);
  return finish(world, session, members, messages).world;
}

/** The share of `lost`, made again by helpers. */
export function repaired(world: World, lost: number, helpers: readonly number[]): Scalar {
  const { group, keys, members } = world;
  const session = openRepair(group, {
    cg: 'ops',
    ver: world.ver,
    gen: world.gen,
    nonce: random(32),
    keys,
    helpers,
    lost,
    sigPks: members.map(({ signer }) => signer.publicKey),
    prekeys: members.map(({ prekey }) => prekey.publicKey),
  });
  const splits = helpers.map((index) => split(group, session, dealerOf(world, index), random));
  const passes = helpers.map((index) => {
    const { signer, prekey } = the(members[index - 1]);
    return valueOf(pass(group, session, { index, signer, prekey: prekey.secretKey }, splits, random));
  });
  return valueOf(restore(group, session, the(members[lost - 1]).prekey.secretKey, splits, passes));
}
