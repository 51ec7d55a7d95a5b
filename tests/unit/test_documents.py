"""What the documents name exists, and what they show is what is there."""

import re
import tokenize
from collections.abc import Iterator
from functools import cache
from io import StringIO
from pathlib import Path

import pytest

from wa import limits

ROOT = Path(__file__).parent.parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def anchors(document: Path) -> set[str]:
    """What a link can name in a document, as GitHub makes it of a heading."""
    titles = re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def dead_links(document: Path, text: str) -> list[str]:
    dead = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        name, _, anchor = target.partition("#")
        there = document.parent / name if name else document
        if "://" not in target and not (there.exists() and (not anchor or anchor in anchors(there))):
            dead.append(f"{document.name}: {target}")
    return dead


def test_links_lead_somewhere() -> None:
    assert [link for document in DOCUMENTS for link in dead_links(document, document.read_text())] == []


def test_a_dead_link_is_found() -> None:
    text = "[a](docs/protocol.md#1-connection) [b](nowhere.txt) [c](#licence) [d](docs/protocol.md#1-connections)"
    assert dead_links(ROOT / "README.md", text) == [
        "README.md: nowhere.txt",
        "README.md: #licence",
        "README.md: docs/protocol.md#1-connections",
    ]


def test_files_that_are_named_exist() -> None:
    dead = []
    for document in DOCUMENTS:
        for path in re.findall(r"`((?:wa|tests|scripts|docs|examples|bench|freebsd)/[\w./]*\w)`", document.read_text()):
            if not (ROOT / path).exists():
                dead.append(f"{document.name}: {path}")
    assert dead == []


def test_modules_that_the_architecture_names_exist() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    named = set(re.findall(r"`(?:\w+/)*(\w+\.(?:py|pyx|pxd))\b", text))
    assert named - {path.name for path in (ROOT / "wa").rglob("*.p*")} == set()


def test_readme_shows_the_example() -> None:
    example = (ROOT / "examples/hello.py").read_text()
    (shown,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert example.endswith(shown)
    assert len(shown.splitlines()) <= 20


def test_make_help_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert set(re.findall(r"echo 'make (\w+)", makefile)) == set(phony.split()) - {"help"}


# --- docs/semantics.md: its numbers and its proofs ------------------------------------------------------

# A bound and its value beside it: `LINGER_MS` (50 ms).
NUMBER = re.compile(r"`([A-Z][A-Z0-9_]+)`(?:\s\(([\d,]+)(?: (ms|s|h|days|KiB|MiB))?\))?")
IN_MS = {"ms": 1, "s": 1_000, "h": 3_600_000, "days": 86_400_000}
IN_BYTES = {"KiB": 1 << 10, "MiB": 1 << 20}


def bound_of(name: str, value: str, unit: str) -> int:
    """What a document says of a bound, in the unit that the bound's name ends with."""
    number = int(value.replace(",", ""))
    if unit in IN_MS:
        return number * IN_MS[unit] // (1 if "_MS" in name else 1_000)
    return number * IN_BYTES.get(unit, 1)


def wrong_numbers(text: str) -> list[str]:
    """Bounds that wa/limits.py has not, or has with another value."""
    wrong = []
    for name, value, unit in NUMBER.findall(text):
        actual = getattr(limits, name, None)
        if actual is None or (value and bound_of(name, value, unit) != actual):
            wrong.append(f"{name} ({value} {unit}) is {actual}")
    return wrong


def test_numbers_of_the_semantics_are_those_of_the_code() -> None:
    assert wrong_numbers((ROOT / "docs/semantics.md").read_text()) == []


def test_every_bound_of_delivery_is_in_the_semantics() -> None:
    source = (ROOT / "wa/limits.py").read_text()
    (section,) = re.findall(r"^# --- delivery .*?(?=^# --- )", source, re.MULTILINE | re.DOTALL)
    bounds = set(re.findall(r"^([A-Z_]+) =", section, re.MULTILINE))
    stated = {name for name, value, _ in NUMBER.findall((ROOT / "docs/semantics.md").read_text()) if value}
    assert bounds - stated == set()


@pytest.mark.parametrize(
    "text", ["`LINGER_MS` (51 ms)", "`LINGER_MS` (50 s)", "`RETENTION_S` (29 days)", "`NO_SUCH_BOUND`"]
)
def test_a_wrong_number_is_found(text: str) -> None:
    assert len(wrong_numbers(text)) == 1


@pytest.mark.parametrize(
    "text", ["`LINGER_MS` (50 ms)", "`RETENTION_S` (30 days)", "`OUTPUT_BYTES_MAX` (1 MiB)", "`RESEND_AFTER_MS` (5 s)"]
)
def test_a_right_number_is_not(text: str) -> None:
    assert wrong_numbers(text) == []


def proofs() -> dict[str, set[str]]:
    """What may prove a rule, by its label: the names that exist, read from the sources."""
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    sim = "".join(path.read_text() for path in sorted((ROOT / "sim").glob("*.py")))
    (injected,) = re.findall(r"^FAULTS\b[^(]*\(\n(.*?)^\)", sim, re.MULTILINE | re.DOTALL)
    faults = (ROOT / "faults/__main__.py").read_text()
    return {
        "": set(re.findall(r"\bdef (test_\w+)", tests)),
        "sim": set(re.findall(r"violate\(\s*\"(\w+)\"", sim)),
        "sim fault": set(re.findall(r"\"(\w+)\"", injected)),
        "sim control": set(re.findall(r"\bControl\(\s*\"(\w+)\"", sim)),
        "faults": set(re.findall(r"^@app\.command\([^)]*\)\ndef (\w+)", faults, re.MULTILINE)),
        "faults check": set(re.findall(r"^def (\w+)", (ROOT / "faults/checks.py").read_text(), re.MULTILINE)),
    }


def missing_proofs(text: str) -> list[str]:
    there = proofs()
    named = re.findall(r"`(?:(sim|sim fault|sim control|faults|faults check): )?([a-z]\w+)`", text)
    return sorted(
        f"{label}: {name}" for label, name in named if (label or name[:5] == "test_") and name not in there[label]
    )


def test_what_proves_the_semantics_exists() -> None:
    text = (ROOT / "docs/semantics.md").read_text()
    assert missing_proofs(text) == []
    assert all(len(names) > 3 for names in proofs().values())
    _, proved = text.split("## What proves it")
    rules = rules_of(text)
    assert set(re.findall(r"^- \*\*Rule (\d+)\*\*:", proved, re.MULTILINE)) == rules


def test_a_proof_that_is_not_there_is_found() -> None:
    text = "`sim: losst`, `sim control: no_fsyncs`, `faults: killed`, `test_of_nothing_at_all`, `sim: lost`, `kept`"
    assert missing_proofs(text) == [
        ": test_of_nothing_at_all",
        "faults: killed",
        "sim control: no_fsyncs",
        "sim: losst",
    ]


def rules_of(semantics: str) -> set[str]:
    return set(re.findall(r"^### Rule (\d+): ", semantics, re.MULTILINE))


def test_the_rules_are_numbered() -> None:
    assert rules_of((ROOT / "docs/semantics.md").read_text()) == {str(n) for n in range(1, 13)}


# --- citations: what a comment or a document refers to is there ------------------------------------------

TOPS = ("wa", "sim", "faults", "bench", "tests", "scripts", "examples", "docs")
CODE = (".py", ".pyx", ".pxd", ".pxi", ".pyi")
MODULE_ENDINGS = (*CODE, "/__init__.py")
DOCUMENT = re.compile(r"\bdocs/([a-z0-9_]+)\b")
SECTIONS = re.compile(
    r"\b(?:docs/)?([a-z0-9_]+)\.md`?(?:\]\([^)]*\))?,? (?:sections? )?"
    r"(\d+(?:\.\d+)?(?:(?:, | and | to )\d+(?:\.\d+)?)*|\"[^\"]+\"|(?<=, )[A-Z]\w+)"
)
RULES = re.compile(r"\b[Rr]ules? (\d+(?:(?:, | and | to )\d+)*)")
BOUND = re.compile(r"\blimits\.([A-Z][A-Z0-9_]+)")
FILE = re.compile(r"(?<![\w./*-])((?:[\w-]+/)*[\w-]+\.(?:pyx|pxd|pxi|pyi|py|md|sh))\b(?!\()")
MODULE = re.compile(r"\b(?:wa|sim|faults|bench)(?:\.[a-z_]\w*){2,}")
OUTSIDE = re.compile(r"\bshared/")  # what only the authors have


def files_with_citations() -> list[Path]:
    found = [path for top in TOPS for path in (ROOT / top).rglob("*") if path.suffix in (*CODE, ".md", ".sh")]
    return sorted([*found, *ROOT.glob("*.md"), *ROOT.glob("*.py"), ROOT / "Makefile"])


# Every way to name a file of the tree: "contract.pxd", "mailbox/contract.pxd", …
NAMES = {"/".join(path.relative_to(ROOT).parts[n:]) for path in files_with_citations() for n in range(5)}


def comments(source: str) -> Iterator[str]:
    """Comments and docstrings of Python or Cython; of the latter also the C code that stands in a string."""
    begins = True
    for token in tokenize.generate_tokens(StringIO(source).readline):
        if token.type == tokenize.COMMENT or (token.type == tokenize.STRING and begins):
            yield token.string
        elif token.type not in (tokenize.NL, tokenize.INDENT, tokenize.DEDENT):
            begins = token.type == tokenize.NEWLINE


def numbers(text: str) -> list[str]:
    """ "1, 3 to 5 and 1.2" -> 1 3 4 5 1.2"""
    found: list[str] = []
    for word, number in re.findall(r"(, | and | to )?(\d+(?:\.\d+)?)", text):
        if word == " to " and "." not in number:
            found += [str(n) for n in range(int(found[-1]) + 1, int(number))]
        found.append(number)
    return found


@cache
def headings(name: str) -> set[str]:
    """Numbers and titles of the sections of a document: "4", "1.3", "Upgrades"."""
    lines = re.findall(r"^#+ (?:(\d+(?:\.\d+)?)\.? )?(.*)$", (ROOT / f"docs/{name}.md").read_text(), re.MULTILINE)
    return {heading for line in lines for heading in line if heading}


def is_module(name: str) -> bool:
    """Also of something in a module: "wa.errors.Code", "wa.ids.address_of"."""
    whole = name.replace(".", "/")
    return any(f"{path}{ending}" in NAMES for path in (whole, whole.rpartition("/")[0]) for ending in MODULE_ENDINGS)


@cache
def named_rules() -> set[str]:
    return {f"rule {n}" for n in rules_of((ROOT / "docs/semantics.md").read_text())}


def dead_citations(text: str, named_files: str) -> list[str]:
    """text: all of a file, named_files: the part of it in which a file name is a citation."""
    joined = re.sub(r"\s*\n[ \t]*(?:# ?)?", " ", text)
    dead = [name for name in DOCUMENT.findall(joined) if not any((ROOT / "docs").glob(f"{name}*"))]
    for name, cited in SECTIONS.findall(joined):
        if (ROOT / f"docs/{name}.md").exists():
            wanted = numbers(cited) if cited[0].isdigit() else [cited.strip('"')]
            dead += [f"{name}.md, {each}" for each in wanted if each not in headings(name)]
    dead += [f"rule {n}" for cited in RULES.findall(joined) for n in numbers(cited) if f"rule {n}" not in named_rules()]
    dead += [f"limits.{name}" for name in BOUND.findall(joined) if not hasattr(limits, name)]
    dead += [name for name in FILE.findall(named_files) if name not in NAMES]
    dead += [name for name in MODULE.findall(named_files) if not is_module(name)]
    return dead + OUTSIDE.findall(joined)


def test_every_citation_resolves() -> None:
    dead = {}
    for path in files_with_citations():
        text = path.read_text()
        named_files = "\n".join(comments(text)) if path.suffix in CODE else text
        if found := dead_citations(text, named_files):
            dead[str(path.relative_to(ROOT))] = found
    assert dead == {}


LIVE = (
    "docs/protocol.md, sections 1 and 5; docs/protocol.md, 1.3; [protocol.md](protocol.md), section 5.10"
    ' docs/storage.md, Upgrades; docs/storage.md, section "Registry"; docs/semantics, rules 1 to 6 and 8; rule 12;'
    " limits.LINGER_MS; wa.wire.methods; see wa/limits.py, test_documents.py and\n# docs/protocol.md,\n# section 4"
)


def test_a_live_citation_passes() -> None:
    assert dead_citations(LIVE, LIVE) == []
    assert numbers("1 to 4, 6 and 8") == ["1", "2", "3", "4", "6", "8"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("/semantics", "/semantic_rules"),
        ("1 and 5", "1 and 11"),
        ("md, 1.3", "md, 1.9"),
        ("), section 5.10", "), section 5.99"),
        ("Upgrades", "Downgrades"),
        ('"Registry"', '"Register"'),
        ("6 and 8", "6 and 13"),
        ("12;", "0;"),
        ("LINGER_MS", "LINGER_MINUTES"),
        ("wa/limits", "wa/limit"),
        ("test_documents.py", "test_of_documents.py"),
        ("wire.methods", "wires.methods"),
        ("section 4", "section 44"),
        ("see ", "see sha" + "red/"),
    ],
)
def test_a_dead_citation_is_found(before: str, after: str) -> None:
    text = LIVE.replace(before, after)
    assert text != LIVE
    assert dead_citations(text, text) != []


def test_file_names_are_citations_in_comments_only() -> None:
    source = '"""See a.py."""\nopen("b.py")  # and c.py\n\n\ndef f():\n    """d.py"""\n    return "e.py"\n'
    assert FILE.findall("\n".join(comments(source))) == ["a.py", "c.py", "d.py"]
