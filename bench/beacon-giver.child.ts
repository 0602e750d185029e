// A process that serves a Beacon log and the rows of its view to one other peer, as a steward does to a door, and says
// what processor time it has used: `node beacon-giver.child.ts LOG VIEW PORT PORT-OF-THE-OTHER`.

import { LevelLog } from '../src/beacon/level.ts';
import { serveBeacon } from '../src/beacon/serve.ts';
import { BeaconView } from '../src/beacon/view.ts';
import { LevelKv } from '../src/beacon/view-level.ts';
import { keepPassingMemorySmall } from '../src/local/passing-memory.ts';
import { pairedPeer, usage } from './beacon-pair.ts';

const [logPath = '', viewPath = '', port = '', otherPort = ''] = process.argv.slice(2);
keepPassingMemorySmall();
const log = await LevelLog.open(logPath);
const view = await BeaconView.open(await LevelKv.open(viewPath));
const { peer } = await pairedPeer(0, [Number(port), Number(otherPort)]);
serveBeacon(peer.rpc, log, { snapshot: () => view.snapshot() });
process.on('message', () => process.send?.(usage()));
for await (const _row of view.rows()) break; // like one that has been up for a while, it has looked at all its tables
process.send?.(usage());
