# cython: language_level=3
"""Assertions of the fast path.  A debug build ends the process and says which one; a release build does not look."""

cdef extern from *:
    """
    #ifndef WA_ASSERT
    #define WA_ASSERT
    #ifdef WA_DEBUG
    #include <stdio.h>
    #include <stdlib.h>
    __attribute__((unused, noreturn)) static void wa_assert_failed(const char *what, const char *file, int line) {
        fprintf(stderr, "assertion failed: %s (%s:%d)\\n", what, file, line);
        abort();
    }
    #define wa_assert(holds, what) ((holds) ? (void)0 : wa_assert_failed(what, __FILE__, __LINE__))
    #else
    #define wa_assert(holds, what) ((void)(holds))
    #endif
    #endif
    """
    void wa_assert(bint holds, const char* what) noexcept nogil
