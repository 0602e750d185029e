// ristretto255 by libsodium compiled to WebAssembly.
//
// Sums over public scalars are not libsodium's: public-sums.ts makes them four to five times as fast.

import assert from 'node:assert/strict';
import {
  type HashGroup,
  isZeroScalar,
  notAPoint,
  type Point,
  pointBytes,
  type Scalar,
  uniformBytes,
} from './group.ts';
import { makePublicSums } from './public-sums.ts';
import { assertScalar, loadSodium, must, type Sodium } from './sodium.ts';

const identity: Point = new Uint8Array(pointBytes);

/** The fast ristretto255. Resolves when the WASM module is compiled; the same group every time. */
export async function loadRistretto(): Promise<HashGroup> {
  const sodium = await loadSodium();
  loaded ??= groupOver(sodium);
  return loaded;
}

let loaded: HashGroup | undefined;

function groupOver({ kernel, scalar }: Sodium): HashGroup {
  const sums = makePublicSums();
  const element = (found: Point | undefined): Point => {
    if (found === undefined) throw notAPoint('ristretto255');
    return found;
  };
  const isElement = (bytes: Uint8Array): boolean =>
    bytes.length === pointBytes && kernel.check('core_ristretto255_is_valid_point', bytes);
  const points = (operation: string, p: Point, q: Point): Point => {
    if (p.length !== pointBytes || q.length !== pointBytes) throw notAPoint('ristretto255');
    const out = kernel.call(operation, pointBytes, p, q);
    if (out === undefined) throw notAPoint('ristretto255');
    return out;
  };
  const base = (k: Scalar): Point => {
    assertScalar(k);
    // Refused for zero only.
    return kernel.call('scalarmult_ristretto255_base', pointBytes, k) ?? identity.slice();
  };
  const mul = (k: Scalar, p: Point): Point => {
    assertScalar(k);
    if (p.length !== pointBytes) throw notAPoint('ristretto255');
    const out = kernel.call('scalarmult_ristretto255', pointBytes, k, p);
    if (out !== undefined) return out;
    // Refused for bytes that are no point, and for the identity as the result.
    if (!isElement(p)) throw notAPoint('ristretto255');
    return identity.slice();
  };
  const msms = (ks: readonly Scalar[], lists: readonly (readonly Point[])[]): Point[] => {
    for (const list of lists) assert(ks.length === list.length, 'msm: as many scalars as points');
    for (const k of ks) assertScalar(k);
    const found = sums.msm(ks, lists);
    if (found === undefined) throw notAPoint('ristretto255');
    return found;
  };
  const msm = (ks: readonly Scalar[], all: readonly Point[]): Point => {
    const [[k], [p]] = [ks, all];
    // A sum alone goes through both lanes: of one point libsodium is quicker.
    const isOne = ks.length === 1 && all.length === 1;
    return isOne && k !== undefined && p !== undefined ? mul(k, p) : element(msms(ks, [all])[0]);
  };
  return {
    name: 'ristretto255',
    identity,
    isIdentity: (p) => p.length === pointBytes && isZeroScalar(p),
    isPoint: (bytes) => isElement(bytes) && !isZeroScalar(bytes),
    arePoints: (all) => sums.areEncodings(all) && !all.some(isZeroScalar),
    base,
    mul,
    add: (p, q) => points('core_ristretto255_add', p, q),
    sub: (p, q) => points('core_ristretto255_sub', p, q),
    sum: (all) => element(sums.sum(all)),
    sums: (lists) => {
      const found = sums.sums(lists);
      if (found === undefined) throw notAPoint('ristretto255');
      return found;
    },
    msm,
    msms,
    keep: (first, second) => sums.keep(first, second),
    remembering: (run) => sums.remembering(run),
    hashToPoint: (uniform) => {
      assert(uniform.length === uniformBytes, 'uniform: 64 bytes');
      return must(kernel.call('core_ristretto255_from_hash', pointBytes, uniform));
    },
    scalar,
  };
}
