"""Face of the floor."""

def serve(listener: int, each: bool) -> None:
    """Relays connections of this non-blocking listening socket until the process is killed."""
