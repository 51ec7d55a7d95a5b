"""wa: a messaging server that keeps its promises, and its client SDK."""

__version__ = "0.1.0"
