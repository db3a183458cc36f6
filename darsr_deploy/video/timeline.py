"""Repair the times of a video: those that go back, jump or are missing."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

_BACK = Fraction(1, 10)  # seconds; less is a matter of order, not of another beginning
_GAP = Fraction(10)  # seconds; what FFmpeg takes for a jump too, in formats that may restart
_PICTURE_OR_SOUND = ("video", "audio")


class Timeline:
    """Carry the times of packets on where a file restarts, such as two recordings joined, alike for all its streams."""

    def __init__(self, container_format: Any) -> None:
        from av.format import Flags

        self._gap = _GAP if container_format.flags & Flags.ts_discont.value else None
        self._latest = Fraction(0)  # what is added to times of the latest part
        self._offsets: dict[int, Fraction] = {}  # by stream, as the next two
        self._last: dict[int, Fraction] = {}
        self._steps: dict[int, Fraction] = {}  # as the times have it: durations may be those of fields

    def place(self, packet: Any) -> None:
        """Shift a packet in time; packets come in the order of the file."""
        index, base = packet.stream.index, packet.time_base
        offset = self._offsets.get(index, self._latest) if packet.stream.type in _PICTURE_OR_SOUND else self._latest
        if packet.dts is not None and packet.stream.type in _PICTURE_OR_SOUND:  # the times of showing go to and fro
            at = packet.dts * base
            last, step = self._last.get(index, at + offset), self._steps.get(index, (packet.duration or 0) * base)
            if self._jumps(at + offset - last):
                # Another stream may have restarted before: keep in step with it.
                offset = last + step - at if self._jumps(at + self._latest - last) else self._latest
                self._latest = offset
            elif at + offset > last:
                self._steps[index] = at + offset - last
            self._offsets[index], self._last[index] = offset, at + offset
        if shift := round(offset / base):
            packet.pts = None if packet.pts is None else packet.pts + shift
            packet.dts = None if packet.dts is None else packet.dts + shift

    def _jumps(self, difference: Fraction) -> bool:
        return difference < -_BACK or (self._gap is not None and difference > self._gap)


class FrameClock:
    """Give every frame a time later than that of the frame before, at the usual distance where its own is none."""

    def __init__(self, rate: Fraction) -> None:
        self._step = 1 / rate
        self._last: Fraction | None = None
        self._due = Fraction(0)  # exact, so that rounding to a coarse time base does not add up

    def set_time(self, frame: Any, time: Fraction | None = None) -> None:
        """Set ``frame.pts``, in increasing order.

        Args:
            frame: of PyAV, in the order in which frames are shown.
            time: in seconds, where it is known better than from the frame.
        """
        base = frame.time_base or self._step
        if time is None and frame.pts is not None:
            time = frame.pts * base
        if time is None or (self._last is not None and time <= self._last):
            time = self._due
        pts = round(time / base)
        while self._last is not None and pts * base <= self._last:
            pts += 1
        frame.time_base, frame.pts = base, pts
        self._last, self._due = pts * base, time + self._step
