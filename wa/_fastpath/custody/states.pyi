def transitions() -> set[tuple[str, str]]:
    """{(before, after)} as the table has it, for tests."""
