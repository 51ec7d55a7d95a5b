# cython: language_level=3
"""Giving free memory of the heap back to the system."""

cdef extern from *:
    """
    #include <stdlib.h>
    #ifdef __GLIBC__
    #include <malloc.h>
    /* What was freed in between buffers that are still in use stays in the heap without this. */
    static void wa_heap_trim(void) { malloc_trim(0); }
    #else
    static void wa_heap_trim(void) {}   /* jemalloc of FreeBSD purges by itself */
    #endif
    """
    void wa_heap_trim() nogil
