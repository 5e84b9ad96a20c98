"""Conformance checks: requirements on attacks and defenses, as functions for a user's tests."""

from wemem.testing.attacks import check_attack
from wemem.testing.defenses import check_defense

__all__ = ["check_attack", "check_defense"]
