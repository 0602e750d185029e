// Content encryption against the limit of the machine: AES-256-GCM by `openssl speed`, and by node:crypto, same run.
//
//   node bench/envelope.bench.ts [MiB per round, default 128] [rounds, default 9]
//
// The contenders take turns round by round, so that a noisy neighbour hits all alike; CPU time, medians. Garbage of
// one is collected before the next begins, so that each pays for its own. 1 MB = 10⁶ bytes. "of node" is against
// AES-256-GCM by node:crypto without segments copied, framed or kept; "of openssl" against `openssl speed`, which
// encrypts one buffer in place again and again; absent where there is no openssl command.
//
// "as put does" and "as get does" are what flows/put.ts and flows/get.ts make of segments in the client: sealed where
// the plaintext was gathered, in memory that comes around again after as many segments as a put has under way, and
// opened where the ciphertext lies. Everything else of a put is not in it; SHA-256 stands beside it for what hashing costs.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createCipheriv, createSecretKey, randomBytes } from 'node:crypto';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { utf8 } from '../src/core/bytes.ts';
import { sha256 } from '../src/core/hash.ts';
import {
  floeDecryptor,
  floeEncryptor,
  plaintextSegmentBytes,
  segmentHeadBytes,
  segmentOverheadBytes,
} from '../src/envelope/floe.ts';
import { loadGcm } from '../src/envelope/gcm.ts';
import { unwrapDek, WrappingKey, wrapDek } from '../src/envelope/wrap.ts';
import { putSegmentsMax } from '../src/flows/put.ts';

const { text: engine } = await loadGcm();
const mebibytes = Number(process.argv[2] ?? 128);
const rounds = Number(process.argv[3] ?? 9);
const segments = Math.ceil((mebibytes * 2 ** 20) / plaintextSegmentBytes());
const plaintext = new Uint8Array(randomBytes(plaintextSegmentBytes()));
const bytes = segments * plaintext.length;
const dek = new Uint8Array(randomBytes(32));
const aad = utf8('ucxl://bench:bench@bench:bench/*^/x');

const raw = (): void => {
  const key = createSecretKey(dek);
  for (let i = 0; i < segments; i++) {
    const cipher = createCipheriv('aes-256-gcm', key, randomBytes(12), { authTagLength: 16 });
    cipher.update(plaintext);
    cipher.final();
    cipher.getAuthTag();
  }
};

const seal = (): void => {
  const encryptor = floeEncryptor(dek, aad, randomBytes);
  for (let i = 0; i < segments; i++) encryptor.encryptSegment(i, plaintext, i === segments - 1);
};

const target = new Uint8Array(plaintext.length + segmentOverheadBytes);
const sealReused = (): void => {
  const encryptor = floeEncryptor(dek, aad, randomBytes);
  for (let i = 0; i < segments; i++) encryptor.encryptSegment(i, plaintext, i === segments - 1, target);
};

const frames = Array.from({ length: putSegmentsMax }, () => {
  const frame = new Uint8Array(plaintext.length + segmentOverheadBytes);
  frame.set(plaintext, segmentHeadBytes);
  return { frame, within: frame.subarray(segmentHeadBytes, segmentHeadBytes + plaintext.length) };
});
/** As many segments as there are frames, sealed and opened again; gives the seconds of one of the two. */
const throughFrames = (counted: 'put' | 'get'): number => {
  let total = 0;
  for (let done = 0; done < segments; done += frames.length) {
    const encryptor = floeEncryptor(dek, aad, randomBytes);
    const puts = seconds(() => {
      for (const [i, { frame, within }] of frames.entries())
        encryptor.encryptSegment(i, within, false, frame);
    });
    const decryptor = floeDecryptor(dek, aad, encryptor.header);
    const gets = seconds(() => {
      for (const [i, { frame }] of frames.entries()) decryptor.decryptSegment(i, frame, false, true);
    });
    total += counted === 'put' ? puts : gets;
  }
  return (total * segments) / (Math.ceil(segments / frames.length) * frames.length);
};

const hashing = (): void => {
  for (let i = 0; i < segments; i++) sha256(plaintext);
};

const sealed = floeEncryptor(dek, aad, randomBytes);
const segment = sealed.encryptSegment(0, plaintext, false);
const open = (): void => {
  const decryptor = floeDecryptor(dek, aad, sealed.header);
  for (let i = 0; i < segments; i++) decryptor.decryptSegment(0, segment, false);
};

const smallCount = 2000;
const small = new Uint8Array(1024);
const sealSmall = (): void => {
  for (let i = 0; i < smallCount; i++) floeEncryptor(dek, aad, randomBytes).encryptSegment(0, small, true);
};
const sealedSmall = floeEncryptor(dek, aad, randomBytes);
const smallSegment = sealedSmall.encryptSegment(0, small, true);
const openSmall = (): void => {
  for (let i = 0; i < smallCount; i++) {
    using decryptor = floeDecryptor(dek, aad, sealedSmall.header);
    decryptor.decryptSegment(0, smallSegment, true);
  }
};

const wrapCount = 20_000;
const branchKey = new Uint8Array(randomBytes(32));
const bkId = new Uint8Array(randomBytes(16));
const wrappingKey = new WrappingKey(branchKey, bkId);
const binding = { objId: new Uint8Array(16), headerTag: sealed.headerTag, bkId, bkVer: 1, policy: null };
const wrap = wrapDek(wrappingKey, dek, binding, randomBytes);
const wrapMany = (): void => {
  for (let i = 0; i < wrapCount; i++) wrapDek(wrappingKey, dek, binding, randomBytes);
};
const unwrapMany = (): void => {
  for (let i = 0; i < wrapCount; i++) unwrapDek(wrappingKey, wrap, binding);
};

setFlagsFromString('--expose-gc');
const collect: () => void = runInNewContext('gc');
const contenders: Readonly<Record<string, () => number>> = {
  raw: () => seconds(raw),
  put: () => throughFrames('put'),
  get: () => throughFrames('get'),
  hashing: () => seconds(hashing),
  seal: () => seconds(seal),
  sealReused: () => seconds(sealReused),
  open: () => seconds(open),
  sealSmall: () => seconds(sealSmall),
  openSmall: () => seconds(openSmall),
  wrapMany: () => seconds(wrapMany),
  unwrapMany: () => seconds(unwrapMany),
};
const spent = new Map<string, number[]>(Object.keys(contenders).map((name) => [name, []]));
const opensslRates: number[] = [];
for (let round = -1; round < rounds; round++) {
  for (const [name, run] of Object.entries(contenders)) {
    collect();
    const took = run();
    if (round >= 0) spent.get(name)?.push(took); // the first round warms up
  }
  const rate = opensslSpeed();
  if (round >= 0 && rate !== undefined) opensslRates.push(rate);
}

const limit = bytes / median('raw');
const openssl = opensslRates.toSorted((a, b) => a - b)[opensslRates.length >> 1];
console.log(`engine: ${engine}`);
const ofOpenssl = (rate: number): string =>
  openssl === undefined ? '' : `, ${(rate / openssl).toFixed(2)} of openssl`;
if (openssl !== undefined) console.log(`AES-256-GCM by openssl speed    ${megabytes(openssl)} MB/s CPU`);
console.log(`AES-256-GCM by node, ${plaintext.length} B ${megabytes(limit)} MB/s CPU${ofOpenssl(limit)}`);
const streams = {
  put: 'seal, as put does  ',
  get: 'open, as get does  ',
  seal: 'seal, fresh memory ',
  sealReused: 'seal, memory reused',
  open: 'open              ',
};
for (const [name, text] of Object.entries(streams)) {
  const rate = bytes / median(name);
  const ofNode = (rate / limit).toFixed(2);
  console.log(`FLOE ${text}         ${megabytes(rate)} MB/s CPU, ${ofNode} of node${ofOpenssl(rate)}`);
}
console.log(`SHA-256                         ${megabytes(bytes / median('hashing'))} MB/s CPU`);
console.log(
  `FLOE seal / open, objects of 1 KiB ${perSecond(smallCount, 'sealSmall')}/s, ${perSecond(smallCount, 'openSmall')}/s CPU`,
);
console.log(
  `DEK wrap / unwrap              ${perSecond(wrapCount, 'wrapMany')}/s, ${perSecond(wrapCount, 'unwrapMany')}/s CPU`,
);
console.log(`medians of ${rounds} rounds of ${mebibytes} MiB; node ${process.version}`);

/** Processor time of `run`, seconds. */
function seconds(run: () => void): number {
  const start = process.cpuUsage();
  run();
  const { user, system } = process.cpuUsage(start);
  return (user + system) / 1e6;
}

/** Bytes per second of processor time, in one second. */
function opensslSpeed(): number | undefined {
  const words = ['speed', '-seconds', '1', '-bytes', '262144', '-evp', 'aes-256-gcm'];
  try {
    const said = execFileSync('openssl', words, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
    return 1000 * Number(/AES-256-GCM\s+([\d.]+)k/.exec(said)?.[1]);
  } catch {
    return undefined; // no such command here
  }
}

function median(name: string): number {
  const sorted = (spent.get(name) ?? []).toSorted((a, b) => a - b);
  const middle = sorted[Math.floor(sorted.length / 2)];
  assert(middle !== undefined);
  return middle;
}

function megabytes(bytesPerSecond: number): string {
  return Math.round(bytesPerSecond / 1e6).toLocaleString('en');
}

function perSecond(count: number, name: string): string {
  return Math.round(count / median(name)).toLocaleString('en');
}
