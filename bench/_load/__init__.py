"""The load generator and the floor, in Cython: C structs and nogil functions over the fast path's own contracts."""
