"""python -m bench.pinned CORES PARENT COMMAND…: runs the command on these cores, no longer than its parent lives."""

import os
import sys

from wa.runtime.process import die_with_parent


def main(cores: str, parent: str, *command: str) -> None:
    die_with_parent(int(parent))
    os.sched_setaffinity(0, {int(core) for core in cores.split(",")})
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(*sys.argv[1:])
