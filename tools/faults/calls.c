// Counts the system calls that write files, and lets one of them fail. Loaded by LD_PRELOAD; `calls_arm` is called
// from Python.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

enum { OFF = -2, KILL = -1, SHORT_WRITE = 0 };  // or an error number

static long counted, armed_at = -1;
static int fault = OFF;

// Lets the call number `at`, counted from 1, fail with `how`; with -1 nothing fails. Returns the calls so far.
long calls_arm(long at, int how) {
  long before = counted;
  counted = 0;
  armed_at = at;
  fault = how;
  return before;
}

// Whether this call is to fail, with errno set; a short write is left to the caller.
static int fails(void) {
  if (fault == OFF) return 0;
  if (++counted != armed_at) return 0;
  if (fault == KILL) raise(SIGKILL);
  if (fault == SHORT_WRITE) return 0;
  errno = fault;
  return 1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int file, const void *data, size_t size) {
  if (fails()) return -1;
  if (fault == SHORT_WRITE && counted == armed_at && size > 1) size /= 2;
  return REAL(write)(file, data, size);
}

int fsync(int file) { return fails() ? -1 : REAL(fsync)(file); }
int rename(const char *from, const char *to) { return fails() ? -1 : REAL(rename)(from, to); }
int unlink(const char *path) { return fails() ? -1 : REAL(unlink)(path); }
int mkdir(const char *path, mode_t mode) { return fails() ? -1 : REAL(mkdir)(path, mode); }
int close(int file) { return fails() ? -1 : REAL(close)(file); }

static int opened(const char *name, const char *path, int flags, va_list more) {
  mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0;
  return fails() ? -1 : ((int (*)(const char *, int, ...))dlsym(RTLD_NEXT, name))(path, flags, mode);
}

int open(const char *path, int flags, ...) {
  va_list more;
  va_start(more, flags);
  int result = opened("open", path, flags, more);
  va_end(more);
  return result;
}

int open64(const char *path, int flags, ...) {
  va_list more;
  va_start(more, flags);
  int result = opened("open64", path, flags, more);
  va_end(more);
  return result;
}
