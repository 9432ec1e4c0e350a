"""Advice for code that imports AVO's packages by the names that they had when they were not below ``avo``."""

import re

FORMER = ("agents", "evaluator", "knowledge_base", "lineage_db", "seeds")
"""The top-level names that packages below ``avo`` had."""
_LACKING = re.compile(rf"(?:module named '?|from '|module ')((?:{'|'.join(FORMER)})\b[\w.]*)")


def with_new_name(message: str) -> str:
    """Return the message of an error, with what to write where an import or what it gave lacks such a name."""
    lacking = _LACKING.search(message)
    return f"{message}: write avo.{lacking[1]} if AVO's is meant" if lacking else message
