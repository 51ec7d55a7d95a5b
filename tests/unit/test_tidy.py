"""House rules that can be checked: sizes, names, words, and that the documentation agrees with the code."""

import ast
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from io import StringIO
from itertools import takewhile
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 70
LINE_COLUMNS_MAX = 120  # of documents and Cython; ruff has the same for Python
LAYOUT = (tokenize.NL, tokenize.COMMENT, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING)
# The comment that opens a fast path file: whether they run per message, and why they are written as they are.
TEMPERATURE = re.compile(r"# (HOT|COLD)\b[^:]*: \S.{19,}")


def sources(*suffixes: str) -> list[Path]:
    tops = ("wa", "sim", "faults", "tests", "scripts", "examples", "bench")
    found = [path for top in tops for path in (ROOT / top).rglob("*") if path.suffix in suffixes]
    return sorted([*found, *(path for path in ROOT.glob("*.py") if path.suffix in suffixes)])


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


SOURCES = sources(".py", ".pyx", ".pxd", ".pxi")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "bench/README.md"])


# --- sizes --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Function:
    name: str
    first: int
    last: int

    @property
    def lines(self) -> int:
        return self.last - self.first + 1


def statements(source: str) -> Iterator[tuple[int, list[tokenize.TokenInfo]]]:
    """(indentation depth, tokens) of each logical line, Cython's included: its tokens are Python's."""
    depth = 0
    line: list[tokenize.TokenInfo] = []
    for token in tokenize.generate_tokens(StringIO(source).readline):
        if token.type == tokenize.INDENT:
            depth += 1
        elif token.type == tokenize.DEDENT:
            depth -= 1
        elif token.type == tokenize.NEWLINE:
            yield depth, line
            line = []
        elif token.type not in LAYOUT and token.type != tokenize.ENDMARKER:
            line.append(token)


def function_name(line: list[tokenize.TokenInfo]) -> str | None:
    """The name that a def, cdef or cpdef line with a body defines; None for every other line."""
    words = [token.string for token in line]
    if words[0] == "async":
        words = words[1:]
    if words[0] not in ("def", "cdef", "cpdef") or "(" not in words or ":" not in words:
        return None
    head = words[1 : words.index("(")]
    if not head or {"class", "struct", "enum", "union", "extern", "="} & set(head):
        return None
    closing = len(words) - words[::-1].index(")")
    return head[-1] if ":" in words[closing:] else None


def functions(source: str) -> list[Function]:
    """Every function of a .py or .pyx source, from its first to its last line, docstring and all."""
    done: list[Function] = []
    open_: list[tuple[int, Function]] = []
    for depth, line in statements(source):
        while open_ and depth <= open_[-1][0]:
            done.append(open_.pop()[1])
        last = line[-1].end[0]
        open_ = [(at, Function(f.name, f.first, last)) for at, f in open_]
        name = function_name(line)
        if name is not None:
            open_.append((depth, Function(name, line[0].start[0], last)))
    done += [function for _, function in open_]
    return sorted(done, key=lambda function: function.first)


def test_no_file_is_two_files() -> None:
    lengths = {named(path): len(path.read_text().splitlines()) for path in SOURCES}
    assert {name: lines for name, lines in lengths.items() if lines > FILE_LINES_MAX} == {}


def test_no_function_is_too_long() -> None:
    found = [(path, function) for path in SOURCES for function in functions(path.read_text())]
    assert [f"{named(path)}:{f.first} {f.name}" for path, f in found if f.lines > FUNCTION_LINES_MAX] == []


def test_function_counter_agrees_with_the_python_parser() -> None:
    for path in sources(".py"):
        source = path.read_text()
        parsed = [
            Function(node.name, node.lineno, node.end_lineno or 0)
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        ]
        assert functions(source) == sorted(parsed, key=lambda function: function.first), path


def test_function_counter_reads_cython() -> None:
    source = '''\
cdef extern from "x.h":
    int f(int a) nogil
    ctypedef struct S:
        int (*call)(int a) noexcept nogil
cdef int declared(int a) except -1
cdef int value = f(1)
cdef class Thing(Base):
    cdef int field
    def __init__(self, a: int,
                 b=(1, 2)):
        self.field = a

    cdef inline void method(self) noexcept nogil:
# a comment at the margin
        """Text
at the margin.
        """
        if self.field:
            f(self.field)


cdef const uint8_t* pointer(Frame* f,
                            int n) noexcept nogil:
    cdef int (*g)(int) = NULL
    return &f.body[<size_t>n]
cpdef object short(x): return x
cdef enum:
    A = 1
'''
    assert [(f.name, f.first, f.last) for f in functions(source)] == [
        ("__init__", 9, 11),
        ("method", 13, 19),
        ("pointer", 22, 25),
        ("short", 26, 26),
    ]


def too_long(text: str) -> list[int]:
    """Numbers of the lines of a document that are over LINE_COLUMNS_MAX.  One that is a name and one long word of
    hexadecimal, in a block of code, cannot be broken."""
    found, code = [], False
    for number, line in enumerate(text.splitlines(), 1):
        code ^= line.startswith("```")
        unbreakable = code and max(map(len, line.split()), default=0) > LINE_COLUMNS_MAX // 2
        if len(line) > LINE_COLUMNS_MAX and not unbreakable:
            found.append(number)
    return found


def test_lines_of_documents_are_not_too_long() -> None:
    lines = {named(path): too_long(path.read_text()) for path in DOCUMENTS}
    assert {name: numbers for name, numbers in lines.items() if numbers} == {}


def test_lines_of_cython_are_not_too_long() -> None:
    lines = {named(path): too_long(path.read_text()) for path in sources(".pyx", ".pxd", ".pxi")}
    assert {name: numbers for name, numbers in lines.items() if numbers} == {}


def test_what_is_too_long_a_line() -> None:
    fits, long, hexadecimal = "a " * 60, "a " * 61, "key  " + "f" * 120
    assert too_long("\n".join([fits, long, f"| {long} |", "```text", hexadecimal, long, "```", hexadecimal])) == [
        2,
        3,
        6,
        8,
    ]


# --- words --------------------------------------------------------------------------------------------


def test_nothing_is_left_for_later() -> None:
    later = re.compile(r"\b(" + "TO" + "DO|FIX" + r"ME)\b")
    assert [named(path) for path in SOURCES if later.search(path.read_text())] == []


def swallows(handler: ast.ExceptHandler) -> bool:
    """True for one that catches everything and does not end by raising it again."""
    if handler.type is None:
        return True
    everything = {"Exception", "BaseException"} & {n.id for n in ast.walk(handler.type) if isinstance(n, ast.Name)}
    last = handler.body[-1]
    return bool(everything) and not (isinstance(last, ast.Raise) and last.exc is None)


def test_no_error_is_swallowed_whole() -> None:
    blind = []
    for path in SOURCES:
        source = path.read_text()
        if path.suffix == ".py":
            handlers = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ExceptHandler)]
            blind += [f"{named(path)}:{handler.lineno}" for handler in handlers if swallows(handler)]
            continue
        for _, line in statements(source):
            words = [token.string for token in line]
            if words[0] == "except" and words[1] in (":", "Exception", "BaseException"):
                blind.append(f"{named(path)}:{line[0].start[0]}")
    assert blind == []


def test_what_counts_as_swallowing() -> None:
    source = "try:\n    f()\nexcept {}:\n    g()\n    {}\n"
    for what, end, expected in (
        ("Exception", "raise", False),
        ("BaseException", "raise", False),
        ("(ValueError, Exception)", "return", True),
        ("Exception", "raise ValueError", True),
        ("ValueError", "pass", False),
    ):
        (handler,) = [n for n in ast.walk(ast.parse(source.format(what, end))) if isinstance(n, ast.ExceptHandler)]
        assert swallows(handler) is expected, (what, end)


def test_tests_do_not_sleep() -> None:
    slept = []
    for path in (path for path in SOURCES if "tests" in path.parts and path.suffix == ".py"):
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        slept += [f"{named(path)}:{call.lineno}" for call in calls if ast.unparse(call.func) == "time.sleep"]
    assert slept == []


def test_fast_path_says_whether_it_is_hot() -> None:
    silent = []
    for path in (ROOT / "wa/_fastpath").rglob("*.pyx"):
        comments = takewhile(lambda line: line.startswith("#"), path.read_text().splitlines())
        if not any(TEMPERATURE.fullmatch(line) for line in comments):
            silent.append(named(path))
    assert sorted(silent) == [], "these must open with '# HOT: why' or '# COLD: why'"
