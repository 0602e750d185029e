// What travels between the door and its callers as JSON. Both sides are written against these types.

/** One version of one address. */
export interface VersionInfo {
  /** Immutable: `…/*~N/…`. Cite this one. */
  readonly address: string;
  /** Canonical key, `…/*^/…`. */
  readonly key: string;
  readonly version: number;
  /** CID of the manifest. */
  readonly cid: string;
  readonly type: 'object' | 'tree' | 'tombstone';
  /** Bytes of plaintext. */
  readonly sizeBytes: number;
  readonly media: string;
  readonly cls: string;
  readonly tags: readonly string[];
  readonly generatedBy: string;
  /** RFC 3339. */
  readonly generatedAt: string;
  /** CID of the content's root; null for a tombstone. */
  readonly root: string | null;
  /** Beacon revision that brought it. */
  readonly revision: number;
}

export interface QueryAnswer {
  readonly items: readonly VersionInfo[];
  /** Pass as `after` for the next page; absent on the last. */
  readonly next?: string;
}

/** A line of an address's history. */
export interface HistoryLine {
  readonly version: number;
  readonly type: 'object' | 'tree' | 'tombstone' | 'missing';
  readonly cid: string | null;
  /** RFC 3339. */
  readonly at: string;
  readonly revision: number;
}

export interface HistoryAnswer {
  readonly key: string;
  readonly items: readonly HistoryLine[];
  readonly next?: string;
}

/** Where an address stands: what NAVIGATE answers. */
export interface NavigateAnswer {
  readonly key: string;
  /** Newest version, tombstones included; 0 when nothing was ever stored. */
  readonly newest: number;
  /** CID of the newest manifest. */
  readonly newestCid: string | null;
  readonly tombstone: boolean;
  /** The version that the temporal segment means; null when there is none. */
  readonly selected: VersionInfo | null;
  /** Exact addresses one step back and forward from it. */
  readonly previous: string | null;
  readonly following: string | null;
}

export interface StatAnswer {
  readonly version: VersionInfo;
  readonly newest: number;
  /** The whole manifest; bytes as base64, links as CIDs. */
  readonly manifest: unknown;
  /** What the steward knows of its copies; null with `replicasError` when it cannot be asked. */
  readonly replicas: unknown;
  readonly replicasError?: string;
}

/** Blocks stored: the fewest copies any of them has. */
export interface StoredAnswer {
  readonly blocks: number;
  readonly copies: number;
  readonly wanted: number;
}

export interface RegisteredAnswer {
  readonly address: string;
  readonly version: number;
  readonly cid: string;
  readonly revision: number;
}

/** Answer of a put through a sealing door. */
export interface PutAnswer extends RegisteredAnswer {
  readonly sizeBytes: number;
  readonly copies: number;
  readonly wanted: number;
  readonly short: boolean;
}

export interface BeatAnswer {
  readonly index: number;
  readonly state: string;
  readonly kekPolicy: string;
}

export interface HealthCheck {
  readonly name: string;
  readonly status: 'ok' | 'degraded' | 'failed';
  readonly text: string;
}

export interface HealthAnswer {
  readonly status: 'ok' | 'degraded' | 'failed';
  readonly checks: readonly HealthCheck[];
}

export interface DoorStatus {
  readonly sealing: boolean;
  readonly sealingText: string;
  readonly peersConnected: number;
  readonly beacon: {
    readonly state: string;
    readonly reason: string;
    readonly revision: number;
    readonly addresses: number;
    readonly removed: number;
    readonly versions: number;
    readonly sizeBytes: number;
    readonly rejected: number;
    readonly missing: number;
  };
}

/** What `status` shows. `steward` is null, with the reason, when it cannot be asked. */
export interface StatusAnswer<Steward = unknown> {
  readonly cluster: string;
  readonly at: number;
  readonly door: DoorStatus;
  readonly steward: Steward | null;
  readonly stewardError?: string;
}

/** One event of a subscription. */
export interface ChangeEvent {
  readonly revision: number;
  readonly version: VersionInfo;
}

export interface ProviderInfo {
  readonly peer: string;
  readonly addrs: readonly string[];
}
