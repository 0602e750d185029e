// A bird in the mine: a branch key that guards nothing, made and asked back, so that it is known before somebody needs
// a real one whether the custodians give keys. One for each version of the group's key that still opens wraps: an old
// version whose shares are gone is seen before whoever has something under it comes to read.

import { describeError } from '../core/errors.ts';
import { sameSecret } from '../core/hash.ts';
import { type BranchKeyBody, parseBranchKey } from '../envelope/records.ts';
import { commitmentOf } from '../envelope/wrap.ts';
import type { RandomBytes } from '../threshold/group.ts';
import type { KekProvider, NewKey, NewKeyScope } from './provider.ts';
import { canaryProject } from './scope.ts';

/** Makes keys under any version of a key, and has them opened. */
export interface CanaryProvider extends Pick<KekProvider, 'unwrap'> {
  /** Versions that open wraps, in any order. Throws KEY_UNAVAILABLE when there is none. */
  serving(): readonly number[];
  createKey(scope: NewKeyScope, kekVer: number): Promise<NewKey>;
}

export interface CanaryOptions {
  readonly provider: CanaryProvider;
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
    const { provider, requester } = this.#options;
    const birds: Bird[] = [];
    try {
      for (const kekVer of provider.serving()) birds.push(await this.#hatch(kekVer, beat));
      const bodies = birds.map(({ body }) => body);
      const answers = await provider.unwrap(bodies, { purpose: 'canary', requester, beat });
      const problems = birds.flatMap(({ kekVer, branchKey }, at) => {
        const answer = answers[at];
        if (answer?.ok !== true) return `version ${kekVer}: ${describeError(answer?.error ?? 'no answer')}`;
        const isSame = sameSecret(answer.branchKey, branchKey);
        answer.branchKey.fill(0);
        return isSame ? [] : `version ${kekVer}: another canary came back than was sent out`;
      });
      if (problems.length > 0) throw new Error(problems.join('; '));
    } finally {
      for (const { branchKey } of birds) branchKey.fill(0);
    }
  }

  async #hatch(kekVer: number, beat: number): Promise<Bird> {
    const { provider, requester, random } = this.#options;
    const scope = {
      project: canaryProject,
      cls: 'internal',
      writer: requester,
      window: [beat, beat],
    } as const;
    const [bkId, bkVer] = [random(16), 1];
    const { branchKey, wraps, combiner } = await provider.createKey(
      { ...scope, bkId, bkVer, policy: null },
      kekVer,
    );
    const commit = commitmentOf(branchKey);
    const head = { kind: 'branch-key', v: 1, writer: requester, prev: null, bkId, bkVer } as const;
    return {
      kekVer,
      branchKey,
      body: parseBranchKey({ ...head, scope, maxWraps: 1, commit, combiner, wraps }),
    };
  }
}

interface Bird {
  readonly kekVer: number;
  readonly branchKey: Uint8Array;
  readonly body: BranchKeyBody;
}
