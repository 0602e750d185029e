// Content encryption against the limit of the machine: AES-256-GCM by `openssl speed`, and by node:crypto, same run.
//
//   node bench/envelope.bench.ts [MiB per round, default 128] [rounds, default 9]
//
// The contenders take turns round by round, so that a noisy neighbour hits all alike; CPU time, medians. Garbage of
// one is collected before the next begins, so that each pays for its own. 1 MB = 10⁶ bytes. "of node" is against
// AES-256-GCM by node:crypto without segments copied, framed or kept; "of openssl" against `openssl speed`, which
// encrypts one buffer in place again and again; absent where there is no openssl command.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createCipheriv, createSecretKey, randomBytes } from 'node:crypto';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { utf8 } from '../src/core/bytes.ts';
import {
  floeDecryptor,
  floeEncryptor,
  plaintextSegmentBytes,
  segmentOverheadBytes,
} from '../src/envelope/floe.ts';
import { unwrapDek, WrappingKey, wrapDek } from '../src/envelope/wrap.ts';

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
const contenders = { raw, seal, sealReused, open, sealSmall, wrapMany, unwrapMany };
const seconds = new Map<string, number[]>(Object.keys(contenders).map((name) => [name, []]));
for (let round = -1; round < rounds; round++) {
  for (const [name, run] of Object.entries(contenders)) {
    collect();
    const start = process.cpuUsage();
    run();
    const { user, system } = process.cpuUsage(start);
    if (round >= 0) seconds.get(name)?.push((user + system) / 1e6); // the first round warms up
  }
}

const limit = bytes / median('raw');
const openssl = opensslSpeed();
const ofOpenssl = (rate: number): string =>
  openssl === undefined ? '' : `, ${(rate / openssl).toFixed(2)} of openssl`;
if (openssl !== undefined) console.log(`AES-256-GCM by openssl speed    ${megabytes(openssl)} MB/s CPU`);
console.log(`AES-256-GCM by node, ${plaintext.length} B ${megabytes(limit)} MB/s CPU${ofOpenssl(limit)}`);
const streams = {
  seal: 'seal, fresh memory ',
  sealReused: 'seal, memory reused',
  open: 'open              ',
};
for (const [name, text] of Object.entries(streams)) {
  const rate = bytes / median(name);
  const ofNode = (rate / limit).toFixed(2);
  console.log(`FLOE ${text}         ${megabytes(rate)} MB/s CPU, ${ofNode} of node${ofOpenssl(rate)}`);
}
console.log(`FLOE seal, objects of 1 KiB    ${perSecond(smallCount, 'sealSmall')}/s CPU`);
console.log(
  `DEK wrap / unwrap              ${perSecond(wrapCount, 'wrapMany')}/s, ${perSecond(wrapCount, 'unwrapMany')}/s CPU`,
);
console.log(`medians of ${rounds} rounds of ${mebibytes} MiB; node ${process.version}`);

/** Bytes per second of processor time, the median of three runs of one second. */
function opensslSpeed(): number | undefined {
  const words = ['speed', '-seconds', '1', '-bytes', '262144', '-evp', 'aes-256-gcm'];
  try {
    const rates = [1, 2, 3].map(() => {
      const said = execFileSync('openssl', words, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
      return 1000 * Number(/AES-256-GCM\s+([\d.]+)k/.exec(said)?.[1]);
    });
    return rates.toSorted((a, b) => a - b)[1];
  } catch {
    return undefined; // no such command here
  }
}

function median(name: string): number {
  const sorted = (seconds.get(name) ?? []).toSorted((a, b) => a - b);
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
