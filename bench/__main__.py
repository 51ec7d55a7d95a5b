"""python -m bench SCENARIO.  `python -m bench --help` lists them."""

import sys

from bench.build import enter

if __name__ == "__main__":
    enter(sys.argv[1:])
    from bench.cli import main

    main()
