"""docs/protocol.md and the code say the same: every frame, code, method, notice, kind, limit and example."""

import re
from pathlib import Path

import pytest

from scripts import protocol_examples
from wa import limits
from wa._fastpath.wire import frames as fast
from wa.errors import EXPLANATION, Code
from wa.wire.methods import PRIORITY, RETENTION_S, SPECS, Field, Kind, Notice, Who

ROOT = Path(__file__).parent.parent.parent
DOCUMENT = (ROOT / "docs/protocol.md").read_text()
TYPES = {int: "int", str: "str", bytes: "bin", list: "list"}
SPAN_S = {"s": 1, "h": 3_600, "days": 86_400}
CODE_ENDS = {"yes": True, "no": False}


def tables(header: str) -> list[list[list[str]]]:
    """The rows, each a list of cells, of every table with that header line, in order."""
    found = re.findall(rf"^{re.escape(header)}\n\|[-| ]+\|\n((?:\|.*\|\n)*)", DOCUMENT, re.MULTILINE)
    return [[[cell.strip() for cell in row.strip("|").split("|")] for row in body.splitlines()] for body in found]


def table(header: str) -> list[list[str]]:
    (only,) = tables(header)
    return only


def test_errors() -> None:
    rows = table("| code | name | ends | told in | meaning |")
    documented = {int(code): (name, CODE_ENDS[ends], meaning) for code, name, ends, _, meaning in rows}
    assert documented == {code: (code.name.lower(), 0 < code < 32, EXPLANATION[code]) for code in Code}
    assert [int(row[0]) for row in rows] == sorted(Code)


def test_frames() -> None:
    contract = (ROOT / "wa/_fastpath/wire/frames.pxd").read_text()
    in_code = {name.lower(): number.lower() for name, number in re.findall(r"\bF_(\w+) = 0x(\w\w)", contract)}
    rows = table("| type | name | from | fields |")
    documented = {name: number.replace("+k", "").split("..")[0] for number, name, _, _ in rows}
    assert documented == in_code


def test_fields_of_frames() -> None:
    """Row by row: the numbers and names of the table in C, and which bits are the kind, and each field's form."""
    source = Path(fast.__file__).with_name("frames.pyx").read_text()
    rows = re.findall(r"^ +\[0x(\w\w)(?: \.\.\. 0x(\w\w))?\] += \{.*\}, +/\* (\w+) \*/$", source, re.MULTILINE)
    in_code = []
    for first, last, name in rows:
        kind_bits, _, fields, _, _ = fast.layout()[int(first, 16)]
        assert int(last or first, 16) - int(first, 16) == kind_bits
        in_code.append((int(first, 16), kind_bits, name, [field.split()[0] for field in fields]))
    documented = []
    for number, name, _, words in table("| type | name | from | fields |"):
        kind_bits = 0x0F if "+k" in number else 0x7F if number == "80..ff" else 0
        documented.append((int(number[:2], 16), kind_bits, name, re.findall(r"\b(?:varint|u8|u64|bytes)\b", words)))
    assert documented == in_code


def test_kinds() -> None:
    rows = table("| k | kind | priority | kept at most |")
    documented = {}
    for number, name, priority, kept in rows:
        count, unit = kept.split()
        documented[int(number)] = (name, int(priority), int(count) * SPAN_S[unit])
    assert documented == {kind: (kind.name.lower(), PRIORITY[kind], RETENTION_S[kind]) for kind in Kind}


def test_notices() -> None:
    rows = table("| notice | name | body | what to do |")
    assert {int(number): name for number, name, _, _ in rows} == {n: n.name.lower() for n in Notice}


def test_methods() -> None:
    sections = re.findall(r"^### 5\.\d+ (\S+)\n\nMethod (\d+), (registering|device)\.", DOCUMENT, re.MULTILINE)
    documented = {int(number): (name, who == "registering") for name, number, who in sections}
    assert documented == {spec.method: (spec.name, spec.who is Who.REGISTERING) for spec in SPECS.values()}
    for spec, rows in zip(SPECS.values(), tables("| parameter | type | bounds |"), strict=True):
        assert {name: (type_, bounds) for name, type_, bounds in rows}.keys() == spec.fields.keys(), spec.name
        for name, type_, bounds in rows:
            check_parameter(spec.fields[name], type_, bounds)


def check_parameter(field: Field, type_: str, bounds: str) -> None:
    assert type_ == TYPES[field.type]
    low, high = str(field.low), str(field.high)
    assert re.match(low if low == high else rf"{low}\.\.{high}\b", bounds), bounds
    assert ("optional" in bounds) == field.optional


def test_limits() -> None:
    rows = table("| limit | value | name |")
    assert len({name for _, _, name in rows}) == len(rows)
    assert {name: int(value) for _, value, name in rows} == {name: getattr(limits, name) for _, _, name in rows}


def test_no_line_promises_a_section_that_is_not_there() -> None:
    sections = set(re.findall(r"^#+ (\d+(?:\.\d+)?)\.? ", DOCUMENT, re.MULTILINE))
    assert set(re.findall(r"\bsection (\d+(?:\.\d+)?)", DOCUMENT)) <= sections


def test_examples_are_what_the_code_does() -> None:
    assert protocol_examples.with_examples(DOCUMENT) == DOCUMENT, "run scripts/protocol_examples.py --write"


def test_every_frame_has_an_example() -> None:
    shown = {type(frame).__name__ for _, frame in protocol_examples.frame_examples()}
    contract = (ROOT / "wa/wire/frames.py").read_text()
    defined = set(re.findall(r"^@dataclass\(frozen=True, slots=True\)\nclass (\w+)", contract, re.MULTILINE))
    assert shown == defined


@pytest.mark.parametrize("name", ["begin", "end"])
def test_markers_stand_once(name: str) -> None:
    assert DOCUMENT.count(f"<!-- {name}: scripts/protocol_examples.py -->") == 1
