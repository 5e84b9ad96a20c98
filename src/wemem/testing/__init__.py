"""Conformance checks: requirements on every attack and defense, as functions that a user calls on an own one."""

from wemem.testing.attacks import check_attack
from wemem.testing.defenses import check_defense

__all__ = ["check_attack", "check_defense"]
