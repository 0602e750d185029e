// What a door says about itself and the cluster, check by check.

import type { BeatAnswer, HealthCheck } from '../api/types.ts';
import type { ViewHealth } from '../beacon/queries.ts';
import { tellable, withoutPaths } from '../http/envelope.ts';
import type { BeaconReport, StewardStatus } from '../steward/status.ts';

export interface HealthFacts {
  /** Storage nodes of the membership, and those of them that this door reaches. */
  readonly nodes: { readonly total: number; readonly reachable: number };
  readonly view: ViewHealth;
  readonly beat: BeatAnswer | undefined;
  readonly seals: boolean;
  /** Whether branch keys come back; undefined in a cluster without custodians. */
  readonly custody: HealthCheck | undefined;
  /** Whether the configured key providers answer; undefined where none is configured. */
  readonly keys: HealthCheck | undefined;
  /** Throws when the steward does not answer. */
  steward(): Promise<StewardStatus>;
}

/** Each check with its reason, the door's own first. */
export async function doorHealth(facts: HealthFacts): Promise<readonly HealthCheck[]> {
  return [
    nodesCheck(facts),
    beaconCheck(facts),
    tempoCheck(facts),
    sealingCheck(facts),
    ...(facts.custody === undefined ? [] : [facts.custody]),
    ...(facts.keys === undefined ? [] : [facts.keys]),
    ...(await stewardChecks(facts)),
  ];
}

function nodesCheck({ nodes: { total, reachable } }: HealthFacts): HealthCheck {
  const enough = reachable >= Math.min(2, total) ? 'degraded' : 'failed';
  return {
    name: 'nodes',
    status: reachable === total ? 'ok' : enough,
    text: `${reachable} of ${total} storage nodes reachable`,
  };
}

function beaconCheck({ view }: HealthFacts): HealthCheck {
  const status = view.state === 'following' ? 'ok' : view.state === 'connecting' ? 'degraded' : 'failed';
  const reason = view.reason === '' ? '' : `: ${withoutPaths(view.reason)}`;
  return { name: 'beacon', status, text: `view at revision ${view.revision}, ${view.state}${reason}` };
}

function tempoCheck({ beat }: HealthFacts): HealthCheck {
  return {
    name: 'tempo',
    status: beat?.state === 'locked' ? 'ok' : 'degraded',
    text: beat === undefined ? 'no beat heard yet' : `beat ${beat.index}`,
  };
}

function sealingCheck({ seals }: HealthFacts): HealthCheck {
  return {
    name: 'sealing',
    status: 'ok',
    text: seals
      ? 'this door seals for plain HTTP callers: plaintext and content keys are in its memory while a request lasts'
      : 'this door handles ciphertext only',
  };
}

async function stewardChecks(facts: HealthFacts): Promise<HealthCheck[]> {
  try {
    const { objects, alarms, beacon } = await facts.steward();
    const bad = objects.lost > 0 ? 'failed' : objects.lastCopy + objects.belowMin > 0 ? 'degraded' : 'ok';
    return [
      {
        name: 'objects',
        status: bad,
        text: `${objects.total} objects: ${objects.lost} lost, ${objects.lastCopy} on their last copy, ${objects.belowMin} below minimum`,
      },
      ...(beacon === undefined ? [] : [logCheck(beacon)]),
      ...alarms.map(({ name, text }): HealthCheck => ({ name: `alarm:${name}`, status: 'degraded', text })),
    ];
  } catch (error) {
    return [{ name: 'steward', status: 'degraded', text: `does not answer: ${tellable(error)}` }];
  }
}

/** The log behind the views: reads do not need it, puts do. */
function logCheck({ text, state, reason, problems }: BeaconReport): HealthCheck {
  const notes = [reason, ...problems].filter((note) => note !== '').join('; ');
  const status = state === 'ready' ? (problems.length === 0 ? 'ok' : 'degraded') : 'failed';
  return { name: 'beacon.log', status, text: `${text}, ${state}${notes === '' ? '' : `: ${notes}`}` };
}
