// The first half of the WebAssembly module that walks blocks: a block's checksum, and how it decompresses (snappy.ts).

import { crcFunction } from '../core/crc32c.ts';
import {
  answer,
  call,
  type Code,
  get,
  i32,
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
import { place, unopened } from './level-walk-place.ts';
import { blockBytesMax } from './snapshot.ts';

/** Places of functions that are called, in a module that begins with `openFunctions`. */
const [crcAt, unsnapAt] = [0, 1];

export function openFunctions(): readonly WasmFunction[] {
  return [crcFunction(), unsnapFunction(), openFunction()];
}

/** `open(sizeBytes)`. */
function openFunction(): WasmFunction {
  const [size, value] = [0, 1];
  const end = op('add', get(size), i32(place.block));
  const masked = op('add', op('rotateLeft', get(value), i32(17)), i32(0xa282ead8));
  const body = [
    set(value, op('xor', call(crcAt, i32(place.block), op('add', end, i32(1)), i32(-1)), i32(-1))),
    when(op('differs', masked, load('i32', end, 1)), answer(i32(unopened.checksum))),
    when(of('isZero', load('u8', end)), [
      move(i32(place.plain), i32(place.block), get(size)),
      answer(get(size)),
    ]),
    when(op('differs', load('u8', end), i32(1)), answer(i32(unopened.compression))),
    call(unsnapAt, i32(place.block), end, i32(place.plain)),
  ];
  return { name: 'open', params: ['i32'], result: 'i32', locals: ['i32'], body };
}

/** `unsnap(from, end, out)`: how long it is, or `unopened.snappy`. See snappy.ts. */
function unsnapFunction(): WasmFunction {
  const [at, end, out, to, outEnd, tag, count, back, next, after, shift] = [
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10,
  ] as const;
  const refuse = answer(i32(unopened.snappy));
  const refuseIf = (condition: Code): Code => when(condition, refuse);
  const step = (local: number, by: Code): Code => set(local, op('add', get(local), by));
  const sixteens = (source: number): Code =>
    untilNot(
      [store128(get(to), load128(get(source))), step(to, i32(16)), step(source, i32(16))],
      op('below', get(to), get(next)),
    );
  const size: Code = [
    // Seven bits a byte, the lowest first. A fifth one that says something says more than any block has.
    untilNot(
      [
        refuseIf(op('atLeast', get(at), get(end))),
        refuseIf(op('above', get(shift), i32(28))),
        set(tag, load('u8', get(at))),
        when(op('equal', get(shift), i32(28)), refuseIf(op('and', get(tag), i32(0x7f)))),
        step(at, i32(1)),
        set(count, op('or', get(count), op('shiftLeft', op('and', get(tag), i32(0x7f)), get(shift)))),
        step(shift, i32(7)),
      ],
      op('atLeast', get(tag), i32(0x80)),
    ),
    refuseIf(op('above', get(count), i32(blockBytesMax))),
    set(to, get(out)),
    set(outEnd, op('add', get(out), get(count))),
  ];
  const asTheyAre: Code = [
    // Where the number does not fit into the tag, it stands behind it.
    set(count, op('shiftRight', get(tag), i32(2))),
    when(op('atLeast', get(count), i32(60)), [
      set(back, op('sub', get(count), i32(59))),
      set(
        count,
        op(
          'and',
          load('i32', get(at)),
          op('shiftRight', i32(-1), op('sub', i32(32), op('shiftLeft', get(back), i32(3)))),
        ),
      ),
      step(at, get(back)),
      refuseIf(op('above', get(count), i32(blockBytesMax))),
    ]),
    step(count, i32(1)),
    set(next, op('add', get(to), get(count))),
    set(after, op('add', get(at), get(count))),
    refuseIf(op('or', op('above', get(next), get(outEnd)), op('above', get(after), get(end)))),
    sixteens(at),
    set(at, get(after)),
  ];
  const copy: Code = [
    set(count, op('add', op('shiftRight', get(tag), i32(2)), i32(1))),
    when(
      op('equal', op('and', get(tag), i32(3)), i32(1)),
      [
        set(count, op('add', op('and', op('shiftRight', get(tag), i32(2)), i32(7)), i32(4))),
        set(back, op('or', op('shiftLeft', op('shiftRight', get(tag), i32(5)), i32(8)), load('u8', get(at)))),
        step(at, i32(1)),
      ],
      when(
        op('equal', op('and', get(tag), i32(3)), i32(2)),
        [set(back, load('u16', get(at))), step(at, i32(2))],
        [set(back, load('i32', get(at))), step(at, i32(4))],
      ),
    ),
    set(next, op('add', get(to), get(count))),
    refuseIf(op('above', get(next), get(outEnd))),
    refuseIf(op('or', of('isZero', get(back)), op('above', get(back), op('sub', get(to), get(out))))),
    set(after, op('sub', get(to), get(back))),
    when(
      op('atLeast', get(back), i32(16)),
      sixteens(after),
      when(
        op('atLeast', get(back), i32(8)),
        untilNot(
          [store('i64', get(to), load('i64', get(after))), step(to, i32(8)), step(after, i32(8))],
          op('below', get(to), get(next)),
        ),
        untilNot(
          [store('u8', get(to), load('u8', get(after))), step(to, i32(1)), step(after, i32(1))],
          op('below', get(to), get(next)),
        ),
      ),
    ),
  ];
  const body: Code = [
    size,
    whilst(op('below', get(at), get(end)), [
      set(tag, load('u8', get(at))),
      step(at, i32(1)),
      when(of('isZero', op('and', get(tag), i32(3))), asTheyAre, copy),
      set(to, get(next)),
    ]),
    refuseIf(op('or', op('differs', get(at), get(end)), op('differs', get(to), get(outEnd)))),
    op('sub', get(outEnd), get(out)),
  ];
  const locals = Array.from({ length: 8 }, () => 'i32' as const);
  return { name: 'unsnap', params: ['i32', 'i32', 'i32'], result: 'i32', locals, body };
}
