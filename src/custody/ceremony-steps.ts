// Ceremonies over RPC, the custodian's side: one session at a time, its steps in the order in which they come.
//
//   custody.step      {session, protocol, step} + payload → {} + answer       session: 32 bytes the coordinator chose
//   custody.activate  {} + KEK record                     → {active}
//
// A session lives in memory: a custodian that restarts in the middle has forgotten it. What it had staged and voted
// for stays (ballot.ts), until the next session finishes it or all agree that nothing comes of it. So an interrupted
// ceremony leaves nothing half made.

import { decodeCbor, encodeCbor } from '../core/block.ts';
import { sameBytes } from '../core/bytes.ts';
import { minute } from '../core/clock.ts';
import { HoldfastError } from '../core/errors.ts';
import { recordBytesMax } from '../core/limits.ts';
import type { PeerName, RpcServer } from '../core/rpc.ts';
import { fieldsOf } from '../envelope/fields.ts';
import type { Activation } from './activation.ts';
import { beginBallot } from './ceremony-ballot.ts';
import { beginDealing } from './ceremony-dealing.ts';
import type { CeremonyDesk, Session } from './ceremony-desk.ts';
import { beginBirth, beginInit } from './ceremony-init.ts';
import { beginRepair } from './ceremony-repair.ts';

/** How a protocol begins on a custodian. A further one is a row here. */
export type Begin = (desk: CeremonyDesk, payload: unknown) => Promise<Session>;

const protocols: Readonly<Record<string, Begin>> = {
  init: beginInit,
  birth: beginBirth,
  deal: beginDealing,
  ballot: beginBallot,
  repair: beginRepair,
};

/** A session in which nothing happens for so long is forgotten, with the secrets that it holds. */
const idleMs = minute;

/** Payloads hold a message of every custodian, at most some hundred kilobytes. */
const payloadBytesMax = 1024 * 1024;

export class CeremonySteps {
  readonly #desk: CeremonyDesk;
  readonly #protocols: Readonly<Record<string, Begin>>;
  #open: { readonly id: Uint8Array; readonly session: Session; usedMs: number } | undefined;
  #turn: Promise<unknown> = Promise.resolve();

  /** @param further protocols beside those of `protocols`, by name (`rotationProtocols`) */
  constructor(desk: CeremonyDesk, further: Readonly<Record<string, Begin>> = {}) {
    this.#desk = desk;
    this.#protocols = { ...protocols, ...further };
  }

  /**
   * Takes one step. The step `hello` begins a session and ends the one before it.
   *
   * @throws ARGUMENT_INVALID (no such protocol, session or step), and what the step throws
   */
  step(id: Uint8Array, protocol: string, step: string, payload: unknown): Promise<unknown> {
    const done = this.#turn.then(() => this.#step(id, protocol, step, payload));
    this.#turn = done.catch(() => undefined); // its caller has the error
    return done;
  }

  /** Forgets the session under way when it was left. `nowMs`: wall clock. */
  closeIdle(nowMs: number): void {
    if (this.#open !== undefined && nowMs >= this.#open.usedMs + idleMs) this.close();
  }

  /** Forgets the session under way. */
  close(): void {
    this.#open?.session.close();
    this.#open = undefined;
  }

  async #step(id: Uint8Array, protocol: string, step: string, payload: unknown): Promise<unknown> {
    if (step === 'hello') {
      const begin = Object.hasOwn(this.#protocols, protocol) ? this.#protocols[protocol] : undefined;
      if (begin === undefined) throw new HoldfastError('ARGUMENT_INVALID', 'no such ceremony is known here');
      this.close();
      const session = await begin(this.#desk, payload);
      this.#open = { id, session, usedMs: this.#desk.ports.now() };
      return session.begun;
    }
    const open = this.#open;
    if (open === undefined || !sameBytes(open.id, id))
      throw new HoldfastError('ARGUMENT_INVALID', 'this ceremony was forgotten here: begin it again');
    open.usedMs = this.#desk.ports.now();
    const run = Object.hasOwn(open.session.steps, step) ? open.session.steps[step] : undefined;
    if (run === undefined) throw new HoldfastError('ARGUMENT_INVALID', 'the ceremony has no such step');
    return run(payload);
  }
}

/** Registers `custody.step` and `custody.activate`. `changed`: called when other shares are active than before. */
export function serveCeremonies(
  server: RpcServer,
  {
    steps,
    activation,
    allow,
    changed,
  }: {
    readonly steps: CeremonySteps;
    readonly activation: Activation;
    /** Throws FORBIDDEN for a peer that may not carry ceremonies. */
    readonly allow: (peer: PeerName) => void;
    readonly changed: () => void;
  },
): void {
  server.handle('custody.step', async ({ head, body }, { peer }) => {
    allow(peer);
    const fields = fieldsOf(head, 'step', ['session', 'protocol', 'step']);
    if (body.length > payloadBytesMax) throw new HoldfastError('TOO_LARGE', 'the step carries too much');
    const answer = await steps.step(
      fields.bytes('session', 32),
      fields.text('protocol', 32),
      fields.text('step', 32),
      decodeCbor(body, 'step'),
    );
    return { head: {}, body: encodeCbor(answer) };
  });
  server.handle('custody.activate', async ({ body }, { peer }) => {
    allow(peer);
    if (body.length > recordBytesMax) throw new HoldfastError('TOO_LARGE', 'no record is that large');
    const active = await activation.take(new Uint8Array(body));
    if (active) steps.close(); // what it was for is done
    changed();
    return { head: { active } };
  });
}
