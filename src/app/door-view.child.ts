// A door's view in a process of its own, for door-view-killed.test.ts: it follows the log in a directory, whose rows lie in
// a file, and says in lines how far it has come. Arguments: the door's data directory, the log, the file, and after how
// many pages of the rows no more come (−1: all come).

import { createReadStream } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { Loopback } from '../../test/support/loopback-rpc.ts';
import { namedLog } from '../../test/support/named-log.ts';
import { LevelLog } from '../beacon/level.ts';
import { lineageOf } from '../beacon/lineage.ts';
import { RemoteLog } from '../beacon/remote.ts';
import { serveBeacon } from '../beacon/serve.ts';
import { DoorView } from './door-view.ts';

const pageBytes = 256 * 1024;

const [dataDir = '', logPath = '', pagesPath = '', haltAfter = '-1'] = process.argv.slice(2);
const log = await LevelLog.open(logPath);
const rpc = new Loopback();
serveBeacon(rpc, namedLog(log, lineageOf('11'.repeat(16))), { snapshot });
const copy = await DoorView.open(dataDir);
const remote = new RemoteLog(rpc, () => 'steward');
const ended = new AbortController();
const following = copy.view.follow(copy.over(remote, ended.signal), ended.signal);
await copy.view.waitFor((await log.head()).revision, AbortSignal.timeout(120_000));
say(copy.view.isCopied ? 'copied' : 'folded');
ended.abort();
await remote[Symbol.asyncDispose]();
await following;
await copy[Symbol.asyncDispose]();
await log[Symbol.asyncDispose]();

async function* snapshot(): AsyncGenerator<Uint8Array> {
  let given = 0;
  for await (const page of createReadStream(pagesPath, { highWaterMark: pageBytes })) {
    if (given === Number(haltAfter)) {
      say(`${given} pages`);
      await delay(120_000); // until it is killed
    }
    yield page;
    given++;
  }
  say('all pages');
}

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}
