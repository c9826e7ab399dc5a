"""SQL over a trace."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import workbench as api
from tests.trace.conftest import Make
from workbench.errors import FormatError, WorkbenchError
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


def test_a_stream_is_scanned_as_often_as_it_is_named(make_trace: Make) -> None:
    path = str(make_trace())
    sql = "select count(*) n from accesses a join accesses b using (seq)"
    found = query([path, path], sql)
    with api.open(path) as trace:
        assert found["n"].to_pylist() == [4 * trace.rows("accesses")]


@pytest.mark.parametrize(
    ("sql", "names"),
    [
        ("select device, count(*) n from accesses group by all", ["device", "n"]),
        ("select * exclude (pc, addr) from accesses limit 3", None),
        ("select a from accesses a limit 1", ["a"]),
        ("from accesses limit 1", None),
    ],
)
def test_columns_that_are_not_read_are_still_there(
    make_trace: Make, sql: str, names: list[str] | None
) -> None:
    found = query(str(make_trace()).split("\n"), sql)
    every = BY_NAME["accesses"].column_names()
    assert found.column_names == (names or [n for n in every if n not in sql])


def test_of_thousands_of_traces_few_are_open(make_trace: Make) -> None:
    path = str(make_trace())
    handles = Path("/proc/self/fd")
    before = len(list(handles.iterdir()))
    most = 0

    class Names(list[str]):
        def __iter__(self) -> Iterator[str]:
            nonlocal most
            for name in super().__iter__():
                most = max(most, len(list(handles.iterdir())) - before)
                yield name

    sql = "select count(*) n, count(distinct trace) from accesses"
    assert query(Names([path] * 300), sql, paths=True).num_rows == 1
    assert most < 60
    assert len(list(handles.iterdir())) - before < 3


def test_a_damaged_trace_ends_a_query_with_its_name(make_trace: Make, tmp_path: Path) -> None:
    good, bad = make_trace(), tmp_path / "bad.wbt"
    with api.open(good) as trace:
        chunk = trace.chunks(b"ACCS")[-1]
    data = bytearray(good.read_bytes())
    data[chunk.offset + 60] ^= 1
    bad.write_bytes(data)
    with pytest.raises(FormatError, match=r"bad\.wbt: chunk .* is damaged"):
        query([str(good), str(bad)], "select sum(value) from accesses")
    cut = tmp_path / "cut.wbt"
    cut.write_bytes(data[:20])
    broken: dict[str, WorkbenchError] = {}
    found = query([str(cut), str(good)], "select count(*) n from accesses", broken=broken)
    assert found["n"].to_pylist()[0] > 0
    assert list(broken) == [str(cut)]
