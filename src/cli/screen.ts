// What a command may show: results on standard output, everything else on standard error, and progress
// only where somebody watches.

import { stripVTControlCharacters, styleText } from 'node:util';

/** A terminal, a pipe, or a file. */
export type Output = NodeJS.WritableStream & { readonly isTTY?: boolean };

export interface Streams {
  readonly stdin: NodeJS.ReadableStream;
  readonly stdout: Output;
  readonly stderr: Output;
}

type Style = 'red' | 'yellow' | 'green' | 'dim' | 'bold';
export type Paint = (style: Style, text: string) => string;

export class Screen {
  readonly streams: Streams;
  readonly #quiet: boolean;

  /** @param options.json no colours, no progress, no chatter: results only */
  constructor(streams: Streams, options: { json: boolean }) {
    this.streams = streams;
    this.#quiet = options.json;
  }

  /** A line of the result. */
  line(text: string): void {
    this.streams.stdout.write(`${text}\n`);
  }

  /** One JSON value on one line. */
  value(value: unknown): void {
    this.line(JSON.stringify(value));
  }

  /** A remark for people: standard error, silent with --json. */
  say(text: string): void {
    if (!this.#quiet) this.streams.stderr.write(`${text}\n`);
  }

  /** Colour where standard output is a terminal that wants it. */
  readonly paint: Paint = (style, text) =>
    this.#quiet ? text : styleText(style, text, { stream: this.streams.stdout });

  /** A progress line that redraws itself, or nothing where standard error is no terminal. */
  progress(label: string, totalBytes: number | undefined): Progress {
    return new Progress(
      this.streams.stderr,
      !this.#quiet && this.streams.stderr.isTTY === true,
      label,
      totalBytes,
    );
  }
}

/** Bytes done, rate and time left, redrawn at most ten times a second. */
export class Progress implements Disposable {
  readonly #out: Output;
  readonly #shown: boolean;
  readonly #label: string;
  #total: number | undefined;
  #done = 0;
  readonly #startedMs = performance.now();
  #drawnMs = Number.NEGATIVE_INFINITY;

  constructor(out: Output, shown: boolean, label: string, totalBytes: number | undefined) {
    this.#out = out;
    this.#shown = shown;
    this.#label = label;
    this.#total = totalBytes;
  }

  /** Says that `bytes` more are done; `label` may tell what is worked on now. */
  add(bytes: number, label = this.#label): void {
    this.#done += bytes;
    const now = performance.now();
    if (!this.#shown || now - this.#drawnMs < 100) return;
    this.#drawnMs = now;
    this.#out.write(
      `\r\u001B[2K${progressLine(label, this.#done, this.#total, (now - this.#startedMs) / 1000)}`,
    );
  }

  set totalBytes(bytes: number) {
    this.#total = bytes;
  }

  [Symbol.dispose](): void {
    if (this.#shown && this.#drawnMs > 0) this.#out.write('\r\u001B[2K');
  }
}

/** `docs  12.0 MiB of 64.0 MiB · 31.2 MiB/s · 2 s left` */
export function progressLine(
  label: string,
  done: number,
  total: number | undefined,
  seconds: number,
): string {
  const rate = seconds > 0 ? done / seconds : 0;
  const parts = [total === undefined ? bytesText(done) : `${bytesText(done)} of ${bytesText(total)}`];
  if (rate > 0) parts.push(`${bytesText(rate)}/s`);
  if (rate > 0 && total !== undefined && total > done)
    parts.push(`${durationText((total - done) / rate)} left`);
  return `${label}  ${parts.join(' · ')}`;
}

/** Bytes for people: binary units, three figures. */
export function bytesText(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit === 0 ? value.toFixed(0) : value.toFixed(value >= 100 ? 0 : 1)} ${units[unit]}`;
}

/** Seconds for people: `0.4 s`, `12 s`, `3 min 20 s`, `2 h 5 min`. */
export function durationText(seconds: number): string {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

/** Columns padded to their widest cell; numbers right-aligned where `right` names the column. */
export function table(rows: readonly (readonly string[])[], right: readonly number[] = []): string[] {
  const widths: number[] = [];
  for (const row of rows)
    for (const [index, cell] of row.entries())
      widths[index] = Math.max(widths[index] ?? 0, visibleWidth(cell));
  return rows.map((row) =>
    row
      .map((cell, index) => {
        const fill = ' '.repeat((widths[index] ?? 0) - visibleWidth(cell));
        return right.includes(index) ? fill + cell : cell + fill;
      })
      .join('  ')
      .trimEnd(),
  );
}

function visibleWidth(text: string): number {
  return stripVTControlCharacters(text).length;
}
