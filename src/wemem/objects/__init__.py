"""Commands on objects: data, models and functions of a program in, results with tables and figures
out.

Every function here prepares a study and calls the command of its name in :mod:`wemem.api`.
"""
