"""The release build in build/bench/: every figure comes from it, never from the debug build of the tests.

`python -m bench` calls `enter`, which builds what is out of date and restarts from there.  So no figure can come from a
build with assertions.  Nothing here imports a compiled module.
"""

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
BUILT_PATH = "build/bench"
ENTERED_ENV = "BENCH_BUILT_IN"  # set in the process that runs from the release build
COPIED = (".py", ".pyi", ".typed")
NEEDED = ("setuptools", "Cython", "numpy", "typer", "rich")  # a Python with these has the rest of what wa needs, too


def enter(argv: list[str]) -> None:
    """Returns only in a process that runs from the release build; any other process is replaced by one."""
    if ENTERED_ENV in os.environ:
        return
    demand_modules(*NEEDED)
    built = CHECKOUT / BUILT_PATH
    build(built)
    environment = dict(os.environ, PYTHONPATH=str(built), WA_BENCH="1")
    environment[ENTERED_ENV] = str(CHECKOUT)
    os.execve(sys.executable, [sys.executable, "-P", "-m", "bench", *argv], environment)


def demand_modules(*names: str) -> None:
    """Raises SystemExit with what to run when any of them is not installed."""
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise SystemExit(
            f"bench: {', '.join(missing)} not installed for {sys.executable};"
            " run: make setup, then: .venv/bin/python -m bench"
        )


def build(built: Path) -> None:
    """Compiles what is out of date and mirrors the Python files.  Raises SystemExit with the compiler's words."""
    print(
        "bench: updating the release build (a minute or two when everything changed)", file=sys.stderr
    )
    command = [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", str(built)]
    command += ["--build-temp", "build/bench-objects"]
    environment = dict(os.environ, WA_BENCH="1", WA_DEBUG="0")
    done = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"bench: the build failed:\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    for package in ("wa", "sim", "bench"):
        mirror(CHECKOUT / package, built / package)


def mirror(source: Path, target: Path) -> None:
    """Makes the Python files of `target` those of `source`; compiled modules stay, unless their source is gone."""
    wanted = {path.relative_to(source) for path in source.rglob("*") if path.suffix in COPIED}
    for name in wanted:
        new, old = source / name, target / name
        if not old.exists() or old.read_bytes() != new.read_bytes():
            old.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(new, old)
    for path in target.rglob("*"):
        if path.suffix in COPIED and path.relative_to(target) not in wanted:
            path.unlink()
        if (
            path.suffix == ".so"
            and not (source / path.relative_to(target)).with_name(path.name.split(".")[0] + ".pyx").exists()
        ):
            path.unlink()


def checkout() -> Path:
    """Where the sources are, also in the process that runs from the build."""
    return Path(os.environ.get(ENTERED_ENV, str(CHECKOUT)))
