"""Model of torch's caching allocator for accelerators, in its default settings.

Written after the behaviour that torch documents ("Memory management" in its CUDA notes) and the
constants of `c10/cuda/CUDACachingAllocator.cpp` (torch 2.13): sizes are rounded up to 512 B;
requests of at most 1 MiB come from segments of 2 MiB, those below 10 MiB from segments of 20 MiB,
larger ones from segments of their own size rounded up to 2 MiB; the smallest free block that fits
is taken, the lowest address first, and split where enough remains; neighbours that are free are
joined; segments return to the device only when they are wholly free and the cache is emptied. One
stream, no expandable segments, no limit.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import Final

__all__ = ["CachingAllocator"]

_MIN_BLOCK: Final = 512
_SMALL_SIZE: Final = 2**20
_SMALL_SEGMENT: Final = 2 * 2**20
_LARGE_REQUEST: Final = 10 * 2**20
_LARGE_SEGMENT: Final = 20 * 2**20
_LARGE_ROUNDING: Final = 2 * 2**20


class _Block:
    """A run of bytes in a segment, known by its address; neighbours in the segment are linked."""

    __slots__ = ("address", "following", "free", "previous", "size", "small")

    def __init__(self, address: int, size: int, *, small: bool) -> None:
        self.address = address
        self.size = size
        self.small = small
        self.free = True
        self.previous: _Block | None = None
        self.following: _Block | None = None


class CachingAllocator:
    """What the accelerator's allocator would hold after the same requests.

    Attributes:
        allocated: bytes in use, rounded as the allocator rounds them.
        reserved: bytes of all segments.
        peak_allocated: largest `allocated` so far.
        peak_reserved: largest `reserved` so far.

    >>> memory = CachingAllocator()
    >>> memory.allocate(1, 3 * 2**20)
    >>> memory.allocated, memory.reserved
    (3145728, 20971520)
    >>> memory.release(1)
    >>> memory.empty_cache()
    >>> memory.reserved
    0
    """

    def __init__(self) -> None:
        self.allocated = 0
        self.reserved = 0
        self.peak_allocated = 0
        self.peak_reserved = 0
        self._top = 0
        # (size, address) of free blocks, smallest first; the blocks themselves by address
        self._small: list[tuple[int, int]] = []
        self._large: list[tuple[int, int]] = []
        self._blocks: dict[int, _Block] = {}
        self._in_use: dict[int, _Block] = {}

    def allocate(self, key: int, size: int) -> None:
        """Serve a request of `size` bytes, to be released as `key`.

        Raises:
            ValueError: `key` is in use already.
        """
        if key in self._in_use:
            msg = f"block {key} is in use"
            raise ValueError(msg)
        if size <= 0:
            return
        size = -(-size // _MIN_BLOCK) * _MIN_BLOCK
        small = size <= _SMALL_SIZE
        pool = self._small if small else self._large
        place = bisect_left(pool, (size, -1))
        if place < len(pool):
            block = self._blocks[pool.pop(place)[1]]
        else:
            block = self._segment(size, small=small)
        rest = block.size - size
        if rest >= _MIN_BLOCK if small else rest > _SMALL_SIZE:
            self._split(block, size, pool)
        block.free = False
        self._in_use[key] = block
        self.allocated += block.size
        self.peak_allocated = max(self.peak_allocated, self.allocated)

    def release(self, key: int) -> None:
        """Give back what `key` was served; unknown keys (empty requests) are nothing to release."""
        block = self._in_use.pop(key, None)
        if block is None:
            return
        self.allocated -= block.size
        pool = self._small if block.small else self._large
        before, after = block.previous, block.following
        if before is not None and before.free:
            self._forget(before, pool)
            before.size += block.size
            before.following = after
            if after is not None:
                after.previous = before
            del self._blocks[block.address]
            block = before
        if after is not None and after.free:
            self._forget(after, pool)
            block.size += after.size
            block.following = after.following
            if after.following is not None:
                after.following.previous = block
            del self._blocks[after.address]
        block.free = True
        insort(pool, (block.size, block.address))

    def empty_cache(self) -> None:
        """Return every segment that is wholly free to the device."""
        for pool in (self._small, self._large):
            kept = []
            for entry in pool:
                block = self._blocks[entry[1]]
                if block.previous is None and block.following is None:
                    self.reserved -= block.size
                    del self._blocks[block.address]
                else:
                    kept.append(entry)
            pool[:] = kept

    def in_use(self) -> dict[int, tuple[int, int]]:
        """Address and size of what is in use, by key [B]."""
        return {key: (block.address, block.size) for key, block in self._in_use.items()}

    def _segment(self, size: int, *, small: bool) -> _Block:
        """New segment for a request of `size` bytes."""
        if small:
            total = _SMALL_SEGMENT
        elif size < _LARGE_REQUEST:
            total = _LARGE_SEGMENT
        else:
            total = -(-size // _LARGE_ROUNDING) * _LARGE_ROUNDING
        # a gap between segments: blocks of two segments are never neighbours
        block = _Block(self._top, total, small=small)
        self._top += total + _LARGE_ROUNDING
        self._blocks[block.address] = block
        self.reserved += total
        self.peak_reserved = max(self.peak_reserved, self.reserved)
        return block

    def _split(self, block: _Block, size: int, pool: list[tuple[int, int]]) -> None:
        """Leave `size` bytes in `block` and put the rest into the pool."""
        rest = _Block(block.address + size, block.size - size, small=block.small)
        rest.previous, rest.following = block, block.following
        if block.following is not None:
            block.following.previous = rest
        block.following = rest
        block.size = size
        self._blocks[rest.address] = rest
        insort(pool, (rest.size, rest.address))

    @staticmethod
    def _forget(block: _Block, pool: list[tuple[int, int]]) -> None:
        """Take a free block out of its pool."""
        del pool[bisect_left(pool, (block.size, block.address))]
