// Looking into values of unknown shape.

export function isMap(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** The field `name` of a map; undefined when `value` is none or has none. */
export function fieldOf(value: unknown, name: string): unknown {
  return isMap(value) ? value[name] : undefined;
}
