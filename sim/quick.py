"""Importing this makes X25519 cache its results (sim/_native/dh.pyx).

Without the cache, X25519 over the same keys is half of a simulation's time.  Import it before the Noise layer is
loaded; if it comes too late, seeds run the same, only slower.
"""

import os
import sys


def _remember_curve_arithmetic() -> None:
    flags = sys.getdlopenflags()
    sys.setdlopenflags(flags | os.RTLD_GLOBAL)
    try:
        import sim._native.dh  # noqa: F401, PLC0415
    finally:
        sys.setdlopenflags(flags)


if "wa._fastpath.noise.noise" not in sys.modules:
    _remember_curve_arithmetic()
