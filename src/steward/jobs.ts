// What the jobs that keep content alive are doing, in the words of status claims: pure, from the steward's own report.

import type { JobReport } from '../backbeat/claim.ts';
import { beatsLeft, due, type Job, type JobFacts, type JobNow } from '../backbeat/job-schedule.ts';
import type { NodeStatus, StewardStatus } from './status.ts';
import type { NodeChores } from './wire.ts';

export interface JobSources {
  readonly status: StewardStatus;
  readonly chores: readonly NodeChores[];
  /** Time in which every block is read once, ms. */
  readonly scrubMs: number;
  readonly barBeats: number;
  /** Of custody; undefined in a cluster without custodians. */
  readonly custody: { readonly rotationsOk: boolean; readonly trouble: string | undefined } | undefined;
}

/** Copies that were waiting or under way when there was nothing to heal last: what progress is measured against. */
export interface HealEpisode {
  readonly doneBefore: number;
}

/** Every job with its state. `episode` as returned for the beat before; undefined at first. */
export function jobReports(
  sources: JobSources,
  now: JobNow,
  episode: HealEpisode | undefined,
): { readonly jobs: readonly JobReport[]; readonly episode: HealEpisode } {
  const { status, custody } = sources;
  const left = status.queue.waiting + status.queue.underway;
  const next = left === 0 || episode === undefined ? { doneBefore: status.healing.copiesDone } : episode;
  const jobs = [
    heal(status, left, next),
    antiEntropy(status.nodes),
    announce(sources.chores),
    scrub(sources, now),
    ...(custody === undefined ? [] : [refresh(custody.trouble), rotate(custody.rotationsOk)]),
  ];
  return { jobs, episode: next };
}

function heal(
  { healing, queue, objects, unable, unableTotal, beat }: StewardStatus,
  left: number,
  episode: HealEpisode,
): JobReport {
  const name = 'heal';
  const done = healing.copiesDone - episode.doneBefore;
  if (left > 0) {
    const beats = healing.etaMs === null ? undefined : healing.etaMs / beat.intervalMs;
    const notes = `${queue.underway} copies under way, ${queue.waiting} waiting, ${healing.pendingBytes} bytes; ${objects.lost} objects lost, ${objects.lastCopy} on their last copy`;
    return { name, activity: 'working', progress: done / (done + left), beatsLeft: beats, notes };
  }
  if (unableTotal > 0) {
    const notes = `${unableTotal} blocks cannot be healed: ${unable[0]?.reason ?? 'no reason known'}`;
    return { name, activity: 'waiting', progress: undefined, beatsLeft: undefined, notes };
  }
  return {
    name,
    activity: 'idle',
    progress: 1,
    beatsLeft: 0,
    notes: `${objects.healthy} of ${objects.total} objects healthy`,
  };
}

/** Comparing what nodes have with what the steward believes: a node is done once its inventory has been read. */
function antiEntropy(nodes: readonly NodeStatus[]): JobReport {
  const name = 'anti-entropy';
  const listing = nodes.filter(({ liveness }) => liveness === 'listing');
  const silent = nodes.filter(({ liveness }) => liveness !== 'listing' && liveness !== 'up');
  const known = nodes.length - listing.length - silent.length;
  const progress = nodes.length === 0 ? 1 : known / nodes.length;
  if (listing.length > 0) {
    const notes = `reading the inventory of ${namesOf(listing)}`;
    return { name, activity: 'checking', progress, beatsLeft: undefined, notes };
  }
  if (silent.length > 0) {
    const notes = `not heard: ${namesOf(silent)}`;
    return { name, activity: 'waiting', progress, beatsLeft: undefined, notes };
  }
  return { name, activity: 'idle', progress, beatsLeft: 1, notes: `${known} inventories agree` };
}

function announce(chores: readonly NodeChores[]): JobReport {
  const name = 're-announce';
  const own = sum(chores.map(({ ownRecords }) => ownRecords));
  const waiting = sum(chores.map(({ dueRecords }) => dueRecords));
  if (waiting === 0)
    return { name, activity: 'idle', progress: 1, beatsLeft: 1, notes: `${own} records announced` };
  const notes = `${waiting} of ${own} records to announce`;
  return {
    name,
    activity: 'working',
    progress: own === 0 ? 0 : (own - waiting) / own,
    beatsLeft: undefined,
    notes,
  };
}

/** The whole of all disks once in a period. The slowest node counts. */
function scrub({ chores, scrubMs, barBeats, status }: JobSources, now: JobNow): JobReport {
  const job: Job = { name: 'scrub', every: { bars: Number.MAX_SAFE_INTEGER }, floorMs: scrubMs };
  const trouble = chores.find(({ scrubTrouble }) => scrubTrouble !== '')?.scrubTrouble;
  const corrupt = sum(chores.map(({ corruptCount }) => corruptCount));
  // A node that has not finished a pass yet began one when this steward first heard it, at the latest.
  const oldest = Math.min(now.at, ...chores.map(({ scrubbedAt }) => scrubbedAt ?? status.startedAt));
  const facts: JobFacts = { isRunning: false, doneAt: oldest, doneBeats: now.beats, doneBars: now.bars };
  const left = beatsLeft(job, facts, now, { intervalMs: status.beat.intervalMs, barBeats });
  const shared = { name: job.name, progress: undefined, beatsLeft: left };
  if (trouble !== undefined) return { ...shared, activity: 'failed', notes: trouble };
  if (due(job, facts, now) === 'floor')
    return {
      ...shared,
      activity: 'waiting',
      notes: `no whole pass for more than ${scrubMs} ms on some node`,
    };
  return { ...shared, activity: 'checking', notes: `${corrupt} damaged blocks found and put aside` };
}

function refresh(trouble: string | undefined): JobReport {
  const shared = { name: 'refresh', progress: undefined, beatsLeft: undefined };
  return trouble === undefined
    ? { ...shared, activity: 'idle', notes: '' }
    : { ...shared, activity: 'failed', notes: trouble };
}

function rotate(isOk: boolean): JobReport {
  const shared = { name: 'rotate', progress: undefined, beatsLeft: undefined };
  return isOk
    ? { ...shared, activity: 'idle', notes: 'no rotation of keys is overdue' }
    : { ...shared, activity: 'failed', notes: 'a rotation of keys is overdue or has failed' };
}

function namesOf(nodes: readonly NodeStatus[]): string {
  return nodes.map(({ name }) => name).join(', ');
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, each) => total + each, 0);
}
