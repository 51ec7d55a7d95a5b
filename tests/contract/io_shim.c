/* Preloaded into a child of test_mailbox_power_loss.py (Linux): stands between LMDB and the kernel.

   Every write to a file data.mdb, every sync of one, and every write to a file `reported` is appended to the journal
   $WA_IO_JOURNAL in the order in which they returned, as records of
       kind 1 byte ('W' write, 'D' write through O_DSYNC, 'S' sync, 'R' report), offset 8, length 8 (host order), data
   A file `fail-meta` or `fail-sync` beside data.mdb makes the next write of a meta page, or the next sync, fail once
   (ENOSPC, EIO) and is removed by that. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#define META_BYTES 8192

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static const char *name_of(int fd, char path[4096]) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, 4095);
    path[n < 0 ? 0 : n] = 0;
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static int told_to_fail(char *path, const char *name, const char *fault) {
    strcpy(path + (name - path), fault);
    return unlink(path) == 0;
}

static void note(char kind, int64_t offset, const struct iovec *iov, int iov_n) {
    static ssize_t (*real)(int, const void *, size_t);
    static int fd = -1;
    const char *journal = getenv("WA_IO_JOURNAL");
    if (!journal) return;
    pthread_mutex_lock(&lock);
    if (!real) real = dlsym(RTLD_NEXT, "write");
    if (fd < 0) fd = open(journal, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    int64_t length = 0;
    for (int i = 0; i < iov_n; i++) length += iov[i].iov_len;
    int bad = real(fd, &kind, 1) != 1 || real(fd, &offset, 8) != 8 || real(fd, &length, 8) != 8;
    for (int i = 0; i < iov_n; i++) bad |= real(fd, iov[i].iov_base, iov[i].iov_len) != (ssize_t)iov[i].iov_len;
    if (bad) abort();
    pthread_mutex_unlock(&lock);
}

static char kind_of(int fd) { return fcntl(fd, F_GETFL) & O_DSYNC ? 'D' : 'W'; }

static ssize_t shim_pwrite(const char *symbol, int fd, const void *p, size_t n, off_t at) {
    ssize_t (*real)(int, const void *, size_t, off_t) = dlsym(RTLD_NEXT, symbol);
    char path[4096];
    const char *name = name_of(fd, path);
    struct iovec iov = {(void *)p, n};
    int store = !strcmp(name, "data.mdb"), report = !strcmp(name, "reported");
    if (store && at < META_BYTES && told_to_fail(path, name, "fail-meta")) {
        errno = ENOSPC;
        return -1;
    }
    ssize_t done = real(fd, p, n, at);
    if (done > 0 && (store || report)) {
        iov.iov_len = done;
        note(report ? 'R' : kind_of(fd), at, &iov, 1);
    }
    return done;
}

ssize_t pwrite(int fd, const void *p, size_t n, off_t at) { return shim_pwrite("pwrite", fd, p, n, at); }
ssize_t pwrite64(int fd, const void *p, size_t n, off_t at) { return shim_pwrite("pwrite64", fd, p, n, at); }

ssize_t writev(int fd, const struct iovec *iov, int iov_n) {
    ssize_t (*real)(int, const struct iovec *, int) = dlsym(RTLD_NEXT, "writev");
    char path[4096];
    int64_t at = lseek(fd, 0, SEEK_CUR);
    ssize_t done = real(fd, iov, iov_n);
    if (done > 0 && !strcmp(name_of(fd, path), "data.mdb")) note(kind_of(fd), at, iov, iov_n);
    return done;
}

static int shim_sync(const char *symbol, int fd) {
    int (*real)(int) = dlsym(RTLD_NEXT, symbol);
    char path[4096];
    const char *name = name_of(fd, path);
    if (strcmp(name, "data.mdb")) return real(fd);
    if (told_to_fail(path, name, "fail-sync")) {
        errno = EIO;
        return -1;
    }
    int rc = real(fd);
    if (rc == 0) note('S', 0, NULL, 0);
    return rc;
}

int fdatasync(int fd) { return shim_sync("fdatasync", fd); }
int fsync(int fd) { return shim_sync("fsync", fd); }
