// The temporal segment of a UCXL address: which version of an object is meant.
//
//   *^  latest      *~  any (in a read of one: the first)      *~N  version N
//   ~~N N versions back                                        ^^N  N versions forward
//   lenient only: #  latest · ~~ and ^^ alone count 1 · an ISO 8601 instant: the version current then

export type TemporalSegment =
  | { readonly type: 'latest' }
  | { readonly type: 'any' }
  | { readonly type: 'specific'; readonly count: number }
  | { readonly type: 'relative'; readonly direction: 'backward' | 'forward'; readonly count: number }
  /** `instant` in milliseconds since 1970; finer fractions are cut off. */
  | { readonly type: 'instant'; readonly instant: number };

export type Profile = 'strict' | 'lenient';

/**
 * The temporal segment that `text` spells, or `undefined` when it spells none in this profile.
 * Counts are 1…2⁵³−1 without leading zeros; an instant without a zone is UTC.
 */
export function parseTemporal(text: string, profile: Profile): TemporalSegment | undefined {
  if (text === '*^') return { type: 'latest' };
  if (text === '*~') return { type: 'any' };
  const sign = text.slice(0, 2);
  if (sign === '*~' || sign === '~~' || sign === '^^') return parseCounted(sign, text.slice(2), profile);
  if (profile === 'strict') return undefined;
  if (text === '#') return { type: 'latest' };
  const instant = parseInstant(text);
  return instant === undefined ? undefined : { type: 'instant', instant };
}

/** The strict spelling; an instant as RFC 3339 in UTC with milliseconds. */
export function formatTemporal(temporal: TemporalSegment): string {
  switch (temporal.type) {
    case 'latest':
      return '*^';
    case 'any':
      return '*~';
    case 'specific':
      return `*~${temporal.count}`;
    case 'relative':
      return `${temporal.direction === 'backward' ? '~~' : '^^'}${temporal.count}`;
    default:
      return new Date(temporal.instant).toISOString();
  }
}

/** One version and when it was written, in milliseconds since 1970. */
export interface VersionMark {
  readonly version: number;
  readonly at: number;
}

/** What is known of an address's history. */
export interface VersionSpan {
  readonly first: VersionMark;
  readonly latest: VersionMark;
  /** For an instant between `first` and `latest`: the last version written at or before it. The caller's time index knows it. */
  readonly current?: VersionMark;
}

/**
 * The number of the version meant, or `undefined` when the history has no such version.
 * `from` is where a relative step starts: the version the reader stands on; default the latest.
 */
export function resolveTemporal(
  temporal: TemporalSegment,
  span: VersionSpan,
  from: number = span.latest.version,
): number | undefined {
  switch (temporal.type) {
    case 'latest':
      return span.latest.version;
    case 'any':
      return span.first.version;
    case 'specific':
      return within(span, temporal.count);
    case 'relative':
      return within(span, temporal.direction === 'backward' ? from - temporal.count : from + temporal.count);
    default:
      return versionAt(temporal.instant, span);
  }
}

function within(span: VersionSpan, version: number): number | undefined {
  return version >= span.first.version && version <= span.latest.version ? version : undefined;
}

function versionAt(instant: number, span: VersionSpan): number | undefined {
  if (instant >= span.latest.at) return span.latest.version;
  if (span.current !== undefined && span.current.at <= instant) return span.current.version;
  return instant >= span.first.at ? span.first.version : undefined;
}

function parseCounted(
  sign: '*~' | '~~' | '^^',
  digits: string,
  profile: Profile,
): TemporalSegment | undefined {
  const count = digits === '' && profile === 'lenient' ? 1 : parseCount(digits);
  if (count === undefined) return undefined;
  if (sign === '*~') return { type: 'specific', count };
  return { type: 'relative', direction: sign === '~~' ? 'backward' : 'forward', count };
}

function parseCount(digits: string): number | undefined {
  if (!/^[1-9][0-9]{0,15}$/.test(digits)) return undefined;
  const count = Number(digits);
  return Number.isSafeInteger(count) ? count : undefined;
}

const instantPattern =
  /^(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?(?:(Z)|([+-])(\d\d):?(\d\d))?$/;

/**
 * Milliseconds since 1970 of an ISO 8601 instant in extended form, or `undefined`. A date alone is not taken: with
 * the temporal segment left out, `2025-08-07/report.md` is a path.
 */
export function parseInstant(text: string): number | undefined {
  const found = instantPattern.exec(text);
  if (found === null) return undefined;
  const [year, month, day, hour, minute, second] = found.slice(1, 7).map((part) => Number(part ?? 0));
  const millisecond = Number((found[7] ?? '').padEnd(3, '0').slice(0, 3));
  const zoneHour = Number(found[10] ?? 0);
  const zoneMinute = Number(found[11] ?? 0);
  if (zoneHour > 23 || zoneMinute > 59) return undefined;
  const offset = (found[9] === '-' ? -1 : 1) * (zoneHour * 60 + zoneMinute) * 60_000;
  return utc(year, month, day, hour, minute, second, millisecond, offset);
}

/** `undefined` for a day or hour that no calendar has: Date would roll 30 February over to March. */
function utc(
  year = 0,
  month = 0,
  day = 0,
  hour = 0,
  minute = 0,
  second = 0,
  millisecond = 0,
  offsetMs = 0,
): number | undefined {
  const date = new Date(0);
  date.setUTCFullYear(year, month - 1, day);
  date.setUTCHours(hour, minute, second, millisecond);
  const same =
    date.getUTCFullYear() === year &&
    date.getUTCMonth() === month - 1 &&
    date.getUTCDate() === day &&
    date.getUTCHours() === hour &&
    date.getUTCMinutes() === minute &&
    date.getUTCSeconds() === second;
  if (!same) return undefined;
  const instant = date.getTime() - offsetMs;
  // Outside years 0000…9999 the instant would have no RFC 3339 spelling to be formatted to.
  return instant >= instantMin && instant <= instantMax ? instant : undefined;
}

const instantMin = -62_167_219_200_000;
const instantMax = 253_402_300_799_999;
