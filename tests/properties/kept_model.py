"""What clients must find of the responses they stored: the model that the server is held against."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

State = Literal["in_progress", "completed", "cancelled", "deleted", "expired"]
Frames = list[bytes]
GONE = {"deleted": 404, "expired": 410}


@dataclass
class Kept:
    """A response: its state, the frames that anybody has seen of it, its questions and how they were answered."""

    id: str
    state: State
    frames: Frames = field(default_factory=list)
    questions: list[str] = field(default_factory=list)
    answered: bool | None = None

    @property
    def is_over(self) -> bool:
        return self.state in ("completed", "cancelled")

    def get(self) -> int:
        return GONE.get(self.state, 200)

    def after(self, cursor: int) -> Frames:
        """What a stream of one that is over holds: the end is told however far the cursor is."""
        return [*self.frames[cursor + 1 : -1], self.frames[-1]]

    def finish(self) -> None:
        if self.state == "in_progress":
            self.state = "completed"

    def cancel(self) -> int:
        if self.state == "in_progress":
            self.state = "cancelled"
        return 400 if self.state == "completed" else self.get()

    def delete(self) -> int:
        status = self.get()
        if status == 200:
            self.state = "deleted"
        return status

    def answer(self, approve: bool) -> int:
        """Once answered it stays so; the same answer again is the same response again."""
        if self.state in GONE:
            return 400 if self.state == "deleted" else 410
        if self.answered is None:
            self.answered = approve
        return 200 if self.answered is approve else 409

    def expire(self) -> None:
        if self.is_over:
            self.state = "expired"
