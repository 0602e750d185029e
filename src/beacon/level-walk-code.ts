// The WebAssembly module that walks blocks of another machine's tables (level-walk.ts).
//
// All of it is said once more, slowly, in the test that compares. Whatever a block says, nothing outside the module's own
// memory is read or written.

import {
  answer,
  call,
  type Code,
  get,
  i32,
  i64,
  load,
  load128,
  move,
  of,
  op,
  set,
  store,
  store128,
  untilNot,
  type WasmFunction,
  when,
  whilst,
} from '../core/wasm.ts';
import { openFunctions } from './level-open-code.ts';
import {
  filterProbes,
  keyBytesMax,
  keysBytesMax,
  place,
  refusals,
  said,
  tailBytes,
} from './level-walk-place.ts';

/** Its place in the module, behind `openFunctions`. */
const longAt = 3;

export function walkFunctions(): readonly WasmFunction[] {
  return [...openFunctions(), longFunction(), walkFunction(), filterFunction()];
}

/** No number in a block is as large. */
const beyondAll = 0x7fff_ffffn;

/** `long(at)`: the number of more than one byte there, and from bit 40 on how many bytes it has. */
function longFunction(): WasmFunction {
  const [at, count, byte, value] = [0, 1, 2, 3];
  const bits = op('and64', of('extend', get(byte)), i64(0x7fn));
  const body: Code = [
    untilNot(
      [
        set(byte, load('u8', op('add', get(at), get(count)))),
        set(
          value,
          op('or64', get(value), op('shiftLeft64', bits, of('extend', op('mul', get(count), i32(7))))),
        ),
        set(count, op('add', get(count), i32(1))),
      ],
      op('and', op('atLeast', get(byte), i32(0x80)), op('below', get(count), i32(5))),
    ),
    when(
      op('or', op('atLeast', get(byte), i32(0x80)), op('above64', get(value), i64(beyondAll))),
      set(value, i64(beyondAll)),
    ),
    op('or64', get(value), op('shiftLeft64', of('extend', get(count)), i64(40n))),
  ];
  return { name: 'long', params: ['i32'], result: 'i64', locals: ['i32', 'i32', 'i64'], body };
}

const local = {
  size: 0,
  count: 1,
  /** Where the rows end, and where it is told behind them where a search may begin. */
  end: 2,
  restart: 3,
  restartsEnd: 4,
  at: 5,
  rowAt: 6,
  rows: 7,
  keysBytes: 8,
  shared: 9,
  own: 10,
  value: 11,
  /** The key of this row, of the one before, and of the last one that is kept. */
  from: 12,
  to: 13,
  before: 14,
  beforeEnd: 15,
  kept: 16,
  keptEnd: 17,
  sharable: 18,
  a: 19,
  b: 20,
  stop: 21,
  hash: 22,
  tail: 23,
  sequence: 24,
  sequenceMax: 25,
  long: 26,
} as const;

/** `walk(sizeBytes, count)`. */
function walkFunction(): WasmFunction {
  const body: Code = [
    begin(),
    whilst(below('at', 'end'), [
      set(local.rowAt, get(local.at)),
      number('shared'),
      number('own'),
      number('value'),
      checkEnd(),
      checkRestart(),
      writeKey(),
      checkMeaning(),
      keep(),
      when(of('isZero', get(local.rows)), keepFirst()),
      hash(),
      set(local.rows, plus('rows', 1)),
      set(local.at, op('add', op('add', get(local.at), get(local.own)), get(local.value))),
    ]),
    refuseWhen(
      'restarts',
      op('or', of('isZero', get(local.rows)), op('differs', get(local.restart), get(local.restartsEnd))),
    ),
    say(),
    i32(0),
  ];
  const names = Object.entries(local).slice(2);
  const locals = names.map(([, at]) => (at >= local.tail ? ('i64' as const) : ('i32' as const)));
  return { name: 'walk', params: ['i32', 'i32'], result: 'i32', locals, body };
}

type Local = keyof typeof local;

function plus(name: Local, count: number): Code {
  return op('add', get(local[name]), i32(count));
}

function below(a: Local, b: Local): Code {
  return op('below', get(local[a]), get(local[b]));
}

function refuseWhen(why: keyof typeof refusals, condition: Code): Code {
  return when(condition, answer(i32(refusals[why][0])));
}

/** Number `index` of the list at `list`. */
function entryAt(list: number, index: Code, bytes: 4 | 8): Code {
  return op('add', i32(list), op('shiftLeft', index, i32(bytes === 4 ? 2 : 3)));
}

/** Behind the rows: where a search may begin, each 4 bytes, and how many those are. */
function begin(): Code {
  const { size, end, restart, restartsEnd, at, kept, keptEnd, count, a } = local;
  const counted = load('i32', get(restartsEnd));
  return [
    refuseWhen('rows', op('below', get(size), i32(4))),
    set(restartsEnd, op('add', get(size), i32(place.plain - 4))),
    set(a, counted),
    refuseWhen('rows', of('isZero', get(a))),
    refuseWhen('rows', op('atLeast', get(a), op('shiftRight', get(size), i32(2)))),
    set(end, op('sub', get(restartsEnd), op('shiftLeft', get(a), i32(2)))),
    set(restart, get(end)),
    refuseWhen('rows', op('atMost', get(end), i32(place.plain))),
    set(at, i32(place.plain)),
    set(kept, i32(place.keys)),
    set(keptEnd, i32(place.keys)),
    when(get(count), set(keptEnd, op('add', i32(place.keys), load('i32', i32(place.ends))))),
    set(local.before, get(kept)),
    set(local.beforeEnd, get(kept)), // the first row of a block shares nothing
  ];
}

function number(name: 'shared' | 'own' | 'value'): Code {
  const { at, long } = local;
  return [
    set(local[name], load('u8', get(at))),
    set(at, plus('at', 1)),
    when(op('atLeast', get(local[name]), i32(0x80)), [
      set(long, call(longAt, plus('at', -1))),
      set(local[name], of('wrap', op('and64', get(long), i64(beyondAll)))),
      set(at, op('add', plus('at', -1), of('wrap', op('shiftRight64', get(long), i64(40n))))),
    ]),
  ];
}

/** Each part by itself first: their sum must not overflow. */
function checkEnd(): Code {
  const { own, value, at, size, end } = local;
  const last = op('add', op('add', get(at), get(own)), get(value));
  return [
    refuseWhen('end', op('or', op('above', get(own), get(size)), op('above', get(value), get(size)))),
    refuseWhen('end', op('above', last, get(end))),
  ];
}

function checkRestart(): Code {
  const { restart, rowAt, shared } = local;
  const isNamed = op('equal', load('i32', get(restart)), op('sub', get(rowAt), i32(place.plain)));
  return when(op('and', below('restart', 'restartsEnd'), isNamed), [
    refuseWhen('restart', get(shared)),
    set(restart, plus('restart', 4)),
  ]);
}

/** The key of the row, written out behind all before. */
function writeKey(): Code {
  const { shared, own, sharable, beforeEnd, before, a, b, keysBytes, from, to, at, keptEnd } = local;
  const keyBytes = op('add', get(shared), get(own));
  return [
    set(sharable, op('sub', get(beforeEnd), get(before))),
    refuseWhen('shared', op('above', get(shared), get(sharable))),
    refuseWhen('key', op('atMost', keyBytes, i32(tailBytes))),
    refuseWhen('long', op('above', keyBytes, i32(keyBytesMax + tailBytes))),
    // From here on: so many bytes of it are those of the key before.
    when(
      op('above', get(shared), plus('sharable', -tailBytes)),
      set(sharable, plus('sharable', -tailBytes)),
      set(sharable, get(shared)),
    ),
    set(keysBytes, op('add', get(keysBytes), keyBytes)),
    refuseWhen('keys', op('above', get(keysBytes), i32(keysBytesMax))),
    set(from, get(keptEnd)),
    set(a, get(before)),
    set(b, get(from)),
    set(to, op('add', get(from), get(shared))),
    sixteens(),
    set(a, get(at)),
    set(b, get(to)),
    set(to, op('add', get(to), get(own))),
    sixteens(),
  ];
}

/** Moves from `a` to `b` until that is `to`. */
function sixteens(): Code {
  const { a, b } = local;
  return whilst(below('b', 'to'), [
    store128(get(b), load128(get(a))),
    set(a, plus('a', 16)),
    set(b, plus('b', 16)),
  ]);
}

function checkMeaning(): Code {
  const { tail, sequence, sequenceMax } = local;
  const meant = op('and64', get(tail), i64(0xffn));
  return [
    set(tail, load('i64', plus('to', -tailBytes))),
    refuseWhen('meaning', op('above64', meant, i64(1n))),
    refuseWhen('meaning', op('differs64', op('shiftRight64', get(tail), i64(56n)), i64(0n))),
    set(sequence, op('shiftRight64', get(tail), i64(8n))),
    when(op('above64', get(sequence), get(sequenceMax)), set(sequenceMax, get(sequence))),
  ];
}

/** The key must be behind the last one, or of an older row of the same: of that only the number counts. */
function keep(): Code {
  const { count, a, b, kept, keptEnd, from, to, sharable } = local;
  const [keptBytes, ownBytes] = [op('sub', get(keptEnd), get(kept)), op('sub', get(to), get(from))];
  const [keptHere, ownHere] = [load('u8', get(a)), load('u8', get(b))];
  const compared: Code = [
    set(a, op('add', get(kept), get(sharable))),
    set(b, op('add', get(from), get(sharable))),
    compareOn(keptBytes, ownBytes),
    when(
      below('a', 'stop'),
      [refuseWhen('order', op('above', keptHere, ownHere)), add()],
      // One is the beginning of the other.
      when(op('equal', keptBytes, ownBytes), addOlder(), [
        refuseWhen('order', op('above', keptBytes, ownBytes)),
        add(),
      ]),
    ),
  ];
  return when(get(count), compared, add());
}

/** Until `a` and `b` differ, or the shorter key ends at `stop`. */
function compareOn(keptBytes: Code, ownBytes: Code): Code {
  const { a, b, stop, kept } = local;
  const isSame = op('equal64', load('i64', get(a)), load('i64', get(b)));
  return [
    set(stop, op('add', get(kept), keptBytes)),
    when(op('below', ownBytes, keptBytes), set(stop, op('add', get(kept), ownBytes))),
    set(stop, plus('stop', -tailBytes)),
    whilst(op('and', op('atMost', plus('a', 8), get(stop)), isSame), [
      set(a, plus('a', 8)),
      set(b, plus('b', 8)),
    ]),
    whilst(op('and', below('a', 'stop'), op('equal', load('u8', get(a)), load('u8', get(b)))), [
      set(a, plus('a', 1)),
      set(b, plus('b', 1)),
    ]),
  ];
}

function add(): Code {
  const { count, kept, keptEnd, from, to, sequence, before, beforeEnd } = local;
  return [
    store('i32', entryAt(place.ends, get(count), 4), op('sub', get(to), i32(place.keys))),
    store('f64', entryAt(place.newest, get(count), 8), of('toFloat', get(sequence))),
    store('f64', entryAt(place.oldest, get(count), 8), of('toFloat', get(sequence))),
    set(count, plus('count', 1)),
    set(kept, get(from)),
    set(keptEnd, get(to)),
    set(before, get(from)),
    set(beforeEnd, get(to)),
  ];
}

/** The next row may share the tail of this one, so that takes the place of the kept key's. */
function addOlder(): Code {
  const { kept, keptEnd, sequence, before, beforeEnd, tail } = local;
  const oldest = entryAt(place.oldest, plus('count', -1), 8);
  const isOlder = op('belowFloat', of('toFloat', get(sequence)), load('f64', oldest));
  return [
    refuseWhen('order', of('isZero', isOlder)),
    store('f64', oldest, of('toFloat', get(sequence))),
    store('i64', plus('keptEnd', -tailBytes), get(tail)),
    set(before, get(kept)),
    set(beforeEnd, get(keptEnd)),
  ];
}

/** The numbers of later rows may take the place of the first one's. */
function keepFirst(): Code {
  const { before, beforeEnd } = local;
  const firstBytes = op('sub', get(beforeEnd), get(before));
  return [
    store('i32', i32(place.said), firstBytes, said.firstBytes),
    move(i32(place.first), get(before), firstBytes),
  ];
}

/** LevelDB's hash of the key (level-filter.ts). */
function hash(): Code {
  const { hash: value, a, stop, before, rows } = local;
  const factor = i32(0xc6a4a793);
  const rest = op('sub', get(stop), get(a));
  const mixed = (shift: number): Code => [
    set(value, op('mul', get(value), factor)),
    set(value, op('xor', get(value), op('shiftRight', get(value), i32(shift)))),
  ];
  return [
    set(stop, plus('beforeEnd', -tailBytes)),
    set(a, get(before)),
    set(value, op('xor', i32(0xbc9f1d34), op('mul', rest, factor))),
    whilst(op('atMost', plus('a', 4), get(stop)), [
      set(value, op('add', get(value), load('i32', get(a)))),
      mixed(16),
      set(a, plus('a', 4)),
    ]),
    when(below('a', 'stop'), [
      set(
        value,
        op(
          'add',
          get(value),
          op(
            'and',
            load('i32', get(a)),
            op('shiftRight', i32(-1), op('sub', i32(32), op('shiftLeft', rest, i32(3)))),
          ),
        ),
      ),
      mixed(24),
    ]),
    store('i32', entryAt(place.hashes, get(rows), 4), get(value)),
  ];
}

function say(): Code {
  const { count, rows, before, beforeEnd, sequenceMax } = local;
  return [
    store('i32', i32(place.said), get(count), said.count),
    store('i32', i32(place.said), get(rows), said.rows),
    store('i32', i32(place.said), get(before), said.lastFrom),
    store('i32', i32(place.said), get(beforeEnd), said.lastTo),
    store('f64', i32(place.said), of('toFloat', get(sequenceMax)), said.sequence),
  ];
}

/** `filter(count, bits)`. See level-filter.ts. */
function filterFunction(): WasmFunction {
  const [count, bits, at, end, hash, step, probe, bit] = [0, 1, 2, 3, 4, 5, 6, 7] as const;
  const cell = op('add', i32(place.filter), op('shiftRight', get(bit), i32(3)));
  const mask = op('shiftLeft', i32(1), op('and', get(bit), i32(7)));
  const body: Code = [
    set(at, i32(place.filterHashes)),
    set(end, op('add', get(at), op('shiftLeft', get(count), i32(2)))),
    whilst(op('below', get(at), get(end)), [
      set(hash, load('i32', get(at))),
      set(step, op('rotateLeft', get(hash), i32(15))),
      set(probe, i32(filterProbes)),
      untilNot(
        [
          set(bit, op('rest', get(hash), get(bits))),
          store('u8', cell, op('or', load('u8', cell), mask)),
          set(hash, op('add', get(hash), get(step))),
          set(probe, op('sub', get(probe), i32(1))),
        ],
        get(probe),
      ),
      set(at, op('add', get(at), i32(4))),
    ]),
  ];
  return {
    name: 'filter',
    params: ['i32', 'i32'],
    locals: ['i32', 'i32', 'i32', 'i32', 'i32', 'i32'],
    body,
  };
}
