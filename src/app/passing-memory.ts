// Keeps what passes through a process from waiting in it.
//
// Blocks are buffers outside V8's heap: to V8 each is a small object, so gigabytes may pass before it sees a
// reason to collect, and their memory waits for that. This watches the bytes in buffers and asks for a
// collection when they have grown by more than traffic under way can explain.

import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

const mebibyte = 1_048_576;
const lookMs = 25;
/** Growth since the last look back that a collection of the young generation is asked for. */
const youngBytes = 8 * mebibyte;
/** What is left after that, above the least ever seen, that a whole collection is asked for. */
const oldBytes = 24 * mebibyte;

type Collect = (options: { readonly type: 'minor' | 'major' }) => void;

/** Watches until disposed. Costs one look at a counter every 25 ms. */
export function keepPassingMemorySmall(): Disposable {
  setFlagsFromString('--expose-gc');
  const found: unknown = runInNewContext('gc');
  const collect: Collect = typeof found === 'function' ? (options) => void found(options) : () => undefined;
  let least = Number.POSITIVE_INFINITY;
  let last = bufferBytes();
  const timer = setInterval(() => {
    const now = bufferBytes();
    least = Math.min(least, now);
    if (now - last > youngBytes) {
      collect({ type: 'minor' });
      last = bufferBytes();
      if (last - least > oldBytes) {
        collect({ type: 'major' });
        last = bufferBytes();
      }
    } else if (now < last) last = now;
  }, lookMs).unref();
  return { [Symbol.dispose]: () => clearInterval(timer) };
}

function bufferBytes(): number {
  return process.memoryUsage().arrayBuffers;
}
