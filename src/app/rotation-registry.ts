// The registry as a rotation reads and writes it: a view of the Beacon, and appends to its log.

import type { BeaconQueries, PageOptions } from '../beacon/queries.ts';
import { openRegistryRecord, recordKey } from '../beacon/records.ts';
import { second } from '../core/clock.ts';
import { isHoldfastError } from '../core/errors.ts';
import type { CID } from '../core/block.ts';
import { readBase } from '../custody/ceremony.ts';
import type { FiledKek } from '../custody/coordinator.ts';
import type { RotationRegistry } from '../custody/rotation-coordinator.ts';
import type { StoredWraps } from '../custody/rotation-pages.ts';
import type { Append } from '../beacon/log.ts';
import type { RecordBody, SignedRecord } from '../manifest/record.ts';

/** The part of a view that a rotation reads. */
export type RotationView = Pick<
  BeaconQueries,
  | 'kek'
  | 'policy'
  | 'certificate'
  | 'wrappedUnder'
  | 'custodyRecords'
  | 'subjectRevision'
  | 'waitFor'
  | 'changesSince'
>;

export interface RotationRegistryPorts {
  readonly cg: string;
  /** Throws BEACON_UNAVAILABLE while there is none. */
  readonly view: () => RotationView;
  /** Puts the blocks of records where they are kept. */
  readonly store: (records: readonly SignedRecord<RecordBody>[]) => Promise<void>;
  /** As `BeaconLog.append`, refusing what the fold would skip. */
  readonly append: (append: Append, signal: AbortSignal) => Promise<{ readonly revision: number }>;
  /** The group's policy by its first version. */
  readonly policyOf: (root: CID) => Promise<{ readonly rotateEveryBars: number } | undefined>;
  /** Wall clock, ms since 1970. */
  readonly now: () => number;
  readonly random: (sizeBytes: number) => Uint8Array;
}

const visibleMs = 10 * second;
/** Certificates looked through for the newest page of a rotation: others come once in some bars. */
const certificatesMax = 8;

export class BeaconRotationRegistry implements RotationRegistry {
  readonly #ports: RotationRegistryPorts;

  constructor(ports: RotationRegistryPorts) {
    this.#ports = ports;
  }

  async versions(): Promise<readonly FiledKek[]> {
    const found: FiledKek[] = [];
    for (let ver = 1; ; ver++) {
      const filed = await this.#view().kek(this.#ports.cg, ver);
      if (filed === undefined || filed.record.body.provider !== 'tdec') return found;
      const { bytes } = filed.record.block;
      found.push({ ...readBase(bytes), bytes });
    }
  }

  async rotateEveryBars(): Promise<number> {
    const active = (await this.#view().kek(this.#ports.cg))?.record.body;
    const root = active?.provider === 'tdec' ? active.policyRoot : null;
    return root === null ? 0 : ((await this.#ports.policyOf(root))?.rotateEveryBars ?? 0);
  }

  async lastCertificate(ver: number) {
    const view = this.#view();
    const last = await view.certificate(this.#ports.cg, ver);
    if (last === undefined) return undefined;
    let rotationBeat = 0;
    for (let n = last.version; n > Math.max(0, last.version - certificatesMax); n--) {
      const body = (await view.certificate(this.#ports.cg, ver, n))?.record.body;
      if (body?.what !== 'rotation') continue;
      rotationBeat = body.beat;
      break;
    }
    return { cid: last.record.cid, n: last.version, rotationBeat };
  }

  async wrapsUnder(ver: number, limit: number, after?: string) {
    const page: PageOptions = after === undefined ? { limit } : { limit, after };
    const found = await this.#view().wrappedUnder(this.#ports.cg, ver, page);
    const items = found.items.flatMap(({ record: { cid, body } }): StoredWraps[] =>
      body.kind === 'envelope' && body.mode === 'branch' ? [] : [{ cid, body }],
    );
    return found.next === undefined ? { items } : { items, next: found.next };
  }

  async append(records: readonly SignedRecord<RecordBody>[], signal: AbortSignal): Promise<boolean> {
    const { store, append, now, random } = this.#ports;
    const keyed = records.map(({ block: { bytes } }) => {
      return { key: recordKey(openRegistryRecord(bytes).body), bytes };
    });
    const subject = keyed[0]?.key ?? '';
    try {
      const expected = await this.#view().subjectRevision(subject);
      await store(records);
      const at = now();
      const { revision } = await append({ subject, expected, records: keyed, at, id: random(16) }, signal);
      return await this.#wasTaken(revision, signal);
    } catch (error) {
      if (isHoldfastError(error, 'VERSION_CONFLICT')) return false;
      throw error;
    }
  }

  /** Between the check and the append another writer may have come: then the fold skips the entry, and says so. */
  async #wasTaken(revision: number, signal: AbortSignal): Promise<boolean> {
    const view = this.#view();
    await view.waitFor(revision, AbortSignal.any([signal, AbortSignal.timeout(visibleMs)]));
    for await (const change of view.changesSince(revision, { signal })) return change.rejected === undefined;
    return true;
  }

  #view(): RotationView {
    return this.#ports.view();
  }
}
