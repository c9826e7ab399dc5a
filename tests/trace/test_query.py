"""SQL over a trace."""

from __future__ import annotations

from pathlib import Path

import pytest

import workbench as api
from tests.trace.conftest import Make
from workbench.trace.query import DESCRIPTIONS, QueryError, query, schema
from workbench.trace.tables import BY_NAME

pytest.importorskip("duckdb")


def test_query(make_trace: Make) -> None:
    with api.open(make_trace()) as trace:
        found = query(trace, "select device, count(*) n from accesses group by all order by n desc")
        assert sum(found["n"].to_pylist()) == trace.accesses.num_rows
        joined = query(
            trace,
            "select count(*) n from (select seq from ACCESSES union all select seq from exits"
            " union all select seq from interrupts union all select seq from dma"
            " union all select seq from irq_lines union all select seq from requests"
            " union all select seq from inputs"
            " union all select seq from console union all select seq from digests)",
        )
        assert joined["n"].to_pylist() == [trace.events]


def test_the_schema_is_what_duckdb_says(make_trace: Make) -> None:
    assert set(DESCRIPTIONS) == set(BY_NAME)
    with api.open(make_trace()) as trace:
        for name in BY_NAME:
            found = query(trace, f"describe {name}").to_pylist()
            told = [(c, k) for table, c, k in schema() if table == name]
            assert [row["column_name"] for row in found] == [column for column, _ in told]
            for row, (_, kind) in zip(found, told, strict=True):
                assert row["column_type"].lower() == kind or row["column_type"].startswith("ENUM")


def test_a_query_reaches_no_files(make_trace: Make, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a\n1\n")
    with api.open(make_trace()) as trace:
        for sql in (
            f"select * from '{tmp_path}/x.csv'",
            f"copy accesses to '{tmp_path}/y.csv'",
            "set enable_external_access = true",
            f"attach '{tmp_path}/z.db'",
            "install httpfs",
        ):
            with pytest.raises(QueryError, match="the query failed: "):
                query(trace, sql)
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".csv", ".wbt"]


@pytest.mark.parametrize("sql", ["selec 1", "select * from nothing", "select pc + from accesses"])
def test_wrong_queries_are_one_sentence(make_trace: Make, sql: str) -> None:
    with api.open(make_trace()) as trace, pytest.raises(QueryError) as caught:
        query(trace, sql)
    assert "\n" not in str(caught.value)
