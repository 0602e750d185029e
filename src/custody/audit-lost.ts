// Openings whose logs went with custodians that were lost for good. Where another group is in the place of the lost one,
// newcomers may have the names of the old custodians, and their logs begin later: what these do not tell, nobody has left
// out. Everything else is missed as before.

import { toHex } from '../core/bytes.ts';
import type { Finding, VerifiedLog } from './audit-verify.ts';
import type { DatedReceipt } from './receipts.ts';

/**
 * The findings that stand, and how many openings cannot be held against the logs any more. `cg`: the group of now, which
 * is in the place of another. An opening counts as one of the other when its receipt is older than the oldest word of
 * these logs about the making of `cg`.
 */
export function withoutLost(
  findings: readonly Finding[],
  logs: readonly VerifiedLog[],
  receipts: readonly DatedReceipt[],
  cg: string,
): { readonly findings: readonly Finding[]; readonly lost: number } {
  const madeAt = Math.min(
    ...logs
      .flatMap(({ leaves }) => leaves)
      .flatMap((leaf) => (leaf.op === 'init' && leaf.cg === cg ? leaf.at : [])),
  );
  const beganAt = new Map(
    logs.flatMap(({ leaves: [first] }) =>
      first === undefined ? [] : [[first.custodian, first.at] as const],
    ),
  );
  /** By the hash of the request: who helped, and has no log of that time any more. */
  const lost = new Map<string, ReadonlySet<string>>();
  for (const { at, reqHash, custodians } of receipts) {
    if (!Number.isFinite(madeAt) || at >= madeAt) continue;
    const gone = custodians.filter((name) => (beganAt.get(name) ?? 0) > at);
    if (gone.length > 0) lost.set(toHex(reqHash), new Set(gone));
  }
  const stands = (finding: Finding): boolean => {
    if (finding.kind === 'receipt-missing') return true;
    const gone = lost.get(finding.reqHash);
    if (gone === undefined) return true;
    return finding.kind === 'leaf-missing' && !gone.has(finding.custodian);
  };
  return { findings: findings.filter(stands), lost: lost.size };
}
