// What ought to exist, as the steward sees it: a port that app.ts fills from the Beacon view.

import type { CID } from '../core/block.ts';
import type { ReplicationPolicy } from '../manifest/manifest.ts';

/** One version of one address and every block that must stay for it. */
export interface CatalogueObject {
  /** Identifies the object; a later statement about the same manifest replaces the earlier one. */
  readonly manifest: CID;
  /** Canonical, without temporal navigation. */
  readonly address: string;
  readonly version: number;
  readonly type: 'object' | 'tree' | 'tombstone';
  readonly policy: ReplicationPolicy;
  /**
   * Root of the content: a raw block or an index block. Null when there is no content or none to keep any
   * longer (a tombstone, or a version that a tombstone removed): its content becomes collectable.
   */
  readonly root: CID | null;
  /** Record blocks (manifest, envelope, branch key, KEK): kept whatever becomes of the content. */
  readonly records: readonly CID[];
  /** Plaintext size in bytes, for people. */
  readonly sizeBytes: number;
}

export interface CataloguePage {
  readonly objects: readonly CatalogueObject[];
  /** Pass this as `after` next time. */
  readonly revision: number;
  /** False when more waits behind this page. */
  readonly done: boolean;
}

export interface Catalogue {
  /**
   * `fresh` is true when the view has followed the log to a head heard of recently. While it is false the
   * steward heals but collects nothing. `reason` says why it is not fresh, else ''.
   */
  state(): { readonly revision: number; readonly fresh: boolean; readonly reason: string };
  /**
   * Statements made after Beacon revision `after` (0 = from the beginning), oldest first, about `limit` of
   * them. A tombstone restates every earlier version of its address with `root: null`; a new envelope or
   * branch key restates the object with its new `records`. Repeating a statement does no harm.
   */
  changes(after: number, limit: number): Promise<CataloguePage>;
}
