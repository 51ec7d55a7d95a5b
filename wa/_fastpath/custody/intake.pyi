def priority(kind: int) -> int:
    """The drain priority of an envelope kind, as the fast path knows it."""
