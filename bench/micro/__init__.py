"""Single units of the fast path beside their pure-Python twins: `python -m bench micro`."""
