"""What the documents name exists, and what they show is what is there."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def test_links_lead_somewhere() -> None:
    dead = []
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#]+)", document.read_text()):
            if "://" not in target and not (document.parent / target).exists():
                dead.append(f"{document.name}: {target}")
    assert dead == []


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
