// Reads what ought to exist out of the catalogue, page by page, and knows whether it has read all of it.

import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Clock } from '../core/clock.ts';
import { describeError } from '../core/errors.ts';
import type { Catalogue } from './catalogue.ts';
import type { Notices } from './notices.ts';
import type { Suspension } from './plan.ts';
import type { StewardStatus } from './status.ts';
import type { ObjectView } from './view.ts';

const pageSize = 1024;
/** Pages of the catalogue taken in one round; the rest follows in the next. */
const pagesMax = 64;

export class CatalogueFollower {
  readonly #catalogue: Catalogue;
  readonly #view: ObjectView;
  readonly #clock: Clock;
  readonly #notices: Notices;
  #revision = 0;
  #caughtUp = false;

  constructor(catalogue: Catalogue, view: ObjectView, clock: Clock, notices: Notices) {
    this.#catalogue = catalogue;
    this.#view = view;
    this.#clock = clock;
    this.#notices = notices;
  }

  /** Takes what is new. A catalogue that cannot be read is an alarm and a doubt, not an error. */
  async follow(): Promise<void> {
    try {
      for (let page = 0; page < pagesMax; page++) {
        const { objects, revision, done } = await this.#catalogue.changes(this.#revision, pageSize);
        for (const object of objects) this.#view.apply(object, this.#clock.now());
        this.#revision = revision;
        this.#caughtUp = done;
        if (done) break;
        await nextTurn();
      }
      this.#notices.alarm('catalogue', '');
    } catch (error) {
      this.#caughtUp = false;
      this.#notices.alarm('catalogue', `the catalogue cannot be read: ${describeError(error)}`);
    }
  }

  /** Why the set of live blocks may be incomplete, if so. */
  doubt(): Suspension | undefined {
    const state = this.#catalogue.state();
    if (!state.fresh)
      return { reason: state.reason || 'the Beacon view does not follow the log', passing: false };
    if (!this.#caughtUp || state.revision > this.#revision)
      return { reason: 'the catalogue has not been read to its end', passing: true };
    const pending = this.#view.pendingCount;
    if (pending === 0) return undefined;
    return { reason: `${pending} objects whose index has not been read`, passing: true };
  }

  status(): StewardStatus['catalogue'] {
    const { fresh, reason } = this.#catalogue.state();
    return { revision: this.#revision, fresh, reason, indexesPending: this.#view.pendingCount };
  }
}
