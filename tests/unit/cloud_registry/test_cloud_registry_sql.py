"""All SQL of the programs that share a database stays within what CockroachDB takes too: no server is needed for that.

What it refuses, or takes and does not do, was tried on real ones; each line here is one of those.
"""

import importlib
import pkgutil
import re
from collections import Counter

import pytest

import dmpd.access
import dmpd.canary
import dmpd.cloud_registry
from dmpd.cloud_registry import migrate

REFUSED = {
    r"\bxmax\b|\bctid\b": "no system columns of PostgreSQL's",
    r"\bLISTEN\b|\bNOTIFY\b|pg_notify": "no notifications",
    r"\bMERGE\s+INTO\b": "no MERGE",
    r"\bTEMP(ORARY)?\s+TABLE\b": "temporary tables are experimental",
    r"\bDO\s+\$": "no DO block",
    r"advisory": "session advisory locks are stubs that are always free",
    r"\bLOCK\s+TABLE\b": "no table locks",
    r"jsonb\[\]": "arrays of jsonb are new there",
    r"ON\s+CONFLICT\s+ON\s+CONSTRAINT": "name the columns",
    r"\btxid_|pg_current_xact": "no transaction ids",
    r"\bCOPY\b": "COPY is cut into pieces outside a transaction",
    r"\bREFERENCES\b|\bFOREIGN\s+KEY\b": "rows of one Kafka key never wait for those of another",
    r"\bCREATE\s+TRIGGER\b|\bNULLS\s+NOT\s+DISTINCT\b|\bPARTITION\s+(BY|OF)\b": "does not parse, or is new there",
}
_STATEMENT = re.compile(r"^\s*(--.*\n\s*)*(SELECT|INSERT|UPDATE|DELETE|WITH|CREATE|ALTER)\b", re.IGNORECASE)
_CHANGES = re.compile(r"\b(?:INSERT\s+INTO|UPDATE|DELETE\s+FROM)\s+(?!SET\b)([a-z_]+)", re.IGNORECASE)


def all_sql():
    """By name: every constant of the rooms that is a statement, and every statement of the schema's steps."""
    rooms = (dmpd.access, dmpd.canary, dmpd.cloud_registry)
    for found in (one for room in rooms for one in pkgutil.iter_modules(room.__path__, f"{room.__name__}.")):
        for name, value in vars(importlib.import_module(found.name)).items():
            texts = [value] if isinstance(value, str) else value if isinstance(value, tuple) else ()
            for place, text in enumerate(texts):
                if isinstance(text, str) and _STATEMENT.match(text):
                    yield f"{found.name}.{name}.{place}", text
    for step in migrate.steps():
        for place, statement in enumerate(migrate.statements(step.sql)):
            yield f"{step.name}.{place}", statement


SQL = dict(all_sql())


def test_it_finds_them():
    assert len(SQL) > 30
    assert any(name.endswith("UPSERT_ATTRIBUTES.0") for name in SQL)


@pytest.mark.parametrize(("pattern", "why"), REFUSED.items(), ids=REFUSED.values())
def test_nothing_that_cockroachdb_refuses(pattern, why):
    found = [name for name, text in SQL.items() if re.search(pattern, text, re.IGNORECASE)]
    assert not found, why


def test_no_statement_changes_a_table_twice():
    for name, text in SQL.items():
        changes = re.sub(r"FOR\s+UPDATE|DO\s+UPDATE", "", text, flags=re.IGNORECASE)
        assert max(Counter(_CHANGES.findall(changes)).values(), default=0) <= 1, name
