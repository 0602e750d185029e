/** True when `error` is the operating system's error `code`, such as ENOENT. */
export function isErrnoException(error: unknown, code: string): boolean {
  return error instanceof Error && 'code' in error && error.code === code;
}

/** True when `error`, or what caused it, says that the disk has no room. LevelDB passes on only the text. */
export function isDiskFull(error: unknown): boolean {
  for (let current = error; current instanceof Error; current = current.cause) {
    if (isErrnoException(current, 'ENOSPC') || isErrnoException(current, 'EDQUOT')) return true;
    if (/no space left|quota exceeded/i.test(current.message)) return true;
  }
  return false;
}
