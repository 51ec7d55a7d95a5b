"""python -m bench <scenario>: see `python -m bench --help`."""

import sys

from bench.build import enter

if __name__ == "__main__":
    enter(sys.argv[1:])
    from bench.cli import main

    main()
