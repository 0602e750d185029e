// Where copies go: rendezvous hashing weighted by free space, spread over zones first, hosts second.
//
// Each (key, member) pair has a score that depends on nothing else, so a member that comes or goes moves
// only its own share. On top of the scores a greedy walk takes, at every step, the best member of a zone
// not used yet; when every zone is used, of a host not used yet; and after that the emptiest zone. Zones
// contain hosts, so the walk is optimal for every length of the list at once: nobody has to know the
// number of copies beforehand, and repair continues the same walk from the copies that survive.

import type { PeerName } from '../core/rpc.ts';

/** Where a copy is or may be: what it shares its fate with. */
export interface PlacementDomain {
  readonly peer: PeerName;
  readonly zone: string;
  readonly host: string;
}

export interface PlacementMember extends PlacementDomain {
  /** Free space in bytes: the weight. A member with none (full, read-only, draining) is never chosen. */
  readonly freeBytes: number;
}

/**
 * All usable members in the order in which they should take copies of `key`. Every prefix of length r is
 * spread over min(r, zones) zones and, given that, over as many hosts as possible.
 */
export function rankMembers(key: Uint8Array, members: readonly PlacementMember[]): PlacementMember[] {
  return chooseTargets(key, members, [], members.length);
}

/**
 * Up to `count` members to add to the `holders` that survive, best first. Holders are not chosen again;
 * their zones and hosts count as used. Fewer than `count` when there are not more members with space.
 */
export function chooseTargets(
  key: Uint8Array,
  members: readonly PlacementMember[],
  holders: readonly PlacementDomain[],
  count: number,
): PlacementMember[] {
  const use = new Use();
  const taken = new Set<PeerName>();
  for (const holder of holders) {
    use.add(holder);
    taken.add(holder.peer);
  }
  const candidates = members
    .filter((member) => member.freeBytes > 0 && !taken.has(member.peer))
    .map((member) => ({ member, score: score(key, member) }))
    .sort((a, b) => b.score - a.score || (a.member.peer < b.member.peer ? -1 : 1));
  const chosen: PlacementMember[] = [];
  while (chosen.length < count) {
    const best = takeBest(candidates, use);
    if (best === undefined) break;
    use.add(best);
    chosen.push(best);
  }
  return chosen;
}

/** How many distinct zones `domains` cover. */
export function zonesOf(domains: readonly PlacementDomain[]): number {
  return new Set(domains.map((domain) => domain.zone)).size;
}

interface Candidate {
  readonly member: PlacementMember;
  readonly score: number;
}

/** Copies per zone and per host so far. */
class Use {
  readonly #zones = new Map<string, number>();
  readonly #hosts = new Map<string, number>();

  add(domain: PlacementDomain): void {
    this.#zones.set(domain.zone, this.zone(domain) + 1);
    this.#hosts.set(hostKey(domain), this.host(domain) + 1);
  }

  zone(domain: PlacementDomain): number {
    return this.#zones.get(domain.zone) ?? 0;
  }

  host(domain: PlacementDomain): number {
    return this.#hosts.get(hostKey(domain)) ?? 0;
  }
}

/** A host name counts within its zone only, so that hosts nest in zones even where the names do not. */
function hostKey(domain: PlacementDomain): string {
  return `${domain.zone}\n${domain.host}`;
}

/** Removes and returns the candidate with the freshest domain; candidates come best score first. */
function takeBest(candidates: Candidate[], use: Use): PlacementMember | undefined {
  let bestAt = -1;
  let best: readonly number[] = [];
  for (const [at, { member }] of candidates.entries()) {
    const zone = use.zone(member);
    const host = use.host(member);
    const crowding = [Math.min(host, 1), zone, host]; // a zone not used has no host used
    if (bestAt < 0 || comesBefore(crowding, best)) {
      bestAt = at;
      best = crowding;
    }
    if (zone === 0) break; // nothing later can be better
  }
  return bestAt < 0 ? undefined : candidates.splice(bestAt, 1)[0]?.member;
}

function comesBefore(a: readonly number[], b: readonly number[]): boolean {
  for (const [at, value] of a.entries()) {
    const other = b[at] ?? 0;
    if (value !== other) return value < other;
  }
  return false;
}

/** Weighted rendezvous: −weight / ln(u) with u in (0, 1) from the pair; the largest wins with probability ∝ weight. */
function score(key: Uint8Array, member: PlacementMember): number {
  const u = (pairHash(key, member.peer) + 0.5) / 0x1_0000_0000_0000;
  return -member.freeBytes / Math.log(u);
}

/** 48 bits of two independent multiply-and-mix lanes over peer and key. Spread is what matters here, not secrecy. */
function pairHash(key: Uint8Array, peer: PeerName): number {
  let a = 0x811c9dc5;
  let b = 0x9e3779b9;
  for (let at = 0; at < peer.length; at++) {
    a = Math.imul(a ^ peer.charCodeAt(at), 0x01000193);
    b = Math.imul(b ^ peer.charCodeAt(at), 0x85ebca6b);
  }
  for (const byte of key) {
    a = Math.imul(a ^ byte, 0x01000193);
    b = Math.imul(b ^ byte, 0xc2b2ae35);
    b ^= b >>> 15;
  }
  return finish(a) * 0x1_0000 + (finish(b ^ a) >>> 16);
}

/** The finalizer of MurmurHash3: every input bit reaches every output bit. */
function finish(value: number): number {
  let h = value;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}
