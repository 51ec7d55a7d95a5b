# cython: language_level=3
# COLD: opening, growing, closing; nothing here runs per envelope.
"""The LMDB environment of a mailbox store: opened, grown, opened anew after an error, and asked whether it is full."""
from libc.errno cimport EDQUOT, EFBIG, EIO, ENOSPC, errno
from libc.stdint cimport uint32_t, uint64_t, uint8_t
from libc.string cimport memcpy, memset, strlen
from posix.fcntl cimport O_CREAT, O_TRUNC, O_WRONLY, open as posix_open
from posix.unistd cimport close as posix_close, pwrite, unlink
from wa._fastpath.mailbox.layout cimport *
from wa._fastpath.mailbox.lmdb_c cimport *
from wa._fastpath.mailbox.log cimport *
from wa._fastpath.mailbox.replay cimport replay

cdef extern from "fcntl.h" nogil:
    int POSIX_FADV_WILLNEED
    int posix_fadvise(int fd, long at, long n, int advice)

cdef enum:
    PROBE_BYTES = 65536
    KEPT_PAGES = 64               # what a commit of some 1,200 envelopes of 100 bytes dirties


cdef int open_tables(Lmdb* s, MDB_txn* t) noexcept nogil:
    cdef MDB_dbi meta
    cdef uint8_t format[4]
    cdef MDB_val key = val(b"format", 6)
    cdef MDB_val value
    cdef int rc = mdb_dbi_open(t, b"meta", MDB_CREATE, &meta)
    if rc:
        return rc
    rc = mdb_get(t, meta, &key, &value)
    if rc == MDB_NOTFOUND:
        put32(format, FORMAT)
        value = val(format, 4)
        rc = mdb_put(t, meta, &key, &value, 0)
    elif rc == 0:
        s.found_format = get32(<uint8_t*>value.mv_data) if value.mv_size == 4 else 0
        rc = 0 if s.found_format == FORMAT else FORMAT_OTHER
    return rc if rc else mdb_dbi_open(t, b"log", MDB_CREATE, &s.log)


cdef int open_env(Lmdb* s) noexcept nogil:
    cdef MDB_env* env = NULL
    cdef MDB_txn* t = NULL
    cdef int dead = 0, fd
    cdef int rc = mdb_env_create(&env)
    if rc:
        return rc
    rc = mdb_env_set_maxdbs(env, TABLES_MAX)
    if rc == 0:
        rc = mdb_env_set_mapsize(env, s.map_bytes)
    if rc == 0:
        rc = mdb_env_open(env, s.path, s.flags, 0o600)
    if rc == 0:
        rc = mdb_reader_check(env, &dead)   # slots of a killed process would keep its pages from being reused
    if rc == 0:
        rc = mdb_env_get_fd(env, &fd)
    if rc == 0:
        posix_fadvise(fd, 0, 0, POSIX_FADV_WILLNEED)     # replay() reads all of it; a hint, which may be refused
        rc = mdb_txn_begin(env, NULL, 0, &t)
    if rc == 0:
        rc = open_tables(s, t)
        if rc == 0:
            rc = replay(s, t)
        if rc == 0:
            rc = mdb_txn_commit(t)
        else:
            mdb_txn_abort(t)
    if rc == 0:
        keep_pages(env)
        s.env = env
    else:
        mdb_env_close(env)
    return rc


cdef void keep_pages(MDB_env* env) noexcept nogil:
    """LMDB keeps the memory of every page that its largest transaction dirtied, for the next one.  Coming one by one in
    the middle of traffic, each of them would hold two pages of the heap that else are free again a second later.  So a
    transaction that comes to nothing makes them now, side by side.  With fewer, where the map is full, all works the
    same.
    """
    cdef MDB_txn* t = NULL
    cdef MDB_dbi meta
    cdef MDB_stat stat
    cdef uint32_t i = 0
    cdef MDB_val key = val(&i, sizeof(i))
    cdef MDB_val page
    cdef int rc = mdb_txn_begin(env, NULL, 0, &t)
    if rc:
        return
    mdb_env_stat(env, &stat)
    rc = mdb_dbi_open(t, b"meta", 0, &meta)
    while rc == 0 and i < KEPT_PAGES:
        page = val(NULL, stat.ms_psize * 3 // 4)      # too long to share a page with another
        rc = mdb_put(t, meta, &key, &page, MDB_RESERVE)
        i += 1
    mdb_txn_abort(t)


cdef void close_env(Lmdb* s) noexcept nogil:
    if s.read_txn != NULL:
        mdb_txn_abort(s.read_txn)
        s.read_txn = NULL
    if s.env != NULL:
        mdb_env_close(s.env)
        s.env = NULL


cdef int resize(Lmdb* s, size_t bytes) noexcept nogil:
    cdef int rc
    pthread_mutex_lock(&s.map_lock)
    rc = mdb_env_set_mapsize(s.env, bytes)
    if rc == 0:
        s.map_bytes = bytes
    else:
        close_env(s)              # a failed mapping leaves LMDB without any: take the old size again
        open_env(s)
    pthread_mutex_unlock(&s.map_lock)
    return rc


cdef int reopen(Lmdb* s) noexcept nogil:
    # LMDB refuses all work after a failed write of its meta page (MDB_PANIC) until it is opened anew.
    cdef int rc
    pthread_mutex_lock(&s.map_lock)
    close_env(s)
    rc = open_env(s)
    pthread_mutex_unlock(&s.map_lock)
    return rc


cdef bint panicked(Lmdb* s) noexcept nogil:
    cdef MDB_txn* t = NULL
    cdef int rc
    if s.env == NULL:
        return False
    rc = mdb_txn_begin(s.env, NULL, MDB_RDONLY, &t)
    if rc == 0:
        mdb_txn_abort(t)
    return rc == MDB_PANIC


cdef bint disk_refuses(Lmdb* s) noexcept nogil:
    """LMDB reports a short write, a filling disk's first answer, as EIO: ask the disk itself, where the file ends."""
    cdef char path[PATH_BYTES_MAX + 8]
    cdef uint8_t zeros[PROBE_BYTES]
    cdef MDB_envinfo info
    cdef MDB_stat stat
    cdef ssize_t n
    cdef size_t length = strlen(s.path)
    cdef bint refused
    memcpy(path, s.path, length)
    memcpy(path + length, b"/probe", 7)
    cdef int fd = posix_open(path, O_CREAT | O_TRUNC | O_WRONLY, 0o600)
    if fd < 0:
        return errno == ENOSPC or errno == EDQUOT
    memset(zeros, 0, PROBE_BYTES)
    mdb_env_info(s.env, &info)
    mdb_env_stat(s.env, &stat)
    n = pwrite(fd, zeros, PROBE_BYTES, (info.me_last_pgno + 1) * stat.ms_psize)
    refused = n < PROBE_BYTES and (n >= 0 or errno == ENOSPC or errno == EDQUOT or errno == EFBIG)
    posix_close(fd)
    unlink(path)
    return refused


cdef int free_pages(Lmdb* s, uint64_t* free_n, uint64_t* all_n, uint32_t* page_bytes) noexcept nogil:
    cdef MDB_envinfo info
    cdef MDB_stat stat
    cdef MDB_txn* t = NULL
    cdef MDB_cursor* c = NULL
    cdef MDB_val key, value
    cdef size_t pages
    cdef int rc = mdb_txn_begin(s.env, NULL, MDB_RDONLY, &t)
    free_n[0] = 0
    if rc:
        return rc
    mdb_env_info(s.env, &info)
    mdb_env_stat(s.env, &stat)
    all_n[0], page_bytes[0] = info.me_last_pgno + 1, stat.ms_psize
    rc = mdb_cursor_open(t, 0, &c)       # LMDB's own table of free pages: each value begins with their number
    if rc == 0:
        rc = mdb_cursor_get(c, &key, &value, MDB_FIRST)
        while rc == 0:
            memcpy(&pages, value.mv_data, sizeof(pages))
            free_n[0] += pages
            rc = mdb_cursor_get(c, &key, &value, MDB_NEXT)
        mdb_cursor_close(c)
    mdb_txn_abort(t)
    return 0 if rc == MDB_NOTFOUND else rc


cdef bint is_full(Lmdb* s, int rc) noexcept nogil:
    if rc == MDB_MAP_FULL or rc == ENOSPC or rc == EDQUOT or rc == EFBIG:
        return True
    return rc == EIO and s.env != NULL and disk_refuses(s)
