// Possession challenges. Two holders get the same nonce; equal answers prove both, because neither can
// know SHA-256(nonce ‖ block) without the bytes. When they differ, or only one holder lives, the bytes are
// fetched and their CID decides. No answer proves nothing either way.

import { type CID, matchesCid } from '../core/block.ts';
import { concat, sameBytes } from '../core/bytes.ts';
import type { Clock } from '../core/clock.ts';
import { isHoldfastError } from '../core/errors.ts';
import { sha256 } from '../core/hash.ts';
import type { PeerName, RpcClient } from '../core/rpc.ts';
import type { Ledger } from './ledger.ts';
import { readChallengeAnswer, readChallengeAnswers, readFound } from './wire.ts';

export interface ProverPorts {
  readonly rpc: RpcClient;
  readonly ledger: Ledger;
  readonly clock: Clock;
  readonly random: (count: number) => Uint8Array;
  readonly deadlineMs: number;
  readonly onProblem: (what: string, reason: string) => void;
}

export interface ProverCounts {
  readonly asked: number;
  readonly proven: number;
  readonly failed: number;
  readonly unanswered: number;
}

type Answer =
  | { readonly kind: 'digest'; readonly digest: Uint8Array }
  | { readonly kind: 'absent' | 'silent' };

export class Prover {
  readonly #ports: ProverPorts;
  #counts: ProverCounts = { asked: 0, proven: 0, failed: 0, unanswered: 0 };

  constructor(ports: ProverPorts) {
    this.#ports = ports;
  }

  get counts(): ProverCounts {
    return this.#counts;
  }

  /** Challenges `node` and, if there is one, the holder with the oldest proof among `others`, about one block. */
  async challenge(slot: number, node: number, others: readonly number[], signal: AbortSignal): Promise<void> {
    const { ledger, random } = this.#ports;
    const cid = ledger.cid(slot);
    const [witness] = others.toSorted((a, b) => ledger.provenAt(slot, a) - ledger.provenAt(slot, b));
    if (witness === undefined) {
      await this.#fetchAndJudge(cid, node, signal);
      return;
    }
    const nonce = random(32);
    const answers = await Promise.all([
      this.#ask(cid, node, nonce, signal),
      this.#ask(cid, witness, nonce, signal),
    ]);
    const [first, second] = answers;
    if (first.kind === 'digest' && second.kind === 'digest' && sameBytes(first.digest, second.digest)) {
      this.#accept(cid, node);
      this.#accept(cid, witness);
      return;
    }
    for (const [at, suspect] of [node, witness].entries()) {
      if (answers[at]?.kind === 'silent') this.#add('unanswered');
      else await this.#fetchAndJudge(cid, suspect, signal, answers[at], nonce);
    }
  }

  /**
   * Challenges two holders about the same blocks with one nonce. What they agree on is proven on both; the rest is
   * asked again block by block. Returns which of the two answered.
   */
  async challengeBoth(
    slots: readonly number[],
    [first, second]: readonly [number, number],
    signal: AbortSignal,
  ): Promise<readonly [boolean, boolean]> {
    const { ledger, random } = this.#ports;
    const cids = slots.map((slot) => ledger.cid(slot));
    const nonce = random(32);
    const [ours, theirs] = await Promise.all([
      this.#askMany(cids, first, nonce, signal),
      this.#askMany(cids, second, nonce, signal),
    ]);
    if (ours === undefined || theirs === undefined) return [ours !== undefined, theirs !== undefined];
    for (const [at, cid] of cids.entries()) {
      const [mine, other] = [ours[at] ?? null, theirs[at] ?? null];
      if (mine !== null && other !== null && sameBytes(mine, other)) {
        this.#accept(cid, first);
        this.#accept(cid, second);
        continue;
      }
      const slot = ledger.find(cid);
      if (slot >= 0) await this.challenge(slot, first, [second], signal);
    }
    return [true, true];
  }

  async #askMany(
    cids: readonly CID[],
    node: number,
    nonce: Uint8Array,
    signal: AbortSignal,
  ): Promise<readonly (Uint8Array | null)[] | undefined> {
    const { rpc, ledger, deadlineMs } = this.#ports;
    for (const _cid of cids) this.#add('asked');
    try {
      const options = { timeoutMs: 5 * deadlineMs, signal };
      const head = { cids, nonce };
      const answer = await rpc.call(ledger.peer(node), 'node.challenges', { head }, options);
      return readChallengeAnswers(answer.head, cids.length);
    } catch (error) {
      if (!isHoldfastError(error)) throw error;
      for (const _cid of cids) this.#add('unanswered');
      return undefined;
    }
  }

  async #ask(cid: CID, node: number, nonce: Uint8Array, signal: AbortSignal): Promise<Answer> {
    const { rpc, ledger, deadlineMs } = this.#ports;
    this.#add('asked');
    try {
      const options = { timeoutMs: deadlineMs, signal };
      const answer = await rpc.call(ledger.peer(node), 'node.challenge', { head: { cid, nonce } }, options);
      const digest = readChallengeAnswer(answer.head);
      return digest === null ? { kind: 'absent' } : { kind: 'digest', digest };
    } catch (error) {
      if (isHoldfastError(error)) return { kind: 'silent' }; // counted by the caller; says nothing about the block
      throw error;
    }
  }

  /** The whole block decides. An answer that does not fit the node's own bytes is a failure too. */
  async #fetchAndJudge(
    cid: CID,
    node: number,
    signal: AbortSignal,
    answer?: Answer,
    nonce?: Uint8Array,
  ): Promise<void> {
    const { rpc, ledger, deadlineMs, onProblem } = this.#ports;
    const peer: PeerName = ledger.peer(node);
    try {
      const options = { timeoutMs: 5 * deadlineMs, signal, lane: 'bulk' } as const;
      const { head, body } = await rpc.call(peer, 'block.get', { head: { cid } }, options);
      const slot = ledger.find(cid);
      if (slot < 0) return;
      if (!readFound(head)) {
        ledger.unhold(slot, node);
        this.#add('failed');
        onProblem(
          `block ${cid.toString()} on ${peer}`,
          'the node does not have a block that the ledger counts',
        );
      } else if (!matchesCid(cid, body)) {
        ledger.markBad(slot, node);
        this.#add('failed');
        onProblem(`block ${cid.toString()} on ${peer}`, 'the node serves bytes that do not match the CID');
      } else if (
        answer?.kind === 'digest' &&
        !sameBytes(answer.digest, sha256(concat(nonce ?? new Uint8Array(), body)))
      ) {
        this.#add('failed');
        onProblem(
          `block ${cid.toString()} on ${peer}`,
          'the node has the bytes and answered the challenge wrongly',
        );
      } else {
        this.#accept(cid, node);
      }
    } catch (error) {
      if (!isHoldfastError(error)) throw error;
      this.#add('unanswered');
    }
  }

  #accept(cid: CID, node: number): void {
    const { ledger, clock } = this.#ports;
    const slot = ledger.find(cid); // slots may have been given to another block meanwhile
    if (slot < 0) return;
    ledger.prove(slot, node, clock.now());
    this.#add('proven');
  }

  #add(name: keyof ProverCounts): void {
    this.#counts = { ...this.#counts, [name]: this.#counts[name] + 1 };
  }
}
