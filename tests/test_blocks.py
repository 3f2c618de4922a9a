from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.blocks import BlockPool
from workbench.errors import IntegrityError
from workbench.kv import KvCache
from workbench.prefix import ROOT, block_hash, extend_hashes
from workbench.request import Request, SamplingParams
from workbench.state import RequestState


def state(name, tokens, **sampling):
    return RequestState(Request(id=name, prompt_token_ids=tuple(tokens), sampling=SamplingParams(**sampling)), 0, 10_000)


def give(kv: KvCache, one: RequestState, num_tokens: int | None = None) -> bool:
    found = kv.find_prefix(one)
    known = len(one.token_ids)
    done = kv.allocate(one, num_tokens or known, found)
    if done:
        kv.register(one, min(num_tokens or known, known))
    return done


# -- the pool ----------------------------------------------------------------------------------------------------------


def test_blocks_are_handed_out_from_the_front_of_the_free_queue():
    pool = BlockPool(5)
    assert pool.allocate(2, "a") == [1, 2]
    assert pool.free_order() == (3, 4, 5)


def test_block_zero_is_never_handed_out():
    assert 0 not in BlockPool(3).allocate(3, "a")


def test_blocks_without_content_return_to_the_front_and_those_with_content_to_the_back():
    pool = BlockPool(6)
    table = pool.allocate(4, "a")
    pool.cache(table[0], b"x" * 16, "a")
    pool.cache(table[1], b"y" * 16, "a")
    pool.free(table, "a")
    assert pool.free_order() == (4, 3, 5, 6, 2, 1)


def test_content_is_forgotten_only_when_its_block_is_reused():
    pool = BlockPool(2)
    table = pool.allocate(1, "a")
    pool.cache(table[0], b"x" * 16, "a")
    pool.free(table, "a")
    assert pool.index.find(b"x" * 16) == 1
    pool.allocate(1, "b")
    assert pool.index.find(b"x" * 16) == 1
    pool.allocate(1, "b")
    assert pool.index.find(b"x" * 16) is None


def test_the_oldest_of_several_blocks_with_one_content_is_found():
    pool = BlockPool(3)
    for block_id in pool.allocate(2, "a"):
        pool.cache(block_id, b"x" * 16, "a")
    assert pool.index.find(b"x" * 16) == 1


def test_a_shared_block_is_free_only_when_its_last_owner_lets_go():
    pool = BlockPool(2)
    table = pool.allocate(1, "a")
    pool.cache(table[0], b"x" * 16, "a")
    pool.touch(table, "b")
    pool.free(table, "a")
    assert (pool.refs(1), pool.num_free) == (1, 1)
    pool.free(table, "b")
    assert pool.num_free == 2


def test_usage_counts_in_use_cached_and_free_apart():
    pool = BlockPool(4)
    kept, gone = pool.allocate(1, "a"), pool.allocate(1, "b")
    pool.cache(gone[0], b"x" * 16, "b")
    pool.free(gone, "b")
    assert (pool.usage.in_use, pool.usage.cached, pool.usage.free, pool.usage.total) == (1, 1, 2, 4)
    assert kept == [1]


def test_the_cache_is_not_forgotten_while_a_block_is_in_use():
    pool = BlockPool(2)
    table = pool.allocate(1, "a")
    pool.cache(table[0], b"x" * 16, "a")
    assert not pool.forget_content()
    pool.free(table, "a")
    assert pool.forget_content()
    assert pool.usage.cached == 0


def test_a_table_that_the_pool_does_not_know_of_breaks_integrity():
    pool = BlockPool(2)
    with pytest.raises(IntegrityError, match="references"):
        pool.check_integrity([[1]])


# -- hashes ------------------------------------------------------------------------------------------------------------


def test_two_blocks_of_three_tokens_make_two_chained_hashes():
    hashes: list[bytes] = []
    extend_hashes(hashes, range(7), 3)
    assert hashes == [block_hash(ROOT, [0, 1, 2]), block_hash(block_hash(ROOT, [0, 1, 2]), [3, 4, 5])]


@given(st.lists(st.integers(0, 5)), st.lists(st.integers(0, 5)), st.integers(1, 4))
def test_hashes_agree_exactly_as_far_as_whole_blocks_do(first, second, size):
    hashes: tuple[list[bytes], list[bytes]] = ([], [])
    extend_hashes(hashes[0], first, size)
    extend_hashes(hashes[1], second, size)
    same = 0
    while first[: size * (same + 1)] == second[: size * (same + 1)] and size * (same + 1) <= min(len(first), len(second)):
        same += 1
    equal = [a == b for a, b in zip(*hashes, strict=False)]
    assert equal == [position < same for position in range(len(equal))]


# -- tables over the pool (vLLM tests/v1/core/test_prefix_caching.py) --------------------------------------------------


def test_decode_takes_a_block_only_when_the_last_is_full():
    kv = KvCache(10, 16, enable_prefix_caching=True)
    one = state("a", range(55))
    give(kv, one)
    assert (len(one.block_ids), kv.shortfall(one, 59), kv.shortfall(one, 74)) == (4, 0, 1)


def test_a_whole_cached_prompt_still_computes_one_token():
    kv = KvCache(10, 16, enable_prefix_caching=True)
    give(kv, state("a", range(48)))
    assert len(kv.find_prefix(state("b", range(48)))) == 2


def test_hit_blocks_are_shared_and_a_new_one_follows():
    kv = KvCache(10, 16, enable_prefix_caching=True)
    first, second = state("a", range(55)), state("b", [*range(48), *range(100, 105)])
    give(kv, first)
    give(kv, second)
    assert (first.block_ids, second.block_ids, kv.pool.num_free) == ([1, 2, 3, 4], [1, 2, 3, 5], 5)
    assert [kv.pool.refs(block_id) for block_id in (1, 2, 3)] == [2, 2, 2]


def test_a_failed_allocation_changes_nothing():
    kv = KvCache(10, 16, enable_prefix_caching=True)
    first = state("a", range(48))
    give(kv, first)
    kv.free(first)
    give(kv, state("x", range(500, 600), max_tokens=1))
    before = kv.pool.free_order()
    assert not give(kv, state("b", [*range(48), *range(200, 232)]))
    assert kv.pool.free_order() == before


def test_without_prefix_caching_nothing_is_found():
    kv = KvCache(10, 16, enable_prefix_caching=False)
    give(kv, state("a", range(48)))
    assert kv.find_prefix(state("b", range(48))) == []


def test_a_request_for_prompt_logprobs_never_hits():
    kv = KvCache(10, 16, enable_prefix_caching=True)
    give(kv, state("a", range(48)))
    assert kv.find_prefix(state("b", range(48), prompt_logprobs=1)) == []
