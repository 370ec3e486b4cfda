"""Writes captions of worlds, in one canonical form or paraphrased, and reads such texts back to attributes."""

import random
import re
from dataclasses import replace

from . import words
from .world import SIDEWAYS, Attributes, ThingAttributes, World, sample_world, world_from_attributes

_KINDS = ("subject", "color", "size", "motion", "scene", "camera")


def caption(world: World, rng: random.Random | None = None) -> str:
    """Describe a world: "a big red rocket rises under a starry night sky, the camera pans left".

    Without rng the canonical caption (no word for a medium size or a still camera); with it a paraphrase, which
    `parse_caption` reads back to the same attributes.
    """
    if rng is None:
        things = " and ".join(f"{_noun_phrase(o, None)} {o.motion}" for o in world.things)
        text = f"{things} {_scene(world, None)}"
        return f"{text}, {words.CAMERA_WORDS[world.camera][0]}" if world.camera != "none" else text
    form = rng.choice(("plain", "plain", "scene first", "there is", "participle", "camera first"))
    participle = form in ("there is", "participle")
    articles = rng.random() < 0.9
    joint = rng.choice((" and ", " and ", " while ")) if not participle else " and "
    things = joint.join(
        f"{_noun_phrase(o, rng, articles)} {_pick(words.MOTION_WORDS[o.motion], rng)[participle]}" for o in world.things
    )
    scene = _scene(world, rng)
    phrases = words.CAMERA_WORDS[world.camera]
    camera = phrases[0] if world.camera == "none" and rng.random() < 0.8 else _pick(phrases, rng)
    if form == "scene first":
        text = f"{scene}, {things}"
    elif form == "there is":
        text = f"there is {things} {scene}"
    else:
        text = f"{things} {scene}"
    if form == "camera first" and camera:
        text = f"{camera}{' as ' if camera.startswith('the') else ', '}{text}"
    elif camera:
        text = f"{text}, {camera}"
    if rng.random() < 0.3:
        text = text[0].upper() + text[1:]
    return text + "." if rng.random() < 0.3 else text


def parse_caption(text: str) -> Attributes | None:
    """Read a prompt: what it says about the things (at most two), the scene and the camera.

    Tolerant: unknown words are skipped and what is not said is None (an unsaid size is "medium", an unsaid camera
    "none"). None when nothing at all is recognised.
    """
    found = []
    for match in _PATTERN.finditer(_plain(text)):
        kind = "wall" if match["wall"] else _KIND_OF[match["phrase"]]
        table = _MEANING["color" if kind == "wall" else kind]
        found.append((kind, table.get(match["wall"] or match["phrase"], "")))  # "and" has no meaning of its own
    scenes, cameras, walls = ([v for k, v in found if k == kind] for kind in ("scene", "camera", "wall"))
    things = _read_things([f for f in found if f[0] in ("subject", "color", "size", "motion", "and")])
    if not (things or scenes or cameras or walls):
        return None
    scene, wall_color = None, None
    if walls:
        scene, wall_color = "wall", walls[0]
    elif scenes:  # "a city at night" is a city, "sunset over the ocean" a sunset
        scene = min(scenes, key=lambda s: {"city": 0, "sunset": 1, "night": 3}.get(s, 2))
    return Attributes(things, scene, cameras[0] if cameras else "none", wall_color)


def example_prompts() -> tuple[str, ...]:
    """Prompts to start from; all within the grammar."""
    return (
        "a red rocket rises under a starry night sky",
        "a big pink jellyfish sways deep under the ocean",
        "a white ghost drifts right in a city at night, the camera pans left",
        "a yellow star spins and a small blue balloon floats up at sunset",
        "in falling snow, a tiny orange fish circles",
        "a large purple heart pulses in front of a yellow wall",
        "a green boat drifts left in front of a sunset over the sea",
        "there is a cyan balloon floating up over a green meadow, the camera zooms out",
        "a big orange ball bounces above desert dunes, the camera zooms in",
        "a white flower spins in a meadow",
        "a small yellow cube hops and a purple ring rotates under the stars",
    )


def complete(text: str, rng: random.Random | None = None) -> str | None:
    """A whole caption that says what the text says, and for the rest something at random; any caption for no text.

    The last word may be unfinished: "a red ro" becomes a red rocket. None for a text in which nothing is recognised.
    """
    rng = rng or random.Random()
    wanted = parse_caption(text)
    word = _plain(text).split(" ")[-1]
    if word and not text[-1:].isspace() and word not in _KIND_OF:
        ends = sorted(phrase for phrase, kind in _KIND_OF.items() if kind != "and" and phrase.startswith(word))
        if not (wanted and any(thing.subject for thing in wanted.things)):
            ends = [phrase for phrase in ends if _KIND_OF[phrase] == "subject"] or ends
        if ends:
            wanted = parse_caption(text.rstrip()[: -len(word)] + rng.choice(ends))
    if wanted is None:
        return None if text.strip() else caption(sample_world(rng))
    if wanted.things or wanted.scene or wanted.wall_color:
        return caption(world_from_attributes(wanted, rng))
    return caption(replace(sample_world(rng), camera=wanted.camera or "none"))


def guide() -> dict[str, dict[str, tuple[str, ...]]]:
    """The vocabulary for people: group -> value -> the phrases that say it, the usual one first."""

    def finite(table):
        return {k: tuple(v[0] for v in phrases) for k, phrases in table.items()}

    def said(table):
        return {k: tuple(p for p in phrases if p) for k, phrases in table.items()}

    scenes = {k: tuple(p.replace("{} wall", "blue wall") for p in v) for k, v in words.SCENE_WORDS.items()}
    return {
        "subjects": dict(words.SUBJECT_WORDS),
        "colors": dict(words.COLOR_WORDS),
        "sizes": said(words.SIZE_WORDS),
        "motions": finite(words.MOTION_WORDS),
        "scenes": scenes,
        "cameras": said(words.CAMERA_WORDS),
    }


def _pick(phrases, rng: random.Random | None):
    """The canonical phrase half of the time, so that a model meets it often."""
    return phrases[0] if rng is None or rng.random() < 0.5 else rng.choice(phrases)


def _with_article(phrase: str) -> str:
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def _noun_phrase(thing, rng: random.Random | None, article: bool = True) -> str:
    size = _pick(words.SIZE_WORDS[thing.size], rng)
    if thing.size == "medium" and rng is not None and rng.random() < 0.7:
        size = ""
    color = _pick(words.COLOR_WORDS[thing.color], rng)
    phrase = " ".join(w for w in (size, color, _pick(words.SUBJECT_WORDS[thing.subject], rng)) if w)
    if not article:
        return phrase
    return f"the {phrase}" if rng is not None and rng.random() < 0.1 else _with_article(phrase)


def _scene(world: World, rng: random.Random | None) -> str:
    phrase = _pick(words.SCENE_WORDS[world.scene], rng)
    if world.scene == "wall":
        phrase = phrase.replace("a {}", _with_article(_pick(words.COLOR_WORDS[world.wall_color], rng)))
    return phrase


def _read_things(found: list[tuple[str, str]]) -> tuple[ThingAttributes, ...]:
    """Share colours, sizes and motions out to the subjects.

    What stands before the first subject is its own, what stands after the last is that one's. Between two, motions
    belong to the earlier; colours and sizes to the later, unless an "and" follows them before it.
    """
    nouns = [i for i, (kind, _) in enumerate(found) if kind == "subject"][:2]
    if not nouns:  # "something red rises"
        if not any(kind != "and" for kind, _ in found):
            return ()
        nouns = [len(found)]
    things = [{"subject": found[i][1]} if i < len(found) else {} for i in nouns]
    for i, (kind, value) in enumerate(found):
        if kind in ("and", "subject"):
            continue
        owner = 0
        if len(nouns) == 2 and i > nouns[0]:
            joined = any(k == "and" for k, _ in found[i : nouns[1]])
            if i > nouns[1]:
                owner = 1
            elif kind == "motion":
                owner = 0 if "motion" not in things[0] else 1
            else:
                owner = 0 if joined else 1
        things[owner].setdefault(kind, value)
    if len(things) == 2 and "motion" not in things[0] and "motion" in things[1]:  # "a ball and a cube spin"
        things[0]["motion"] = things[1]["motion"]
    return tuple(ThingAttributes(**t) for t in things)


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"[-_]", " ", text.lower()).replace("zig zag", "zigzag"))


def _vocabulary() -> dict[str, dict[str, str]]:
    """kind -> phrase -> value, of everything that is understood."""
    meaning: dict[str, dict[str, str]] = {kind: {} for kind in (*_KINDS, "and")}
    for kind in _KINDS:
        for table in (getattr(words, f"{kind.upper()}_WORDS"), getattr(words, f"ALSO_{kind.upper()}", {})):
            for value, phrases in table.items():
                for phrase in phrases:
                    for form in (phrase,) if isinstance(phrase, str) else phrase:
                        if form and "{}" not in form:
                            meaning[kind][_plain(form)] = value
    for value in SIDEWAYS:
        way = value.split()[1]
        verbs = ("zigzags", "zigzagging", "zigzag") if value.startswith("zigzags") else (
            "drifts", "drifting", "drift", "slides", "sliding", "moves", "moving", "glides", "gliding", "goes", "going",
            "flies", "flying", "floats", "floating", "swims", "swimming", "sails", "sailing", "travels")  # fmt: skip
        for verb in verbs:
            for to in (way, f"to the {way}", f"towards the {way}", f"{way}wards"):
                meaning["motion"][f"{verb} {to}"] = value
    for phrase, value in list(meaning["camera"].items()):
        meaning["camera"][phrase.removeprefix("the ")] = value
    for phrase, value in list(meaning["subject"].items()):
        meaning["subject"].setdefault(phrase + "s", value)
    return meaning


def _pattern(kind_of: dict[str, str], colors) -> re.Pattern:
    """Finds the longest known phrase at every place; a wall comes with its colour."""

    def either(phrases):
        return "|".join(sorted(map(re.escape, phrases), key=len, reverse=True))

    wall = rf"(?:(?:in front of|against|before) )?(?:an? |the )?(?:pale |light )?(?P<wall>{either(colors)}) wall"
    return re.compile(rf"\b(?:{wall}|(?P<phrase>{either(kind_of)}))\b")


_MEANING = _vocabulary()
_KIND_OF = {phrase: kind for kind, table in _MEANING.items() for phrase in table} | {"and": "and", "while": "and"}
_PATTERN = _pattern(_KIND_OF, _MEANING["color"])
