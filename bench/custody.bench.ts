// The primitives of threshold custody, in operations per second of processor time, and what they cost with the
// other library behind the same port: what is secret runs on libsodium, so that is the column that counts.
//
//   node bench/custody.bench.ts [rounds, default 5]
//
// The contenders take turns round by round, so that a noisy neighbour hits all alike; CPU time, medians.

import { randomBytes } from 'node:crypto';
import { utf8 } from '../src/core/bytes.ts';
import { type DleqStatement, proveDleq, verifyDleq } from '../src/threshold/dleq.ts';
import type { HashGroup, Point, Scalar } from '../src/threshold/group.ts';
import { nobleRistretto } from '../test/support/group-noble.ts';
import { loadRistretto } from '../src/threshold/group-sodium.ts';
import { generateKeyPair, openWith, sealTo } from '../src/threshold/hpke.ts';
import { evaluate } from '../src/threshold/polynomial.ts';
import {
  branchKeyOf,
  combine,
  combiner,
  encrypt,
  type Partial,
  partial,
  verifyWrap,
} from '../src/threshold/tdh2.ts';

const rounds = Number(process.argv[2] ?? 5);
const threshold = 3;
const batch = 256;
const label = new Uint8Array(220).fill(1);
const context = utf8('what a request hashes to');
const bkId = new Uint8Array(16);

/** What is measured: how often per round, and how many items one run stands for. */
interface Work {
  readonly name: string;
  readonly times: number;
  readonly items: number;
  readonly run: () => unknown;
}

const sodium = contenders(await loadRistretto(), 1);
const noble = contenders(nobleRistretto(), 0.1);
const sealing = sealers();
const seconds = new Map<Work, number[]>([...sodium, ...noble, ...sealing].map((work) => [work, []]));
for (let round = -1; round < rounds; round++) {
  for (const [work, measured] of seconds) {
    const start = process.cpuUsage();
    for (let i = 0; i < work.times; i++) work.run();
    const { user, system } = process.cpuUsage(start);
    if (round >= 0) measured.push((user + system) / 1e6); // the first round warms up
  }
}

console.log(`${'per second of processor time'.padEnd(46)} libsodium     noble  ratio`);
for (const [i, work] of sodium.entries()) {
  const [fast, slow] = [rate(work), rate(noble[i] ?? work)];
  console.log(`${work.name.padEnd(46)}${figure(fast)}${figure(slow)}${(fast / slow).toFixed(1).padStart(7)}`);
}
for (const work of sealing) console.log(`${work.name.padEnd(46)}${figure(rate(work))}`);
console.log(`medians of ${rounds} rounds; ${threshold} of 5; node ${process.version}`);

/** The same work over either library; `share` of the runs for the slower one. */
function contenders(group: HashGroup, share: number): Work[] {
  const { scalar } = group;
  const coeffs = Array.from({ length: threshold }, () => scalar.random(randomBytes));
  const [x = scalar.fromInt(1), k = scalar.fromInt(2)] = coeffs;
  const Y = group.base(x);
  const P = group.base(k);
  const wraps = Array.from({ length: batch }, () => encrypt(group, Y, label, randomBytes).wrap);
  const wrap = encrypt(group, Y, label, randomBytes).wrap;
  const { U, V } = wrap;
  const weights = wraps.map(() => scalar.random(randomBytes));
  const points = wraps.map((wrap) => wrap.U);
  const all = proofOf(group, x, Y, points);
  const one = proofOf(group, x, Y, [U]);
  const near = partialsOf(group, coeffs, U, [1, 2, 3]);
  const far = partialsOf(group, coeffs, U, [1, 3, 5]);
  const prepared = combiner(group, [1, 3, 5]);
  const farD = far.map(({ D }) => D);
  const proofs = far.map(({ index, D }) => {
    const statement = { context, B: group.base(evaluate(group, coeffs, index)), C: [U], D: [D] };
    return { statement, proof: proveDleq(group, evaluate(group, coeffs, index), statement, randomBytes) };
  });
  const rows: [name: string, times: number, run: () => unknown, items?: number][] = [
    ['multiplication of the generator', 1000, () => group.base(k)],
    ['multiplication of a point', 400, () => group.mul(k, P)],
    ['addition', 1500, () => group.add(P, Y)],
    ['check of a point', 4000, () => group.isPoint(P)],
    [`sum of ${batch} multiples, per point`, 2, () => group.msm(weights, points), batch],
    ['wrap (new branch key)', 120, () => branchKeyOf(encrypt(group, Y, label, randomBytes).element, bkId, 1)],
    ['verify a wrap', 120, () => verifyWrap(group, Y, label, wrap)],
    ['partial', 400, () => partial(group, x, U)],
    ['partial and its proof', 120, () => proofOf(group, x, Y, [U])],
    ['verify one proof', 120, () => verifyDleq(group, one.statement, one.proof)],
    [`prove ${batch} at once, per item`, 1, () => proveDleq(group, x, all.statement, randomBytes), batch],
    [`verify ${batch} at once, per item`, 1, () => verifyDleq(group, all.statement, all.proof), batch],
    ['unwrap, lazy, members 1 2 3', 200, () => branchKeyOf(combine(group, V, near), bkId, 1)],
    ['unwrap, lazy, members 1 3 5', 200, () => branchKeyOf(combine(group, V, far), bkId, 1)],
    ['unwrap, lazy, members 1 3 5, many', 200, () => branchKeyOf(prepared(V, farD), bkId, 1)],
    [
      'unwrap, eager: each proof verified',
      60,
      () => {
        for (const { statement, proof } of proofs) verifyDleq(group, statement, proof);
        return branchKeyOf(combine(group, V, far), bkId, 1);
      },
    ],
  ];
  return rows.map(([name, times, run, items = 1]) => ({
    name,
    times: Math.max(1, Math.round(times * share)),
    items,
    run,
  }));
}

function proofOf(
  group: HashGroup,
  x: Scalar,
  B: Point,
  C: readonly Point[],
): { statement: DleqStatement; proof: Uint8Array } {
  const statement = { context, B, C, D: C.map((point) => partial(group, x, point)) };
  return { statement, proof: proveDleq(group, x, statement, randomBytes) };
}

function partialsOf(
  group: HashGroup,
  coeffs: readonly Scalar[],
  U: Point,
  indices: readonly number[],
): Partial[] {
  return indices.map((index) => ({ index, D: partial(group, evaluate(group, coeffs, index), U) }));
}

/** An answer of a custodian as it travels: HPKE by node:crypto, one message per key agreement. */
function sealers(): Work[] {
  const { publicKey, secretKey } = generateKeyPair(randomBytes);
  const answer = new Uint8Array(32 * batch);
  const { enc, ct } = sealTo(publicKey, context, context, answer);
  return [
    {
      name: 'HPKE seal, 8 KiB',
      times: 400,
      items: 1,
      run: () => sealTo(publicKey, context, context, answer),
    },
    {
      name: 'HPKE open, 8 KiB',
      times: 400,
      items: 1,
      run: () => openWith(secretKey, enc, context, context, ct),
    },
  ];
}

function rate(work: Work): number {
  const sorted = (seconds.get(work) ?? []).toSorted((a, b) => a - b);
  return (work.times * work.items) / (sorted[Math.floor(sorted.length / 2)] ?? Number.NaN);
}

function figure(perSecond: number): string {
  return Math.round(perSecond).toLocaleString('en').padStart(10);
}
