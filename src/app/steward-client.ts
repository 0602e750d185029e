// The steward as a door asks it.

import type { CID } from '../core/block.ts';
import { type Clock, second } from '../core/clock.ts';
import { describeError, HoldfastError, isHoldfastError } from '../core/errors.ts';
import type { PeerName, RpcClient } from '../core/rpc.ts';
import { fieldOf } from '../core/shape.ts';
import { hasRole } from '../node/membership.ts';
import type { NodePeer } from '../node/peer.ts';
import { notMine } from '../steward/plan.ts';
import type { ObjectReport, StewardStatus } from '../steward/status.ts';
import { throughHost } from './log-host.ts';
import { peersWithRole } from './member.ts';
import { readHolders, readObject, readStatus } from './steward-answers.ts';

/** A steward answers from memory: longer than this it is not there. */
const callMs = 5 * second;

/** One that did not answer is asked last for so long. */
const shunnedMs = 10 * second;

/** A host of the log that has been away for so long is not waited for: as long as one append is tried (RemoteLog). */
const goneMs = 15 * second;

type Peer = Pick<NodePeer, 'membership' | 'rpc' | 'connected'>;

export class StewardClient {
  readonly #peer: Peer;
  readonly #clock: Clock;
  /** Of those whose last answer did not come: monotonic ms of the first failure, and of the last on a connection. */
  readonly #failures = new Map<PeerName, { readonly first: number; readonly last: number }>();

  constructor(peer: Peer, clock: Clock) {
    this.#peer = peer;
    this.#clock = clock;
  }

  /** Calls and streams to stewards that remember who did not answer, so that the next one goes to another. */
  get rpc(): RpcClient {
    return throughHost(this.#noting(), {
      mayHost: (peer) => hasRole(this.#peer.membership(), peer, 'steward'),
      isGone: (peer) => {
        const { first = Number.POSITIVE_INFINITY } = this.#failures.get(peer) ?? {};
        return this.#clock.monotonic() - first > goneMs;
      },
    });
  }

  #noting(): RpcClient {
    const { rpc } = this.#peer;
    const failed = (peer: PeerName, error: unknown): void => this.#note(peer, error);
    const answered = (peer: PeerName): void => void this.#failures.delete(peer);
    return {
      call: async (peer, method, message, options) => {
        try {
          const answer = await rpc.call(peer, method, message, options);
          answered(peer);
          return answer;
        } catch (error) {
          failed(peer, error);
          throw error;
        }
      },
      stream: async function* (peer, method, message, options) {
        try {
          for await (const item of rpc.stream(peer, method, message, options)) {
            answered(peer);
            yield item;
          }
        } catch (error) {
          failed(peer, error);
          throw error;
        }
      },
    };
  }

  /** The steward to turn to now. Throws PEER_UNREACHABLE when the membership names none. */
  peer(): PeerName {
    const [steward] = this.inOrder();
    if (steward === undefined) throw new HoldfastError('PEER_UNREACHABLE', 'the membership names no steward');
    return steward;
  }

  /** All of them: who is connected and has answered first, else in the order of the membership. */
  inOrder(): PeerName[] {
    const up = new Set(this.#peer.connected());
    const doubt = (peer: PeerName): number => {
      const { last = Number.NEGATIVE_INFINITY } = this.#failures.get(peer) ?? {};
      return (up.has(peer) ? 0 : 2) + (this.#clock.monotonic() - last < shunnedMs ? 1 : 0);
    };
    return peersWithRole(this.#peer.membership(), 'steward').toSorted((a, b) => doubt(a) - doubt(b));
  }

  /**
   * The head of the answer, of the first steward that gives one. Throws PEER_UNREACHABLE, TIMEOUT, and what a steward
   * throws.
   */
  async call(
    method: string,
    head: unknown,
    options: { readonly signal?: AbortSignal; readonly timeoutMs?: number } = {},
  ): Promise<unknown> {
    let failure: unknown = new HoldfastError('PEER_UNREACHABLE', 'the membership names no steward');
    for (const steward of this.inOrder()) {
      try {
        return await this.#callOne(steward, method, head, options);
      } catch (error) {
        failure = error;
        options.signal?.throwIfAborted();
        if (!isAway(error)) throw error;
      }
    }
    throw failure;
  }

  /** Every steward's answer; absent where it gave none. */
  async callAll(
    method: string,
    head: unknown,
    options: { readonly timeoutMs?: number } = {},
  ): Promise<{ readonly peer: PeerName; readonly head?: unknown; readonly error?: unknown }[]> {
    return Promise.all(
      peersWithRole(this.#peer.membership(), 'steward').map(async (peer) => {
        try {
          return { peer, head: await this.#callOne(peer, method, head, options) };
        } catch (error) {
          return { peer, error };
        }
      }),
    );
  }

  async #callOne(
    steward: PeerName,
    method: string,
    head: unknown,
    options: { readonly signal?: AbortSignal; readonly timeoutMs?: number },
  ): Promise<unknown> {
    const answer = await this.rpc.call(steward, method, { head }, { timeoutMs: callMs, ...options });
    return answer.head;
  }

  #note(peer: PeerName, error: unknown): void {
    if (!isAway(error)) return;
    const now = this.#clock.monotonic();
    const { first, last } = this.#failures.get(peer) ?? { first: now, last: Number.NEGATIVE_INFINITY };
    // Without a connection it is asked last anyway, and not a moment longer.
    this.#failures.set(peer, { first, last: this.#peer.connected().includes(peer) ? now : last });
  }

  async status(): Promise<StewardStatus> {
    return readStatus(await this.call('steward.status', {}));
  }

  async object(manifest: CID): Promise<ObjectReport> {
    return readObject(await this.call('steward.object', { manifest }));
  }

  /** Holders of a block that are up. */
  async holders(cid: CID): Promise<PeerName[]> {
    const { holders } = readHolders(await this.call('steward.holders', { cids: [cid] }));
    return (holders[0] ?? []).filter(({ up }) => up).map(({ node }) => node);
  }

  /** Leases blocks that no address names yet, at most 1,024, at every steward: any may look after them. */
  async stage(cids: readonly CID[]): Promise<void> {
    checkSome(await this.callAll('steward.staged', { cids }));
  }

  /** Has every steward look for deficits now. */
  async heal(): Promise<void> {
    checkSome(await this.callAll('steward.heal', {}));
  }

  /** Orders blocks collected, at most 256: each of the one that looks after it. Why each is still there, else ''. */
  async collect(cids: readonly CID[], timeoutMs: number): Promise<string[]> {
    const answers = await this.callAll('steward.collect', { cids }, { timeoutMs });
    return cids.map((_, index) => {
      const said = answers.map(({ head, error }) => problemIn(head, index) ?? describeError(error));
      return said.find((text) => text === '') ?? said.find((text) => text !== notMine) ?? notMine;
    });
  }
}

/** Throws PEER_UNREACHABLE when no steward has answered. */
function checkSome(answers: readonly { readonly error?: unknown }[]): void {
  if (answers.some(({ error }) => error === undefined)) return;
  throw new HoldfastError('PEER_UNREACHABLE', 'no steward answers', { cause: answers[0]?.error });
}

function problemIn(head: unknown, index: number): string | undefined {
  const problems = fieldOf(head, 'problems');
  const problem: unknown = Array.isArray(problems) ? problems[index] : undefined;
  return typeof problem === 'string' ? problem : undefined;
}

function isAway(error: unknown): boolean {
  return isHoldfastError(error, 'PEER_UNREACHABLE') || isHoldfastError(error, 'TIMEOUT');
}
