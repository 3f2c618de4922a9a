"""The step table: text that fits, HTML that is safe, frames on demand."""

import subprocess
import sys

import msgspec
import pytest

from workbench.draft_choice import DraftChoice
from workbench.events import Budget, Finished, KvUsage, Proposed, Sampled, Scheduled, SpecRound, StepRecord, StepTiming
from workbench.table import StepTable


def record(step):
    usage = KvUsage(5, 2, 9)
    rows = (
        Scheduled("a", "prefill", 0, 7),
        Scheduled("b", "prefill", 16, 20, 16),
        Scheduled("c", "decode", 9, 10),
        Scheduled("d", "verify", 3, 6, 0, 2),
    )
    return StepRecord(
        step,
        step * 0.02,
        StepTiming(0.5, 1.0, 15.25, 2.0, 0.25, 3.0),
        Budget(64, 15),
        Budget(8, 4),
        usage,
        usage,
        scheduled=rows,
        sampled=(Sampled("c", (1,)), Sampled("d", (2, 3))),
        preempted=("x",),
        finished=(Finished("c", "stop"), Finished("y", "length")),
        running=("a", "b", "c", "d"),
        waiting=("e",),
        spec=(SpecRound("d", 2, 1, 2, 1),),
        proposed=(Proposed("c", (5, 6)), Proposed("d", (7,))),
        draft_choice=DraftChoice(0, "measuring", 2),
    )


def table(length):
    return StepTable([record(step) for step in range(length)])


def test_a_row_holds_what_the_record_says():
    assert table(3)[2] == {
        "step": 2,
        "start_ms": pytest.approx(40.0),
        "duration_ms": 22.0,
        "tokens": 15,
        "token_limit": 64,
        "running": 4,
        "waiting": 1,
        "prefill_tokens": 11,
        "decode_tokens": 1,
        "verify_tokens": 3,
        "cached_tokens": 16,
        "kv_in_use": 5,
        "kv_cached": 2,
        "kv_free": 9,
        "sampled_tokens": 3,
        "preempted": 1,
        "finished": 2,
        "held": 0,
        "plan_ms": 0.5,
        "prepare_ms": 1.0,
        "forward_ms": 15.25,
        "sample_ms": 2.0,
        "draft_ms": 3.0,
        "commit_ms": 0.25,
        "proposed_drafts": 3,
        "accepted_drafts": 1,
        "draft_choice": "no drafts yet: a step without them is measured first",
        "draft_problem": "",
    }


def test_it_indexes_by_row_slice_and_column():
    steps = table(5)
    assert len(steps) == 5
    assert steps[-1]["step"] == 4
    assert steps[1:3]["step"] == [1, 2]
    assert [row["step"] for row in steps] == [0, 1, 2, 3, 4]


def test_an_unknown_column_names_those_there_are():
    with pytest.raises(KeyError, match="no column 'speed'; there are step, start_ms"):
        table(1)["speed"]


@pytest.mark.parametrize("width", [40, 80, 120, 300])
def test_no_line_is_wider_than_the_terminal(width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    lines = repr(table(100)).splitlines()
    assert max(map(len, lines)) <= width
    assert len({len(line) for line in lines[:10]}) == 1


def test_columns_that_do_not_fit_are_named():
    text = table(2).to_text(60)
    assert "draft_problem" in text
    assert "more columns" in text
    assert "more columns" not in table(2).to_text(400)


def test_a_long_table_shows_its_beginning_and_its_end():
    lines = table(1000).to_text(80).splitlines()
    shown = [line.split()[0] for line in lines[2:19]]
    assert shown == [*map(str, range(8)), "…", *map(str, range(992, 1000))]
    assert "1000 steps" in lines[19]


def test_a_table_of_seventeen_rows_is_shown_whole():
    assert "…" not in table(17).to_text(80)


def test_an_empty_table_says_so():
    assert repr(table(0)) == "(no steps)"
    assert table(0)._repr_html_() == "<em>no steps</em>"


def test_html_holds_every_column_and_no_script():
    html = table(30)._repr_html_()
    assert html.count("<th ") == len(StepTable.columns)
    assert html.count("<tr>") == 1 + 17
    assert "<script" not in html
    assert "30 steps" in html


def test_pandas_and_arrow_hold_the_same_numbers():
    steps = table(4)
    frame, arrow = steps.to_pandas(), steps.to_arrow()
    assert list(frame.columns) == arrow.column_names == list(StepTable.columns)
    assert frame.to_dict("list") == arrow.to_pydict() == steps.to_dict()


def test_an_empty_table_converts_too():
    assert len(table(0).to_pandas()) == len(table(0).to_arrow()) == 0


@pytest.mark.parametrize(("method", "package"), [("to_pandas", "pandas"), ("to_arrow", "pyarrow")])
def test_a_missing_package_is_named_with_what_to_install(method, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModuleNotFoundError, match=f"needs the package {package}: pip install {package}"):
        getattr(table(1), method)()


def test_making_and_printing_a_table_loads_neither_pandas_nor_arrow():
    code = (
        "import sys; from workbench.table import StepTable; repr(StepTable([])); print({'pandas', 'pyarrow', 'numpy'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_a_step_whose_drafting_failed_says_so():
    failed = msgspec.structs.replace(record(1), proposed=(), draft_problem="ValueError: draft 90000 for r0 is no token id")
    assert StepTable([record(0), failed])["draft_problem"] == ["", "ValueError: draft 90000 for r0 is no token id"]
    assert "draft 90000 for r0" in StepTable([failed]).to_text(1000)
