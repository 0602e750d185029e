// Whether what an entry needs to be opened is registered: its envelope, the branch key that this names, and a KEK
// under which that is wrapped.

import { toHex } from '../core/bytes.ts';
import { parseLabel } from '../envelope/label.ts';
import type { BkWrap } from '../envelope/wraps.ts';
import { Lru } from './lru.ts';
import type { BeaconQueries, CatalogueEntry } from './queries.ts';

/** Branch keys whose answer is remembered: a million objects have about a thousand. */
const branchKeysMax = 4096;

export class KeyChecks {
  readonly #view: Pick<BeaconQueries, 'envelope' | 'branchKey' | 'kek'>;
  readonly #branchKeys = new Lru<string>(branchKeysMax);

  constructor(view: Pick<BeaconQueries, 'envelope' | 'branchKey' | 'kek'>) {
    this.#view = view;
  }

  /** What is missing, in words, else ''. Nothing is needed for what was removed. */
  async problem({ retained, manifest: { encryption } }: CatalogueEntry): Promise<string> {
    if (!retained || encryption === null) return '';
    const envelope = await this.#view.envelope(encryption.objId);
    if (envelope === undefined) return `envelope ${toHex(encryption.objId)} is not registered`;
    const { body } = envelope.record;
    return body.mode === 'direct' ? this.#wraps(body.key.wraps) : this.#branchKey(body.bkId, body.bkVer);
  }

  async #branchKey(bkId: Uint8Array, version: number): Promise<string> {
    const name = `${toHex(bkId)} version ${version}`;
    const known = this.#branchKeys.get(name);
    if (known !== undefined) return known;
    const found = await this.#view.branchKey(bkId, version);
    // The newest version says who can open it today.
    const newest = found && ((await this.#view.branchKey(bkId)) ?? found);
    const problem =
      newest === undefined
        ? `branch key ${name} is not registered`
        : await this.#wraps(newest.record.body.wraps);
    this.#branchKeys.set(name, problem);
    return problem;
  }

  /** One key that is registered is enough to be opened by. */
  async #wraps(wraps: readonly BkWrap[]): Promise<string> {
    const missing: string[] = [];
    for (const wrap of wraps) {
      const { cg, kekVer } = parseLabel(wrap.label);
      if ((await this.#view.kek(cg, kekVer)) !== undefined) return '';
      missing.push(`${cg} version ${kekVer}`);
    }
    return `no KEK that it is wrapped under is registered: ${missing.join(', ')}`;
  }
}
