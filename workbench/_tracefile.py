"""The ``.wbt`` file: a 42-byte header, then one compressed msgpack body.

    bytes 0–7    magic; like PNG's it breaks when a transfer rewrites line ends
    8–9          version, big endian
    10–17        length of the body before compression
    18–25        length of the compressed body
    26–41        BLAKE2b-128 of everything else in the file
    42–          zlib stream

Nothing in it is code and nothing is unpickled: msgspec builds only the record types of ``events``.  The lengths are checked
before memory is spent on them, so a small file cannot unfold into a huge one.
"""

from __future__ import annotations

import gc
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import msgspec

from workbench.config import EngineConfig
from workbench.errors import ConfigError, RequestError, TraceError
from workbench.events import TRACE_VERSION, Fidelity, ModelFacts, StepRecord
from workbench.request import Request, SamplingParams

MAGIC = b"\x89wbt\r\n\x1a\n"
_HEAD = struct.Struct(">8sHQQ")
_DIGEST_BYTES = 16
_BODY_AT = _HEAD.size + _DIGEST_BYTES
MAX_BODY_BYTES = 4 << 30
"""Longest body that is unpacked: about three million steps of 16 requests."""
_MAX_RATIO = 1100  # zlib's format cannot reach more than 1032 to 1
_LEVEL = 6  # by measurement, see benchmarks/trace_size.py


class Content(NamedTuple):
    """What a trace holds, in the order of ``Trace``'s arguments."""

    config: EngineConfig
    model: ModelFacts
    requests: list[Request]
    records: list[StepRecord]
    fidelity: Fidelity
    token_texts: dict[int, str]


# Settings check themselves when they are made, by their knobs; msgspec reads them as plain mappings.
_Settings = dict[str, Any]


class _Request(msgspec.Struct, kw_only=True):
    """A :class:`Request` as it lies in a file."""

    id: str
    prompt_token_ids: tuple[int, ...]
    sampling: _Settings
    prompt: str | None = None
    arrival_step: int | None = None
    arrival_s: float | None = None
    priority: int = 0
    eos_token_ids: tuple[int, ...] = ()
    bad_words_ids: tuple[tuple[int, ...], ...] = ()
    parent: str | None = None
    index: int = 0

    def thaw(self) -> Request:
        fields = {name: getattr(self, name) for name in self.__struct_fields__}
        return Request(**{**fields, "sampling": SamplingParams.of(**_known(SamplingParams, self.sampling))})


class _Body(msgspec.Struct, array_like=True):
    config: _Settings
    model: ModelFacts
    fidelity: Fidelity
    requests: list[_Request]
    token_texts: dict[int, str]
    records: list[StepRecord]

    def thaw(self) -> Content:
        config = EngineConfig(**_known(EngineConfig, self.config))
        requests = [request.thaw() for request in self.requests]
        return Content(config, self.model, requests, self.records, self.fidelity, self.token_texts)


def _known(cls: type[msgspec.Struct], settings: _Settings) -> _Settings:
    # A knob that a later version of the same format added does not make its traces unreadable here.
    return {name: value for name, value in settings.items() if name in cls.__struct_fields__}


def write_trace(content: Content, path: Path) -> Path:
    """Write ``content`` to ``path`` through a temporary file beside it; returns the path.

    Raises :class:`TraceError` when the place cannot be written or the trace holds text that is not valid Unicode.
    """
    body = (content.config, content.model, content.fidelity, content.requests, content.token_texts, content.records)
    try:
        raw = msgspec.msgpack.encode(body)
    except (UnicodeEncodeError, OverflowError) as error:
        raise TraceError(f"cannot save the trace: {error}") from error
    packed = zlib.compress(raw, _LEVEL)
    head = _HEAD.pack(MAGIC, TRACE_VERSION, len(raw), len(packed))
    replace_file(path, head + _digest(head, packed) + packed)
    return path


def read_trace(path: Path) -> Content:
    """Return what is in the file at ``path``; every way in which the file can be wrong raises :class:`TraceError`."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise TraceError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        return _decode(_unpack(data))
    except TraceError as error:
        raise TraceError(f"{path}: {error}") from error.__cause__


def replace_file(path: Path, data: bytes) -> None:
    """Write a file so that its name never stands for half of it; raises :class:`TraceError` when it cannot."""
    part = path.with_name(f".{path.name}.{uuid4().hex[:8]}")
    try:
        with part.open("xb") as file:
            file.write(data)
        os.replace(part, path)
    except OSError as error:
        raise TraceError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)


def _unpack(data: bytes) -> bytes:
    if data[: len(MAGIC)] != MAGIC[: len(data)] or not data:
        raise TraceError("not a trace file (.wbt)")
    if len(data) < _BODY_AT:
        raise TraceError(f"cut short: {len(data)} bytes, but the header alone has {_BODY_AT}")
    head, packed = data[: _HEAD.size], memoryview(data)[_BODY_AT:]
    _, version, raw_bytes, packed_bytes = _HEAD.unpack(head)
    if version > TRACE_VERSION:
        raise TraceError(f"trace version {version} is newer than version {TRACE_VERSION}, which this workbench reads: upgrade it")
    if version < 1:
        raise TraceError("corrupt: it claims version 0, which never existed")
    if len(packed) < packed_bytes:
        raise TraceError(f"cut short: {len(packed):,} of {packed_bytes:,} bytes are there")
    if data[_HEAD.size : _BODY_AT] != _digest(head, packed):
        raise TraceError("corrupt: its checksum does not match")
    if raw_bytes > min(MAX_BODY_BYTES, packed_bytes * _MAX_RATIO):
        raise TraceError(f"refused: {packed_bytes:,} bytes claim to hold {raw_bytes:,}")
    return _inflate(packed, raw_bytes)


def _inflate(packed: memoryview, raw_bytes: int) -> bytes:
    stream = zlib.decompressobj()
    try:
        raw = stream.decompress(packed, raw_bytes + 1)
    except zlib.error as error:
        raise TraceError(f"corrupt: {error}") from error
    if len(raw) != raw_bytes or not stream.eof or stream.unused_data:
        raise TraceError(f"corrupt: its contents are not the {raw_bytes:,} bytes that it claims")
    return raw


def _decode(raw: bytes) -> Content:
    try:
        with _no_collection():
            return msgspec.msgpack.decode(raw, type=_Body).thaw()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ConfigError, RequestError, TypeError) as error:
        raise TraceError(f"corrupt, or written by a newer workbench: {error}") from error


def _digest(head: bytes, packed: bytes | memoryview) -> bytes:
    digest = blake2b(head, digest_size=_DIGEST_BYTES)
    digest.update(packed)
    return digest.digest()


@contextmanager
def _no_collection() -> Iterator[None]:
    # A hundred thousand fresh tuples would set off the cyclic collector again and again, and none of them can be garbage.
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
