"""One long film as a chain of shorter ones that continue each other: for devices that are lent by the call.

What arrives is one film all the same: units, pictures and device time count on from leg to leg. A new prompt takes over
where a leg begins.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from app.wire import Message, pictures
from videoar.request import LARGEST_SEED, Request, Scene, clean_prompt, most_given, resolve

_CLIPS = 2  # a leg is about so many of the model's clips long


class Legs:
    """A run: iterate over its messages; direct and stop it from any thread.

    make: begins a leg, which is closed when it is not wanted any more. request: the whole film, endless or not.
    """

    def __init__(self, make: Callable[[Request], Generator[Message, None, None]], model: Any, request: Request) -> None:
        self._make = make
        self._whole = whole = resolve(model, request)
        slab, known = whole.plan.grid.T, model.grid(model.info).T
        self._latents = slab * -(-_CLIPS * known // slab)  # of a leg: whole slabs
        self._scenes = deque((round(time * whole.fps), prompt) for time, prompt in whole.request.storyboard)
        given = whole.request.start
        # The end of the film, which the next leg goes on from.
        self._seen: deque[np.ndarray] = deque(
            () if given is None else given, maxlen=1 + 4 * (most_given(model, whole.request) - 1)
        )
        self._frames = self._units = 0  # of all legs so far
        self._clock = self._seconds = 0.0
        self._wish: str | None = None
        self._stopped = threading.Event()

    def switch(self, prompt: str) -> None:
        self._wish = clean_prompt(prompt)

    def stop(self) -> None:
        self._stopped.set()

    def __iter__(self) -> Iterator[Message]:
        whole, number, prompt = self._whole, 0, self._whole.request.prompt
        while whole.frames is None or self._frames < whole.frames:
            before, prompt = prompt, self._due(prompt)
            if prompt != before:
                place = {"pane": 0, "clock": self._clock, "unit": self._units, "first": self._frames}
                yield {"kind": "switch", **place, "prompt": prompt, "seconds": 0.0}, b""
            leg = self._leg(number, prompt)
            prompt = leg.storyboard[-1].prompt if leg.storyboard else prompt
            status = yield from self._one(leg)
            if status != "done":
                return
            number += 1
        end = {"pane": 0, "clock": self._clock, "status": "done", "seconds": round(self._seconds, 3)}
        yield {"kind": "end", **end}, b""

    def _due(self, prompt: str) -> str:
        """The prompt under which the next leg begins."""
        while self._scenes and self._scenes[0][0] <= self._frames:
            prompt = self._scenes.popleft()[1]
        wish, self._wish = self._wish, None
        return wish or prompt

    def _leg(self, number: int, prompt: str) -> Request:
        whole, begun = self._whole, len(self._seen) > 0
        frames = 4 * self._latents - (0 if begun else 3)
        if whole.frames is not None:
            frames = min(frames, whole.frames - self._frames)
        scenes = []
        while self._scenes and self._scenes[0][0] < self._frames + frames:
            frame, text = self._scenes.popleft()
            scenes.append(Scene((frame - self._frames) / whole.fps, text))
        return replace(
            whole.request,
            prompt=prompt,
            seed=(whole.seed + number) % (LARGEST_SEED + 1),  # the same noise again would show
            endless=False,
            frames=frames + 1 if begun else frames,
            storyboard=tuple(scenes),
            start=np.stack(self._seen) if begun else None,
        )

    def _one(self, leg: Request) -> Generator[Message, None, str]:
        """The messages of a leg as those of the whole film; returns how it ended."""
        frames, units, clock = self._frames, self._units, self._clock
        call = self._make(leg)
        try:
            for head, body in call:
                if self._stopped.is_set():
                    break
                if head["kind"] == "clip" and not units:
                    yield self._opening(head), body
                if head["kind"] in ("clip", "film"):  # there is one of each for the whole film
                    continue
                head = head | {"clock": round(clock + head["clock"], 4)}
                self._clock = head["clock"]
                for name, before in (("unit", units), ("first", frames)):
                    if name in head:
                        head[name] += before
                if "frames" in head:
                    head["frames"] = [frame + frames for frame in head["frames"]]
                if head["kind"] == "paint" and not head["preview"]:  # exact pictures come whole and in order
                    self._frames = head["first"] + len(head["sizes"])
                    self._seen.extend(pictures(head["sizes"], body))
                elif head["kind"] == "done":
                    self._units = head["unit"] + 1
                elif head["kind"] == "end":
                    self._seconds += head.get("seconds", 0.0)
                    if head["status"] != "done":
                        yield head, body
                    return head["status"]
                yield head, body
        finally:
            call.close()
        return "stopped"

    def _opening(self, head: dict[str, Any]) -> dict[str, Any]:
        """The first leg's `clip` message as that of the whole film, of whose units nobody knows how many there are."""
        whole, [pane] = self._whole, head["panes"]
        settings = pane["settings"] | {"frames": whole.frames, "seed": whole.seed}
        if whole.request.endless:
            settings["endless"] = True
        if whole.request.storyboard:
            settings["storyboard"] = [list(scene) for scene in whole.request.storyboard]
        return head | {"panes": [pane | {"frames": whole.frames, "units": None, "settings": settings}]}
