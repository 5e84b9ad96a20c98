"""Connections to other libraries, each an optional extra: callbacks for training frameworks, and
figures for experiment trackers.
"""
