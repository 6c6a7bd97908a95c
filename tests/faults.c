/* Loaded before the C library (LD_PRELOAD): counts a process's calls on files in one folder, and has the nth fail, or has
 * a signal come just before it. tests/zygote.py arms it through memory that it shares with the process. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { ANY, OPEN, READ, WRITE, SYNC, RENAME, UNLINK, CLOCK, KINDS };

struct plan {
    int kind, nth;     /* of the calls of this kind, the nth; 0: none */
    int error;         /* errno of the call; 0: it goes on as usual */
    int sign;          /* signal that comes before it; 0: none */
    int lasting;       /* later ones fail too: a disk stays full */
    int leap;          /* seconds that the clock leaps then */
    int counts[KINDS]; /* calls so far */
    char folder[400];
};

#define DESCRIPTORS 4096
static struct plan *plan;
static char watched[DESCRIPTORS];
static __thread int inside; /* a call that another one here makes is the same call */

void fault_arm(struct plan *shared) { plan = shared; }

/* Count a call; 1 if it is to fail, errno being set then. */
static int fails(int kind)
{
    if (!plan || inside) return 0;
    int nth = __atomic_add_fetch(&plan->counts[kind], 1, __ATOMIC_RELAXED);
    int any = kind == CLOCK ? -1 : __atomic_add_fetch(&plan->counts[ANY], 1, __ATOMIC_RELAXED);
    if (!plan->nth || (plan->kind != kind && (plan->kind != ANY || any < 0))) return 0;
    int now = plan->kind == ANY ? any : nth;
    if (now == plan->nth && plan->sign) kill(getpid(), plan->sign);
    if (now == plan->nth || (plan->lasting && now > plan->nth)) errno = plan->error;
    else return 0;
    return plan->error != 0;
}

static int within(const char *path) { return plan && path && (*path != '/' || !strncmp(path, plan->folder, strlen(plan->folder)));  }

static void watch(int descriptor, const char *path)
{
    if (descriptor >= 0 && descriptor < DESCRIPTORS) watched[descriptor] = within(path);
}

static int seen(int descriptor) { return plan && descriptor >= 0 && descriptor < DESCRIPTORS && watched[descriptor]; }

#define REAL(type, name, ...)                                                                                          \
    static type (*real)(__VA_ARGS__);                                                                                  \
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, name)

static int opened(const char *name, const char *path, int flags, mode_t mode)
{
    int (*real)(const char *, int, ...);
    *(void **)&real = dlsym(RTLD_NEXT, name);
    if (within(path) && fails(OPEN)) return -1;
    int descriptor = real(path, flags, mode);
    watch(descriptor, path);
    return descriptor;
}

#define OPENS(name)                                                                                                    \
    int name(const char *path, int flags, ...)                                                                         \
    {                                                                                                                  \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;                                        \
        va_end(rest);                                                                                                  \
        return opened(#name, path, flags, mode);                                                                       \
    }
OPENS(open)
OPENS(open64)

#define FOPENS(name)                                                                                                   \
    FILE *name(const char *path, const char *mode)                                                                     \
    {                                                                                                                  \
        REAL(FILE *, #name, const char *, const char *);                                                               \
        if (within(path) && fails(OPEN)) return NULL;                                                                  \
        FILE *file = real(path, mode);                                                                                 \
        if (file) watch(fileno(file), path);                                                                           \
        return file;                                                                                                   \
    }
FOPENS(fopen)
FOPENS(fopen64)

ssize_t read(int descriptor, void *buffer, size_t size)
{
    REAL(ssize_t, "read", int, void *, size_t);
    return seen(descriptor) && fails(READ) ? -1 : real(descriptor, buffer, size);
}

ssize_t pread64(int descriptor, void *buffer, size_t size, off64_t offset)
{
    REAL(ssize_t, "pread64", int, void *, size_t, off64_t);
    return seen(descriptor) && fails(READ) ? -1 : real(descriptor, buffer, size, offset);
}

ssize_t write(int descriptor, const void *buffer, size_t size)
{
    REAL(ssize_t, "write", int, const void *, size_t);
    if (!seen(descriptor) || !fails(WRITE)) return real(descriptor, buffer, size);
    return -1;
}

size_t fread(void *buffer, size_t size, size_t count, FILE *file)
{
    REAL(size_t, "fread", void *, size_t, size_t, FILE *);
    return seen(fileno(file)) && fails(READ) ? 0 : real(buffer, size, count, file);
}

size_t fwrite(const void *buffer, size_t size, size_t count, FILE *file)
{
    REAL(size_t, "fwrite", const void *, size_t, size_t, FILE *);
    if (!seen(fileno(file)) || !fails(WRITE)) return real(buffer, size, count, file);
    return real(buffer, size, count / 2, file); /* as a disk does that gets full */
}

int fflush(FILE *file)
{
    REAL(int, "fflush", FILE *);
    return file && seen(fileno(file)) && fails(WRITE) ? EOF : real(file);
}

int fclose(FILE *file)
{
    REAL(int, "fclose", FILE *);
    int fault = seen(fileno(file)) && fails(WRITE), error = errno;
    watch(fileno(file), NULL);
    int result = real(file);
    if (fault) errno = error;
    return fault ? EOF : result;
}

int close(int descriptor)
{
    REAL(int, "close", int);
    watch(descriptor, NULL);
    return real(descriptor);
}

#define SYNCS(name)                                                                                                    \
    int name(int descriptor)                                                                                           \
    {                                                                                                                  \
        REAL(int, #name, int);                                                                                         \
        return seen(descriptor) && fails(SYNC) ? -1 : real(descriptor);                                                \
    }
SYNCS(fsync)
SYNCS(fdatasync)

int ftruncate64(int descriptor, off64_t size)
{
    REAL(int, "ftruncate64", int, off64_t);
    return seen(descriptor) && fails(WRITE) ? -1 : real(descriptor, size);
}

int rename(const char *from, const char *to)
{
    REAL(int, "rename", const char *, const char *);
    return within(to) && fails(RENAME) ? -1 : real(from, to);
}

int unlink(const char *path)
{
    REAL(int, "unlink", const char *);
    return within(path) && fails(UNLINK) ? -1 : real(path);
}

static time_t leapt(void)
{
    fails(CLOCK);
    return plan && plan->kind == CLOCK && plan->nth && plan->counts[CLOCK] >= plan->nth ? plan->leap : 0;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    REAL(int, "clock_gettime", clockid_t, struct timespec *);
    int result = real(clock, now);
    if (clock == CLOCK_REALTIME && !result) now->tv_sec += leapt();
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    REAL(int, "gettimeofday", struct timeval *, void *);
    int result = real(now, zone);
    if (!result) now->tv_sec += leapt();
    return result;
}

time_t time(time_t *now)
{
    REAL(time_t, "time", time_t *);
    time_t result = real(NULL) + leapt();
    if (now) *now = result;
    return result;
}
