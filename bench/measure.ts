// What benchmarks that compare two contenders share.

/** Medians of rounds in which the two alternate, so that both meet the same noise. */
export async function alternate(
  rounds: number,
  ours: () => Promise<number>,
  theirs: () => Promise<number>,
): Promise<[ours: number, theirs: number]> {
  const mine: number[] = [];
  const base: number[] = [];
  for (let round = 0; round < rounds; round++) {
    base.push(await theirs());
    mine.push(await ours());
  }
  return [quantile(mine, 0.5), quantile(base, 0.5)];
}

/** Calls per second with `width` under way. */
export async function perSecond(count: number, width: number, call: () => Promise<unknown>): Promise<number> {
  const begun = performance.now();
  let left = count;
  const worker = async (): Promise<void> => {
    while (left-- > 0) await call();
  };
  await Promise.all(Array.from({ length: width }, worker));
  return (count * 1000) / (performance.now() - begun);
}

/** The smallest of `numbers` that at least this share of them does not exceed. */
export function quantile(numbers: readonly number[], share: number): number {
  const at = Math.ceil(share * numbers.length) - 1;
  return numbers.toSorted((a, b) => a - b)[Math.max(0, at)] ?? 0;
}

/** How long each of `count` calls took, one after the other, ms. */
export async function timesOf(count: number, call: () => Promise<unknown>): Promise<number[]> {
  const times: number[] = [];
  for (let index = 0; index < count; index++) {
    const begun = performance.now();
    await call();
    times.push(performance.now() - begun);
  }
  return times;
}

export function seconds(since: number): string {
  return ((performance.now() - since) / 1000).toFixed(1);
}
