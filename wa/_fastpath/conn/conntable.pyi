def sizes() -> dict[str, int]:
    """Bytes of the structs that an idle connection ("conn") and a registered device ("device") cost."""
