/* Strikes at the n-th write of a program: to a file, or to a connection. Loaded into the real one (LD_PRELOAD) by striking.py,
   which says through a shared page of memory what to do and when. The program has a process that writes to SQLite for it: it is
   counted with it, and killed with it or alone. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { NOTHING, KILL, TEAR, FULL, BROKEN, ALONE };

struct order {
    _Atomic int64_t what;
    _Atomic int64_t left;   /* writes that are still let pass */
    _Atomic int64_t passed; /* since the order was given */
};

static struct order *order;
static int beside; /* this is the process that writes for another */
static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static ssize_t (*real_writev)(int, const struct iovec *, int);
static ssize_t (*real_send)(int, const void *, size_t, int);
static ssize_t (*real_sendmsg)(int, const struct msghdr *, int);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);
static int (*real_ftruncate)(int, off_t);
static int (*real_rename)(const char *, const char *);
static int (*real_unlink)(const char *);

__attribute__((constructor)) static void load(void) {
    real_write = dlsym(RTLD_NEXT, "write");
    real_pwrite = dlsym(RTLD_NEXT, "pwrite");
    real_writev = dlsym(RTLD_NEXT, "writev");
    real_send = dlsym(RTLD_NEXT, "send");
    real_sendmsg = dlsym(RTLD_NEXT, "sendmsg");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    real_ftruncate = dlsym(RTLD_NEXT, "ftruncate");
    real_rename = dlsym(RTLD_NEXT, "rename");
    real_unlink = dlsym(RTLD_NEXT, "unlink");
    const char *path = getenv("VTPM_TEST_STRIKE");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) return;
    void *page = mmap(NULL, sizeof(struct order), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (page != MAP_FAILED) order = page;
    char command[4096];
    int file = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
    ssize_t size = file < 0 ? 0 : read(file, command, sizeof command);
    if (file >= 0) close(file);
    static const char name[] = "sqlite_child.py";
    beside = size > 0 && memmem(command, size, name, sizeof name - 1) != NULL;
}

enum { ELSE, FILE_, CONNECTION };

/* Not the log, not the pipes and socket pairs with which a process wakes itself. */
static int kind_of(int fd) {
    struct stat found;
    if (fd <= 2 || fstat(fd, &found) != 0) return ELSE;
    if (S_ISREG(found.st_mode)) return FILE_;
    if (!S_ISSOCK(found.st_mode)) return ELSE;
    struct sockaddr_storage peer;
    socklen_t length = sizeof peer;
    if (getpeername(fd, (struct sockaddr *)&peer, &length) != 0) return ELSE;
    return length > sizeof(sa_family_t) ? CONNECTION : ELSE;
}

static void die(int64_t what) {
    if (beside && what != ALONE) kill(getppid(), SIGKILL);
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

/* What to do at this write. */
static int64_t strike(int kind) {
    if (order == NULL || kind == ELSE) return NOTHING;
    int64_t what = atomic_load(&order->what);
    if (what == NOTHING || (what >= FULL && kind != FILE_) || (what == ALONE && !beside)) return NOTHING;
    atomic_fetch_add(&order->passed, 1);
    int64_t left = atomic_fetch_sub(&order->left, 1);
    if (what == FULL) return left <= 0 ? FULL : NOTHING;
    return left == 0 ? what : NOTHING;
}

#define STRUCK(kind, half, bytes)                                                                                      \
    switch (strike(kind)) {                                                                                            \
    case TEAR: if ((bytes) > 1) (void)!(half); /* fall through */                                                      \
    case KILL: die(KILL);                                                                                              \
    case ALONE: die(ALONE);                                                                                            \
    case FULL: errno = ENOSPC; return -1;                                                                              \
    case BROKEN: errno = EIO; return -1;                                                                               \
    }

ssize_t write(int fd, const void *data, size_t size) {
    STRUCK(kind_of(fd), real_write(fd, data, size / 2), size)
    return real_write(fd, data, size);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    STRUCK(kind_of(fd), real_pwrite(fd, data, size / 2, at), size)
    return real_pwrite(fd, data, size, at);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) { return pwrite(fd, data, size, at); }

ssize_t writev(int fd, const struct iovec *parts, int count) {
    STRUCK(kind_of(fd), real_writev(fd, parts, count / 2), count)
    return real_writev(fd, parts, count);
}

ssize_t send(int fd, const void *data, size_t size, int flags) {
    STRUCK(kind_of(fd), real_send(fd, data, size / 2, flags), size)
    return real_send(fd, data, size, flags);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
    STRUCK(kind_of(fd), 0, 0)
    return real_sendmsg(fd, message, flags);
}

int fsync(int fd) {
    STRUCK(kind_of(fd), 0, 0)
    return real_fsync(fd);
}

int fdatasync(int fd) {
    STRUCK(kind_of(fd), 0, 0)
    return real_fdatasync(fd);
}

int ftruncate(int fd, off_t size) {
    STRUCK(kind_of(fd), 0, 0)
    return real_ftruncate(fd, size);
}

int ftruncate64(int fd, off64_t size) { return ftruncate(fd, size); }

int rename(const char *from, const char *to) {
    STRUCK(FILE_, 0, 0)
    return real_rename(from, to);
}

int unlink(const char *path) {
    STRUCK(FILE_, 0, 0)
    return real_unlink(path);
}
