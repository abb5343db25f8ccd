"""Tells what a script did, by what its driver answered: a line of JSON for each statement that was executed."""

import json


def done(statement, rows=0):
    """It came to its end, with so many rows returned or affected."""
    print(json.dumps({"statement": statement, "rows": max(rows, 0)}))


def failed(statement, code):
    """It failed with this SQLSTATE."""
    print(json.dumps({"statement": statement, "error": code}))


def skipped(statement):
    """It was sent and not begun, as one before it had failed."""
    print(json.dumps({"statement": statement, "skipped": True}))
