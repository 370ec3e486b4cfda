"""Early stopping: a stage is evaluated at every checkpoint, its best weights are kept; it ends when they are old."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

Weights = dict[str, Tensor]

BEST = "best"  # the folder, with one snapshot in it
RECORD = "evaluation.jsonl"


class EarlyStopping:
    """Called with a step and the averaged weights at every checkpoint; true when it is time to stop.

    patience: how many evaluations without a better one end the stage. judge: smaller is better. write: puts weights
    into a folder. What is known lies in the stage's folder, so that a stage that is resumed goes on counting.
    """

    def __init__(
        self,
        folder: Path,
        patience: int,
        judge: Callable[[Weights], float],
        write: Callable[[Weights, Path], None],
    ):
        self.folder, self.patience, self.judge, self.write = Path(folder), patience, judge, write

    def scores(self) -> dict[int, float]:
        """Step -> score of every evaluation so far, without a line that was cut off."""
        path, scores = self.folder / RECORD, {}
        for line in path.read_text().splitlines() if path.exists() else ():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            scores[row["step"]] = row["score"]
        return scores

    def spent(self) -> bool:
        """Whether the best evaluation is `patience` evaluations ago."""
        scores = self.scores()
        steps = sorted(scores)
        return bool(steps) and len(steps) - 1 - steps.index(min(steps, key=scores.__getitem__)) >= self.patience

    def __call__(self, step: int, weights: Weights) -> bool:
        before = self.scores()
        if step not in before:
            score = self.judge(weights)
            if score < min(before.values(), default=float("inf")):
                self._keep(step, weights)  # first the weights: a score without them would be believed
            with open(self.folder / RECORD, "a") as file:
                file.write(json.dumps({"step": step, "score": round(score, 6)}) + "\n")
        return self.spent()

    def _keep(self, step: int, weights: Weights) -> None:
        partial, final = self.folder / f"{BEST}.partial", self.folder / BEST
        shutil.rmtree(partial, ignore_errors=True)
        self.write(weights, partial / f"step-{step:06d}")
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)


def best_snapshot(folder: Path) -> Path | None:
    """Where the best weights of a stage lie, if it was evaluated."""
    return next(iter(sorted((folder / BEST).glob("step-??????"))), None)
