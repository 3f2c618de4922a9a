"""``RadixTree``: token sequences by their common beginnings, as SGLang's prefix cache keeps them.

A node holds a run of tokens, in whole pages, and one value a page (for the engine: a block id).  Two sequences share the nodes of
their common pages; where a look-up or an insertion leaves a node in its middle, the node is split there.

    root ── [1 2] ─┬─ [3 4] ── [5 6 7 8]        1 2 3 4 5 6 7 8  and  1 2 9 10,  pages of 2 tokens
                   └─ [9 10]

Locks count who relies on a node; a lock holds the whole path to the root.  What nobody holds may be evicted, leaf by leaf, the one that
was looked up longest ago first.  "When" is a count of look-ups, never a clock, so a tree can be rebuilt exactly.
Source of the rules: SGLang, ``mem_cache/radix_cache.py``.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence

from workbench.errors import IntegrityError

_Page = tuple[int, ...]
_Key = tuple[str | None, _Page]


class Node:
    """A run of pages; made and changed by :class:`RadixTree` only."""

    __slots__ = ("key", "pages", "values", "children", "parent", "locks", "last_access", "serial")

    def __init__(self, key: _Key, pages: list[_Page], values: list[int], parent: Node | None, last_access: int, serial: int) -> None:
        self.key = key  # its place among its parent's children
        self.pages = pages
        self.values = values
        self.children: dict[_Key, Node] = {}
        self.parent = parent
        self.locks = 0
        self.last_access = last_access
        self.serial = serial  # order of creation, which settles ties

    def __repr__(self) -> str:
        return f"Node({[token for page in self.pages for token in page]}, values {self.values}, {self.locks} locks)"


class RadixTree:
    """Longest-prefix look-up over whole pages of ``page_size`` tokens.

    ``evictable_tokens`` and ``protected_tokens`` add up to what the tree holds.  Sequences with different ``extra_key`` never meet.

    >>> tree = RadixTree()
    >>> tree.insert([1, 2, 3], [10, 20, 30])
    0
    >>> tree.match([1, 2, 9])[0]
    [10, 20]
    """

    def __init__(self, page_size: int = 1) -> None:
        self.page_size = page_size
        self.root = Node((None, ()), [], [], None, 0, 0)
        self.evictable_tokens = 0
        self.protected_tokens = 0
        self._clock = 0
        self._num_nodes = 0
        self._leaves: dict[Node, None] = {}  # those that may be evicted

    @property
    def total_tokens(self) -> int:
        """Tokens that the tree holds."""
        return self.evictable_tokens + self.protected_tokens

    # -- look-up and insertion ---------------------------------------------------------------------------------------

    def match(self, token_ids: Sequence[int], extra_key: str | None = None) -> tuple[list[int], Node]:
        """The values of the longest known beginning, one a page, and the node where it ends (the root if there is none).

        A node that the beginning leaves in its middle is split; every node on the way counts as just used.
        """
        values, node, _ = self._walk(self._pages_of(token_ids), extra_key)
        return values, node

    def insert(self, token_ids: Sequence[int], values: Sequence[int], extra_key: str | None = None) -> int:
        """Keep a sequence; returns how many of its tokens were known already, whose old values stay.

        Tokens behind the last whole page are left out.  ``values`` has one entry for each whole page.
        """
        pages = self._pages_of(token_ids)
        _, node, known = self._walk(pages, extra_key)
        if known < len(pages):
            key = (extra_key if node is self.root else None, pages[known])
            leaf = node.children[key] = self._new_node(key, pages[known:], list(values[known : len(pages)]), node)
            self.evictable_tokens += len(leaf.pages) * self.page_size
            self._leaves.pop(node, None)
            self._leaves[leaf] = None
        return known * self.page_size

    def _walk(self, pages: list[_Page], extra_key: str | None) -> tuple[list[int], Node, int]:
        self._clock += 1
        node, found, values = self.root, 0, list[int]()
        while found < len(pages):
            child = node.children.get((extra_key if node is self.root else None, pages[found]))
            if child is None:
                break
            child.last_access = self._clock
            common = _common(child.pages, pages, found)
            node = child if common == len(child.pages) else self._split(child, common)
            values += node.values
            found += common
            if node is not child:
                break
        return values, node, found

    def _pages_of(self, token_ids: Sequence[int]) -> list[_Page]:
        size = self.page_size
        return [tuple(token_ids[start : start + size]) for start in range(0, len(token_ids) - size + 1, size)]

    def _new_node(self, key: _Key, pages: list[_Page], values: list[int], parent: Node) -> Node:
        self._num_nodes += 1
        return Node(key, pages, values, parent, self._clock, self._num_nodes)

    def _split(self, child: Node, at: int) -> Node:
        """Put a new node with the first ``at`` pages of ``child`` above it; locks on the child hold both."""
        parent = child.parent
        assert parent is not None
        upper = parent.children[child.key] = self._new_node(child.key, child.pages[:at], child.values[:at], parent)
        upper.locks = child.locks
        child.key = (None, child.pages[at])
        upper.children[child.key] = child
        child.pages, child.values, child.parent = child.pages[at:], child.values[at:], upper
        return upper

    # -- locks and eviction ------------------------------------------------------------------------------------------

    def lock(self, node: Node) -> int:
        """Protect everything from ``node`` up to the root; returns the tokens that became protected."""
        moved = 0
        for step in self._path(node):
            if not step.locks:
                moved += len(step.pages) * self.page_size
                self._leaves.pop(step, None)
            step.locks += 1
        self._protect(moved)
        return moved

    def unlock(self, node: Node) -> int:
        """Take one lock back; returns the tokens that became evictable."""
        moved = 0
        for step in self._path(node):
            step.locks -= 1
            if not step.locks:
                moved += len(step.pages) * self.page_size
                if not step.children:
                    self._leaves[step] = None
        self._protect(-moved)
        return moved

    def _protect(self, tokens: int) -> None:
        self.protected_tokens += tokens
        self.evictable_tokens -= tokens

    def _path(self, node: Node) -> Iterator[Node]:
        while node.parent is not None:
            yield node
            node = node.parent

    def evict(self, num_tokens: int) -> list[int]:
        """Drop unlocked leaves, least recently used first, until ``num_tokens`` are gone; returns their values in that order.

        A leaf goes as a whole, so it may be more; it is less when everything else is locked.
        """
        heap = [(leaf.last_access, leaf.serial, leaf) for leaf in self._leaves]
        heapq.heapify(heap)
        gone: list[int] = []
        while heap and len(gone) * self.page_size < num_tokens:
            _, _, leaf = heapq.heappop(heap)
            gone += leaf.values
            parent = self._drop(leaf)
            if parent in self._leaves:
                heapq.heappush(heap, (parent.last_access, parent.serial, parent))
        return gone

    def _drop(self, leaf: Node) -> Node:
        parent = leaf.parent
        assert parent is not None
        del parent.children[leaf.key]
        del self._leaves[leaf]
        self.evictable_tokens -= len(leaf.pages) * self.page_size
        if not parent.children and not parent.locks and parent is not self.root:
            self._leaves[parent] = None
        return parent

    def reset(self) -> None:
        """Forget everything, locks included."""
        self.root.children.clear()
        self._leaves.clear()
        self.evictable_tokens = self.protected_tokens = 0

    # -- the whole ---------------------------------------------------------------------------------------------------

    def nodes(self) -> Iterator[Node]:
        """Every node below the root, parents before their children."""
        waiting = list(self.root.children.values())
        while waiting:
            node = waiting.pop()
            yield node
            waiting += node.children.values()

    def copy(self) -> tuple[RadixTree, dict[Node, Node]]:
        """An independent tree in the same state, and which of its nodes stands for which of these."""
        twin = RadixTree(self.page_size)
        twin.evictable_tokens, twin.protected_tokens = self.evictable_tokens, self.protected_tokens
        twin._clock, twin._num_nodes = self._clock, self._num_nodes
        twin_of = {self.root: twin.root}
        for node in self.nodes():
            assert node.parent is not None
            copied = Node(node.key, list(node.pages), list(node.values), twin_of[node.parent], node.last_access, node.serial)
            copied.locks = node.locks
            twin_of[node] = copied
        for node, copied in twin_of.items():
            copied.children = {key: twin_of[child] for key, child in node.children.items()}
        twin._leaves = dict.fromkeys(twin_of[leaf] for leaf in self._leaves)
        return twin, twin_of

    def check_integrity(self) -> None:
        """Raise :class:`IntegrityError` unless counts, leaves and links agree."""
        sizes = {True: 0, False: 0}
        for node in self.nodes():
            sizes[node.locks > 0] += len(node.pages) * self.page_size
            if not node.pages or len(node.pages) != len(node.values):
                raise IntegrityError(f"{node!r} has {len(node.pages)} pages and {len(node.values)} values")
            if node.locks < max((child.locks for child in node.children.values()), default=0):
                raise IntegrityError(f"{node!r} has fewer locks than a node below it")
            if (node in self._leaves) != (not node.children and not node.locks):
                raise IntegrityError(f"{node!r} is wrongly listed, or not listed, as a leaf that may be evicted")
            if any(child.parent is not node or child.key != key for key, child in node.children.items()):
                raise IntegrityError(f"{node!r} has a child that does not know it")
        if (sizes[True], sizes[False]) != (self.protected_tokens, self.evictable_tokens):
            raise IntegrityError(f"counted {self.protected_tokens} protected and {self.evictable_tokens} evictable tokens, found {sizes}")

    def __repr__(self) -> str:
        return f"RadixTree({self.total_tokens} tokens, {self.protected_tokens} of them protected, pages of {self.page_size})"


def _common(mine: list[_Page], theirs: list[_Page], start: int) -> int:
    """How many pages of ``mine`` equal those of ``theirs`` from ``start`` on."""
    limit = min(len(mine), len(theirs) - start)
    for place in range(limit):
        if mine[place] != theirs[start + place]:
            return place
    return limit
