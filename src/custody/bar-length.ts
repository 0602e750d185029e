// How long a bar is, in beats, as its downbeats show it to whoever only hears beats.

/** Used until two downbeats have shown it. */
export const beatsPerBarAssumed = 60;

export class BarLength {
  #beats = beatsPerBarAssumed;
  #downbeat: number | undefined;

  /** As last heard. */
  get beats(): number {
    return this.#beats;
  }

  /** A bar begins at `beat`. */
  begin(beat: number): void {
    const length = beat - (this.#downbeat ?? beat);
    // A longer distance has a downbeat in it that was not heard.
    if (length > 0 && length < 2 * this.#beats) this.#beats = length;
    this.#downbeat = beat;
  }
}
