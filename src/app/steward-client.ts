// The steward as a door asks it.

import type { CID } from '../core/block.ts';
import { second } from '../core/clock.ts';
import { HoldfastError } from '../core/errors.ts';
import type { PeerName } from '../core/rpc.ts';
import type { NodePeer } from '../node/peer.ts';
import type { ObjectReport, StewardStatus } from '../steward/status.ts';
import { peersWithRole } from './member.ts';
import { readHolders, readObject, readStatus } from './steward-answers.ts';

/** A steward answers from memory: longer than this it is not there. */
const callMs = 5 * second;

export class StewardClient {
  readonly #peer: Pick<NodePeer, 'membership' | 'rpc'>;

  constructor(peer: Pick<NodePeer, 'membership' | 'rpc'>) {
    this.#peer = peer;
  }

  /** Who is steward now. Throws PEER_UNREACHABLE when the membership names none. */
  peer(): PeerName {
    const [steward] = peersWithRole(this.#peer.membership(), 'steward');
    if (steward === undefined) throw new HoldfastError('PEER_UNREACHABLE', 'the membership names no steward');
    return steward;
  }

  /** The head of the answer. Throws PEER_UNREACHABLE, TIMEOUT, and what the steward throws. */
  async call(
    method: string,
    head: unknown,
    options: { readonly signal?: AbortSignal; readonly timeoutMs?: number } = {},
  ): Promise<unknown> {
    const answer = await this.#peer.rpc.call(
      this.peer(),
      method,
      { head },
      { timeoutMs: callMs, ...options },
    );
    return answer.head;
  }

  async status(): Promise<StewardStatus> {
    return readStatus(await this.call('steward.status', {}));
  }

  async object(manifest: CID): Promise<ObjectReport> {
    return readObject(await this.call('steward.object', { manifest }));
  }

  async heal(): Promise<void> {
    await this.call('steward.heal', {});
  }

  /** Holders of a block that are up. */
  async holders(cid: CID): Promise<PeerName[]> {
    const { holders } = readHolders(await this.call('steward.holders', { cids: [cid] }));
    return (holders[0] ?? []).filter(({ up }) => up).map(({ node }) => node);
  }

  /** Leases blocks that no address names yet, at most 1,024. */
  async stage(cids: readonly CID[]): Promise<void> {
    await this.call('steward.staged', { cids });
  }
}
