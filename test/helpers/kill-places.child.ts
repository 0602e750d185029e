// Imported before the program into every process of a cluster: each dies as by kill -9 where a test says so, in the
// middle of what it does there.
//
// `kills` in the directory of the cluster holds places, one a line, in the order in which they come:
//
//   before rename beacon-generation     it is written, and about to get its name
//   after rename beacon-2/making        it has just got it
//   after write 3 beacon-2/log/mark     the third write of this process to it
//   after rename 2 shares/state         the second time while the place stands first in the list
//   after rename 3 shares/state since .sealed
//                                       the third time since a file with such an ending last got its name from this
//                                       process, which it must have while the place stands first in the list
//
// Whoever comes to the first of them removes it from the list, and dies. `kills-NAME` is the list of one process alone.

import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

const options = { data: { type: 'string' }, name: { type: 'string' } } as const;
const { values } = parseArgs({ options, strict: false });
const lists = ['kills', `kills-${String(values['name'])}`].map((name) => join(String(values['data']), name));
const { rename } = fs.promises;
const pathOf = new Map<unknown, string>();
const writesTo = new Map<string, number>();
/** How often the file of the place that is first in a list got its name since what the place says. */
const renamed = new Map<string, { readonly place: string; count: number }>();

fs.openSync = new Proxy(fs.openSync, {
  apply(open, self, args: Parameters<typeof fs.openSync>) {
    const file = Reflect.apply(open, self, args);
    pathOf.set(file, String(args[0]));
    return file;
  },
});

fs.writeSync = new Proxy(fs.writeSync, {
  apply(write, self, args: Parameters<typeof fs.writeSync>) {
    const path = pathOf.get(args[0]) ?? '';
    const count = (writesTo.get(path) ?? 0) + 1;
    writesTo.set(path, count);
    const written = Reflect.apply(write, self, args);
    dieAt(`after write ${count}`, path);
    return written;
  },
});

fs.promises.rename = async (from, to) => {
  dieAt('before rename', String(to));
  await rename(from, to);
  dieAt('after rename', String(to));
};

syncBuiltinESMExports();

function dieAt(what: string, path: string): void {
  for (const list of lists) {
    if (!fs.existsSync(list)) continue;
    const [first = '', ...rest] = fs.readFileSync(list, 'utf8').split('\n');
    if (!isAt(list, first, what, path)) continue;
    fs.writeFileSync(list, rest.join('\n'));
    process.kill(process.pid, 'SIGKILL');
  }
}

function isAt(list: string, place: string, what: string, path: string): boolean {
  const [, times, file, since] = /^after rename (\d+) (\S+)(?: since (\S+))?$/.exec(place) ?? [];
  if (file === undefined)
    return place.startsWith(`${what} `) && path.endsWith(`/${place.slice(what.length + 1)}`);
  if (what !== 'after rename') return false;
  const known = renamed.get(list);
  const begun = since === undefined ? 0 : Number.NEGATIVE_INFINITY;
  const counted = known?.place === place ? known : { place, count: begun };
  renamed.set(list, counted);
  if (since !== undefined && path.endsWith(since)) counted.count = 0;
  return path.endsWith(`/${file}`) && ++counted.count === Number(times);
}
