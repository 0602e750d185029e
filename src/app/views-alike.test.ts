// A steward and a door in one process, whose views are compared: whole roles, time by their own Pulse.

import assert from 'node:assert/strict';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { keepRunning } from '../../test/support/roles.ts';
import { rowKey } from '../beacon/rows.ts';
import { LevelKv } from '../beacon/view-level.ts';
import { openDevFile } from '../custody/dev-file.ts';
import { devKeyPath, layoutPaths, loadProcessConfig, readToken } from '../local/layout.ts';
import { createOrOpenLayout } from '../local/layout-create.ts';
import type { StewardStatus, ViewsReport } from '../steward/status.ts';
import { startDoorRole } from './door-role.ts';
import { systemClock } from './member.ts';
import { startStewardRole } from './steward-role.ts';

test('a view with a row that no entry gave is named, condemned by its own log, and folded again', async (t) => {
  const errors = t.mock.method(console, 'error', () => undefined);
  const dir = await mkdtemp(join(tmpdir(), 'holdfast-alike-'));
  t.after(() => rm(dir, { recursive: true, force: true, maxRetries: 5 }));
  const { file } = await createOrOpenLayout(dir, { nodes: 1, port: 0, custodians: 0 });
  const path = layoutPaths(dir).cluster;
  const config = JSON.parse(await readFile(path, 'utf8'));
  await writeFile(path, JSON.stringify({ ...config, settings: { ...config.settings, beatMs: 60 } }));
  const keyPath = devKeyPath({ keysDir: layoutPaths(dir).keys });
  await using _provider = await openDevFile({ path: keyPath, clock: systemClock, create: true });
  const url = `http://127.0.0.1:${file.doorPort}`;
  const token = await readToken(dir);
  const alike = (views: ViewsReport | undefined): boolean => views?.equal.length === 2;
  const steward = await loadProcessConfig(dir, 'steward');
  {
    await using site = new Site(dir, url, token);
    await site.until(({ beacon }) => alike(beacon?.views));
  }
  const view = await viewOf(steward.dataDir);
  {
    await using kv = await LevelKv.open(view);
    await kv.write(new Map([[rowKey('tag', 'sec-high', 'nothing'), new Uint8Array()]]));
  }
  const begun = Date.now();
  await using site = new Site(dir, url, token);
  // With two views both are named, and the one that is sound stays.
  const said = (what: RegExp): boolean =>
    errors.mock.calls.some(({ arguments: [text] }) => what.test(String(text)));
  const healed = await site.until(
    ({ beacon, startedAt }) =>
      alike(beacon?.views) && startedAt > begun && said(/^the view is now at .*, and folded again: /),
  );
  assert(said(/^views differ at revision \d+: .*"name":"steward","kinds":\["tag"\]/));
  assert(healed.alarms.every(({ name }) => name !== 'beacon-views'));
});

async function viewOf(dataDir: string): Promise<string> {
  const names = await readdir(dataDir, { recursive: true });
  const born = names.find((name) => name.endsWith('view/born.json'));
  assert(born !== undefined);
  return join(dataDir, born, '..');
}

/** Both roles, each started again when it ends, as the supervisor does. */
class Site implements AsyncDisposable {
  readonly #stop = new AbortController();
  readonly #roles: Promise<void>[];
  readonly #url: string;
  readonly #headers: Readonly<Record<string, string>>;

  constructor(dir: string, url: string, token: string) {
    this.#url = url;
    this.#headers = { authorization: `Bearer ${token}` };
    this.#roles = [
      keepRunning(async () => startStewardRole(await loadProcessConfig(dir, 'steward')), this.#stop.signal),
      keepRunning(async () => startDoorRole(await loadProcessConfig(dir, 'door')), this.#stop.signal),
    ];
  }

  async until(isReached: (status: StewardStatus) => boolean): Promise<StewardStatus> {
    let last: unknown;
    for (const giveUpAt = Date.now() + 120_000; Date.now() < giveUpAt; await delay(100)) {
      try {
        const answer = await fetch(`${this.#url}/ucxi/v1/status`, { headers: this.#headers });
        const { steward } = JSON.parse(await answer.text()).response.data;
        last = steward?.beacon;
        if (steward !== null && steward !== undefined && isReached(steward)) return steward;
      } catch (error) {
        last = error; // it starts again
      }
    }
    assert.fail(`it did not come to that: ${JSON.stringify(last)}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await Promise.all(this.#roles);
  }
}
