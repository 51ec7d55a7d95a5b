"""Benchmarks: what one message, one login and one idle connection cost, always beside a floor in the same run."""
