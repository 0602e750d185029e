// What Node finds out anew at each start of this program, kept beside it: the compiled code (Node's own compile cache),
// and where each import leads. A process imports some 700 modules, and looking for them takes as long as running them;
// a cluster on one machine starts a dozen processes at once. `npm ci` fills it (scripts/warm-cache.ts), and a process
// that learns more adds it. Whoever may write here may write the program itself. All of it may be deleted at any time.

import { readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { enableCompileCache, flushCompileCache, registerHooks } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

/** What a module below node_modules imports, as `MODULE SPECIFIER` (no MODULE: one of ours), to the module it gets. */
type Resolutions = Record<string, readonly [url: string, format: string]>;

interface Cache {
  /** What NODE_COMPILE_CACHE is to be in processes that this one starts. */
  readonly directory: string;
  /** File of the resolutions for this version of Node and this installation. */
  readonly path: string;
  readonly known: Resolutions;
  hasMore: boolean;
}

const program = join(import.meta.dirname, '../..');
const programUrl = pathToFileURL(join(program, '/')).href;
const packagesUrl = `${programUrl}node_modules/`;

let cache: Cache | undefined;

/**
 * To be called before anything is imported that is not Node's own. Uses the directory in NODE_COMPILE_CACHE, or one
 * below node_modules; does nothing where that cannot be written, or Node's cache is switched off.
 */
export function useProgramCache(): void {
  const directory = process.env['NODE_COMPILE_CACHE'] ?? join(program, 'node_modules/.cache/holdfast');
  const isOn = enableCompileCache(directory).directory !== undefined;
  const installed = installation();
  if (!isOn || installed === undefined) return;
  const path = join(directory, `resolutions-${process.version}-${installed}.json`);
  const { known } = (cache = { directory, path, known: readResolutions(path), hasMore: false });
  registerHooks({
    resolve(specifier, context, next) {
      const { parentURL: parent = '', conditions } = context;
      if (!conditions.includes('import') || !parent.startsWith(programUrl)) return next(specifier, context);
      if (isOurs(parent) && /^\.\.?\/.*\.ts$/.test(specifier))
        return { url: new URL(specifier, parent).href, format: 'module-typescript', shortCircuit: true };
      if (specifier.includes(':') || (isOurs(parent) && specifier.startsWith('.')))
        return next(specifier, context);
      const key = `${isOurs(parent) ? '' : parent.slice(packagesUrl.length)} ${specifier}`;
      const found = known[key];
      if (found !== undefined) return { url: packagesUrl + found[0], format: found[1], shortCircuit: true };
      return noted(key, next(specifier, context));
    },
  });
}

/** What NODE_COMPILE_CACHE is to be in processes that this one starts; undefined when this one has no cache. */
export function programCache(): string | undefined {
  return cache?.directory;
}

/** Has our imports of packages lead to other modules, each a specifier and a path below node_modules. */
export function keepResolutions(entries: readonly (readonly [specifier: string, path: string])[]): void {
  if (cache === undefined) return;
  for (const [specifier, path] of entries) cache.known[` ${specifier}`] = [path, 'module'];
  cache.hasMore = true;
}

/** Keeps what this process has learnt so far. Never throws: without it the next start takes longer, no more. */
export function saveProgramCache(): void {
  if (cache === undefined) return;
  flushCompileCache();
  if (!cache.hasMore) return;
  cache.hasMore = false;
  const { path, known } = cache;
  const draft = `${path}.${process.pid}`;
  try {
    writeFileSync(draft, JSON.stringify({ ...readResolutions(path), ...known }));
    renameSync(draft, path);
  } catch {
    rmSync(draft, { force: true });
  }
}

/** Of packages only: they change by an installation. What we import of ours is written as what it is. */
function noted<Resolved extends { readonly url: string; readonly format?: string | null | undefined }>(
  key: string,
  resolved: Resolved,
): Resolved {
  const { url, format } = resolved;
  if (cache === undefined || !url.startsWith(packagesUrl) || typeof format !== 'string') return resolved;
  cache.known[key] = [url.slice(packagesUrl.length), format];
  cache.hasMore = true;
  return resolved;
}

function isOurs(url: string): boolean {
  return !url.startsWith(packagesUrl);
}

/** Changes with each installation of packages; undefined where npm did not install them. */
function installation(): string | undefined {
  const { mtimeMs, size } = statSync(join(program, 'node_modules/.package-lock.json'), {
    throwIfNoEntry: false,
  }) ?? { mtimeMs: 0, size: 0 };
  return size === 0 ? undefined : `${Math.trunc(mtimeMs)}-${size}`;
}

function readResolutions(path: string): Resolutions {
  try {
    const value: unknown = JSON.parse(readFileSync(path, 'utf8'));
    return Object.fromEntries(Object.entries(value ?? {}).filter(isResolution));
  } catch {
    return {}; // none yet, or no use
  }
}

function isResolution(entry: [string, unknown]): entry is [string, Resolutions[string]] {
  const [, found] = entry;
  return Array.isArray(found) && found.length === 2 && found.every((each) => typeof each === 'string');
}
