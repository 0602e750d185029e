// Imported before the program into every process of a cluster: each dies as by kill -9 where a test says so, in the
// middle of what it does there.
//
// `kills` in the directory of the cluster holds places, one a line, in the order in which they come:
//
//   before rename beacon-generation     it is written, and about to get its name
//   after rename beacon-2/making        it has just got it
//   after write 3 beacon-2/log/mark     the third write of this process to it
//
// Whoever comes to the first of them removes it from the list, and dies.

import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

const { values } = parseArgs({ options: { data: { type: 'string' } }, strict: false });
const list = join(String(values['data']), 'kills');
const { rename } = fs.promises;
const pathOf = new Map<unknown, string>();
const writesTo = new Map<string, number>();

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
  if (!fs.existsSync(list)) return;
  const [first = '', ...rest] = fs.readFileSync(list, 'utf8').split('\n');
  if (!first.startsWith(`${what} `) || !path.endsWith(`/${first.slice(what.length + 1)}`)) return;
  fs.writeFileSync(list, rest.join('\n'));
  process.kill(process.pid, 'SIGKILL');
}
