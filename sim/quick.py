"""Importing this makes X25519 remember its results; see sim/_native/dh.pyx.

Half of a simulation would be X25519 over the same keys.  It has to be imported before the Noise layer is loaded; where
that is too late, seeds run the same, only slower.
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
