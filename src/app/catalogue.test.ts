import assert from 'node:assert/strict';
import { test } from 'node:test';
import { putAppend, someAddress, someId, someManifest } from '../../test/suites/beacon-records.ts';
import { MemoryLog } from '../beacon/memory.ts';
import { BeaconView } from '../beacon/view.ts';
import { MemoryKv } from '../beacon/view-memory.ts';
import type { CatalogueObject } from '../steward/catalogue.ts';
import { ViewCatalogue } from './catalogue.ts';
import { systemClock } from './member.ts';

const versionsCount = 40;

test('each version of an address is said once to who reads from the beginning, and again when it was altered', async () => {
  await using world = await World.make();
  await world.put(versionsCount);
  const objects = await world.changes();
  assert.deepEqual(
    objects.map(({ version }) => version),
    Array.from({ length: versionsCount }, (_, index) => index + 1),
  );
  await world.put(1);
  assert.deepEqual(
    (await world.changes()).map(({ version }) => version),
    [versionsCount + 1],
  );
  await world.put(1, true);
  const again = await world.changes();
  assert.equal(again.length, versionsCount + 2);
  assert.ok(again.every(({ root }) => root === null));
});

test('what was said in a page that failed is said again', async (t) => {
  await using world = await World.make();
  await world.put(versionsCount);
  const broken = t.mock.method(world.view, 'changesSince', async function* () {
    yield { revision: 1, keys: [`addr/${world.address}`] };
    throw new Error('the disk is away');
  });
  await assert.rejects(world.changes(), /the disk is away/);
  broken.mock.restore();
  assert.equal((await world.changes()).length, versionsCount);
});

/** One address, and who reads its changes in small pages. */
class World implements AsyncDisposable {
  readonly #log = new MemoryLog();
  readonly view: BeaconView;
  readonly #catalogue: ViewCatalogue;
  readonly address = someAddress('versions');
  #revision = 0;

  private constructor(view: BeaconView) {
    this.view = view;
    this.#catalogue = new ViewCatalogue(view, systemClock);
  }

  static async make(): Promise<World> {
    return new World(await BeaconView.open(new MemoryKv()));
  }

  async put(count: number, removed = false): Promise<void> {
    for (let index = 0; index < count; index++) {
      const head = await this.view.head(this.address);
      const [version, prev] = [(head?.version ?? 0) + 1, head?.record.cid ?? null];
      const { records, ...append } = putAppend(
        someManifest(this.address, { version, prev, removed }),
        someId('bk'),
        await this.view.subjectRevision(`addr/${this.address}`),
      );
      const brought = version === 1 ? records : records.slice(0, removed ? 1 : 2);
      await this.view.apply([await this.#log.append({ ...append, records: brought })]);
    }
  }

  async changes(): Promise<CatalogueObject[]> {
    const found: CatalogueObject[] = [];
    for (;;) {
      const page = await this.#catalogue.changes(this.#revision, 8);
      found.push(...page.objects);
      this.#revision = page.revision;
      if (page.done) return found;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.view[Symbol.asyncDispose]();
  }
}
