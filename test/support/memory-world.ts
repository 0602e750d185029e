// A cluster in memory for tests of the flows: blocks in a map, a registry with compare-and-set, real keys.

import { randomBytes } from 'node:crypto';
import type { Block, CID } from '../../src/core/block.ts';
import { toHex } from '../../src/core/bytes.ts';
import { HoldfastError } from '../../src/core/errors.ts';
import { type Signer, signerFromSeed } from '../../src/core/hash.ts';
import { BranchKeys } from '../../src/custody/keyring.ts';
import type { KekProvider, NewKey, NewKeyScope, Unwrapped } from '../../src/custody/provider.ts';
import { encodeLabel } from '../../src/envelope/label.ts';
import {
  keyOfEnvelope,
  type BranchKeyBody,
  type KekFields,
  parseBranchKey,
  parseEnvelope,
} from '../../src/envelope/records.ts';
import type { GetPorts, ObjectRecords } from '../../src/flows/get.ts';
import type { PutOptions, PutPorts } from '../../src/flows/put.ts';
import { type KeyedRecord, registerObject, type RegisterPorts } from '../../src/flows/register.ts';
import { openManifest } from '../../src/manifest/manifest.ts';
import { openRecord } from '../../src/manifest/record.ts';
import { parseAddress, type UcxlAddress } from '../../src/ucxl/address.ts';

export const putOptions: PutOptions = {
  media: 'application/octet-stream',
  type: 'object',
  cls: 'internal',
  replication: { min: 3, max: 5, zones: 3 },
  generatedBy: 'test',
};

export function address(path: string): UcxlAddress {
  return parseAddress(`ucxl://ann:writer@holdfast:flows/*^/${path}`, { profile: 'lenient' });
}

export class MemoryWorld {
  readonly signer: Signer = signerFromSeed(new Uint8Array(32).fill(7));
  readonly blocks = new Map<string, { readonly block: Block; readonly copies: number }>();
  readonly log: { readonly subject: string; readonly records: readonly KeyedRecord[] }[] = [];
  /** Every CID that was loaded, in order. */
  readonly loaded: string[] = [];
  /** Secrets of 32 bytes that the flow drew, as the arrays it holds. */
  readonly drawn: Uint8Array[] = [];
  readonly keys = new BranchKeys({
    provider: new MemoryProvider(),
    writer: this.signer.publicKey,
    random: (bytes) => randomBytes(bytes),
  });
  copies = 3;

  readonly put: PutPorts = {
    registry: {
      newest: async (key) => {
        const versions = this.versions(key);
        const newest = versions.at(-1);
        if (newest === undefined) return undefined;
        const { cid, body } = openManifest(newest);
        return { version: versions.length, manifest: cid, tombstone: body.type === 'tombstone' };
      },
      register: async (records, content) =>
        registerObject(
          this.register,
          records.map(({ bytes }) => bytes),
          content,
        ),
    },
    store: async (blocks, policy) => {
      for (const block of blocks) this.blocks.set(block.cid.toString(), { block, copies: this.copies });
      return { copies: this.copies, wanted: policy.min };
    },
    writerKey: (scope) => this.keys.current(scope),
    kekPolicy: 'memory',
    signer: this.signer,
    random: (bytes) => {
      const drawn = new Uint8Array(randomBytes(bytes));
      this.drawn.push(drawn);
      return drawn;
    },
    now: () => 1_700_000_000_000,
    beat: async () => 5,
  };

  readonly get: GetPorts = {
    load: async (cids) => cids.map((cid) => this.load(cid)),
    readerKey: (body) => this.keys.open(body, { purpose: 'read', requester: this.signer.publicKey, beat: 5 }),
  };

  readonly register: RegisterPorts = {
    beacon: {
      current: async (key) => ({
        version: this.versions(key).length,
        subjectRevision: this.subjectRevision(`addr/${key}`),
      }),
      knowsBranchKey: async (bkId) => this.records(`bk/${toHex(bkId)}`).length > 0,
      append: async (subject, expected, records) => {
        if (this.subjectRevision(subject) !== expected)
          throw new HoldfastError('VERSION_CONFLICT', 'somebody was faster');
        return this.log.push({ subject, records });
      },
    },
    copiesOf: async (cids) => cids.map((cid) => this.blocks.get(cid.toString())?.copies ?? 0),
    copiesFloor: () => 2,
    load: async (cid) => this.load(cid).bytes,
    storeContent: (block, policy) => this.put.store([block], policy),
    storeRecord: async (block, policy) => {
      this.blocks.set(block.cid.toString(), { block, copies: policy.max });
      return { copies: policy.max, wanted: policy.min };
    },
  };

  /** Manifests of an address, oldest first. */
  versions(key: string): Uint8Array[] {
    return this.records(`addr/${key}`);
  }

  records(key: string): Uint8Array[] {
    return this.log.flatMap((entry) =>
      entry.records.filter((record) => record.key === key).map(({ bytes }) => bytes),
    );
  }

  subjectRevision(subject: string): number {
    return this.log.findLastIndex((entry) => entry.subject === subject) + 1;
  }

  load(cid: CID): Block {
    this.loaded.push(cid.toString());
    const found = this.blocks.get(cid.toString());
    if (found === undefined) throw new HoldfastError('BLOCK_UNAVAILABLE', `no ${cid.toString()}`);
    return found.block;
  }

  /** What a reader of the newest version is given. */
  recordsOf(key: string): ObjectRecords {
    const manifest = this.versions(key).at(-1);
    if (manifest === undefined) throw new HoldfastError('NOT_FOUND', key);
    const { encryption } = openManifest(manifest).body;
    const [envelope] = encryption === null ? [] : this.records(`env/${toHex(encryption.objId)}`);
    if (envelope === undefined) return { manifest };
    const { bkId } = keyOfEnvelope(parseEnvelope(openRecord(envelope).body));
    const [branchKey] = this.records(`bk/${toHex(bkId)}`);
    return branchKey === undefined ? { manifest, envelope } : { manifest, envelope, branchKey };
  }
}

class MemoryProvider implements KekProvider {
  readonly id = 'memory';
  readonly kind = 'memory';
  readonly #keys = new Map<string, Uint8Array>();

  async createKey(scope: NewKeyScope): Promise<NewKey> {
    const branchKey = new Uint8Array(randomBytes(32));
    this.#keys.set(toHex(scope.bkId), new Uint8Array(branchKey));
    const label = encodeLabel({ v: 1, cg: 'test', kekVer: 1, ...scope });
    const wrap = {
      t: 'dev',
      kid: 'memory',
      label,
      nonce: new Uint8Array(12),
      ct: new Uint8Array(48),
    } as const;
    return { branchKey, wraps: [wrap], combiner: 'any' };
  }

  async unwrap(records: readonly BranchKeyBody[]): Promise<readonly Unwrapped[]> {
    return records.map((body) => {
      const key = this.#keys.get(toHex(parseBranchKey(body).bkId));
      if (key === undefined) return { ok: false, error: new HoldfastError('KEY_UNAVAILABLE', 'unknown key') };
      return { ok: true, branchKey: new Uint8Array(key) };
    });
  }

  describe() {
    return { kind: this.kind, text: 'in memory', production: false };
  }

  async health() {
    return { ok: true, text: 'in memory' };
  }

  kek(): KekFields {
    return {
      cg: 'test',
      ver: 1,
      suite: 'dev-file-1',
      state: 'active',
      createdAt: '2026-01-01T00:00:00Z',
      provider: 'dev-file',
      kid: 'memory',
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}
