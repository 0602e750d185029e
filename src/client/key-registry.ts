// The records of wrapped keys as a client sees them: read page by page, replaced by newer ones that it signs.

import type { Block, CID } from '../core/block.ts';
import { sameBytes, toHex } from '../core/bytes.ts';
import { HoldfastError, isHoldfastError } from '../core/errors.ts';
import type { Signer } from '../core/hash.ts';
import type { MigratePorts, StoredKey } from '../custody/migrate.ts';
import type { KekProvider } from '../custody/provider.ts';
import {
  type BranchKeyBody,
  type DirectEnvelope,
  type EnvelopeBody,
  type KekBody,
  objectKeyBody,
  parseEnvelope,
  parseKeyRecord,
} from '../envelope/records.ts';
import { type ManifestBody, parseManifest } from '../manifest/manifest.ts';
import { openRecord, type RecordBody, signRecord } from '../manifest/record.ts';
import type { DoorClient } from './door-client.ts';

/** A wrapped key; `envelope` when it is the key of one object and stands in its envelope. */
export interface FiledKey extends StoredKey {
  readonly envelope?: DirectEnvelope;
}

/** An object under a branch key. */
export interface FiledObject {
  readonly cid: CID;
  readonly envelope: EnvelopeBody;
  readonly manifest: ManifestBody;
}

export interface KeyRegistryOptions {
  readonly door: Pick<DoorClient, 'wrappedKeys' | 'keyObjects' | 'rewrapKeys'>;
  /** Who may sign: the writer of a record signs the newer one, else the last of these, the operator. At least one. */
  readonly signers: readonly Signer[];
  readonly signal?: AbortSignal;
}

export class KeyRegistry {
  readonly #options: KeyRegistryOptions;
  /** Groups whose KEK record was sent along. */
  readonly #announced = new Set<string>();

  constructor(options: KeyRegistryOptions) {
    this.#options = options;
  }

  /** Custody groups by whose wraps the door opens content; null when it opens none. */
  async opens(): Promise<readonly string[] | null> {
    return (await this.#options.door.wrappedKeys(undefined, 1, this.#signalled)).opens;
  }

  /** Throws RECORD_INVALID for a record that the door made up. */
  async page(
    cursor: string | undefined,
    limit: number,
  ): Promise<{ readonly keys: readonly FiledKey[]; readonly next: string | undefined }> {
    const { records, next } = await this.#options.door.wrappedKeys(cursor, limit, this.#signalled);
    return { keys: records.map(filedKey), next };
  }

  /** Every object under a key. */
  async *objects(bkId: Uint8Array): AsyncGenerator<FiledObject, void, undefined> {
    let after: string | undefined;
    do {
      const page = await this.#options.door.keyObjects(toHex(bkId), after, this.#signalled);
      for (const { envelope, manifest } of page.items) {
        const { cid, body } = openRecord(fromBase64(envelope));
        yield {
          cid,
          envelope: parseEnvelope(body),
          manifest: parseManifest(openRecord(fromBase64(manifest))).body,
        };
      }
      after = page.next;
    } while (after !== undefined);
  }

  /** As the ports of a migration towards `to`; `progress` keeps how far it is. */
  ports(to: KekProvider, progress: MigratePorts['progress']): MigratePorts {
    let known = new Map<string, FiledKey>();
    return {
      page: async (cursor, limit) => {
        const { keys, next } = await this.page(cursor, limit);
        known = new Map(keys.map((key) => [toHex(key.body.bkId), key]));
        return { keys, next };
      },
      store: async (body, replaces) => {
        const key = known.get(toHex(body.bkId));
        if (key === undefined) throw new HoldfastError('INTERNAL', 'a key of another page');
        const newer = key.envelope === undefined ? body : newerEnvelope(key.envelope, body);
        return this.replace(to, [{ ...newer, prev: replaces }], key.envelope ?? key.body);
      },
      progress,
    };
  }

  /**
   * Signs `bodies` and files them together; `before` says who wrote what the last of them replaces. The KEK record of
   * `to` comes along the first time.
   */
  async replace(
    to: KekProvider,
    bodies: readonly (BranchKeyBody | EnvelopeBody)[],
    before: Pick<RecordBody, 'writer'>,
  ): Promise<'stored' | 'conflict'> {
    const signer = this.#signerFor(before);
    const signed = bodies.map((body) => signRecord({ ...body, writer: signer.publicKey }, signer).block);
    const kek = to.kek();
    try {
      await this.#options.door.rewrapKeys([...this.#kekRecord(kek, signer), ...signed], this.#signalled);
    } catch (error) {
      if (isHoldfastError(error, 'VERSION_CONFLICT')) return 'conflict';
      throw error;
    }
    this.#announced.add(kek.cg);
    return 'stored';
  }

  #kekRecord(kek: ReturnType<KekProvider['kek']>, signer: Signer): Block[] {
    // A custody group files its own records: only those that the group signed count.
    if (kek.provider === 'tdec' || this.#announced.has(kek.cg)) return [];
    const body: KekBody = { kind: 'kek', v: 1, writer: signer.publicKey, prev: null, ...kek };
    return [signRecord(body, signer).block];
  }

  #signerFor({ writer }: Pick<RecordBody, 'writer'>): Signer {
    const { signers } = this.#options;
    const signer = signers.find(({ publicKey }) => sameBytes(publicKey, writer)) ?? signers.at(-1);
    if (signer === undefined) throw new HoldfastError('ARGUMENT_INVALID', 'nobody to sign newer records');
    return signer;
  }

  get #signalled(): { readonly signal?: AbortSignal } {
    const { signal } = this.#options;
    return signal === undefined ? {} : { signal };
  }
}

function filedKey(record: string): FiledKey {
  const { cid, body } = openRecord(fromBase64(record));
  const parsed = parseKeyRecord(body);
  if (parsed.kind === 'branch-key') return { cid, body: parsed };
  if (parsed.kind === 'envelope' && parsed.mode === 'direct')
    return { cid, body: objectKeyBody(parsed), envelope: parsed };
  throw new HoldfastError('RECORD_INVALID', 'the door sent a record that holds no wrapped key');
}

function newerEnvelope(envelope: DirectEnvelope, { wraps }: BranchKeyBody): EnvelopeBody {
  return parseEnvelope({ ...envelope, envVer: envelope.envVer + 1, key: { ...envelope.key, wraps } });
}

function fromBase64(text: string): Uint8Array {
  return new Uint8Array(Buffer.from(text, 'base64'));
}
