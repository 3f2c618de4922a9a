from __future__ import annotations

from render_fixtures import make_trace, scripted_run

from workbench.events import Decision, Reason, Verdict
from workbench.render.board import Lane, board_of, fold, fold_kinds


def test_every_scheduled_row_becomes_a_cell_of_its_kind():
    trace = make_trace(6, drafts_from=20)
    board = board_of(trace)
    for kind in ("prefill", "decode", "verify"):
        rows = sum(row.kind == kind for record in trace for row in record.scheduled)
        assert rows == sum(lane.kinds.count(kind) for lane in board.lanes) > 0


def test_every_unfinished_request_has_a_state_in_every_step_of_a_real_run():
    run = scripted_run([list(range(30 + i)) for i in range(6)], max_num_seqs=3, num_blocks=9, max_tokens=20)
    board = board_of(run.trace)
    for index, record in enumerate(run.trace):
        assert {lane.request_id for lane in board.lanes if lane.kinds[index]} == {decision.request_id for decision in record.decisions}


def test_a_preempted_request_shows_its_preemption_and_then_waits_for_a_reason():
    run = scripted_run([list(range(60)), list(range(100, 160))], num_blocks=9, max_tokens=30)
    lane = next(lane for lane in board_of(run.trace).lanes if lane.preempted)
    index = lane.preempted[0]
    assert lane.kinds[index] == "preempted"
    assert lane.kinds[index + 1] == "waiting"
    assert "needs 1 block, 0 free" in lane.why(index, index + 1)


def test_a_request_that_loses_its_blocks_to_another_names_it():
    lane = Lane("r2", ["preempted"])
    lane.refused[0] = Decision("r2", Verdict.PREEMPTED, Reason.PREEMPTED_FOR, 0, 1, 0, None, "r0")
    assert lane.why(0, 1) == "its blocks went to r0"


def test_a_request_that_has_not_arrived_is_not_drawn():
    run = scripted_run([{"prompt": [1, 2, 3]}, {"prompt": [4, 5], "arrival_step": 4}], max_tokens=8)
    late = board_of(run.trace).lanes[1]
    assert late.kinds[:4] == [""] * 4
    assert late.kinds[4] == "prefill"


def test_a_request_that_is_done_but_holds_its_place_is_held():
    run = scripted_run([{"prompt": [1, 2], "max_tokens": 2}, {"prompt": [3, 4], "max_tokens": 6}], batching="static", max_num_seqs=2)
    assert "held" in board_of(run.trace).lanes[0].kinds


def test_the_reason_of_a_wait_carries_its_latest_numbers():
    lane = Lane("r1", ["waiting"] * 3)
    for index, free in enumerate((1, 2, 3)):
        lane.refused[index] = Decision("r1", Verdict.DEFERRED, Reason.NO_FREE_BLOCKS, 0, 7, free, 9)
    assert lane.why(0, 3) == "needs 7 blocks, 3 free"


def test_every_reason_can_be_put_in_words():
    for reason in Reason:
        lane = Lane("r1", ["waiting"])
        lane.refused[0] = Decision("r1", Verdict.DEFERRED, reason, 0, 1, 2, 3, "r0")
        assert lane.why(0, 1)
        assert "{" not in lane.why(0, 1)


def test_runs_of_a_lane_are_half_open_and_leave_gaps_out():
    lane = Lane("r1", ["", "prefill", "decode", "decode", "", "waiting"])
    assert list(lane.runs()) == [("prefill", 1, 2), ("decode", 2, 4), ("waiting", 5, 6)]


def test_folding_keeps_mean_and_maximum():
    assert fold([1, 3, 5, 0, 4], 3) == [(3.0, 5), (2.0, 4)]


def test_folding_states_never_hides_a_preemption_or_a_prefill():
    assert fold_kinds(["decode", "preempted", "decode", "decode", "decode", "prefill", "decode", "waiting", "waiting"], 3) == [
        "preempted",
        "prefill",
        "waiting",
    ]


def test_a_column_in_which_a_request_exists_at_all_is_not_empty():
    assert fold_kinds(["", "", "decode"], 3) == ["decode"]
