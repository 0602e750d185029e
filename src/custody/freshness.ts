// What beat it is, for somebody who decides by beats and may not believe his own clock alone.
//
// A signed beat is believed for the moment it was heard in. From then on the own clock counts the beats, for a
// bounded while: after that nobody knows what is past its time and what is not, so everything that depends on
// time is refused until the pulse is heard again. Beats never go back.

/** The last signed beat, and when it was heard. */
export interface HeardBeat {
  readonly beat: number;
  /** Reading of a monotonic clock, ms. */
  readonly atMs: number;
}

export interface Tempo {
  /** Length of a beat, ms. */
  readonly beatMs: number;
  readonly beatsPerBar: number;
  /** How long the own clock counts on, bars. Default 2. */
  readonly trustBars?: number;
}

export interface BeatNow {
  readonly beat: number;
  readonly bar: number;
  /** Beats since the last signed one. */
  readonly silentBeats: number;
  /** Undefined while time is known, else why nothing that depends on it is done. */
  readonly lost: string | undefined;
}

/** The beat of `nowMs`, a reading of the same clock. `heard` undefined: none yet. */
export function beatAt(heard: HeardBeat | undefined, nowMs: number, tempo: Tempo): BeatNow {
  const { beatMs, beatsPerBar, trustBars = 2 } = tempo;
  if (heard === undefined)
    return { beat: 0, bar: 0, silentBeats: 0, lost: 'no beat was heard since the start' };
  const silentBeats = Math.max(0, Math.floor((nowMs - heard.atMs) / beatMs));
  const trusted = trustBars * beatsPerBar;
  const beat = heard.beat + Math.min(silentBeats, trusted);
  const bar = Math.floor(beat / beatsPerBar);
  if (silentBeats <= trusted) return { beat, bar, silentBeats, lost: undefined };
  return {
    beat,
    bar,
    silentBeats,
    lost: `no beat was heard for ${silentBeats} beats, ${trusted} are trusted`,
  };
}

/** The later of two beats heard. One that goes back is no news: it may be an old message. */
export function laterBeat(known: HeardBeat | undefined, heard: HeardBeat): HeardBeat {
  return known === undefined || heard.beat > known.beat ? heard : known;
}

/** Why a message dated `beat` and good until `exp` is not for now, or undefined. `windowBeats` either way. */
export function datedProblem(
  { beat, exp }: { readonly beat: number; readonly exp: number },
  now: number,
  windowBeats: number,
): string | undefined {
  if (exp < beat || exp - beat > windowBeats)
    return `good for ${exp - beat} beats: 0 to ${windowBeats} expected`;
  if (beat > now + windowBeats) return `dated beat ${beat}, now is ${now}`;
  if (exp < now) return `ended with beat ${exp}, now is ${now}`;
  return undefined;
}
