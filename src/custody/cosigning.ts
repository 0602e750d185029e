// Asking the other custodians to vouch for the own log, once for every state of it.

import { describeError, isHoldfastError } from '../core/errors.ts';
import type { PeerName, RpcClient } from '../core/rpc.ts';
import { fieldOf } from '../core/shape.ts';
import type { AuditLog } from './audit-log.ts';
import { cosignaturesOf, type NoteKey, withSignature } from './checkpoint.ts';

export interface WitnessPeer {
  readonly peer: PeerName;
  readonly key: NoteKey;
}

export interface Cosigned {
  /** The checkpoint with all signature lines that verified. */
  readonly note: string;
  readonly size: number;
  /** Names of those who signed. */
  readonly witnesses: readonly string[];
  /** Why others did not, by their name. */
  readonly refused: Readonly<Record<string, string>>;
}

/** A checkpoint that witnesses are asked to sign. */
interface Offer {
  readonly note: string;
  readonly size: number;
  /** That the log of so many leaves begins it. */
  readonly proof: (older: number) => Promise<Uint8Array[]>;
}

const askMs = 5000;

export class Cosigning {
  readonly #log: AuditLog;
  readonly #rpc: RpcClient;
  /** Size that each witness cosigned last, as far as we know. */
  readonly #sizes = new Map<string, number>();
  #last: Cosigned | undefined;

  constructor(log: AuditLog, rpc: RpcClient) {
    this.#log = log;
    this.#rpc = rpc;
  }

  /** The newest checkpoint that was offered to witnesses. */
  get last(): Cosigned | undefined {
    return this.#last;
  }

  /** True when the log has grown since, or not all of `count` witnesses signed. */
  isDue(count: number): boolean {
    return this.#last?.size !== this.#log.size || this.#last.witnesses.length < count;
  }

  /** Offers the present checkpoint to all; who does not answer is named in the result. Never rejects for them. */
  async gather(witnesses: readonly WitnessPeer[], signal: AbortSignal): Promise<Cosigned> {
    const { checkpoint: note, size } = this.#log;
    let signed = note;
    const names: string[] = [];
    const refused: Record<string, string> = {};
    const proof = this.#proofs(size);
    const lines = await Promise.allSettled(
      witnesses.map((each) => this.#ask({ note, size, proof }, each, signal)),
    );
    for (const [at, line] of lines.entries()) {
      const name = witnesses[at]?.key.name ?? '?';
      if (line.status === 'rejected') {
        refused[name] = describeError(line.reason);
        continue;
      }
      signed = withSignature(signed, line.value);
      names.push(name);
    }
    this.#last = { note: signed, size, witnesses: names, refused };
    return this.#last;
  }

  /** What proves that the log of `older` leaves begins that of `size`: most witnesses are told the same. */
  #proofs(size: number): Offer['proof'] {
    const made = new Map<number, Promise<Uint8Array[]>>();
    return (older) => {
      const proof = made.get(older) ?? this.#log.consistencyProof(older, size);
      made.set(older, proof);
      return proof;
    };
  }

  async #ask(offer: Offer, { peer, key }: WitnessPeer, signal: AbortSignal): Promise<string> {
    const { note, size } = offer;
    const line = await this.#askFrom(this.#sizes.get(key.name) ?? 0, offer, peer, signal).catch(
      async (error: unknown) => {
        // The witness says what it cosigned last: the proof has to start there.
        const current = isHoldfastError(error, 'VERSION_CONFLICT') ? error.details['current'] : undefined;
        if (typeof current !== 'number' || current > size) throw error;
        return this.#askFrom(current, offer, peer, signal);
      },
    );
    cosignaturesOf(withSignature(note, line), [key]); // throws for a wrong one
    this.#sizes.set(key.name, size);
    return line;
  }

  async #askFrom(
    known: number,
    { note, size, proof }: Offer,
    peer: PeerName,
    signal: AbortSignal,
  ): Promise<string> {
    const older = Math.min(known, size);
    const { head } = await this.#rpc.call(
      peer,
      'custody.witness',
      { head: { note, older, proof: await proof(older) } },
      { timeoutMs: askMs, signal },
    );
    return String(fieldOf(head, 'line'));
  }
}
