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
  /** Of content that came along with its records. */
  readonly copies?: number;
  readonly wanted?: number;
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
    /** Id of a log that is in the place of this view's and lacks something: `beacon accept` takes it all the same. */
    readonly refused: string | null;
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
  /** Absent in a cluster without custodians. */
  readonly custody?: CustodyStatus;
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

/** One custodian, as far as the door can see. */
export interface CustodianInfo {
  readonly name: string;
  readonly peer: string;
  /** Organisational unit; empty when it is in no group. */
  readonly org: string;
  /** Index of its shares; null when it is in no group. */
  readonly index: number | null;
  /** `ready`: gives partial decryptions. `stale`: lacks shares of a version of the key. `idle`: holds none of the one in use. */
  readonly state: 'ready' | 'sealed' | 'stale' | 'idle' | 'unreachable';
  /** Why, where there is something to say. */
  readonly text: string;
  /** Versions of the key whose present shares it answers with. */
  readonly holds: readonly number[];
  /** Generation of its shares; null when it has none. */
  readonly shareGen: number | null;
  /** How long its answers take, a moving average, ms. */
  readonly latencyMs: number | null;
  readonly auditEntries: number | null;
  readonly auditCosigned: number | null;
  readonly warnings: readonly string[];
}

/** A version of the group's key. */
export interface KekInfo {
  readonly version: number;
  readonly state: string;
  readonly shareGen: number;
  /** RFC 3339. */
  readonly createdAt: string;
  readonly activateBeat: number;
  /** Branch keys that a rotation brought under it. */
  readonly switched: number;
  /** While a rotation moves away from it: wrapped keys still to be moved, 1,000 for that many or more. Else null. */
  readonly left: number | null;
  /** Custodians that answer with its shares, and how many more than needed; null for a version that opens nothing. */
  readonly holders: number | null;
  readonly margin: number | null;
}

/** Shares of a version of the key whose erasing has not been confirmed by who had them. */
export interface UnerasedShares {
  /** Name of the custodian; its peer id when it is none of this cluster any more. */
  readonly custodian: string;
  readonly version: number;
  /** What it says, in words. */
  readonly text: string;
}

export interface CustodyStatus {
  readonly group: string;
  /** Which provider makes the keys: `tdec` custodians, `dev-file` a development key file. */
  readonly serves: string;
  readonly servesText: string;
  /** Why nothing of the group is believed; null when all is well. */
  readonly problem: string | null;
  /** Null until the group has made its key. */
  readonly key: {
    readonly version: number;
    readonly t: number;
    readonly n: number;
    readonly shareGen: number;
    readonly createdAt: string;
    readonly ageHours: number;
    readonly ageBeats: number;
    readonly refreshEveryBars: number;
    readonly policyVersion: number | null;
  } | null;
  readonly versions: readonly KekInfo[];
  readonly custodians: readonly CustodianInfo[];
  /** Custodians that give partial decryptions under the version in use. */
  readonly alive: number;
  /** How many of those that answer may fail before something cannot be opened: of the version with the fewest. */
  readonly margin: number | null;
  /** What the coordinator of custody does or waits for; null while none answers. */
  readonly next: string | null;
  /** Why what was due last could not be done; null when nothing is wrong, or no coordinator answers. */
  readonly trouble: string | null;
  readonly canary: { readonly ok: boolean; readonly text: string; readonly beat: number } | null;
  /** The group in whose place this one is, why that ended, and at which beat; null for the first one of a cluster. */
  readonly inPlaceOf: { readonly group: string; readonly reason: string; readonly beat: number } | null;
  /** Who has, or may have, shares that are to be erased: of a version that is destroyed, or after it left the group. */
  readonly unerased: readonly UnerasedShares[];
  /** Custodians caught lying, in words. */
  readonly misconduct: readonly string[];
  readonly warnings: readonly string[];
  readonly beat: number;
}

/** Public records of custody, for somebody who verifies them himself. Bytes are base64. */
export interface CustodyRecordsAnswer {
  readonly cluster: string;
  readonly group: string;
  readonly head: number;
  readonly done: boolean;
  readonly records: readonly {
    readonly key: string;
    readonly revision: number;
    readonly index: number;
    readonly bytes: string;
  }[];
  /** The membership as the operator signed it. */
  readonly membership: string;
}

/** A line of what the custodians answered that a request was carried to. */
export type CustodyRelayLine =
  /** Sealed to who asks, base64. */
  { readonly peer: string; readonly answer: string } | { readonly peer: string; readonly error: ToldError };

/** An error within an answer that has begun. */
export interface ToldError {
  /** Code of the catalogue. */
  readonly reason: string;
  readonly message: string;
}

/** Records of wrapped keys, base64: branch keys, then envelopes of objects with a key of their own. */
export interface WrappedKeysAnswer {
  readonly records: readonly string[];
  readonly next?: string;
  /** Custody groups by whose wraps the door opens content; null when it handles ciphertext only. */
  readonly opens: readonly string[] | null;
}

/** Envelopes under one branch key, each with a manifest that names its object, base64. */
export interface KeyObjectsAnswer {
  readonly items: readonly { readonly envelope: string; readonly manifest: string }[];
  readonly next?: string;
}

/** What was filed can be read at this revision; 0 when nothing was new. */
export interface FiledAnswer {
  readonly revision: number;
}

/** A part of a custodian's audit log. Leaves are base64. */
export interface CustodyLogAnswer {
  readonly custodian: string;
  readonly peer: string;
  readonly note: string;
  /** The newest checkpoint that others vouched for. */
  readonly cosigned: string | null;
  readonly leaves: readonly string[];
}

/** What may be done about what is stranded. */
export type StrandedOrder = 'adopt' | 'collect';

/** One stranded thing; what it is stands in `kind`. */
export interface StrandedFinding {
  readonly kind: 'unreached' | 'orphan' | 'missing' | 'keys' | 'chain';
  /** False when somebody who could contradict did not answer. */
  readonly sure: boolean;
  readonly reason: string;
  readonly cid?: string;
  readonly chain?: string;
  readonly version?: number;
  readonly adoptable?: boolean;
  readonly sizeBytes?: number;
  readonly copies?: number;
}

export interface StrandedAct {
  readonly act: 'adopt' | 'lease' | 'collect';
  readonly cid: string;
  readonly chain?: string;
  readonly version?: number;
  /** `done`, or why not; absent before it was tried. */
  readonly outcome?: string;
}

/** What an audit has seen. */
export interface StrandedReport {
  /** Findings that are sure, by kind; and those that are not, because somebody could not be asked. */
  readonly found: Readonly<Record<StrandedFinding['kind'], number>>;
  readonly unsure: number;
  /** Nodes that could not be listed to the end, and what else makes the report incomplete. */
  readonly unasked: readonly { readonly who: string; readonly reason: string }[];
  readonly revision: number;
  readonly entries: number;
  /** Distinct blocks that nodes list. */
  readonly blocks: number;
  /** Held, named by no entry, and leased: uploads under way, and what an audit gave a lease. */
  readonly leased: number;
  /** Held, and named only by what was removed: the planner collects it. */
  readonly released: number;
  /** Content of orphans that are not garbage. */
  readonly ofOrphans: number;
}

export interface StrandedResult extends StrandedReport {
  /** `hash` names a plan: who orders it has seen this one. */
  readonly plans: Readonly<Record<StrandedOrder, { readonly acts: number; readonly hash: string }>>;
  /** Acts carried out and refused; absent without a plan. */
  readonly done?: number;
  readonly refused?: number;
}
