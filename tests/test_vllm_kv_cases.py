"""vLLM's unit cases of block tables, prefix hits, the free queue and hashes, with their numbers.

Sources: vLLM ``tests/v1/core/test_prefix_caching.py@717aebb0`` and ``tests/v1/core/test_kv_cache_utils.py@eaba533a``; each test
names its own.  vLLM counts its null block in ``num_blocks``, we do not.  ``test_prefill`` and ``test_evict`` are recorded
(``tests/data/vllm-0.32.0/textbook.jsonl.gz``).
"""

from __future__ import annotations

import sys
from hashlib import blake2b

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_blocks import give, state

from workbench.blocks import BlockPool
from workbench.kv import KvCache
from workbench.prefix import ROOT, block_hash, extend_hashes


def cache(num_blocks, block_size=16, *, caching=True):
    return KvCache(num_blocks, block_size, enable_prefix_caching=caching)


# -- test_prefix_caching.py --------------------------------------------------------------------------------------------


def test_decode_takes_a_new_block_only_when_its_last_one_is_full():
    """test_decode: 55 tokens; 4 more take no block, 19 more take one."""
    kv, one = cache(10), state("0", range(55))
    sizes = []
    for more in (0, 4, 19):
        one.token_ids += [8] * more
        assert kv.allocate(one, one.num_tokens)
        kv.register(one, one.num_tokens)
        sizes.append(len(one.block_ids))
    assert sizes == [4, 4, 5]
    assert len(kv.pool.index) == 78 // 16


def test_a_hit_block_is_not_evicted_for_its_own_request():
    """test_computed_blocks_not_evicted: with two blocks, the first is hit and the second, cached as well, is reused."""
    kv = cache(2)
    first, second, both = state("0", range(16)), state("1", range(16, 32)), state("2", range(32))
    assert give(kv, first)
    assert give(kv, second)
    assert (first.block_ids, second.block_ids) == ([1], [2])
    kv.free(first)
    kv.free(second)
    assert kv.find_prefix(both) == [1]
    assert give(kv, both)
    assert both.block_ids == [1, 2]


def test_too_few_free_blocks_leave_the_found_ones_as_they_were():
    """test_prefill_not_enough_free_blocks_with_computed_blocks: 6 blocks found, 3 of them idle, 3 more needed, 5 free."""
    kv = cache(10)
    common = [token // 16 for token in range(48)]
    first, second, other = state("0", common), state("1", common * 2), state("2", [7] * 32)
    assert give(kv, first)
    assert give(kv, second)
    table = list(second.block_ids)
    assert table[:3] == first.block_ids
    kv.free(second)
    assert [kv.pool.refs(block_id) for block_id in table] == [1, 1, 1, 0, 0, 0]
    assert give(kv, other)
    assert kv.pool.num_free == 5
    third = state("3", common * 3)
    assert kv.find_prefix(third) == table
    assert not kv.allocate(third, 144, table)
    assert (third.block_ids, kv.pool.num_free) == ([], 5)
    assert [kv.pool.refs(block_id) for block_id in table] == [1, 1, 1, 0, 0, 0]


def test_without_caching_nothing_is_found_and_a_full_pool_refuses():
    """test_basic_prefix_caching_disabled: 3 blocks, then 4, then none left; nothing is ever found."""
    kv = cache(4, 4, caching=False)
    first, second, third = state("1", range(10)), state("2", range(16)), state("3", range(4))
    assert give(kv, first)
    assert len(first.block_ids) == 3
    kv.free(first)
    assert kv.find_prefix(second) == []
    assert give(kv, second)
    assert len(second.block_ids) == 4
    assert not give(kv, third)
    assert len(kv.pool.index) == 0


def test_a_request_for_prompt_logprobs_fills_the_cache_but_does_not_use_it():
    """test_prefill_plp: others find what it computed; itself it finds nothing, not even its own prompt."""
    kv = cache(10)
    first, plain, again = state("0", range(55), prompt_logprobs=5), state("1", range(53)), state("2", range(55), prompt_logprobs=5)
    assert give(kv, first)
    assert kv.find_prefix(plain) == [1, 2, 3]
    assert give(kv, plain)
    assert plain.block_ids == [1, 2, 3, 5]
    kv.free(first)
    kv.free(plain)
    assert kv.find_prefix(again) == []
    assert give(kv, again)
    assert not set(again.block_ids) & {1, 2, 3}


def test_a_block_that_is_reused_has_no_hash_until_it_is_full_again():
    """test_hash_block_correct_reuse: a single block, first full, then one token short."""
    kv = cache(1)
    full, short = state("0", range(16)), state("1", range(15))
    assert give(kv, full)
    kv.free(full)
    assert 1 in kv.pool.index
    assert give(kv, short)
    assert short.block_ids == [1]
    assert 1 not in kv.pool.index


def test_the_cache_is_emptied_only_when_no_block_is_in_use():
    """test_reset_prefix_cache: refused while two requests hold blocks, then every hash is gone."""
    kv = cache(10)
    first, second = state("0", range(55)), state("1", range(56))
    assert give(kv, first)
    assert give(kv, second)
    assert (first.block_ids, second.block_ids) == ([1, 2, 3, 4], [1, 2, 3, 5])
    assert not kv.pool.forget_content()
    assert len(kv.pool.index) == 3
    kv.free(first)
    kv.free(second)
    assert kv.pool.forget_content()
    assert len(kv.pool.index) == 0
    assert kv.find_prefix(state("2", range(55))) == []
    assert kv.pool.usage.free == 10


def test_only_full_blocks_become_findable():
    """test_cache_blocks: 14 tokens in blocks of 4: two are registered, then a third, never the last."""
    kv, one = cache(4, 4), state("0", range(14))
    assert kv.allocate(one, 14)
    found = []
    for computed in (8, 12, 14):
        kv.register(one, computed)
        found.append(len(kv.pool.index))
    assert found == [2, 3, 3]
    assert [block_id in kv.pool.index for block_id in one.block_ids] == [True, True, True, False]


# -- test_kv_cache_utils.py: the free queue ----------------------------------------------------------------------------


def idle_content(pool, count):
    """Blocks with content that nobody holds: ``touch`` takes them out of the middle of the queue."""
    table = pool.allocate(count, "a")
    for block_id in table:
        pool.cache(block_id, bytes([block_id]) * 16, "a")
    pool.free(table[::-1], "a")  # a table goes back from its end, so this keeps their order
    return table


def test_the_free_queue_gives_from_its_front_loses_from_its_middle_and_takes_at_its_end():
    """test_free_kv_cache_block_queue_initialization, …_operations: five blocks; the first popped, the third removed and put back."""
    pool = BlockPool(5)
    idle_content(pool, 5)
    assert (pool.num_free, pool.free_order()) == (5, (1, 2, 3, 4, 5))
    assert pool.allocate(1, "b") == [1]
    pool.touch([3], "b")
    assert (pool.num_free, pool.free_order()) == (3, (2, 4, 5))
    pool.free([3], "b")
    assert (pool.num_free, pool.free_order()) == (4, (2, 4, 5, 3))
    assert [pool.allocate(1, "b") for _ in range(4)] == [[2], [4], [5], [3]]
    assert (pool.num_free, pool.free_order()) == (0, ())


def test_several_blocks_join_the_end_of_the_free_queue_in_the_order_given():
    """test_free_kv_cache_block_queue_append_n: none, one, two, then three at once; those removed in between may come back."""
    pool = BlockPool(6)
    table = pool.allocate(6, "a")
    for block_id in table:
        pool.cache(block_id, bytes([block_id]) * 16, "a")
    for batch in ([], [1], [4, 5], [6, 2, 3]):
        pool.free(batch[::-1], "a")
    assert pool.free_order() == (1, 4, 5, 6, 2, 3)


def test_several_blocks_leave_the_front_of_the_free_queue_at_once():
    """test_free_kv_cache_block_queue_popleft_n: of six in another order, none, one, two, then the last three."""
    pool = BlockPool(6)
    table = idle_content(pool, 6)
    for block_id in (2, 4, 6, 5, 1, 3):
        pool.touch([block_id], "b")
        pool.free([block_id], "b")
    assert table == [1, 2, 3, 4, 5, 6]
    assert [pool.allocate(count, "c") for count in (0, 1, 2, 3)] == [[], [2], [4, 6], [5, 1, 3]]
    assert pool.num_free == 0


def test_the_free_queue_lists_its_blocks_in_order():
    """test_free_kv_cache_block_queue_get_all_free_blocks: fresh, without the first, without one of the middle, with it at the end."""
    pool = BlockPool(5)
    idle_content(pool, 5)
    orders = [pool.free_order()]
    pool.allocate(1, "b")
    orders.append(pool.free_order())
    pool.touch([4], "b")
    orders.append(pool.free_order())
    pool.free([4], "b")
    orders.append(pool.free_order())
    assert orders == [(1, 2, 3, 4, 5), (2, 3, 4, 5), (2, 3, 5), (2, 3, 5, 4)]


@given(st.integers(1, 6), st.lists(st.tuples(st.sampled_from(["take", "give", "give full", "touch"]), st.integers(0, 5)), max_size=40))
def test_the_free_queue_is_a_plain_list(size, verbs):
    """Blank blocks return to the front, those with content to the back; a look-up takes one out from anywhere."""
    pool, queue, held, full = BlockPool(size), list(range(1, size + 1)), [], set()
    for verb, number in verbs:
        if verb == "take" and queue:
            assert pool.allocate(1, "a") == [queue[0]]
            full.discard(queue[0])
            held.append(queue.pop(0))
        elif verb == "touch" and full & set(queue):
            block_id = sorted(full & set(queue))[number % len(full & set(queue))]
            pool.touch([block_id], "a")
            queue.remove(block_id)
            held.append(block_id)
        elif verb in ("give", "give full") and held:
            block_id = held.pop(number % len(held))
            if verb == "give full" and block_id not in full:
                pool.cache(block_id, bytes([block_id]) * 16, "a")
                full.add(block_id)
            pool.free([block_id], "a")
            queue.insert(len(queue) if block_id in full else 0, block_id)
        assert pool.free_order() == tuple(queue)
        pool.check_integrity([held])


# -- test_kv_cache_utils.py: hashes ------------------------------------------------------------------------------------


def test_a_hash_covers_its_parent_and_its_tokens_as_64_bit_integers():
    """test_hash_block_tokens: the hash of (parent, tokens), by the function that is ours (BLAKE2b of 16 bytes)."""
    parent, tokens = b"123", (1, 2, 3)
    content = b"".join(token.to_bytes(8, sys.byteorder, signed=True) for token in tokens)
    assert block_hash(parent, tokens) == blake2b(parent + content, digest_size=16).digest()


@pytest.mark.parametrize(("length", "count"), [(5, 1), (6, 2), (8, 2), (9, 3)])
def test_a_request_has_a_chained_hash_for_each_full_block(length, count):
    """test_request_block_hasher: 6 tokens in blocks of 3 have 2 hashes, the second with the first as its parent."""
    hashes: list[bytes] = []
    extend_hashes(hashes, range(length), 3)
    parents = [ROOT, *hashes]
    assert hashes == [block_hash(parents[place], range(3 * place, 3 * place + 3)) for place in range(count)]
