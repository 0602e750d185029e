// Σ kᵢ·Pᵢ over ristretto255 (RFC 9496) with public scalars: what verifying a page of proofs comes down to.
//
// libsodium multiplies one point by one scalar, decodes and encodes every time, and takes the time that a secret needs.
// Here all points are decoded once and share their doublings: by windows of each point's multiples where there are few
// (Straus), by sorting the points into buckets where there are many (Pippenger). Which steps are taken depends on the
// scalars, so they must be public; the points need not be, and what was made of them is zeroed.
//
// Proofs are about pairs: W = fG − eU and W̄ = fḠ − eŪ, ΣwC and ΣwD. Two sums with the same scalars go the same way, so
// they go it together, one in each lane of a vector (field-wasm.ts).

import {
  type FieldModule,
  elementBytes,
  makeFieldModule,
  pointSpan,
  reservedBytes,
  twiceD,
} from './field-wasm.ts';
import { asBuffer, sameBytes } from '../core/bytes.ts';
import { type Point, pointBytes, type Scalar, scalarBytes } from './group.ts';

export interface PublicSums {
  /**
   * For each list of points Σ k·P, k below L; undefined when a point of any of them is no canonical encoding. Each list
   * has as many points as there are scalars.
   */
  msm(ks: readonly Scalar[], lists: readonly (readonly Point[])[]): Point[] | undefined;
  /** Σ P; undefined when one of them is no canonical encoding. */
  sum(points: readonly Point[]): Point | undefined;
  /** The same for several lists. */
  sums(lists: readonly (readonly Point[])[]): Point[] | undefined;
  /** True when each is a canonical encoding; of the identity, too. */
  areEncodings(points: readonly Point[]): boolean;
  /** Makes two sums in which these stand at the same place quicker. Kept for ever: one pair. */
  keep(first: Point, second: Point): void;
  /** Runs with the points that are decoded remembered, for this and later runs: public ones only. */
  remembering<T>(run: () => T): T;
}

export function makePublicSums(): PublicSums {
  const curve = new Curve();
  return {
    msm: (ks, lists) => curve.msms(ks, lists),
    sum: (points) => curve.sum(points),
    sums: (lists) => curve.sums(lists),
    areEncodings: (points) => curve.areEncodings(points),
    keep: (first, second) => curve.keep([first, second]),
    remembering: (run) => curve.remembering(run),
  };
}

/** What goes together through the two lanes. */
type Pair<T> = readonly [T, T];
const lanes = [0, 1] as const;
type Lane = (typeof lanes)[number];

/** Constants of RFC 9496 4.1, and 2d. */
const d = 37095705934669439343138083508754565189542113879843219016388785533085940283555n;
const sqrtM1 = 19681161376707505956807079304988542015446066515923890162744021073123829784752n;
const invsqrtAMinusD = 54469307008909316920995813868745141605393597292927456921205312896311721017578n;
const p = 2n ** 255n - 19n;

const pageBytes = 65_536;
/** Elements that are used while points are decoded and encoded. */
const rooms = 24;
const roomsAt = reservedBytes;
const constantsAt = roomsAt + rooms * elementBytes;
const dAt = constantsAt;
const sqrtM1At = dAt + elementBytes;
const invsqrtAt = sqrtM1At + elementBytes;
const oneAt = invsqrtAt + elementBytes;
const zeroAt = oneAt + elementBytes;
/** Points, in pairs: the total, a running sum, the sum of a window, and one that is prepared. */
const totalAt = zeroAt + elementBytes;
const runningAt = totalAt + pointSpan;
const windowAt = runningAt + pointSpan;
const preparedAt = windowAt + pointSpan;
/** The multiples 1 … 255 of the pair that is kept, prepared. */
const keptAt = preparedAt + pointSpan;
const keptSpan = 256 * pointSpan;
/** From here on points, tables and buckets lie. */
const heapAt = keptAt + keptSpan;
/** Odd multiples of a point, 1 … 15, in a table of Straus. */
const oddMultiples = 8;
const elementWords = elementBytes / 4;
/** Of one point in both lanes, and alone. */
const pointWords = pointSpan / 4;
const aloneWords = pointWords / 2;
/**
 * Points that are remembered, some 400 bytes each: a page of a rotation has two to three thousand. The last so many, and
 * as many before them.
 */
const rememberedMax = 3072;
const noPoint: Point = new Uint8Array(0);
const identity: Point = new Uint8Array(pointBytes);

class Curve {
  readonly #module: FieldModule;
  #kept: Pair<Point> | undefined;
  /** Decoded points by their encodings. */
  #remembered = new Map<string, Int32Array>();
  #rememberedBefore = new Map<string, Int32Array>();
  #isRemembering = false;
  #words: Int32Array;
  readonly #limbs = [new Int32Array(10), new Int32Array(10)] as const;

  constructor() {
    this.#module = makeFieldModule(1);
    this.#words = new Int32Array(this.#module.memory.buffer);
    this.#makeRoom(heapAt);
    for (const [address, value] of [
      [twiceD, (2n * d) % p],
      [dAt, d],
      [sqrtM1At, sqrtM1],
      [invsqrtAt, invsqrtAMinusD],
      [oneAt, 1n],
      [zeroAt, 0n],
    ] as const)
      for (const lane of lanes) this.#read(address, lane, littleEndian(value));
  }

  keep(points: Pair<Point>): void {
    if (this.#kept !== undefined) return;
    const areBoth = this.#within(pointSpan, () => {
      if (!this.#decode(heapAt, points)) return false;
      const { add, prepare } = this.#module;
      this.#copy(runningAt, heapAt);
      prepare(keptAt + pointSpan, heapAt);
      for (let digit = 2; digit < 256; digit++) {
        add(runningAt, runningAt, keptAt + pointSpan);
        prepare(keptAt + digit * pointSpan, runningAt);
      }
      return true;
    });
    if (areBoth) this.#kept = [points[0].slice(), points[1].slice()];
  }

  msms(ks: readonly Scalar[], lists: readonly (readonly Point[])[]): Point[] | undefined {
    const sums: Point[] = [];
    for (let at = 0; at < lists.length; at += 2) {
      const [first = [], second] = lists.slice(at, at + 2);
      const both = this.#msm(ks, [first, second ?? first]);
      if (both === undefined) return undefined;
      sums.push(...(second === undefined ? both.slice(0, 1) : both));
    }
    return sums;
  }

  #msm(ks: readonly Scalar[], lists: Pair<readonly Point[]>): Pair<Point> | undefined {
    const bits = 8 * Math.max(0, ...ks.map(significantBytes));
    const plan = planOf(ks.length, bits);
    return this.#within(ks.length * pointSpan + plan.bytes, () => {
      const tables = pointAt(ks.length);
      const kept = plan.way === 'straus' ? this.#keptIn(ks, lists) : -1;
      if (!this.#decodeAll(lists, kept)) return undefined;
      this.#clear(totalAt);
      if (plan.way === 'straus') this.#straus(ks, kept, bits, tables);
      else this.#pippenger(ks, bits, plan.width, tables);
      return this.#encode(totalAt);
    });
  }

  /** Where the pair that is kept stands, or −1. */
  #keptIn(ks: readonly Scalar[], lists: Pair<readonly Point[]>): number {
    const kept = this.#kept;
    if (kept === undefined) return -1;
    const is = (lane: Lane, at: number): boolean => sameBytes(lists[lane][at] ?? noPoint, kept[lane]);
    return ks.findIndex((_, at) => is(0, at) && is(1, at));
  }

  /** Decodes all but the pair at `kept`. Where both lists are one, two points of it at a time, each into both lanes. */
  #decodeAll(lists: Pair<readonly Point[]>, kept: number): boolean {
    const [first, second] = lists;
    const pointOf = (list: readonly Point[], at: number): Point => list[at] ?? noPoint;
    if (first !== second) {
      for (const at of first.keys())
        if (at !== kept && !this.#decode(pointAt(at), [pointOf(first, at), pointOf(second, at)]))
          return false;
      return true;
    }
    for (let at = 0; at < first.length; at += 2) {
      const next = Math.min(at + 1, first.length - 1);
      if (!this.#decode(pointAt(at), [pointOf(first, at), pointOf(first, next)])) return false;
      this.#spread(pointAt(next), pointAt(at), 1);
      if (next !== at) this.#spread(pointAt(at), pointAt(at), 0);
    }
    return true;
  }

  areEncodings(points: readonly Point[]): boolean {
    return this.#within(pointSpan, () => {
      for (let at = 0; at < points.length; at += 2)
        if (!this.#decode(heapAt, [points[at] ?? identity, points[at + 1] ?? identity])) return false;
      return true;
    });
  }

  remembering<T>(run: () => T): T {
    const before = this.#isRemembering;
    this.#isRemembering = true;
    try {
      return run();
    } finally {
      this.#isRemembering = before;
    }
  }

  /** Two lists at a time, one in each lane. */
  sums(lists: readonly (readonly Point[])[]): Point[] | undefined {
    const sums: Point[] = [];
    for (let at = 0; at < lists.length; at += 2) {
      const [first = [], second = []] = lists.slice(at, at + 2);
      const both = this.#within(pointSpan, () => {
        this.#clear(totalAt);
        for (let i = 0; i < Math.max(first.length, second.length); i++) {
          if (!this.#decode(heapAt, [first[i] ?? identity, second[i] ?? identity])) return undefined;
          this.#add(totalAt, heapAt);
        }
        return this.#encode(totalAt);
      });
      if (both === undefined) return undefined;
      sums.push(...both);
    }
    return sums.slice(0, lists.length);
  }

  /** Half of the points in each lane, and both halves together at the end. */
  sum(points: readonly Point[]): Point | undefined {
    return this.#within(2 * pointSpan, () => {
      this.#clear(totalAt);
      for (let at = 0; at < points.length; at += 2) {
        const pair = [points[at] ?? identity, points[at + 1] ?? identity] as const;
        if (!this.#decode(heapAt, pair)) return undefined;
        this.#add(totalAt, heapAt);
      }
      this.#spread(heapAt, totalAt, 1);
      this.#add(totalAt, heapAt);
      return this.#encode(totalAt)[0];
    });
  }

  /**
   * Signed windows of five bits (w-NAF) with the odd multiples of each point, and of eight bits of the one at `kept`.
   */
  #straus(ks: readonly Scalar[], kept: number, bits: number, tables: number): void {
    const { add, subtract, double, doubleOnly } = this.#module;
    const entry = (i: number, digit: number): number =>
      tables + (oddMultiples * i + (digit >> 1)) * pointSpan;
    const fresh = [...ks.entries()].filter(([i]) => i !== kept);
    for (const [i] of fresh) this.#oddMultiples(pointAt(i), entry(i, 1));
    const digits = fresh.map(([i, k]) => ({ i, naf: nafOf(k, bits) }));
    for (let bit = bits; bit >= 0; bit--) {
      const keptDigit = (bit % 8 === 0 ? ks[kept]?.[bit / 8] : undefined) ?? 0;
      let isAdded = bit === 0 || keptDigit > 0;
      for (const { naf } of digits) isAdded ||= naf[bit] !== 0;
      if (isAdded) double(totalAt, totalAt);
      else {
        doubleOnly(totalAt, totalAt);
        continue;
      }
      for (const { i, naf } of digits) {
        const digit = naf[bit] ?? 0;
        if (digit > 0) add(totalAt, totalAt, entry(i, digit));
        else if (digit < 0) subtract(totalAt, totalAt, entry(i, -digit));
      }
      if (keptDigit > 0) add(totalAt, totalAt, keptAt + keptDigit * pointSpan);
    }
  }

  /** Writes 1·P, 3·P … 15·P from `to` on, prepared. */
  #oddMultiples(point: number, to: number): void {
    const { add, double, prepare } = this.#module;
    double(runningAt, point);
    prepare(preparedAt, runningAt);
    prepare(to, point);
    this.#copy(runningAt, point);
    for (let at = 1; at < oddMultiples; at++) {
      add(runningAt, runningAt, preparedAt);
      prepare(to + at * pointSpan, runningAt);
    }
  }

  #pippenger(ks: readonly Scalar[], bits: number, width: number, tables: number): void {
    const { add, double, prepare } = this.#module;
    const bucketAt = (digit: number): number => tables + (ks.length + digit) * pointSpan;
    const preparedOf = (i: number): number => tables + i * pointSpan;
    for (const i of ks.keys()) prepare(preparedOf(i), pointAt(i));
    const buckets = 2 ** width;
    for (let shift = Math.floor((bits - 1) / width) * width; shift >= 0; shift -= width) {
      for (let i = 0; i < width; i++) double(totalAt, totalAt);
      const isFull = new Uint8Array(buckets);
      for (const [i, k] of ks.entries()) {
        const digit = digitOf(k, shift, width);
        if (digit === 0) continue;
        if (isFull[digit] === 1) add(bucketAt(digit), bucketAt(digit), preparedOf(i));
        else this.#copy(bucketAt(digit), pointAt(i));
        isFull[digit] = 1;
      }
      this.#clear(runningAt);
      this.#clear(windowAt);
      for (let digit = buckets - 1; digit > 0; digit--) {
        if (isFull[digit] === 1) this.#add(runningAt, bucketAt(digit));
        this.#add(windowAt, runningAt);
      }
      this.#add(totalAt, windowAt);
    }
  }

  #add(to: number, from: number): void {
    this.#module.prepare(preparedAt, from);
    this.#module.add(to, to, preparedAt);
  }

  /** False when one of them is no canonical encoding. */
  #decode(out: number, points: Pair<Point>): boolean {
    if (!this.#isRemembering) return this.#decodeNow(out, points);
    const [p, q] = points;
    const [nameP, nameQ] = [nameOf(p), p === q ? nameOf(p) : nameOf(q)];
    const [knownP, knownQ] = [this.#known(nameP), this.#known(nameQ)];
    if (knownP !== undefined && knownQ !== undefined) {
      this.#join(out, knownP, knownQ);
      return true;
    }
    if (!this.#decodeNow(out, points)) return false;
    if (this.#remembered.size + 2 > rememberedMax) {
      this.#rememberedBefore = this.#remembered;
      this.#remembered = new Map();
    }
    this.#remembered.set(nameP, this.#alone(out, 0));
    this.#remembered.set(nameQ, this.#alone(out, 1));
    return true;
  }

  #known(name: string): Int32Array | undefined {
    return this.#remembered.get(name) ?? this.#rememberedBefore.get(name);
  }

  #join(to: number, first: Int32Array, second: Int32Array): void {
    const words = this.#words;
    for (let i = 0, at = to >> 2; i < aloneWords; i++, at += 2) {
      words[at] = first[i] ?? 0;
      words[at + 1] = second[i] ?? 0;
    }
  }

  /** The point of one lane. */
  #alone(from: number, lane: Lane): Int32Array {
    const alone = new Int32Array(aloneWords);
    for (let i = 0; i < aloneWords; i++) alone[i] = this.#words[(from >> 2) + 2 * i + lane] ?? 0;
    return alone;
  }

  /** RFC 9496 4.3.1. */
  #decodeNow(out: number, points: Pair<Point>): boolean {
    if (!points.every((bytes) => bytes.length === pointBytes && isCanonical(bytes))) return false;
    const { mul, squares } = this.#module;
    const [s, u1, u2, u2s] = [room(12), room(13), room(14), room(15)];
    const [v, root, dx, dy] = [room(16), room(17), room(18), room(19)];
    for (const lane of lanes) this.#read(s, lane, points[lane]);
    squares(v, s, 1);
    this.#combine(u1, oneAt, v, -1);
    this.#combine(u2, oneAt, v, 1);
    squares(u2s, u2, 1);
    squares(v, u1, 1);
    mul(v, v, dAt);
    this.#combine(v, zeroAt, v, -1);
    this.#combine(v, v, u2s, -1);
    mul(dx, v, u2s);
    const wereSquares = this.#invsqrt(root, dx);
    mul(dx, root, u2);
    mul(dy, root, dx);
    mul(dy, dy, v);
    const [x, y, z, t] = [out, out + elementBytes, out + 2 * elementBytes, out + 3 * elementBytes];
    this.#combine(x, s, s, 1);
    mul(x, x, dx);
    this.#makePositive(x);
    mul(y, u1, dy);
    this.#combine(z, oneAt, zeroAt, 1);
    mul(t, x, y);
    const [areNegative, areZero] = [this.#areNegative(t), this.#are(y, zero)];
    return lanes.every((lane) => wereSquares[lane] && !areNegative[lane] && !areZero[lane]);
  }

  /** RFC 9496 4.3.2. */
  #encode(at: number): Pair<Point> {
    const { mul, squares } = this.#module;
    const [X, Y, Z, T] = [at, at + elementBytes, at + 2 * elementBytes, at + 3 * elementBytes];
    const [u1, u2, root, zInverse] = [room(12), room(13), room(14), room(15)];
    const [d1, d2, x, y] = [room(16), room(17), room(18), room(19)];
    const [turnedX, turnedY, turnedD] = [room(20), room(21), room(22)];
    this.#combine(d1, Z, Y, 1);
    this.#combine(d2, Z, Y, -1);
    mul(u1, d1, d2);
    mul(u2, X, Y);
    squares(root, u2, 1);
    mul(root, root, u1);
    this.#invsqrt(root, root);
    mul(d1, root, u1);
    mul(d2, root, u2);
    mul(zInverse, d1, d2);
    mul(zInverse, zInverse, T);
    mul(turnedX, Y, sqrtM1At);
    mul(turnedY, X, sqrtM1At);
    mul(turnedD, d1, invsqrtAt);
    mul(x, T, zInverse);
    const areTurned = this.#areNegative(x);
    for (const lane of lanes) {
      this.#copyLane(x, areTurned[lane] ? turnedX : X, lane);
      this.#copyLane(y, areTurned[lane] ? turnedY : Y, lane);
      if (areTurned[lane]) this.#copyLane(d2, turnedD, lane);
    }
    mul(u1, x, zInverse);
    const areNegative = this.#areNegative(u1);
    for (const lane of lanes) if (areNegative[lane]) this.#negate(y, lane);
    this.#combine(y, Z, y, -1);
    mul(y, d2, y);
    this.#makePositive(y);
    const [first, second] = this.#canonical(y);
    return [bytesOf(first), bytesOf(second)];
  }

  /** out = |1/√v| or |√(i/v)|, i = √−1; true for the former, and 0 and false for v = 0. RFC 9496 4.2. */
  #invsqrt(out: number, v: number): Pair<boolean> {
    const { mul, squares } = this.#module;
    const [v3, v7, r, check] = [room(0), room(1), room(2), room(3)];
    squares(v3, v, 1);
    mul(v3, v3, v);
    squares(v7, v3, 1);
    mul(v7, v7, v);
    this.#power(r, v7);
    mul(r, r, v3);
    squares(check, r, 1);
    mul(check, check, v);
    const [isRoot, isMinus, isTurned] = [one, minusOne, minusSqrtM1].map((value) => this.#are(check, value));
    mul(room(4), r, sqrtM1At);
    for (const lane of lanes)
      this.#copyLane(out, isMinus?.[lane] === true || isTurned?.[lane] === true ? room(4) : r, lane);
    this.#makePositive(out);
    return [isRoot?.[0] === true || isMinus?.[0] === true, isRoot?.[1] === true || isMinus?.[1] === true];
  }

  /** out = z^((p − 5)/8), by the exponents 2^5 − 1, 2^10 − 1 … 2^250 − 1. */
  #power(out: number, z: number): void {
    const { mul, squares } = this.#module;
    const [a, b, c] = [room(5), room(6), room(7)];
    squares(a, z, 1);
    squares(b, a, 2);
    mul(b, z, b);
    mul(a, a, b);
    squares(a, a, 1);
    mul(a, b, a); // 2^5 − 1
    const longer = (to: number, from: number, times: number, last: number): void => {
      squares(c, from, times);
      mul(to, c, last);
    };
    longer(a, a, 5, a);
    longer(b, a, 10, a); // 2^20 − 1
    longer(b, b, 20, b);
    longer(a, b, 10, a); // 2^50 − 1
    longer(b, a, 50, a);
    longer(b, b, 100, b);
    longer(a, b, 50, a); // 2^250 − 1
    longer(out, a, 2, z);
  }

  /** Limb by limb, without a carry. */
  #combine(out: number, a: number, b: number, sign: 1 | -1): void {
    const words = this.#words;
    const [to, left, right] = [out >> 2, a >> 2, b >> 2];
    for (let i = 0; i < elementWords; i++)
      words[to + i] = (words[left + i] ?? 0) + sign * (words[right + i] ?? 0);
  }

  #negate(at: number, lane: Lane): void {
    for (let i = lane; i < elementWords; i += 2)
      this.#words[(at >> 2) + i] = -(this.#words[(at >> 2) + i] ?? 0);
  }

  #copyLane(to: number, from: number, lane: Lane): void {
    for (let i = lane; i < elementWords; i += 2)
      this.#words[(to >> 2) + i] = this.#words[(from >> 2) + i] ?? 0;
  }

  /** Writes the point of one lane into both. */
  #spread(to: number, from: number, lane: Lane): void {
    for (let i = 0; i < pointWords; i += 2) {
      const limb = this.#words[(from >> 2) + i + lane] ?? 0;
      this.#words[(to >> 2) + i] = limb;
      this.#words[(to >> 2) + i + 1] = limb;
    }
  }

  #copy(to: number, from: number): void {
    this.#words.copyWithin(to >> 2, from >> 2, (from + pointSpan) >> 2);
  }

  /** The identity: (0, 1, 1, 0). */
  #clear(at: number): void {
    this.#words.fill(0, at >> 2, (at + pointSpan) >> 2);
    for (const part of [1, 2])
      for (const lane of lanes) this.#words[((at + part * elementBytes) >> 2) + lane] = 1;
  }

  /** −x in the place of each x that RFC 9496 calls negative. */
  #makePositive(at: number): void {
    const areNegative = this.#areNegative(at);
    for (const lane of lanes) if (areNegative[lane]) this.#negate(at, lane);
  }

  #areNegative(at: number): Pair<boolean> {
    const [first, second] = this.#canonical(at);
    return [((first[0] ?? 0) & 1) === 1, ((second[0] ?? 0) & 1) === 1];
  }

  #are(at: number, value: Int32Array): Pair<boolean> {
    const [first, second] = this.#canonical(at);
    return [sameLimbs(first, value), sameLimbs(second, value)];
  }

  #read(at: number, lane: Lane, bytes: Uint8Array): void {
    const limbs = limbsOf(bytes);
    for (let i = 0; i < 10; i++) this.#words[(at >> 2) + 2 * i + lane] = limbs[i] ?? 0;
    limbs.fill(0);
  }

  /** The limbs of both elements modulo p, each of its own width. Up to four may have been added up in them. */
  #canonical(at: number): Pair<Int32Array> {
    this.#module.mul(room(8), at, oneAt); // carries
    for (const lane of lanes) {
      const limbs = this.#limbs[lane];
      for (let i = 0; i < 10; i++) limbs[i] = this.#words[(room(8) >> 2) + 2 * i + lane] ?? 0;
      let q = (19 * (limbs[9] ?? 0) + 2 ** 24) >> 25;
      for (let i = 0; i < 10; i++) q = ((limbs[i] ?? 0) + q) >> widthOf(i);
      let carry = 19 * q;
      for (let i = 0; i < 10; i++) {
        const limb = (limbs[i] ?? 0) + carry;
        carry = limb >> widthOf(i);
        limbs[i] = limb & ((1 << widthOf(i)) - 1);
      }
    }
    return this.#limbs;
  }

  /** Runs with so many bytes of the heap, which are zeroed after it, and so is all else that held parts of points. */
  #within<T>(bytes: number, run: () => T): T {
    this.#makeRoom(heapAt + bytes);
    try {
      return run();
    } finally {
      for (const limbs of this.#limbs) limbs.fill(0);
      this.#words.fill(0, elementBytes >> 2, constantsAt >> 2);
      this.#words.fill(0, totalAt >> 2, keptAt >> 2);
      this.#words.fill(0, heapAt >> 2, (heapAt + bytes) >> 2);
    }
  }

  #makeRoom(bytes: number): void {
    const { memory } = this.#module;
    const lacking = bytes - memory.buffer.byteLength;
    if (lacking <= 0) return;
    memory.grow(Math.ceil(lacking / pageBytes));
    this.#words = new Int32Array(memory.buffer);
  }
}

function nameOf(point: Point): string {
  return asBuffer(point).toString('latin1');
}

function room(index: number): number {
  return roomsAt + index * elementBytes;
}

function pointAt(index: number): number {
  return heapAt + index * pointSpan;
}

/** The way that takes fewer additions, and the memory behind the points that it needs. */
function planOf(
  count: number,
  bits: number,
): { readonly way: 'straus' | 'pippenger'; readonly width: number; readonly bytes: number } {
  const straus = count * (9 + bits / 6);
  let best = { width: 1, additions: Infinity };
  for (let width = 3; width <= 9; width++) {
    const additions = Math.ceil(bits / width) * (count + 2.2 * 2 ** width);
    if (additions < best.additions) best = { width, additions };
  }
  return straus <= best.additions
    ? { way: 'straus', width: 5, bytes: oddMultiples * count * pointSpan }
    : { way: 'pippenger', width: best.width, bytes: (count + 2 ** best.width) * pointSpan };
}

function widthOf(limb: number): number {
  return limb % 2 === 0 ? 26 : 25;
}

/** Of 32 bytes. With the bits in front of it in its first byte no limb has more than 32. */
function limbsOf(bytes: Uint8Array): Int32Array {
  const limbs = new Int32Array(10);
  let bit = 0;
  for (let i = 0; i < 10; i++) {
    limbs[i] = (wordAt(bytes, bit >> 3) >>> (bit & 7)) & ((1 << widthOf(i)) - 1);
    bit += widthOf(i);
  }
  return limbs;
}

function wordAt(bytes: Uint8Array, at: number): number {
  return (
    (bytes[at] ?? 0) |
    ((bytes[at + 1] ?? 0) << 8) |
    ((bytes[at + 2] ?? 0) << 16) |
    ((bytes[at + 3] ?? 0) << 24)
  );
}

function bytesOf(limbs: Int32Array): Uint8Array {
  const out = new Uint8Array(32);
  let bit = 0;
  for (let i = 0; i < 10; i++) {
    // Each limb lies in at most five bytes, and shares the first and the last with its neighbours.
    let rest = (limbs[i] ?? 0) * 2 ** (bit & 7);
    for (let byte = bit >> 3; rest > 0; byte++) {
      out[byte] = (out[byte] ?? 0) | (rest % 256);
      rest = Math.floor(rest / 256);
    }
    bit += widthOf(i);
  }
  return out;
}

function sameLimbs(a: Int32Array, b: Int32Array): boolean {
  for (let i = 0; i < 10; i++) if (a[i] !== b[i]) return false;
  return true;
}

function digitOf(k: Scalar, shift: number, width: number): number {
  const first = shift >> 3;
  const value = (k[first] ?? 0) | ((k[first + 1] ?? 0) << 8) | ((k[first + 2] ?? 0) << 16);
  return (value >> (shift & 7)) & (2 ** width - 1);
}

/** Digits 0, ±1, ±3 … ±15 with Σ digit·2^i = k, of five at most one other than 0; k below 2^bits, and one digit more. */
function nafOf(k: Scalar, bits: number): Int8Array {
  const naf = new Int8Array(bits + 1);
  let carry = 0;
  for (let at = 0; at <= bits; ) {
    const window = digitOf(k, at, 5) + carry;
    if (window % 2 === 0) {
      at++; // the carry goes on
      continue;
    }
    carry = window > 16 ? 1 : 0;
    naf[at] = window - 32 * carry;
    at += 5;
  }
  return naf;
}

function significantBytes(k: Scalar): number {
  let length = scalarBytes;
  while (length > 0 && k[length - 1] === 0) length--;
  return length;
}

/** Below p, and even: RFC 9496 calls the other ones negative. */
function isCanonical(bytes: Uint8Array): boolean {
  if (((bytes[0] ?? 0) & 1) === 1 || ((bytes[31] ?? 0) & 0x80) !== 0) return false;
  if ((bytes[31] ?? 0) < 0x7f || (bytes[0] ?? 0) < 0xed) return true;
  return bytes.subarray(1, 31).some((byte) => byte !== 0xff);
}

/** What is looked for among canonical elements. */
const [zero, one, minusOne, minusSqrtM1] = [
  limbsOf(littleEndian(0n)),
  limbsOf(littleEndian(1n)),
  limbsOf(littleEndian(p - 1n)),
  limbsOf(littleEndian(p - sqrtM1)),
] as const;

function littleEndian(value: bigint): Uint8Array {
  return Uint8Array.from({ length: 32 }, (_, i) => Number((value >> BigInt(8 * i)) & 255n));
}
