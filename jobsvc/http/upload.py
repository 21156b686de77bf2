"""F3: the body of a request that is handled while it arrives."""

from __future__ import annotations

from typing import Protocol


class Pausable(Protocol):
    """The connection, as an upload sees it."""

    def pause_body(self) -> None:
        """Stop reading the body."""

    def resume_body(self) -> None:
        """Read on."""


class UploadSink(Protocol):
    """Who takes a streamed body."""

    def data(self, data: bytes) -> None:
        """The next piece, in whatever size it came."""

    def ended(self) -> None:
        """The body was complete."""


class Upload:
    """The body of a request that is handled while it arrives. What comes before `attach` is kept."""

    def __init__(self, channel: Pausable) -> None:
        self._channel = channel
        self._sink: UploadSink | None = None
        self._early: list[bytes] = []
        self._ended = False

    def attach(self, sink: UploadSink) -> None:
        """Hand everything to `sink` from now on."""
        self._sink = sink
        early, self._early = self._early, []
        for data in early:
            sink.data(data)
        if self._ended:
            sink.ended()

    def data(self, data: bytes) -> None:
        """From the channel."""
        if self._sink is None:
            self._early.append(data)
        else:
            self._sink.data(data)

    def end(self) -> None:
        """From the channel: the body is complete."""
        self._ended = True
        if self._sink is not None:
            self._sink.ended()

    def pause(self) -> None:
        """Let the sender wait."""
        if not self._ended:
            self._channel.pause_body()

    def resume(self) -> None:
        """Take more."""
        self._channel.resume_body()
