// The protocols of threshold custody, in processor time per member and in bytes: making a key, dealing its
// shares anew, repairing one, moving wraps to another key, signing.
//
//   node bench/custody-protocols.bench.ts [rounds, default 7] [t, default 3] [n, default 5] [wraps, default 1000]
//
// All members run in this process, one after the other; what one of them does is timed alone and divided. The
// KEK runs on libsodium, the signing key on noble (ed25519). CPU time, medians.

import { randomBytes } from 'node:crypto';
import { concat, utf8 } from '../src/core/bytes.ts';
import { signerFromSeed } from '../src/core/hash.ts';
import { type Dealing, deal, openDealt, readDealings } from '../src/threshold/dealing.ts';
import { activate, certify, complete, settle } from '../src/threshold/dealing-agreement.ts';
import { type DealingSession, openDealing } from '../src/threshold/dealing-session.ts';
import { begin, conclude, dkgContext, receive } from '../src/threshold/dkg.ts';
import { type DkgSuite, ed25519Suite, ristrettoSuite } from '../src/threshold/dkg-suite.ts';
import type { Outcome } from '../src/threshold/fault.ts';
import { aggregate, commit, signShare } from '../src/threshold/frost.ts';
import type { Group, HashGroup, Scalar } from '../src/threshold/group.ts';
import { loadEd25519 } from '../src/threshold/ed25519-sodium.ts';
import { loadRistretto } from '../src/threshold/group-sodium.ts';
import { generateKeyPair } from '../src/threshold/hpke.ts';
import {
  applySwitch,
  contribute,
  openPage,
  provenItem,
  readContribution,
  type SwitchPage,
} from '../src/threshold/key-switch.ts';
import type { KeySet } from '../src/threshold/key-set.ts';
import { pass, restore, split } from '../src/threshold/repair.ts';
import { openRepair } from '../src/threshold/repair-session.ts';
import { encrypt, type TdhWrap } from '../src/threshold/tdh2.ts';

const [rounds = 7, t = 3, n = 5, wraps = 1000] = process.argv.slice(2).map(Number);
const pageItems = 250;
const everybody = Array.from({ length: n }, (_, at) => at + 1);
const quorum = everybody.slice(0, t);
const members = everybody.map(() => ({
  signer: signerFromSeed(random(32)),
  prekey: generateKeyPair(random),
}));
const measured = new Map<string, number[]>();
const sizes = new Map<string, number>();

interface Key {
  readonly group: Group;
  readonly keys: KeySet;
  readonly shares: readonly Scalar[];
}

const ristretto = await loadRistretto();
for (let round = -1; round < rounds; round++) {
  for (const [name, suite] of [
    ['KEK', ristrettoSuite(ristretto)],
    ['signing key', ed25519Suite(await loadEd25519())],
  ] as const) {
    const key = makeKey(name, suite, round);
    dealAnew(name, key, 'refresh', everybody, round);
    dealAnew(name, key, 'reshare', quorum, round);
    repair(name, key, round);
    if (name === 'signing key') sign(key, round);
  }
}
for (let round = 0; round < Math.min(rounds, 3); round++) moveWraps(ristretto, round);
print();

function makeKey(name: string, suite: DkgSuite, round: number): Key {
  const secrets = everybody.map(() => suite.group.scalar.random(random));
  const statics = secrets.map((secret) => suite.group.base(secret));
  const session = { t, n, statics, context: dkgContext(suite, random(32), statics), ext: utf8('policy') };
  const row = `${name}: generation, per member`;
  const dealt = timed(row, round, n, () =>
    secrets.map((secret, at) => begin(suite, session, at + 1, secret, random)),
  );
  const messages = dealt.map(({ message }) => message);
  const received = timed(row, round, n, () =>
    dealt.map(({ state }, at) => must(receive(suite, session, state, the(secrets[at]), messages))),
  );
  const signatures = received.map(({ state }) => state.signature);
  timed(row, round, n, () => received.map(({ state }) => must(conclude(suite, session, state, signatures))));
  sizes.set(row, concat(...messages, ...signatures).length);
  return {
    group: suite.group,
    keys: the(received[0]).state.keys,
    shares: received.map(({ share }) => share),
  };
}

function dealAnew(
  name: string,
  key: Key,
  kind: 'refresh' | 'reshare',
  dealers: readonly number[],
  round: number,
): void {
  const { group } = key;
  const session = openDealing(group, {
    kind,
    cg: 'bench',
    ver: 1,
    nonce: random(32),
    from: { gen: 1, keys: key.keys, sigPks: members.map(({ signer }) => signer.publicKey) },
    to: {
      t,
      recipients: members.map(({ signer, prekey }) => ({
        sigPk: signer.publicKey,
        prekey: prekey.publicKey,
      })),
    },
  });
  const row = `${name}: ${kind} by ${dealers.length}, per member`;
  const messages = timed(row, round, n, () =>
    dealers.map((index) => {
      const { signer } = the(members[index - 1]);
      return deal(group, session, { index, share: the(key.shares[index - 1]), signer }, random).message;
    }),
  );
  const certificates = timed(row, round, n, () =>
    everybody.map((index) => receiveDealings(key, session, index, messages)),
  );
  sizes.set(row, concat(...messages, ...certificates).length);
}

/** Everything one recipient does. */
function receiveDealings(
  key: Key,
  session: DealingSession,
  index: number,
  messages: readonly Uint8Array[],
): Uint8Array {
  const { group } = key;
  const { prekey, signer } = the(members[index - 1]);
  const { dealings }: { dealings: readonly Dealing[] } = readDealings(group, session, messages);
  const { shares } = openDealt(group, session, index, prekey.secretKey, dealings);
  const settled = must(settle(group, session, dealings, [], []));
  const present = session.kind === 'refresh' ? { present: the(key.shares[index - 1]) } : {};
  must(complete(group, session, settled, { index, shares, ...present }));
  const certificate = certify(session, index, signer, settled.transcript);
  const all = everybody.map((each) =>
    certify(session, each, the(members[each - 1]).signer, settled.transcript),
  );
  must(activate(session, settled.transcript, all, n));
  return certificate;
}

function repair(name: string, key: Key, round: number): void {
  const { group } = key;
  const session = openRepair(group, {
    cg: 'bench',
    ver: 1,
    gen: 1,
    nonce: random(32),
    keys: key.keys,
    helpers: quorum,
    lost: n,
    sigPks: members.map(({ signer }) => signer.publicKey),
    prekeys: members.map(({ prekey }) => prekey.publicKey),
  });
  const row = `${name}: repair, all members`;
  const all = timed(row, round, 1, () => {
    const splits = quorum.map((index) => {
      const { signer } = the(members[index - 1]);
      return split(group, session, { index, share: the(key.shares[index - 1]), signer }, random);
    });
    const passes = quorum.map((index) => {
      const { signer, prekey } = the(members[index - 1]);
      return must(pass(group, session, { index, signer, prekey: prekey.secretKey }, splits, random));
    });
    must(restore(group, session, the(members[n - 1]).prekey.secretKey, splits, passes));
    return [...splits, ...passes];
  });
  sizes.set(row, concat(...all).length);
}

function sign(key: Key, round: number): void {
  const message = utf8('a KEK record');
  const row = `signing key: signature by ${t}, all members`;
  timed(row, round, 1, () => {
    const made = quorum.map((index) => ({
      index,
      ...commit(key.group, the(key.shares[index - 1]), random),
    }));
    const list = made.map(({ index, commitment }) => ({ index, bytes: commitment }));
    const shares = made.map(({ index, nonces }) => {
      const share = the(key.shares[index - 1]);
      return { index, bytes: must(signShare(key.group, key.keys, index, share, nonces, list, message)) };
    });
    return must(aggregate(key.group, key.keys, list, message, shares));
  });
}

/** One custodian verifies and contributes; the coordinator verifies all contributions and applies them. */
function moveWraps(group: HashGroup, round: number): void {
  const from = makeKey('KEK', ristrettoSuite(group), -1);
  const to = makeKey('KEK', ristrettoSuite(group), -1);
  const label = new Uint8Array(220).fill(1);
  const made = Array.from({ length: wraps }, () => encrypt(group, from.keys.Y, label, random).wrap);
  const unit = `${wraps} wraps`;
  const pages = timed(`move ${unit}: verify them, per custodian`, round, 1, () => {
    return Array.from({ length: Math.ceil(wraps / pageItems) }, (_, page) =>
      pageOf(group, from.keys, to.keys, page, made.slice(page * pageItems, (page + 1) * pageItems)),
    );
  });
  for (const page of pages) {
    const contributions = quorum.map((index) => {
      const row = `move ${unit}: contribute, per custodian`;
      return {
        index,
        bytes: timed(row, round, t, () =>
          contribute(group, page, index, the(from.shares[index - 1]), random),
        ),
      };
    });
    const read = contributions.map(({ index, bytes }) =>
      timed(`move ${unit}: verify ${t} contributions`, round, 1, () =>
        the(readContribution(group, page, index, bytes)),
      ),
    );
    timed(`move ${unit}: apply`, round, 1, () => applySwitch(group, page, read));
  }
}

function pageOf(
  group: HashGroup,
  keys: KeySet,
  next: KeySet,
  page: number,
  made: readonly TdhWrap[],
): SwitchPage {
  const label = new Uint8Array(220).fill(1);
  const items = made.map((wrap) => the(provenItem(group, keys.Y, label, wrap, random(16), label)));
  return openPage(group, {
    cg: 'bench',
    fromVer: 1,
    fromGen: 1,
    toVer: 2,
    page,
    keys,
    quorum,
    Ynew: next.Y,
    items,
  });
}

/** Adds the processor time of `run` divided by `among` to this round of `row`; round −1 only warms up. */
function timed<T>(row: string, round: number, among: number, run: () => T): T {
  const start = process.cpuUsage();
  const value = run();
  const { user, system } = process.cpuUsage(start);
  const list = measured.get(row) ?? [];
  if (round >= 0) list[round] = (list[round] ?? 0) + (user + system) / 1000 / among;
  measured.set(row, list);
  return value;
}

function print(): void {
  console.log(`${'processor time'.padEnd(48)}        ms     bytes in all`);
  for (const [row, list] of measured) {
    const sorted = list.toSorted((a, b) => a - b);
    const median = sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
    console.log(
      `${row.padEnd(48)}${median.toFixed(1).padStart(10)}${String(sizes.get(row) ?? '').padStart(17)}`,
    );
  }
  console.log(`medians of ${rounds} rounds; ${t} of ${n}; node ${process.version}`);
}

function random(sizeBytes: number): Uint8Array {
  return new Uint8Array(randomBytes(sizeBytes));
}

function the<T>(value: T | undefined): T {
  if (value === undefined) throw new Error('a value expected');
  return value;
}

function must<T>(outcome: Outcome<T>): T {
  if (outcome.ok) return outcome.value;
  throw new Error(`no faults expected: ${JSON.stringify(outcome.faults)}`);
}
