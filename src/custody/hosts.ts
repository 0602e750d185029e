// A threshold is worth as much as the walls between those who share it: custodians on one machine fall together.

export interface HostedMember {
  readonly name: string;
  /** Machine that the operator says it runs on. */
  readonly host: string;
  /** Multiaddrs under which it is dialled. */
  readonly addrs: readonly string[];
}

/**
 * What to tell an operator when `t` or more of `members` run on one machine: whoever takes that machine can open
 * everything. Undefined when no machine has as many. Loopback addresses are one machine, whatever it is called.
 */
export function sharedHostWarning(members: readonly HostedMember[], t: number): string | undefined {
  const machines = [...Map.groupBy(members, machineOf)].filter(([, there]) => there.length >= t);
  const [first] = machines;
  if (first === undefined || t < 1) return undefined;
  const [machine, there] = first;
  const where = machine === loopback ? 'this machine' : machine;
  return `${there.length} of ${members.length} custodians run on ${where}, and ${t} suffice to open everything: put them on machines of different owners before there are secrets`;
}

const loopback = 'loopback';

function machineOf({ host, addrs }: HostedMember): string {
  const [, , address = ''] = (addrs[0] ?? '').split('/');
  return /^(?:127\.|::1$|localhost$)/.test(address) ? loopback : host;
}
