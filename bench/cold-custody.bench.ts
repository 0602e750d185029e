// A recovery by shares out of the safe, as `custody recovery shares` opens keys: t processes, each with one share behind
// a passphrase (scrypt), page after page of wraps. Without the registry and the new provider.
//
//   node bench/cold-custody.bench.ts [keys, default 1000] [page, default 64] [t, default 3] [n, default 5]

import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ColdProcess } from '../src/cli/cold-process.ts';
import { ColdCustody } from '../src/custody/cold-custody.ts';
import type { FoundExport } from '../src/custody/drill.ts';
import { exportShares } from '../src/custody/export-shares.ts';
import { beatAt } from '../src/custody/freshness.ts';
import { encodeLabel } from '../src/envelope/label.ts';
import type { BranchKeyBody } from '../src/envelope/records.ts';
import { commitmentOf } from '../src/envelope/wrap.ts';
import { branchKeyOf, encrypt } from '../src/threshold/tdh2.ts';
import { main } from '../test/helpers/command-line.ts';
import { CeremonyWorld, groups, random } from '../test/support/ceremony-world.ts';
import { seconds } from './measure.ts';

const [keys = 1000, page = 64, t = 3, n = 5] = process.argv.slice(2).map(Number);
const passphrase = new Uint8Array(Buffer.from('a long enough passphrase'));

async function takenOut(world: CeremonyWorld): Promise<FoundExport[]> {
  const found: FoundExport[] = [];
  for (const site of world.sites.slice(0, t)) {
    const beat = () => beatAt({ beat: world.beat, atMs: 0 }, 0, { beatMs: 1000, beatsPerBar: 10 });
    const ports = { ...site.running, peer: site.peer, signer: site.signer, beat, now: () => world.nowMs };
    for (const message of await exportShares(ports, { passphrase }))
      found.push({ from: `${site.name}.share`, message });
  }
  return found;
}

function newKey(world: CeremonyWorld): BranchKeyBody {
  const { cg, ver: kekVer, Y } = world.kek();
  const [bkId, writer] = [random(16), random(32)];
  const scope = { project: 'bench', cls: 'internal', writer, window: [1, 2] } as const;
  const label = encodeLabel({ v: 1, cg, kekVer, ...scope, bkId, bkVer: 1, policy: null });
  const { wrap, element } = encrypt(groups.kek, Y, label, random);
  const branchKey = branchKeyOf(element, bkId, 1);
  const commit = commitmentOf(branchKey);
  const head = { kind: 'branch-key', v: 1, writer, prev: null, bkId, bkVer: 1 } as const;
  const wraps = [{ t: 'tdec', cg, kekVer, label, ...wrap }] as const;
  return { ...head, scope, maxWraps: 4096, commit, combiner: 'any', wraps };
}

async function run(dir: string): Promise<void> {
  await using world = await CeremonyWorld.made(dir, t, n);
  const exports = await takenOut(world);
  const records = Array.from({ length: keys }, () => newKey(world));
  const secretPath = join(dir, 'passphrase');
  await writeFile(secretPath, passphrase, { mode: 0o600 });
  const { signal } = new AbortController();
  let processes = 0;
  const begun = performance.now();
  const before = process.cpuUsage();
  {
    await using custody = new ColdCustody({
      directory: { certificate: () => undefined },
      kek: world.kek(),
      exports,
      open: (_, opening) => {
        processes++;
        return ColdProcess.open(main, opening, secretPath, signal);
      },
      random,
    });
    for (let at = 0; at < keys; at += page) {
      const answers = await custody.unwrap(records.slice(at, at + page));
      for (const answer of answers) {
        if (!answer.ok) throw answer.error;
        answer.branchKey.fill(0);
      }
      if (at === 0) console.log(`first page of ${answers.length} keys   ${seconds(begun)} s`);
    }
  }
  const { user, system } = process.cpuUsage(before);
  console.log(
    `${keys} keys, ${t} shares    ${seconds(begun)} s, ${processes} processes; ${((user + system) / 1e6).toFixed(1)} s of processor time of the process that combines`,
  );
}

const dir = await mkdtemp(join(tmpdir(), 'holdfast-cold-bench-'));
try {
  await run(dir);
} finally {
  await rm(dir, { recursive: true, force: true });
}
