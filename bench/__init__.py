"""Benchmarks: the cost of a message, a login and an idle connection, beside a floor in the same run.  See README.md."""
