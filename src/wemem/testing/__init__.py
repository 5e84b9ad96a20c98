"""Conformance checks: what every attack must do, as functions that a user calls on an attack of their own."""

from wemem.testing.attacks import check_attack

__all__ = ["check_attack"]
