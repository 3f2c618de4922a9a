"""The radix tree and the cache over it: SGLang's unit cases, a plain reference, and the pool's invariants.

Cases with a name in their docstring are those of SGLang's ``test/registered/unit/mem_cache/test_radix_cache_unit.py``, class
``TestRadixCache``.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.errors import IntegrityError
from workbench.kv_radix import RadixKvCache
from workbench.prefix import ROOT, block_hash
from workbench.radix import RadixTree
from workbench.request import Request, SamplingParams
from workbench.state import RequestState

LONG, BRANCH = [1, 2, 3, 4, 5, 6, 7, 8], [1, 2, 9, 10]


def pages(tokens, size):
    """A value for each page: ten times its first token."""
    return [10 * tokens[start] for start in range(0, len(tokens) - size + 1, size)]


@pytest.fixture(params=[1, 2])
def branched(request):
    """``test_advanced_prefix_match_with_node_splits``: two sequences that part after two tokens."""
    tree = RadixTree(request.param)
    for tokens in (LONG, BRANCH):
        tree.insert(tokens, pages(tokens, request.param))
    return tree


# -- TestRadixCache ----------------------------------------------------------------------------------------------------


def test_common_beginnings_are_kept_once(branched):
    assert branched.total_tokens == 10
    branched.check_integrity()


@pytest.mark.parametrize(
    ("query", "length"), [([1, 2, 3, 4, 999, 1000], 4), (LONG, 8), ([1, 2, 3, 4, 5, 6, 777, 888], 6), (BRANCH, 4), ([5, 6], 0), ([], 0)]
)
def test_a_look_up_finds_the_longest_known_beginning_and_changes_no_content(branched, query, length):
    values, node = branched.match(query)
    size = branched.page_size
    assert values == pages(query[:length], size)
    assert branched.total_tokens == 10
    assert branched.match(query) == (values, node)
    branched.check_integrity()


def test_sequences_with_different_extra_keys_never_meet():
    """``test_extra_key_isolation``."""
    tree = RadixTree()
    for base, key in ((10, "key1"), (40, "key2"), (70, None)):
        tree.insert([1, 2, 3], [base, base + 10, base + 20], key)
    assert [tree.match([1, 2, 3], key)[0] for key in ("key1", "key2", None)] == [[10, 20, 30], [40, 50, 60], [70, 80, 90]]
    assert tree.match([1, 2, 3], "nonexistent")[0] == []
    tree.insert([1, 2, 4], [10, 20, 99], "key1")
    assert tree.match([1, 2, 3], "key1")[0] == [10, 20, 30]
    tree.check_integrity()


def test_a_lock_moves_its_tokens_from_evictable_to_protected_and_back():
    """``test_lock_ref_operations``."""
    tree = RadixTree()
    tree.insert([1, 2, 3], [10, 20, 30])
    _, node = tree.match([1, 2, 3])
    assert tree.lock(node) == 3
    assert (tree.evictable_tokens, tree.protected_tokens) == (0, 3)
    assert tree.lock(node) == 0
    assert tree.unlock(node) == 0
    assert tree.unlock(node) == 3
    assert (tree.evictable_tokens, tree.protected_tokens) == (3, 0)


@pytest.mark.parametrize(("page_size", "length", "kept"), [(1, 5, 5), (2, 5, 4), (4, 6, 4)])
def test_a_part_of_a_page_is_left_out(page_size, length, kept):
    """``test_page_alignment_boundary``."""
    tree, tokens = RadixTree(page_size), list(range(length))
    tree.insert(tokens, pages(tokens, page_size))
    assert tree.match(tokens)[0] == pages(tokens, page_size)
    assert tree.total_tokens == kept


def test_eviction_takes_the_leaf_that_was_looked_up_longest_ago():
    """``test_evict_functionality``, with its order."""
    tree = RadixTree()
    tree.insert([1, 2], [10, 20])
    tree.insert([3, 4], [30, 40])
    tree.match([1, 2])
    assert tree.evict(2) == [30, 40]
    assert tree.total_tokens == 2


def test_equal_pages_at_different_places_are_kept_apart():
    """``test_hash_value_repeating_tokens``: the second page follows the first, and has another hash."""
    tree = RadixTree(4)
    tree.insert([1, 2, 3, 4, 1, 2, 3, 4], [7, 8])
    assert tree.total_tokens == 8
    assert tree.match([1, 2, 3, 4])[0] == [7]
    first = block_hash(ROOT, [1, 2, 3, 4])
    assert block_hash(first, [1, 2, 3, 4]) != first


def test_reset_forgets_everything():
    """``test_reset``."""
    tree = RadixTree()
    tree.insert([1, 2, 3], [10, 20, 30])
    tree.reset()
    assert (tree.total_tokens, tree.evictable_tokens, tree.protected_tokens) == (0, 0, 0)


# -- locks and eviction ------------------------------------------------------------------------------------------------


def test_what_is_locked_and_what_leads_to_it_is_not_evicted():
    tree = RadixTree()
    tree.insert(LONG, LONG)
    tree.insert(BRANCH, BRANCH)
    _, node = tree.match([1, 2, 3, 4])
    tree.lock(node)
    assert tree.evict(100) == [9, 10, 5, 6, 7, 8]  # the branch was looked up before, as a whole
    assert tree.total_tokens == tree.protected_tokens == 4
    tree.unlock(node)
    assert tree.evict(100) == [3, 4, 1, 2]  # a parent may go once it is a leaf
    tree.check_integrity()


def test_a_split_below_a_lock_keeps_both_halves_locked():
    tree = RadixTree()
    tree.insert(LONG, LONG)
    _, node = tree.match(LONG)
    tree.lock(node)
    tree.match([1, 2, 3])
    assert (tree.protected_tokens, tree.evictable_tokens) == (8, 0)
    assert tree.unlock(node) == 8
    tree.check_integrity()


def test_a_wrong_count_is_found():
    tree = RadixTree()
    tree.insert([1, 2], [1, 2])
    tree.evictable_tokens = 3
    with pytest.raises(IntegrityError, match="3 evictable"):
        tree.check_integrity()


TOKENS = st.lists(st.integers(0, 2), max_size=12)
VERBS = st.sampled_from(["insert", "match", "lock", "unlock", "evict"])
ACTIONS = st.lists(st.tuples(VERBS, TOKENS, st.sampled_from([None, "a"])), max_size=30)


class Naive:
    """The same as a dictionary: of every whole-page prefix that is known, the value of its last page."""

    def __init__(self, size):
        self.size = size
        self.known = {}

    def prefixes(self, tokens, key):
        return [(key, *tokens[: end + self.size]) for end in range(0, len(tokens) - self.size + 1, self.size)]

    def match(self, tokens, key):
        found = []
        for prefix in self.prefixes(tokens, key):
            if prefix not in self.known:
                break
            found.append(self.known[prefix])
        return found

    def insert(self, tokens, values, key):
        known = len(self.match(tokens, key))
        for prefix, value in zip(self.prefixes(tokens, key), values, strict=True):
            self.known.setdefault(prefix, value)
        return known * self.size


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([1, 2, 3]), ACTIONS)
def test_the_tree_equals_a_dictionary_of_prefixes(size, actions):
    tree, naive, locked, fresh = RadixTree(size), Naive(size), [], 0
    for action, tokens, key in actions:
        if action == "insert":
            values = list(range(fresh, fresh + len(tokens) // size))
            fresh += len(values)
            assert tree.insert(tokens, values, key) == naive.insert(tokens, values, key)
        elif action == "match":
            assert tree.match(tokens, key)[0] == naive.match(tokens, key)
        elif action == "lock":
            values, node = tree.match(tokens, key)
            tree.lock(node)
            locked.append((values, node))
        elif action == "unlock" and locked:
            tree.unlock(locked.pop(0)[1])
        elif action == "evict":
            before, gone = tree.evictable_tokens, tree.evict(len(tokens))
            assert len(gone) * size >= min(len(tokens), before)
            assert not set(gone) & {value for values, _ in locked for value in values}
            naive.known = {prefix: value for prefix, value in naive.known.items() if value not in set(gone)}
        assert tree.total_tokens == len(naive.known) * size
        assert tree.protected_tokens == len({value for values, _ in locked for value in values}) * size
        tree.check_integrity()


@settings(max_examples=100, deadline=None)
@given(ACTIONS, ACTIONS)
def test_a_copy_lives_its_own_life_and_goes_on_alike(before, after):
    tree = RadixTree()
    for action, tokens, key in before:
        if action in ("insert", "match"):
            tree.insert(tokens, tokens, key) if action == "insert" else tree.match(tokens, key)
    twin, twin_of = tree.copy()
    other, _ = tree.copy()
    assert set(twin_of) == {tree.root, *tree.nodes()}
    for one in (twin, other):
        for action, tokens, key in after:
            if action == "evict":
                one.evict(len(tokens))
            else:
                one.insert(tokens, tokens, key)
        one.check_integrity()
    assert twin.evict(1000) == other.evict(1000)
    tree.check_integrity()


# -- the cache over it -------------------------------------------------------------------------------------------------


def state_of(name, tokens):
    return RequestState(Request(id=name, prompt_token_ids=tuple(tokens), sampling=SamplingParams(max_tokens=4)), 0, 1000)


def computed(kv, state, num_tokens):
    """Give a request room, and compute ``num_tokens`` of it."""
    found = kv.find_prefix(state)
    assert kv.allocate(state, num_tokens, found)
    kv.register(state, num_tokens)
    return len(found)


def cache(num_blocks=8):
    return RadixKvCache(num_blocks, 2, enable_prefix_caching=True)


def test_a_request_that_computed_what_is_there_gives_its_copy_back():
    kv, one, two = cache(), state_of("one", range(7)), state_of("two", range(7))
    for state in (one, two):
        kv.allocate(state, 7)
    kv.register(one, 7)
    assert (one.block_ids, two.block_ids) == ([1, 2, 3, 4], [5, 6, 7, 8])
    kv.register(two, 7)
    assert two.block_ids == [1, 2, 3, 8]
    assert kv.pool.num_free == 3
    kv.check_integrity([one, two])


def test_blocks_that_only_the_tree_holds_count_as_cached_and_are_found():
    kv, one, two = cache(), state_of("one", range(7)), state_of("two", range(5))
    computed(kv, one, 7)
    kv.free(one)
    assert (kv.pool.usage.in_use, kv.pool.usage.cached, kv.pool.usage.free) == (0, 3, 5)
    assert computed(kv, two, 5) == 2
    assert [event.kind for event in kv.pool.events[-3:]] == ["hit", "hit", "allocated"]
    kv.check_integrity([two])


def test_a_block_is_evicted_only_when_the_blank_ones_are_used_up_and_the_oldest_leaf_first():
    kv = cache(4)
    for name, tokens in (("a", [1, 2, 3]), ("b", [4, 5, 6])):
        state = state_of(name, tokens)
        computed(kv, state, 2)
        kv.free(state)
    kv.find_prefix(state_of("again", [1, 2, 9]))
    kv.pool.take_events()
    state = state_of("c", range(50, 56))
    kv.allocate(state, 6)
    assert [(event.kind, event.block_id) for event in kv.pool.events if event.kind == "evicted"] == [("evicted", 2)]
    assert len(kv.find_prefix(state_of("again", [1, 2, 9]))) == 1
    kv.check_integrity([state])


def test_too_few_blocks_change_nothing():
    kv, one, two = cache(4), state_of("one", range(5)), state_of("two", [0, 1, 2, 3, 8, 9, 10, 11, 12])
    computed(kv, one, 5)
    before = (kv.pool.free_order(), kv.tree.protected_tokens, list(kv.pool.events))
    assert not kv.allocate(two, 9, kv.find_prefix(two))
    assert (kv.pool.free_order(), kv.tree.protected_tokens, list(kv.pool.events)) == before
    assert two.block_ids == []


def test_a_smaller_pool_evicts_from_the_tree_and_forgetting_empties_it():
    kv, one = cache(4), state_of("one", range(7))
    computed(kv, one, 6)
    kv.free(one)
    kv.resize(2)
    kv.check_integrity([])
    assert kv.pool.num_blocks == 2
    assert kv.forget()
    assert kv.tree.total_tokens == 0
    kv.check_integrity([])


def test_caching_can_be_switched_off_and_on_while_requests_run():
    kv, one, two = cache(), state_of("one", range(7)), state_of("two", range(7))
    computed(kv, one, 7)
    assert computed(kv, two, 7) == 3
    kv.switch_prefix_caching(False, [one, two])
    assert kv.find_prefix(state_of("x", range(7))) == []
    kv.check_integrity([one, two])
    kv.switch_prefix_caching(True, [one, two])
    for state in (one, two):
        kv.register(state, 7)
    assert kv.find_prefix(state_of("x", range(7))) == one.block_ids[:3] == two.block_ids[:3]
    kv.check_integrity([one, two])


def test_a_copied_cache_goes_its_own_way():
    kv, one = cache(), state_of("one", range(7))
    computed(kv, one, 7)
    twin, own = kv.copy(), one.copy()
    twin.free(own)
    twin.check_integrity([])
    kv.check_integrity([one])
    assert kv.tree.protected_tokens == 6
    assert twin.tree.protected_tokens == 0
