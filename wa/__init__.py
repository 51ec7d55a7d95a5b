"""wa: a messaging server and its client SDK (README.md; docs/architecture.md for the code)."""

__version__ = "0.1.0"
