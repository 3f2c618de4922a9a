"""``Publisher``: sends what is new to the screens, one message at a time and at most twenty a second.

It lives on a thread of its own, which ends when nothing happens and begins again with the next news.  The engine's thread never waits for
a browser, but it gives a frame that is due the few milliseconds between two steps: beside the model, which computes on all cores, a frame
costs the engine half as much again (measured: 6.7 ms against 4.2 ms).  Frames are rarer where they cost more; that a run halts or goes on
is told without delay.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from workbench.tape import Part
from workbench.view.sources import Source

Send = Callable[[dict[str, Any], list[bytes]], object]

FRAME_S = 0.05
SLOW_FRAME_S = 0.33  # while a browser lags behind, and at most while all is well
SHARE = 0.008  # of a processor for this thread while an engine runs; with sockets and readers the engine loses more than twice as much
TURN_S = 0.01  # that an engine waits between two steps, at most
LAG_FRAMES = 20  # a browser answers every tenth
IDLE_S = 1.0  # after which the thread ends
PARTED_S = 1.0  # between two looks for the first difference of a branch
_ACK_GOOD_S = 5.0


class Publisher:
    """Frames of ``sources`` for ``send``, numbered from 0; the first one, and every snapshot, describes the runs."""

    def __init__(self, send: Send, sources: Sequence[Source]) -> None:
        self._send = send
        self._sources = sources  # may grow
        self._news = threading.Event()
        self._haste = threading.Event()  # news that must not wait
        self._due = threading.Event()  # a frame may be sent at the end of a step
        self._stepped = threading.Event()  # a step has ended
        self._sent = threading.Event()  # the frame that was due is packed
        self._spent_s = 0.0  # processor time of the last frame
        self._guard = threading.Lock()
        self._clients: list[str] = []  # who wait for a snapshot
        self._thread: threading.Thread | None = None
        self._closed = False
        self._seq = -1
        self._acked = (0, 0.0)  # number, and when
        self._described = 0  # runs that the screens know
        self._told: dict[int, dict[str, Any]] = {}  # status by run
        self._compared: dict[int, tuple[int, int]] = {}  # steps compared, by run
        self._compare_at_s = 0.0

    def wake(self) -> None:
        """There may be news."""
        self._news.set()
        if any(source.state != self._told.get(source.number, {}).get("state") for source in self._sources):
            self._haste.set()
        thread = self._thread
        if thread is None or not thread.is_alive():
            self._start()

    def turn(self) -> None:
        """A step has ended, or a run stands otherwise: there may be news, and if a frame is due, now is its time."""
        due = self._due.is_set()
        self._sent.clear()
        self._stepped.set()
        self.wake()
        if due:
            self._sent.wait(TURN_S)

    def greet(self, client: str) -> None:
        """Send a snapshot to one browser."""
        with self._guard:
            self._clients.append(client)
        self._haste.set()
        self.wake()

    def ack(self, seq: int) -> None:
        """A browser has drawn this frame."""
        self._acked = (seq, time.monotonic())

    def close(self) -> None:
        """Send nothing any more."""
        self._closed = True
        self._news.set()
        self._haste.set()

    @property
    def interval_s(self) -> float:
        """Between two frames: longer while an engine runs and frames cost much, and while a browser that answers lags.

        Silence says nothing, since a busy kernel does not hear answers.
        """
        seq, when_s = self._acked
        lags = time.monotonic() - when_s < _ACK_GOOD_S and self._seq - seq > LAG_FRAMES
        if lags:
            return SLOW_FRAME_S
        return min(SLOW_FRAME_S, max(FRAME_S, self._spent_s / SHARE if self._runs else 0.0))

    def _start(self) -> None:
        with self._guard:
            if self._closed or (self._thread is not None and self._thread.is_alive()):
                return
            self._thread = threading.Thread(target=self._work, name="workbench view", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        while not self._closed:
            self._due.set()
            if not self._news.wait(IDLE_S):
                with self._guard:
                    if not self._news.is_set():
                        self._due.clear()
                        self._thread = None
                        return
            if not self._haste.is_set() and self._runs:
                self._stepped.wait(SLOW_FRAME_S)
            for flag in (self._due, self._news, self._haste):
                flag.clear()
            began_s = time.monotonic()
            if self._closed or not self._publish():
                return
            time.sleep(max(0.0, began_s + FRAME_S - time.monotonic()))
            self._haste.wait(max(0.0, began_s + self.interval_s - time.monotonic()))
            self._stepped.clear()

    @property
    def _runs(self) -> bool:
        return any(source.is_running for source in self._sources)

    def _publish(self) -> bool:
        """One frame of what is new, then snapshots for those who came; false when nobody can be reached any more."""
        used_s = time.thread_time()
        try:
            self._frame()
            self._sent.set()  # also when there was nothing to send
            with self._guard:
                clients, self._clients = self._clients, []
            for client in dict.fromkeys(clients):
                self._snapshot(client)
            self._look_for_differences()
        except OSError:  # the kernel's sockets are gone
            return False
        self._spent_s = time.thread_time() - used_s
        return True

    def _frame(self) -> None:
        sources = list(self._sources)
        parts, buffers = [], list[bytes]()
        for source in sources:
            part, status = source.news(), source.status()
            known = self._told.get(source.number)
            if part is None and known is not None and known == {**known, **status}:
                continue
            self._told[source.number] = {**(known or {}), **status}
            parts.append(_entry(source, status, part, buffers))
            if part is not None and part.header["count"] and part.header["at"] + part.header["count"] == len(source.packer):
                self._news.set()  # more may have come meanwhile
        fresh = sources[self._described :]
        if not parts and not fresh:
            return
        self._seq += 1
        frame: dict[str, Any] = {"kind": "frame", "seq": self._seq, "parts": parts}
        if fresh:
            frame["runs"] = [source.info() for source in fresh]
            self._described = len(sources)
        self._sent.set()  # the next step need not wait for the sockets
        self._send(frame, buffers)

    def _snapshot(self, client: str) -> None:
        """Everything that was sent so far, in one frame for one browser."""
        parts, buffers = [], list[bytes]()
        sources = list(self._sources)[: self._described]
        for source in sources:
            status = source.status(whole=True)
            parts += [_entry(source, status, part, buffers) for part in source.packer.parts_from_start()]
        runs = [source.info() for source in sources]
        self._send({"kind": "frame", "seq": self._seq, "to": client, "runs": runs, "parts": parts}, buffers)

    def _look_for_differences(self) -> None:
        """Where branches part from their parents, and others from the first run, looked for once a second."""
        if time.monotonic() < self._compare_at_s:
            return
        self._compare_at_s = time.monotonic() + PARTED_S
        for source in list(self._sources):
            other = None if source.against is None else self._sources[source.against]
            if other is None or self._compared.get(source.number) == (steps := (len(source.packer), len(other.packer))):
                continue
            self._compared[source.number] = steps
            found = source.difference_to(other)
            if found != source.parted:
                source.parted = found
                position, sentence = found or (0, "")
                self._send({"kind": "parted", "run": source.number, "position": position, "sentence": sentence}, [])
            if source.is_running:
                self._news.set()


def _entry(source: Source, status: dict[str, Any], part: Part | None, buffers: list[bytes]) -> dict[str, Any]:
    entry: dict[str, Any] = {"run": source.number, "status": status}
    if part is not None:
        entry["tape"] = {**part.header, "buffer": len(buffers)}
        buffers.append(part.buffer)
    return entry
