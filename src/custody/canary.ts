// A bird in the mine: a branch key that guards nothing, made and asked back, so that it is known before somebody needs
// a real one whether the custodians give keys.

import { describeError } from '../core/errors.ts';
import { sameSecret } from '../core/hash.ts';
import { parseBranchKey } from '../envelope/records.ts';
import { commitmentOf } from '../envelope/wrap.ts';
import type { RandomBytes } from '../threshold/group.ts';
import type { KekProvider } from './provider.ts';

export interface CanaryOptions {
  readonly provider: Pick<KekProvider, 'createKey' | 'unwrap'>;
  /** Ed25519 key of who asks. */
  readonly requester: Uint8Array;
  readonly random: RandomBytes;
  readonly beat: () => number;
  /** How long a good outcome is good for, beats; a bad one is tried again with the next but one. */
  readonly everyBeats: number;
  /** Monotonic, ms. */
  readonly now: () => number;
}

export interface CanaryOutcome {
  readonly ok: boolean;
  readonly text: string;
  readonly beat: number;
  /** How long the custodians took, ms. */
  readonly ms: number;
}

/** Custodians that have just been told of a new key or generation take a beat to know it. */
const retryBeats = 2;
/** Name of the project that canaries are in: no address has it. */
const project = 'holdfast-canary';

export class Canary {
  readonly #options: CanaryOptions;
  #last: CanaryOutcome | undefined;
  #trying: Promise<CanaryOutcome> | undefined;

  constructor(options: CanaryOptions) {
    this.#options = options;
  }

  /** The last outcome; undefined before the first. */
  get last(): CanaryOutcome | undefined {
    return this.#last;
  }

  /** The outcome of now, or of lately. Never rejects. */
  async check(): Promise<CanaryOutcome> {
    const { beat, everyBeats } = this.#options;
    const last = this.#last;
    const patience = last?.ok === false ? Math.min(everyBeats, retryBeats) : everyBeats;
    if (last !== undefined && beat() >= last.beat && beat() < last.beat + patience) return last;
    this.#trying ??= this.#try().finally(() => {
      this.#trying = undefined;
    });
    return this.#trying;
  }

  async #try(): Promise<CanaryOutcome> {
    const beat = this.#options.beat();
    const startedMs = this.#options.now();
    let problem = '';
    try {
      await this.#sing(beat);
    } catch (error) {
      problem = describeError(error);
    }
    const ms = this.#options.now() - startedMs;
    const ok = problem === '';
    const text = ok ? `a canary key was given back in ${Math.round(ms)} ms` : problem;
    return (this.#last = { ok, text, beat, ms });
  }

  async #sing(beat: number): Promise<void> {
    const { provider, requester, random } = this.#options;
    const scope = { project, cls: 'internal', writer: requester, window: [beat, beat] } as const;
    const [bkId, bkVer] = [random(16), 1];
    const made = await provider.createKey({ ...scope, bkId, bkVer, policy: null });
    try {
      const commit = commitmentOf(made.branchKey);
      const { wraps, combiner } = made;
      const head = { kind: 'branch-key', v: 1, writer: requester, prev: null, bkId, bkVer } as const;
      const body = parseBranchKey({ ...head, scope, maxWraps: 1, commit, combiner, wraps });
      const [answer] = await provider.unwrap([body], { purpose: 'canary', requester, beat });
      if (answer?.ok !== true) throw answer?.error ?? new Error('no answer');
      const isSame = sameSecret(answer.branchKey, made.branchKey);
      answer.branchKey.fill(0);
      if (!isSame) throw new Error('another canary came back than was sent out');
    } finally {
      made.branchKey.fill(0);
    }
  }
}
