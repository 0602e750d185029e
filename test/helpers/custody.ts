// What a custody group says of itself, asked for and waited for.

import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import type { CustodyStatus } from '../../src/api/types.ts';
import type { TestCluster } from './cluster.ts';
import type { CommandLine } from './command-line.ts';

/** As the command says it, whatever it ends with. */
export async function custodyTold({ run }: CommandLine): Promise<CustodyStatus> {
  const { out } = await run('custody', 'status', '--json');
  const status: CustodyStatus = JSON.parse(out);
  return status;
}

/** As the door answers it. */
export async function custodyAnswered(cluster: TestCluster): Promise<CustodyStatus> {
  const response = await cluster.fetch('/v1/custody/status');
  const answer = (await response.json()) as { readonly response: { readonly data: CustodyStatus } };
  return answer.response.data;
}

/** Asks until `holds`, a minute at the most if nothing else is said; does `meanwhile` in between. */
export async function untilCustody(
  ask: () => Promise<CustodyStatus>,
  what: string,
  holds: (status: CustodyStatus) => boolean,
  { timeoutMs = 60_000, meanwhile = () => sleep(200) }: Waiting = {},
): Promise<void> {
  const deadline = AbortSignal.timeout(timeoutMs);
  for (;;) {
    const status = await ask();
    if (holds(status)) return;
    assert.ok(!deadline.aborted, `${what}:\n${JSON.stringify(status, null, 1)}`);
    await meanwhile();
  }
}

export interface Waiting {
  readonly timeoutMs?: number;
  readonly meanwhile?: () => Promise<unknown>;
}
