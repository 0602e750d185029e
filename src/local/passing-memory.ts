// Keeps what passes through a process from waiting in it.
//
// Blocks are buffers outside V8's heap: to V8 each is a small object, so gigabytes may pass before it sees a
// reason to collect, and their memory waits for that. This watches the bytes in buffers and asks for a
// collection when they have grown. What a collection leaves is in use; it is measured against that, because
// collecting again what is in use costs a twentieth of a second each time and frees nothing.

import { getHeapStatistics, setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

const mebibyte = 1_048_576;
/** Between looks while bytes come and go, and while they do not: most processes have nothing to do most of the time. */
const lookMs = 25;
const calmLookMs = 100;
/** A change from one look to the next that is worth looking again soon. */
const movedBytes = mebibyte / 4;
/** Growth since the last look back that a collection of the young generation is asked for. */
const youngBytes = 6 * mebibyte;
/** Growth since the last whole collection that another one is asked for. */
const oldBytes = 16 * mebibyte;

type Collect = (options: { readonly type: 'minor' | 'major' }) => void;

/** Watches until disposed. */
export function keepPassingMemorySmall(): Disposable {
  const found = collector();
  const collect: Collect = typeof found === 'function' ? (options) => void found(options) : () => undefined;
  let inUse = bufferBytes();
  let last = inUse;
  let seen = inUse;
  let timer = setTimeout(look, calmLookMs).unref();
  function look(): void {
    const now = bufferBytes();
    const isMoving = Math.abs(now - seen) > movedBytes;
    seen = now;
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
    timer = setTimeout(look, isMoving ? lookMs : calmLookMs).unref();
  }
  return { [Symbol.dispose]: () => clearTimeout(timer) };
}

/**
 * The flag is set no longer than it takes: compiled code is kept under the flags it was compiled with, so that with
 * another one every module that is loaded afterwards would be compiled anew, and kept in the place of everybody else's.
 */
function collector(): unknown {
  setFlagsFromString('--expose-gc');
  try {
    return runInNewContext('gc');
  } finally {
    setFlagsFromString('--no-expose-gc');
  }
}

/** All that lives outside the heap: `process.memoryUsage` would ask the kernel too, for six times as much. */
function bufferBytes(): number {
  return getHeapStatistics().external_memory;
}
