// The last part of a ceremony on a custodian's side: a share of the group's signatures under the records that it has
// computed itself. The nonces live in memory and are used once.

import { HoldfastError } from '../core/errors.ts';
import { custodiansMax } from '../core/limits.ts';
import { fieldsOf } from '../envelope/fields.ts';
import { commit, type FrostMessage, type FrostNonces, signShare } from '../threshold/frost.ts';
import type { KeySet } from '../threshold/key-set.ts';
import { broken } from './ceremony.ts';
import type { CeremonyDesk } from './ceremony-desk.ts';
import type { ShareEntry, ShareRef } from './share-state.ts';

/** A custodian that will sign some messages, each with nonces of its own. */
export class Signing {
  readonly #desk: CeremonyDesk;
  readonly #ref: ShareRef;
  readonly #index: number;
  readonly #keys: KeySet;
  readonly #messages: readonly Uint8Array[];
  #nonces: readonly FrostNonces[] = [];

  /** @param ref whose share of the signing key signs. @param keys that key */
  constructor(
    desk: CeremonyDesk,
    ref: ShareRef,
    index: number,
    keys: KeySet,
    messages: readonly Uint8Array[],
  ) {
    this.#desk = desk;
    this.#ref = ref;
    this.#index = index;
    this.#keys = keys;
    this.#messages = messages;
  }

  /** Commitments, one for each message; those given before are void. */
  async commit(): Promise<{ readonly i: number; readonly commitments: readonly Uint8Array[] }> {
    this.close();
    const { shares, random, groups } = this.#desk.ports;
    const { frost } = await groups();
    const { secret } = await shares.openShare(this.#ref, 'frost');
    try {
      const made = this.#messages.map(() => commit(frost, secret, random));
      this.#nonces = made.map(({ nonces }) => nonces);
      return { i: this.#index, commitments: made.map(({ commitment }) => commitment) };
    } finally {
      secret.fill(0);
    }
  }

  /** Signature shares, once. `payload`: for each message everybody's commitments. */
  async sign(payload: unknown): Promise<{ readonly shares: readonly Uint8Array[] }> {
    const lists = readCommitments(payload, this.#messages.length);
    const nonces = this.#nonces;
    this.#nonces = [];
    if (nonces.length !== this.#messages.length)
      throw new HoldfastError('ARGUMENT_INVALID', 'these nonces were used, or there are none');
    const { frost } = await this.#desk.ports.groups();
    const { secret } = await this.#desk.ports.shares.openShare(this.#ref, 'frost');
    try {
      const shares = this.#messages.map((message, at) => {
        const own = nonces[at];
        const list = lists[at];
        if (own === undefined || list === undefined)
          throw broken('sign', [{ culprit: 0, reason: 'missing' }]);
        const done = signShare(frost, this.#keys, this.#index, secret, own, list, message);
        if (done.ok) return done.value;
        throw broken('sign', done.faults);
      });
      return { shares };
    } finally {
      secret.fill(0);
    }
  }

  close(): void {
    for (const { hiding, binding } of this.#nonces) {
      hiding.fill(0);
      binding.fill(0);
    }
    this.#nonces = [];
  }
}

/** What a custodian commits to, and the key that it signs with, of which the record tells only a part. */
export async function committed(
  signing: Signing,
  { commitments }: ShareEntry,
): Promise<{
  readonly i: number;
  readonly commitments: readonly Uint8Array[];
  readonly C: readonly Uint8Array[];
}> {
  return { ...(await signing.commit()), C: commitments };
}

/** The public part of the key that a share is of. */
export function keySetOfEntry({ t, n, publicKey, commitments, verificationShares }: ShareEntry): KeySet {
  return { t, n, Y: publicKey, C: commitments, Yi: verificationShares };
}

function readCommitments(payload: unknown, count: number): FrostMessage[][] {
  const lists = fieldsOf(payload, 'sign', ['commitments']).list('commitments', count);
  return lists.map((list, at) => {
    const rows = fieldsOf({ list }, `sign.commitments[${at}]`, ['list']).list('list', custodiansMax);
    return rows.map((row) => {
      const fields = fieldsOf(row, `sign.commitments[${at}]`, ['index', 'bytes']);
      return { index: fields.integer('index', 1, custodiansMax), bytes: fields.bytes('bytes', 64) };
    });
  });
}
