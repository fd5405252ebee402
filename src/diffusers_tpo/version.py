"""The version of this package. Knows no one."""

__version__ = "0.1.0"
