// The data directory of one process: whose it is, what it must contain, and who has it open.

/** Who owns a data directory; another owner is refused. */
export interface DataDirOwner {
  /** Configured name of the node. */
  readonly node: string;
  /** Its peer id. */
  readonly peer: string;
  /** Cluster id. */
  readonly cluster: string;
}

/** An open, locked data directory: `await openDataDir(path, owner)`. Disposing releases the lock. */
export interface DataDir extends AsyncDisposable {
  readonly path: string;
  readonly owner: DataDirOwner;
  /** True when this call made it. */
  readonly fresh: boolean;
}
