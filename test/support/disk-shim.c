/*
 * Stands between a program and its disk: writes down in order what the program asks of the files under one directory,
 * and lets chosen requests fail. From that journal the state of the disk after a power cut at any moment can be made
 * (disk-journal.ts), which no killed process shows: the kernel keeps what was not synced.
 *
 * LD_PRELOAD=disk-shim.so HOLDFAST_DISK_ROOT=/dir HOLDFAST_DISK_JOURNAL=/elsewhere/journal program …
 *
 * Needs no rights and no kernel support. Syncing only writes a line: what it would make durable the journal knows.
 * One record: op u8, file descriptor i32, number i64, two lengths u32, two byte strings; little-endian.
 *
 * A write to <root>/.fault is a command: "sync 5 1" lets the next sync fail with errno 5, "write 28 -1" every write
 * until "none".
 */
#define _GNU_SOURCE
#define __NO_INLINE__ 1
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#undef _FORTIFY_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { op_open = 1, op_write, op_sync_begin, op_sync_end, op_rename, op_unlink, op_mkdir, op_truncate };
enum { fds_max = 65536 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *root;
static int journal = -1;
/* 0: not ours, 1: a file under the root, 2: the command file, 3: the file of marks, which never fails */
static unsigned char kind_of[fds_max];
/* libuv closes past the C library: a number may belong to another file by now. */
static struct { dev_t device; ino_t inode; } file_of[fds_max];
static struct { char op[8]; int error; int count; int half; } fault;

#define REAL(name) ((__typeof__(&name))real(#name))
static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

__attribute__((constructor)) static void begin(void) {
  root = getenv("HOLDFAST_DISK_ROOT");
  const char *path = getenv("HOLDFAST_DISK_JOURNAL");
  if (root && path) journal = REAL(open)(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  unsetenv("LD_PRELOAD"); /* one process per journal: file descriptors are told apart by their number */
}

static int is_under(const char *path) {
  size_t length = root ? strlen(root) : 0;
  return journal >= 0 && path && length && strncmp(path, root, length) == 0 &&
         (path[length] == '/' || path[length] == 0);
}

static int is_known(int fd) {
  struct stat status;
  if (fd < 0 || fd >= fds_max || kind_of[fd] == 0) return 0;
  if (fstat(fd, &status) == 0 && status.st_dev == file_of[fd].device && status.st_ino == file_of[fd].inode) return 1;
  kind_of[fd] = 0;
  return 0;
}

static int is_ours(int fd) { return is_known(fd) && kind_of[fd] == 1; }

static void note(int op, int fd, int64_t number, const void *a, uint32_t a_bytes, const void *b, uint32_t b_bytes) {
  unsigned char head[21];
  head[0] = op;
  memcpy(head + 1, &fd, 4);
  memcpy(head + 5, &number, 8);
  memcpy(head + 13, &a_bytes, 4);
  memcpy(head + 17, &b_bytes, 4);
  struct iovec parts[3] = {{head, 21}, {(void *)a, a_bytes}, {(void *)b, b_bytes}};
  if (REAL(writev)(journal, parts, 3) != (ssize_t)(21 + a_bytes + b_bytes)) abort();
}

static void note_path(int op, int fd, int64_t number, const char *a, const char *b) {
  note(op, fd, number, a, strlen(a), b, b ? strlen(b) : 0);
}

/* The errno with which this request fails, or 0. */
static int failure(const char *op) {
  if (fault.count == 0 || strcmp(fault.op, op) != 0) return 0;
  if (fault.count > 0) fault.count--;
  return fault.error;
}

static void command(const char *text, size_t bytes) {
  char line[64] = {0};
  memcpy(line, text, bytes < 63 ? bytes : 63);
  memset(&fault, 0, sizeof fault);
  if (sscanf(line, "%7s %d %d", fault.op, &fault.error, &fault.count) != 3) fault.count = 0;
}

static int ends(const char *path, const char *tail) {
  size_t length = strlen(path), tail_length = strlen(tail);
  return length >= tail_length && strcmp(path + length - tail_length, tail) == 0;
}

static int opened(int fd, const char *path, int flags) {
  if (fd < 0 || fd >= fds_max) return fd;
  kind_of[fd] = 0;
  if (!is_under(path)) return fd;
  struct stat status;
  if (fstat(fd, &status) != 0) return fd;
  file_of[fd].device = status.st_dev;
  file_of[fd].inode = status.st_ino;
  kind_of[fd] = ends(path, "/.fault") ? 2 : ends(path, "/.mark") ? 3 : 1;
  if (kind_of[fd] != 2) note_path(op_open, fd, flags, path, 0);
  return fd;
}

#define OPEN(name)                                                    \
  int name(const char *path, int flags, ...) {                        \
    va_list more;                                                     \
    va_start(more, flags);                                            \
    int mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, int) : 0; \
    va_end(more);                                                     \
    pthread_mutex_lock(&lock);                                        \
    int fd = opened(REAL(name)(path, flags, mode), path, flags);      \
    int error = errno;                                                \
    pthread_mutex_unlock(&lock);                                      \
    errno = error;                                                    \
    return fd;                                                        \
  }
OPEN(open)
OPEN(open64)

int openat(int directory, const char *path, int flags, ...) {
  va_list more;
  va_start(more, flags);
  int mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, int) : 0;
  va_end(more);
  pthread_mutex_lock(&lock);
  int fd = opened(REAL(openat)(directory, path, flags, mode), path, flags);
  int error = errno;
  pthread_mutex_unlock(&lock);
  errno = error;
  return fd;
}

int close(int fd) {
  pthread_mutex_lock(&lock);
  if (fd >= 0 && fd < fds_max) kind_of[fd] = 0;
  pthread_mutex_unlock(&lock);
  return REAL(close)(fd);
}

static int64_t place(int fd) {
  struct stat status;
  if ((fcntl(fd, F_GETFL) & O_APPEND) && fstat(fd, &status) == 0) return status.st_size;
  return lseek(fd, 0, SEEK_CUR);
}

/* Every kind of write comes here as one run of bytes; at < 0: where the file stands. */
static ssize_t put(int fd, const void *bytes, size_t count, int64_t at) {
  pthread_mutex_lock(&lock);
  ssize_t done;
  int error = 0;
  if (kind_of[fd] == 2) {
    command(bytes, count);
    done = count;
  } else {
    /* A full disk takes what still fits, and refuses the rest. */
    int full = kind_of[fd] == 1 && strcmp(fault.op, "write") == 0 && fault.count != 0 && fault.error == ENOSPC && !fault.half && count > 1;
    fault.half = full;
    if (full) count /= 2;
    else if (kind_of[fd] == 1) error = failure("write");
    int64_t offset = at < 0 ? place(fd) : at;
    done = error ? -1 : at < 0 ? REAL(write)(fd, bytes, count) : REAL(pwrite)(fd, bytes, count, at);
    if (!error && done < 0) error = errno;
    if (done > 0) note(op_write, fd, offset, bytes, done, 0, 0);
  }
  pthread_mutex_unlock(&lock);
  if (done < 0) errno = error;
  return done;
}

ssize_t write(int fd, const void *bytes, size_t count) {
  return is_known(fd) ? put(fd, bytes, count, -1) : REAL(write)(fd, bytes, count);
}
ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at) {
  return is_known(fd) ? put(fd, bytes, count, at) : REAL(pwrite)(fd, bytes, count, at);
}
ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at) { return pwrite(fd, bytes, count, at); }

static ssize_t put_many(int fd, const struct iovec *parts, int count, int64_t at) {
  size_t bytes = 0;
  for (int index = 0; index < count; index++) bytes += parts[index].iov_len;
  char *joined = malloc(bytes ? bytes : 1);
  size_t filled = 0;
  for (int index = 0; index < count; index++) {
    memcpy(joined + filled, parts[index].iov_base, parts[index].iov_len);
    filled += parts[index].iov_len;
  }
  ssize_t done = put(fd, joined, bytes, at);
  int error = errno;
  free(joined);
  errno = error;
  return done;
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
  return is_known(fd) ? put_many(fd, parts, count, -1) : REAL(writev)(fd, parts, count);
}
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) {
  return is_known(fd) ? put_many(fd, parts, count, at) : REAL(pwritev)(fd, parts, count, at);
}
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t at) { return pwritev(fd, parts, count, at); }

/* LevelDB writes through stdio, whose own writes nobody can stand before: so nothing is left to its buffer. */
#define FOPEN(name)                                                            \
  FILE *name(const char *path, const char *mode) {                             \
    pthread_mutex_lock(&lock);                                                 \
    FILE *file = REAL(name)(path, mode);                                       \
    int error = errno;                                                         \
    int flags = mode[0] == 'w' ? O_CREAT | O_TRUNC : mode[0] == 'a' ? O_CREAT : 0; \
    if (file) opened(fileno(file), ends(path, "/LOG") ? "" : path, flags);     \
    pthread_mutex_unlock(&lock);                                               \
    errno = error;                                                             \
    return file;                                                               \
  }
FOPEN(fopen)
FOPEN(fopen64)

static size_t put_items(const void *bytes, size_t size, size_t count, FILE *file) {
  size_t done = 0;
  while (done < size * count) {
    ssize_t more = put(fileno(file), (const char *)bytes + done, size * count - done, -1);
    if (more < 0) break;
    done += more;
  }
  return size ? done / size : 0;
}

size_t fwrite(const void *bytes, size_t size, size_t count, FILE *file) {
  return is_known(fileno(file)) ? put_items(bytes, size, count, file) : REAL(fwrite)(bytes, size, count, file);
}
size_t(fwrite_unlocked)(const void *bytes, size_t size, size_t count, FILE *file) {
  return is_known(fileno(file)) ? put_items(bytes, size, count, file)
                              : REAL(fwrite_unlocked)(bytes, size, count, file);
}

int fclose(FILE *file) {
  int fd = fileno(file);
  pthread_mutex_lock(&lock);
  if (fd >= 0 && fd < fds_max) kind_of[fd] = 0;
  pthread_mutex_unlock(&lock);
  return REAL(fclose)(file);
}

static int sync_file(int fd) {
  pthread_mutex_lock(&lock);
  note(op_sync_begin, fd, 0, 0, 0, 0, 0);
  int error = failure("sync");
  note(op_sync_end, fd, error, 0, 0, 0, 0);
  pthread_mutex_unlock(&lock);
  if (!error) return 0;
  errno = error;
  return -1;
}

int fsync(int fd) { return is_ours(fd) ? sync_file(fd) : REAL(fsync)(fd); }
int fdatasync(int fd) { return is_ours(fd) ? sync_file(fd) : REAL(fdatasync)(fd); }

int ftruncate(int fd, off_t bytes) {
  pthread_mutex_lock(&lock);
  int result = REAL(ftruncate)(fd, bytes);
  if (result == 0 && is_ours(fd)) note(op_truncate, fd, bytes, 0, 0, 0, 0);
  pthread_mutex_unlock(&lock);
  return result;
}
int ftruncate64(int fd, off64_t bytes) { return ftruncate(fd, bytes); }

#define NAMED(condition, op, number, a, b, call)          \
  pthread_mutex_lock(&lock);                              \
  int result = call;                                      \
  int error = errno;                                      \
  if (result == 0 && (condition)) note_path(op, -1, number, a, b); \
  pthread_mutex_unlock(&lock);                            \
  errno = error;                                          \
  return result

int rename(const char *from, const char *to) {
  NAMED(is_under(to), op_rename, 0, from, to, REAL(rename)(from, to));
}
int unlink(const char *path) { NAMED(is_under(path), op_unlink, 0, path, 0, REAL(unlink)(path)); }
int rmdir(const char *path) { NAMED(is_under(path), op_unlink, 1, path, 0, REAL(rmdir)(path)); }
int remove(const char *path) { NAMED(is_under(path), op_unlink, 0, path, 0, REAL(remove)(path)); }
int unlinkat(int directory, const char *path, int flags) {
  NAMED(is_under(path), op_unlink, 0, path, 0, REAL(unlinkat)(directory, path, flags));
}
int mkdir(const char *path, mode_t mode) { NAMED(is_under(path), op_mkdir, 0, path, 0, REAL(mkdir)(path, mode)); }
