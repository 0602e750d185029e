// Names of custody groups. A cluster's first group is named after the cluster; one that takes the place of another has
// the same name with a number, so which is later can be told from the names alone.
//
//   cg-a885bfd7 ─▶ cg-a885bfd7.2 ─▶ cg-a885bfd7.3

/** Name of the first custody group of a cluster, from the cluster's own id. */
export function groupNameOf(cluster: string): string {
  return `cg-${cluster.slice(cluster.lastIndexOf('-') + 1).slice(0, 8)}`;
}

/** Name of the group that takes the place of `cg`. */
export function successorNameOf(cg: string): string {
  const { root, number } = partsOf(cg);
  return `${root}.${number + 1}`;
}

/** True when `later` is the name of a group that came into the place of `cg`, at once or by others between. */
export function isSuccessorName(later: string, cg: string): boolean {
  const [a, b] = [partsOf(later), partsOf(cg)];
  return a.root === b.root && a.number > b.number;
}

function partsOf(cg: string): { readonly root: string; readonly number: number } {
  const [, root = cg, digits = '1'] = /^(.+)\.([2-9]|[1-9]\d{1,5})$/.exec(cg) ?? [];
  return { root, number: Number(digits) };
}
