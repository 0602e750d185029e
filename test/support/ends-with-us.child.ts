// Says that the process with the first id is over, and that the second is to end with this one; then waits to be killed.

import { EventEmitter } from 'node:events';
import { endsWithUs } from './ends-with-us.ts';

const [over, bound] = process.argv
  .slice(2)
  .map((pid) => Object.assign(new EventEmitter(), { pid: Number(pid) }));
if (over === undefined || bound === undefined) throw new Error('two process ids');
endsWithUs(over);
endsWithUs(bound);
over.emit('exit');
console.log('ready');
setInterval(() => undefined, 1000);
