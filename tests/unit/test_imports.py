"""Imports point one way, and the server cannot reach what reads messages.

Shown twice: over the import statements of every module (also those inside functions and of Cython files), and
by loading the server in a process of its own and looking at what came along.
"""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

WA = Path(__file__).parents[2] / "wa"
CYTHON_FROM = re.compile(r"^\s*from\s+(wa[\w.]*)\s+c?import\s+(\([^)]*\)|[\w, ]*)", re.MULTILINE)
CYTHON_IMPORT = re.compile(r"^\s*c?import\s+(wa[\w.]*)", re.MULTILINE)

# Modules that everything may use, and which use nothing but one another.
COMMON = {"limits", "errors", "ids"}
SERVER_COMMON = {"config", "log", "metrics"}

# What each package may import beside itself and COMMON.  The fast path fills its tables from the catalogue in
# `wire`; `noise` chooses between libsodium and the fast path's primitives.
ALLOWED: dict[str, set[str]] = {
    **{name: set() for name in COMMON | SERVER_COMMON},
    "wire": set(),
    "_fastpath": {"wire"},
    "noise": {"_fastpath"},
    "routing": {"wire", "_fastpath"},
    "storage": {"routing", "wire", "_fastpath"},
    "services": {"routing", "storage", "wire"},
    "runtime": {"services", "routing", "storage", "wire", "_fastpath", "noise"} | SERVER_COMMON,
    "e2e": set(),
    "client": {"wire", "noise", "e2e"},
    "cli": {"runtime", "client", "e2e"} | SERVER_COMMON,
}
SERVER = ("runtime", "services", "routing", "storage", "wire", "_fastpath", "cli.serve")
SECRET = ("e2e", "client")


def module_name(path: Path) -> str:
    """ "runtime.serve" of wa/runtime/serve.py; "" of wa/__init__.py."""
    parts = path.relative_to(WA).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def python_imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def cython_imports(path: Path) -> set[str]:
    text = path.read_text()
    found = set(CYTHON_IMPORT.findall(text))
    for module, names in CYTHON_FROM.findall(text):
        found |= {module} | {f"{module}.{name.split()[0]}" for name in names.strip("()").split(",") if name.strip()}
    return found


def import_graph() -> dict[str, set[str]]:
    """Module -> modules of wa that it imports, by names without "wa."."""
    paths = [path for path in WA.rglob("*") if path.suffix in (".py", ".pyx", ".pxd")]
    modules = {module_name(path) for path in paths}
    graph: dict[str, set[str]] = {module: set() for module in modules}
    for path in paths:
        imported = python_imports(path) if path.suffix == ".py" else cython_imports(path)
        names = {name[3:] for name in imported if name.startswith("wa.")}
        graph[module_name(path)] |= (names & modules) - {""}
    return graph


GRAPH = import_graph()


def reachable(start: str) -> dict[str, str]:
    """Every module that loading `start` can load, with the one that imports it."""
    came_from = {start: ""}
    waiting = [start]
    while waiting:
        module = waiting.pop()
        # A module loads its packages first.
        parents = {".".join(module.split(".")[:n]) for n in range(1, module.count(".") + 1)}
        for imported in GRAPH.get(module, set()) | (parents & GRAPH.keys()):
            if imported not in came_from:
                came_from[imported] = module
                waiting.append(imported)
    return came_from


def test_the_graph_sees_what_is_there():
    assert "services.base" in GRAPH["services.keys"]
    assert "limits" in GRAPH["_fastpath.loop.worker"]
    assert "runtime.serve" in GRAPH["cli.serve"]
    assert {name.split(".")[0] for name in GRAPH} - {""} == ALLOWED.keys()


@pytest.mark.parametrize("module", sorted(GRAPH))
def test_imports_point_one_way(module):
    package = module.split(".")[0]
    wrong = {
        imported
        for imported in GRAPH[module]
        if imported.split(".")[0] not in ALLOWED.get(package, set()) | COMMON | {package}
    }
    assert not wrong, f"wa.{module} must not import {wrong}"


# The rooms of the fast path; each may use those of the lines before it, and itself.
ROOMS = (
    {"base"},
    {"os", "noise", "wire"},
    {"mailbox", "bus"},  # the seams: neither knows a worker
    {"state"},
    {"conn"},
    {"custody"},
    {"session"},
    {"loop"},
)


def arrows_that_point_up(graph: dict[str, set[str]]) -> list[str]:
    level = {room: at for at, rooms in enumerate(ROOMS) for room in rooms}
    found = []
    for module, imported in graph.items():
        for name in imported:
            here, there = module.split("."), name.split(".")
            inside = here[0] == there[0] == "_fastpath" and min(len(here), len(there)) > 2
            if inside and here[1] != there[1] and level[there[1]] >= level[here[1]]:
                found.append(f"{module} -> {name}")
    return found


def test_rooms_of_the_fast_path_do_not_call_in_circles():
    rooms = {path.name for path in (WA / "_fastpath").iterdir() if (path / "__init__.py").exists()}
    assert rooms == set().union(*ROOMS)
    assert "_fastpath.custody.receipts" in GRAPH["_fastpath.custody.intake"]
    assert "_fastpath.conn.output" in GRAPH["_fastpath.custody.flight"]
    assert arrows_that_point_up(GRAPH) == []


def test_an_arrow_that_points_up_is_found():
    graph = {"_fastpath.conn.output": {"_fastpath.custody.drain"}, "_fastpath.custody.drain": {"_fastpath.conn.output"}}
    assert arrows_that_point_up(graph) == ["_fastpath.conn.output -> _fastpath.custody.drain"]


def test_custody_tells_senders_through_receipts_only():
    """What a sender hears is decided in one place: frames of receipts are written there, and their messages sent."""
    sources = {path.stem: path.read_text() for path in (WA / "_fastpath/custody").glob("*.pyx")}
    assert [name for name, text in sources.items() if "BUS_RECEIPT" in text] == ["receipts"]


def test_no_server_module_can_reach_what_reads_messages():
    server = [name for name in GRAPH if any(name == part or name.startswith(part + ".") for part in SERVER)]
    assert {"runtime.supervisor", "services.keys", "_fastpath.loop", "cli.serve"} <= set(server)
    for module in server:
        came_from = reachable(module)
        bad = [name for name in came_from if name.split(".")[0] in SECRET]
        assert not bad, f"wa.{module} reaches wa.{bad[0]} through wa.{came_from[bad[0]]}"


@pytest.mark.parametrize(
    "load",
    [
        "import wa.runtime.supervisor, wa.runtime.serve, wa.runtime.worker",
        "from wa.cli.main import make_app; make_app(['serve'])",
    ],
)
def test_a_loaded_server_has_not_loaded_it(load):
    code = f"{load}\nimport sys\nprint('\\n'.join(sys.modules))"
    command = [sys.executable, "-c", code]
    loaded = subprocess.run(command, cwd=WA.parent, capture_output=True, text=True, check=True).stdout.split()
    assert "wa.runtime.supervisor" in loaded
    assert [name for name in loaded if name.startswith(("wa.e2e", "wa.client", "wa.cli.client"))] == []
