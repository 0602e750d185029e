// Keeps what passes through a process from waiting in it.
//
// Blocks are buffers outside V8's heap: to V8 each is a small object, so gigabytes may pass before it sees a
// reason to collect, and their memory waits for that. This watches the bytes in buffers and asks for a
// collection when they have grown. What a collection leaves is in use; it is measured against that, because
// collecting again what is in use costs a twentieth of a second each time and frees nothing.

import { getHeapStatistics, setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

const mebibyte = 1_048_576;
const lookMs = 25;
/** Growth since the last look back that a collection of the young generation is asked for. */
const youngBytes = 6 * mebibyte;
/** Growth since the last whole collection that another one is asked for. */
const oldBytes = 16 * mebibyte;

type Collect = (options: { readonly type: 'minor' | 'major' }) => void;

/** Watches until disposed. Costs one look at a counter every 25 ms. */
export function keepPassingMemorySmall(): Disposable {
  setFlagsFromString('--expose-gc');
  const found: unknown = runInNewContext('gc');
  const collect: Collect = typeof found === 'function' ? (options) => void found(options) : () => undefined;
  let inUse = bufferBytes();
  let last = inUse;
  const timer = setInterval(() => {
    const now = bufferBytes();
    inUse = Math.min(inUse, now);
    if (now - last > youngBytes) {
      collect({ type: 'minor' });
      last = bufferBytes();
      if (last - inUse > oldBytes) {
        collect({ type: 'major' });
        last = bufferBytes();
        inUse = last;
      }
    } else if (now < last) last = now;
  }, lookMs).unref();
  return { [Symbol.dispose]: () => clearInterval(timer) };
}

/** All that lives outside the heap: `process.memoryUsage` would ask the kernel too, for six times as much. */
function bufferBytes(): number {
  return getHeapStatistics().external_memory;
}
