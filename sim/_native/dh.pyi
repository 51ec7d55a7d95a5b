def counts() -> tuple[int, int]:
    """(remembered, computed)"""
