HEADER_BYTES: int
RECORD_BYTES: int
STAGES: dict[int, str]
