// Orders to a custodian: who may give them, each once, written down before they are begun.
//
// Sealing and unsealing are carried out here. What changes shares is carried out by ceremonies, which share the
// store and offer themselves as executors.

import { sameBytes } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import type { PeerName } from '../core/rpc.ts';
import { type AuditDecision, entryOf } from './audit-leaf.ts';
import type { CustodianPorts } from './custodian.ts';
import { setSealed } from './custodian.ts';
import { checkOrder, type OpenedOrder, openOrder, type OrderOp } from './order.ts';
import { ReplaySet } from './replay.ts';
import { Revocations } from './revocation.ts';

/** Carries out orders of some kinds; called after the order was checked and written down. */
export interface OrderExecutor {
  readonly ops: readonly OrderOp[];
  execute(opened: OpenedOrder): Promise<void>;
}

export interface OrderPorts extends Pick<CustodianPorts, 'shares' | 'log' | 'books' | 'beat' | 'now'> {
  /** Who this custodian is: an order may be for some only. */
  readonly peer: PeerName;
  /** Ed25519 key of the operator of the cluster. */
  readonly operator: Uint8Array;
  readonly executors: readonly OrderExecutor[];
}

/** Life of an order, and how far it may be dated ahead, beats: a person signs it and carries it around. */
const windowBeats = 120;

export class CustodianOrders {
  readonly #ports: OrderPorts;
  #turn: Promise<unknown> = Promise.resolve();

  constructor(ports: OrderPorts) {
    this.#ports = ports;
  }

  /**
   * Checks a signed order (`signOrder`), and carries it out; one at a time.
   *
   * @throws RECORD_INVALID (no such order, or its signature is wrong), FORBIDDEN (not from who may give it, not for
   * now, or given before; the reason is in the message), ARGUMENT_INVALID (nobody here carries out such an order),
   * KEY_UNAVAILABLE (it cannot be written down), and what carrying it out throws
   */
  obey(message: Uint8Array): Promise<OpenedOrder> {
    const done = this.#turn.then(() => this.#obey(openOrder(message)));
    this.#turn = done.catch(() => undefined); // its caller has the error
    return done;
  }

  /**
   * Checks a signed order for a ceremony, which is good as long as its generation is the present one: it can be
   * tried again after a failure, and not be repeated after success.
   *
   * @throws RECORD_INVALID, FORBIDDEN
   */
  admit(message: Uint8Array): OpenedOrder {
    const opened = openOrder(message);
    const refused = checkOrder(opened, this.#terms(opened.order.cg));
    if (refused === undefined) return opened;
    throw new HoldfastError('FORBIDDEN', refused.reason, { details: { code: refused.code } });
  }

  async #obey(opened: OpenedOrder): Promise<OpenedOrder> {
    const { order } = opened;
    const only = order.args['only'];
    if (only !== undefined && !(Array.isArray(only) && only.includes(this.#ports.peer)))
      throw new HoldfastError('FORBIDDEN', 'this order is for other custodians', {
        details: { code: 'scope' },
      });
    const execute = this.#executorOf(order.op);
    const refused = checkOrder(opened, this.#terms(order.cg));
    if (refused !== undefined) {
      // A stranger could fill the log: only what was signed by who may order is written down when refused.
      if (refused.code !== 'capability')
        await this.#note(opened, 'refused', `${refused.code}: ${refused.reason}`);
      throw new HoldfastError('FORBIDDEN', refused.reason, { details: { code: refused.code } });
    }
    const { beat } = this.#ports.beat();
    const last = order.op === 'seal' ? Number.MAX_SAFE_INTEGER : order.exp;
    if (!(await this.#ports.shares.useNonce(order.nonce, last, beat)))
      throw new HoldfastError('FORBIDDEN', 'this order was given before', { details: { code: 'replayed' } });
    await this.#note(opened, 'granted', '-');
    await execute(opened);
    return opened;
  }

  #executorOf(op: OrderOp): (opened: OpenedOrder) => Promise<void> {
    const { shares, executors } = this.#ports;
    if (op === 'seal' || op === 'unseal') return ({ order }) => setSealed(shares, order.cg, op === 'seal');
    const executor = executors.find(({ ops }) => ops.includes(op));
    if (executor === undefined)
      throw new HoldfastError('ARGUMENT_INVALID', `this custodian does not carry out ${op}`);
    return (opened) => executor.execute(opened);
  }

  #terms(cg: string) {
    const { books, beat, operator } = this.#ports;
    const book = books.book(cg);
    const authorities = book?.policy(book.kek()?.policyRoot ?? null)?.authorities ?? [];
    return {
      cg,
      authorities: [operator, ...authorities.filter((key) => !sameBytes(key, operator))],
      now: beat(),
      windowBeats,
      nonces: new ReplaySet(), // the durable list is asked right after
      revocations: book?.revocations ?? Revocations.none,
    };
  }

  async #note({ order, hash }: OpenedOrder, decision: AuditDecision, reason: string): Promise<void> {
    const { log, now, beat } = this.#ports;
    const { op, cg, by: requester } = order;
    const about = { cg, reqHash: hash, requester, purpose: 'order', decision, reason };
    try {
      await log.append(entryOf({ op, beat: beat().beat, at: now(), ...about }));
    } catch (cause) {
      throw new HoldfastError('KEY_UNAVAILABLE', 'no order is followed that is not written down', { cause });
    }
  }
}
