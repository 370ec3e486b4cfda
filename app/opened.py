"""Reads the settings inside a file that was made here: a film, a comparison, or the JSON beside one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from app.limits import MOST_SECONDS, read_film, read_requests
from app.recording import SUFFIX
from videoar.events import MOST_CONTENDERS

FILE_TYPES = [SUFFIX, ".mp4", ".gif", ".webp", ".json"]
_MOST_JSON_BYTES = 16 << 20
_NO_SETTINGS = "there are no settings inside this file: it was not made here, or another program has rewritten it"


def read_file(path: str | Path) -> dict[str, Any]:
    """What a file comes to: prompt, seed and contenders, as `app.link.read_link` gives them.

    Raises ValueError with a sentence for a file without settings, and for settings that this page cannot use.
    """
    path = Path(path)
    if path.suffix.lower() == ".json":
        said = _read_json(path)
    elif path.suffix.lower() in (".mp4", ".gif", ".webp"):
        # Here, because it loads the whole library, for which the page need not wait.
        from videoar.montage import read_animation_settings
        from videoar.video import read_settings

        said = (read_settings if path.suffix.lower() == ".mp4" else read_animation_settings)(path)
    else:
        raise ValueError(f"settings are in {', '.join(FILE_TYPES)} files, and this is another one")
    return form_of(_films(said))


def form_of(films: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the page's form has to say to make these films again. films: settings as `ClipStarted.settings` gives them.

    Also what the form has no field for, as far as a film is made with it: `size`, `negative_prompt`, `cut_from` (its
    seconds, if they are too many here) and `continued_from` (the name of a file). Raises ValueError for what cannot be
    made here.
    """
    if not films:
        raise ValueError(_NO_SETTINGS)
    if len(films) > MOST_CONTENDERS:
        raise ValueError(f"the file compares {len(films)} films, and {MOST_CONTENDERS} have room here")
    prompt, seed = films[0].get("prompt"), films[0].get("seed")
    contenders = [_contender(film) for film in films]
    asked = read_requests(prompt, contenders, seed, False)
    form: dict[str, Any] = {"prompt": asked[0].prompt, "seed": seed, "contenders": contenders} | _unsaid(films[0])
    more = _more(films[0])
    if len({film.get("seed") for film in films}) > 1 and all(each == contenders[0] for each in contenders):
        more["films"], form["contenders"] = len(films), contenders[:1]  # one film, made with several seeds
        more.pop("seconds", None)  # such are clips
    if len(form["contenders"]) == 1:
        read_film(prompt, contenders[0]["plan"], None, seed, False, more)
        form["more"] = more
    return form


def _more(film: Mapping[str, Any]) -> dict[str, Any]:
    """What a film has beside prompt, seed and plan, as `app.limits.MORE` names it."""
    names = {"window": "window", "sink": "sink", "guidance": "guidance_scale"}
    # The number of films is always said, so that the form is told apart from the empty one that Gradio begins with.
    more: dict[str, Any] = {"films": 1} | {name: film[key] for name, key in names.items() if film.get(key) is not None}
    seconds, story = _seconds(film), film.get("storyboard")
    if film.get("endless") is True:
        more["endless"] = True
    elif seconds is not None:
        more["seconds"] = min(seconds, MOST_SECONDS)
    if isinstance(story, list) and all(map(_is_scene, story)):
        # Six decimals, as many as a storyboard may have: a frame of 12 a second has no end of them.
        more["storyboard"] = "\n".join(f"{time:.6f}".rstrip("0").rstrip(".") + f" {prompt}" for time, prompt in story)
    return more


def _unsaid(film: Mapping[str, Any]) -> dict[str, Any]:
    """What a film has that the form has no field for, as `form_of` names it."""
    size, seconds, source = (film.get("width"), film.get("height")), _seconds(film), film.get("continued_from")
    unsaid: dict[str, Any] = {"size": size} if all(isinstance(side, int) for side in size) else {}
    if film.get("negative_prompt"):
        unsaid["negative_prompt"] = True
    if seconds is not None and seconds > MOST_SECONDS and film.get("endless") is not True:
        unsaid["cut_from"] = seconds
    return unsaid | ({"continued_from": source} if source and isinstance(source, str) else {})


def _seconds(film: Mapping[str, Any]) -> float | None:
    """How long a film was asked to be: one that goes on from another has its first picture from there."""
    frames, fps = film.get("frames"), film.get("fps")
    if not isinstance(frames, int) or not isinstance(fps, int | float) or not fps > 0:
        return None
    return (frames + bool(film.get("continued_from"))) / fps


def _is_scene(scene: Any) -> bool:
    return isinstance(scene, list) and len(scene) == 2 and isinstance(scene[0], int | float)


def _contender(film: Mapping[str, Any]) -> dict[str, Any]:
    names = {"steps": "steps", "window": "window", "guidance": "guidance_scale", "model": "model"}
    chosen = {name: film[key] for name, key in names.items() if film.get(key) is not None}
    return {"plan": film.get("plan") or "cube"} | chosen


def _read_json(path: Path) -> Any:
    if path.stat().st_size > _MOST_JSON_BYTES:
        raise ValueError(f"the file is larger than {_MOST_JSON_BYTES >> 20} MB: these are no settings")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the file is no JSON text ({str(error)[:100]})") from error


def _films(said: Any) -> list[Mapping[str, Any]]:
    """The films in settings: one, those of a comparison (`videoar.montage`), or those of its timings."""
    if not isinstance(said, dict):
        return []
    several = said.get("comparison") or said.get("contenders")
    if isinstance(several, list):
        films = [each.get("settings", each) if isinstance(each, dict) else None for each in several]
        return films if all(isinstance(film, dict) for film in films) else []  # type: ignore[return-value]
    return [said] if "prompt" in said else []
