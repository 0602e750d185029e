// One custodian of the rotation benchmark: its shares on the disk, its audit log flushed, its part of the protocol.

import { mkdir } from 'node:fs/promises';
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { decodeCbor, encodeCbor } from '../src/core/block.ts';
import { describeError } from '../src/core/errors.ts';
import { signerFromSeed } from '../src/core/hash.ts';
import { AuditLog } from '../src/custody/audit-log.ts';
import { CustodyBooks } from '../src/custody/books.ts';
import { CeremonyDesk } from '../src/custody/ceremony-desk.ts';
import { CeremonySteps } from '../src/custody/ceremony-steps.ts';
import { CustodianOrders } from '../src/custody/custodian-orders.ts';
import { openFolder } from '../src/custody/disk.ts';
import { beatAt } from '../src/custody/freshness.ts';
import { rotationProtocols } from '../src/custody/rotation-custodian.ts';
import { createSealingKeyFile } from '../src/custody/sealing-key.ts';
import { ShareStore } from '../src/custody/share-store.ts';
import type { ShareKey } from '../src/custody/share-state.ts';
import { loadEd25519 } from '../src/threshold/ed25519-sodium.ts';
import { loadRistretto } from '../src/threshold/group-sodium.ts';
import type { KeySet } from '../src/threshold/key-set.ts';

interface RecordBytes {
  readonly key: string;
  readonly bytes: Uint8Array;
}

export interface CustodianStart {
  readonly cg: string;
  readonly i: number;
  readonly beat: number;
  readonly dir: string;
  readonly seed: Uint8Array;
  readonly shares: readonly {
    readonly kekVer: number;
    readonly key: ShareKey;
    readonly keys: KeySet;
    readonly secret: Uint8Array;
  }[];
  readonly records: readonly RecordBytes[];
}

interface Message {
  readonly start?: CustodianStart;
  readonly cpu?: boolean;
  readonly session: Uint8Array;
  readonly protocol: string;
  readonly step: string;
  readonly payload: unknown;
  readonly records: readonly RecordBytes[];
}

const random = (size: number): Uint8Array => new Uint8Array(randomBytes(size));
let take: (message: Message) => Promise<unknown> = async () => undefined;

async function start({ cg, i, beat, dir, seed, shares: given, records }: CustodianStart): Promise<void> {
  await mkdir(dir, { recursive: true });
  const [signer, peer] = [signerFromSeed(seed), `peer-${i}`];
  await createSealingKeyFile(join(dir, 'sealing.key'));
  const disk = await openFolder(join(dir, 'shares'));
  const sealing = { source: 'key-file', path: join(dir, 'sealing.key') } as const;
  const shares = await ShareStore.open({ shares: disk, keys: disk, sealing, owner: peer, create: true });
  for (const { kekVer, key, keys, secret } of given) {
    const { t, n, Y, C, Yi } = keys;
    const facts = { index: i, t, n, publicKey: Y, commitments: C, verificationShares: Yi };
    await shares.stage({ cg, kekVer, gen: 1 }, key, { facts, secret, beat });
  }
  for (const kekVer of new Set(given.map((each) => each.kekVer)))
    await shares.activate({ cg, kekVer, gen: 1 }, { beat, certificate: random(32) });
  const log = await AuditLog.open({
    path: join(dir, 'audit'),
    origin: `bench/${peer}`,
    signer,
    create: true,
  });
  const books = new CustodyBooks(shares, { operator: signer.publicKey, custodians: () => new Map() });
  const now = () => beatAt({ beat, atMs: 0 }, 0, { beatMs: 1000, beatsPerBar: 10 });
  const common = {
    shares,
    log,
    books,
    signer,
    peer,
    operator: signer.publicKey,
    random,
    beat: now,
    now: Date.now,
  };
  const orders = new CustodianOrders({ ...common, executors: [] });
  const groups = { kek: await loadRistretto(), frost: await loadEd25519() };
  let known: readonly RecordBytes[] = records;
  let read = 0;
  const follow = async (): Promise<void> => {
    for (; read < known.length; read++) books.take(known[read] ?? { key: '', bytes: random(0) });
    await books.comparedAt(beat);
  };
  await follow();
  const desk = new CeremonyDesk({
    ...common,
    orders,
    follow,
    groups: async () => groups,
    beatsPerBar: () => 10,
    custodianKey: () => signer.publicKey,
    custodians: () => new Map(),
  });
  const steps = new CeremonySteps(desk, rotationProtocols({ lastUse: () => 0 }));
  take = async ({ session, protocol, step, payload, records: newest }) => {
    if (newest.length > known.length) known = newest;
    return steps.step(session, protocol, step, payload);
  };
}

async function answer(message: Message): Promise<unknown> {
  if (message.start !== undefined) return (await start(message.start)) ?? null;
  if (message.cpu === true) {
    const { user, system } = process.cpuUsage();
    return user + system;
  }
  return take(message);
}

process.on('message', (received: { readonly id: string; readonly message: Uint8Array }) => {
  const message = decodeCbor(new Uint8Array(received.message), 'message') as Message;
  answer(message).then(
    (value) => process.send?.({ id: received.id, value: encodeCbor(value) }),
    (error: unknown) => process.send?.({ id: received.id, error: describeError(error) }),
  );
});
process.on('disconnect', () => process.exit());
