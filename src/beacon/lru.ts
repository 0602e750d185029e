// A map that forgets what was used longest ago once it weighs too much.

export class Lru<Value> {
  readonly #values = new Map<string, { readonly value: Value; readonly weight: number }>();
  readonly #weightMax: number;
  #weight = 0;

  /** `weightMax`: sum of the weights given to `set`, in whatever unit the caller weighs. */
  constructor(weightMax: number) {
    this.#weightMax = weightMax;
  }

  get(key: string): Value | undefined {
    const found = this.#values.get(key);
    if (found === undefined) return undefined;
    this.#values.delete(key); // a Map keeps insertion order: the most recently used goes to the end
    this.#values.set(key, found);
    return found.value;
  }

  has(key: string): boolean {
    return this.#values.has(key);
  }

  set(key: string, value: Value, weight = 1): void {
    this.delete(key);
    this.#values.set(key, { value, weight });
    this.#weight += weight;
    for (const oldest of this.#values.keys()) {
      if (this.#weight <= this.#weightMax) break;
      this.delete(oldest);
    }
  }

  delete(key: string): void {
    const found = this.#values.get(key);
    if (found === undefined) return;
    this.#weight -= found.weight;
    this.#values.delete(key);
  }

  clear(): void {
    this.#values.clear();
    this.#weight = 0;
  }
}
