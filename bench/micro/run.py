"""Runs the micro benchmarks from the release build, and only from there."""

import subprocess
import sys
from pathlib import Path

from bench.results import results_directory


def run(arguments: list[str]) -> int:
    """pytest's exit code; the figures are also in bench/results/micro.json."""
    here = Path(__file__).parent
    command = [sys.executable, "-P", "-m", "pytest", "-q", "-c", "/dev/null", "--rootdir", str(here)]
    command += ["-p", "no:cacheprovider", f"--benchmark-json={results_directory() / 'micro.json'}"]
    command += ["--benchmark-columns=min,median,iqr,ops,rounds", "--benchmark-warmup=on"]
    return subprocess.run([*command, str(here), *arguments], check=False).returncode
