// How a door registers: it checks what a caller brings, appends it, and answers once its own view shows it.

import type { Append, BeaconLog } from '../beacon/log.ts';
import type { BeaconView } from '../beacon/view.ts';
import type { Block, CID } from '../core/block.ts';
import { minute, second } from '../core/clock.ts';
import { HoldfastError, isHoldfastError } from '../core/errors.ts';
import { type RegisteredObject, registerObject } from '../flows/register.ts';
import { type Newest, rewrapKeys } from '../flows/rewrap.ts';
import type { Registered } from '../beacon/queries.ts';
import type { RecordBody } from '../manifest/record.ts';
import type { DoorBlocks } from './door-blocks.ts';
import { systemClock } from './member.ts';

export class DoorRegistry {
  readonly #view: BeaconView;
  readonly #log: Pick<BeaconLog, 'append' | 'head'>;
  readonly #blocks: DoorBlocks;

  constructor(view: BeaconView, log: Pick<BeaconLog, 'append' | 'head'>, blocks: DoorBlocks) {
    this.#view = view;
    this.#log = log;
    this.#blocks = blocks;
  }

  /** Registers the signed records of one version (flows/register.ts, which names what it throws). */
  async register(records: readonly Uint8Array[], content?: Block): Promise<RegisteredObject> {
    const checked: CID[] = [];
    const registered = await registerObject(
      {
        beacon: {
          current: async (key) => {
            // In this order: what comes in between makes the append fail, never the version wrong.
            const subjectRevision = await this.#view.subjectRevision(`addr/${key}`);
            const head = await this.#view.head(key);
            return { version: head?.version ?? 0, subjectRevision };
          },
          knowsBranchKey: async (bkId, bkVer) => (await this.#view.branchKey(bkId, bkVer)) !== undefined,
          knowsKek: async (group, ver) => (await this.#view.kek(group, ver)) !== undefined,
          append: (subject, expected, blocks) =>
            this.#append({ subject, expected, records: blocks, at: systemClock.now() }),
        },
        copiesOf: (cids) => {
          checked.push(...this.#blocks.remembered(cids));
          return this.#blocks.copiesOf(cids);
        },
        copiesFloor: () => Math.min(2, this.#blocks.nodes().length),
        load: (cid) => this.#loadOne(cid),
        storeContent: (block, policy) => this.#blocks.store([block], policy),
        storeRecord: (block, policy) => this.#blocks.storeRecord(block, policy),
      },
      records,
      content,
    );
    this.#blocks.settle(checked);
    return registered;
  }

  /** Files newer records of keys that are there already (flows/rewrap.ts, which names what it throws). */
  async rewrap(records: readonly Uint8Array[], operator: Uint8Array): Promise<number> {
    return rewrapKeys(
      {
        operator,
        branchKey: async (bkId) => newest(await this.#view.branchKey(bkId)),
        envelope: async (objId) => newest(await this.#view.envelope(objId)),
        knowsKek: async (group, ver) => (await this.#view.kek(group, ver)) !== undefined,
        storeRecord: (block, policy) => this.#blocks.storeRecord(block, policy),
        append: async (subject, keyed) => {
          const expected = await this.#view.subjectRevision(subject);
          return this.#append({ subject, expected, records: keyed, at: systemClock.now() });
        },
      },
      records,
    );
  }

  /** Resolves once reads here see the revision. Throws when that takes longer than ten seconds. */
  async visible(revision: number): Promise<void> {
    const late = AbortSignal.timeout(10 * second);
    await this.#view.waitFor(revision, late).catch((cause: unknown) => {
      if (!late.aborted) throw cause;
      throw new HoldfastError('TIMEOUT', `revision ${revision} is in force; this door does not show it yet`, {
        cause,
      });
    });
  }

  /** Appends, and waits until reads here see it. */
  async #append(append: Append): Promise<number> {
    try {
      const { revision } = await this.#log.append(append);
      await this.visible(revision);
      return revision;
    } catch (error) {
      // A writer who retries must find the version that was in his way.
      const head = isHoldfastError(error, 'VERSION_CONFLICT') ? await this.#log.head() : undefined;
      if (head !== undefined) await this.visible(head.revision);
      throw error;
    }
  }

  async #loadOne(cid: CID): Promise<Uint8Array> {
    const [block] = await this.#blocks.load([cid], AbortSignal.timeout(minute));
    if (block === undefined)
      throw new HoldfastError('BLOCK_UNAVAILABLE', `index block ${cid.toString()} was not delivered`);
    return block.bytes;
  }
}

function newest<Body extends RecordBody>(found: Registered<Body> | undefined): Newest<Body> | undefined {
  if (found === undefined) return undefined;
  const { version, record } = found;
  return { version, cid: record.cid, body: record.body };
}
