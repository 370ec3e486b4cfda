"""The page over HTTP: the named endpoint, the stream of a job, bad input, two visitors, Stop and leftovers."""

from __future__ import annotations

import json
import re
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from app.device import EngineDevice
from app.films import film_so_far
from app.server import Server, free_port, launch
from app.wire import unpack
from videoar.engine import Engine
from videoar.video import read_settings, read_video

from .fake import INFO, FakeModel, film_of
from .fake import generate as generate_film

GOOD = {"prompt": "a ball", "plan": "cube", "steps": 4, "seed": 7, "randomise": False}


def connect(server: Server) -> Client:
    return Client(server.url, verbose=False)


def generate(client: Client, **changes):
    return client.predict(**(GOOD | changes), api_name="/generate")


def stream(server: Server, job: str, start: int = 0) -> bytes:
    return httpx.get(f"{server.url}gradio_api/units/{job}", params={"start": start}, timeout=30).content


def engine(server: Server):
    assert isinstance(server.device, EngineDevice)
    return server.device._ready.result()[1]


def wait_for(condition, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def client(server) -> Client:
    return connect(server)


def test_the_endpoint_gives_job_status_seed_film_and_settings(client):
    player, seed, film, settings = generate(client)
    assert player["status"] == "done"
    assert len(player["summary"]["contenders"][0]["units"]) == 8
    assert seed == 7
    assert read_settings(film) == settings
    assert settings["prompt"] == "a ball"
    pictures, fps = read_video(film)
    assert fps == 8
    assert np.abs(pictures.astype(float) - film_of(7)).mean() < 6


CONTENDERS = [{"plan": "cube"}, {"plan": "frame:2", "steps": 2}, {"plan": "full"}]


def test_a_comparison_gives_its_figures_and_all_films(server, client):
    player, seed, films = client.predict("a ball", CONTENDERS, 7, False, api_name="/compare")
    assert (player["status"], seed) == ("done", 7)
    figures = player["summary"]["contenders"]
    assert [c["label"] for c in figures] == [
        "Cubes 2×2×2 · 4 steps",
        "Chunks of 2 frames · 2 steps",
        "All at once · 4 steps",
    ]
    assert [len(c["units"]) for c in figures] == [8, 4, 1]
    for film, figure in zip(films, figures, strict=True):
        assert np.abs(read_video(film)[0].astype(float) - film_of(7)).mean() < 6
        settings = read_settings(film)
        assert figure["settings"].items() <= settings.items()
        assert settings["device_seconds"] == figure["device_s"]
    run = [head for head, _ in unpack(stream(server, player["job"]))]
    assert run[0]["kind"] == "clip"
    assert (run[-1]["kind"], run[-1]["summary"]) == ("over", player["summary"])
    assert [head["at"] for head in run] == sorted(head["at"] for head in run)
    assert len(json.dumps(player["summary"])) < 10_000


@pytest.mark.parametrize(
    ("contenders", "says"),
    [
        ([], "contenders"),
        ([{"plan": "cube"}] * 6, "1 to 5 contenders"),
        ([{"plan": "cube"}, {"plan": "pyramid"}], "nknown plan"),
        ([{"plan": "cube"}, {"plan": "frame", "steps": 2.5}], "steps"),
        ([{"plan": "cube"}, {"plan": "frame", "window": -1}], "window"),
        ([{"plan": "cube"}, {"plan": "frame", "guidance": True}], "guidance"),
        ([{"plan": "cube"}, {"plan": "cube:9x1x1"}], "fewer cubes"),
        ("cube", "contenders"),
        (None, "contenders"),
        ([7], "contender"),
    ],
)
def test_contenders_that_cannot_be_get_a_sentence(client, contenders, says):
    with pytest.raises(AppError, match=says):
        client.predict("a ball", contenders, 7, False, api_name="/compare")


def test_only_two_endpoints_are_public(client):
    info = client.view_api(return_format="dict")
    assert list(info["named_endpoints"]) == ["/generate", "/compare"]
    assert not info["unnamed_endpoints"]
    names = [parameter["parameter_name"] for parameter in info["named_endpoints"]["/generate"]["parameters"]]
    assert names == [*GOOD, "more", "start"]


def test_a_drawn_seed_comes_back(client):
    seeds = {generate(client, randomise=True)[1] for _ in range(2)}
    assert len(seeds) == 2


def test_the_stream_of_a_job_can_be_read_again_from_anywhere(server, client):
    job = generate(client)[0]["job"]
    whole = list(unpack(stream(server, job)))
    assert np.abs(film_so_far(whole).astype(float) - film_of(7)).mean() < 4
    assert [head["seq"] for head, _ in whole] == list(range(len(whole)))
    assert list(unpack(stream(server, job, 5))) == whole[5:]
    assert stream(server, job, len(whole) + 10) == b""


@pytest.mark.parametrize("path", ["nobody", "x" * 500, "%00", "..%2f..%2fetc"])
def test_an_unknown_job_is_not_found(server, path):
    answer = httpx.get(f"{server.url}gradio_api/units/{path}")
    assert answer.status_code == 404
    assert "text/html" not in answer.headers["content-type"]


@pytest.mark.parametrize("number", ["-1", "abc", "1e3", "９", "9" * 400, "0" * 5000])
def test_a_strange_start_is_refused(server, client, number):
    job = generate(client)[0]["job"]
    answer = httpx.get(f"{server.url}gradio_api/units/{job}", params={"start": number})
    assert answer.status_code == 400
    assert answer.json()["error"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"prompt": ""}, "prompt is empty"),
        ({"prompt": " \n\0 "}, "prompt is empty"),
        ({"prompt": "x" * 10_000}, "at most 500"),
        ({"plan": "pyramid"}, "nknown plan"),
        ({"plan": "cube:9x1x1"}, "^cube:9x1x1 does not fit .* fewer cubes"),
        ({"plan": 4}, "plan"),
        ({"steps": 2.5}, "steps"),
        ({"steps": True}, "steps"),
        ({"steps": 10**9}, "steps"),
        ({"steps": "4"}, "steps"),
        ({"steps": [1]}, "steps"),
        ({"steps": {}}, "steps"),
        ({"prompt": 5}, "prompt"),
        ({"prompt": ["a ball"]}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"seed": -1}, "seed"),
        ({"seed": True}, "seed"),
        ({"seed": 2**53}, "seed"),
        ({"seed": "7"}, "seed"),
        ({"seed": 1.5}, "seed"),
        ({"randomise": 7}, "andomise"),
    ],
)
def test_bad_input_gets_a_sentence(client, changes, says):
    with pytest.raises(AppError, match=says):
        generate(client, **changes)


def test_without_a_number_of_steps_the_models_own_is_taken(client):
    assert generate(client, steps=None)[3]["steps"] == 4


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400"])
@pytest.mark.parametrize("name", ["steps", "seed"])
def test_numbers_that_json_does_not_have(server, client, name, number):
    values = json.dumps(list((GOOD | {name: "HERE"}).values())).replace('"HERE"', number)
    session = f"nan{time.monotonic_ns()}"
    fn_index = next(fn["id"] for fn in client.config["dependencies"] if fn["api_name"] == "generate")
    body = f'{{"data": {values}, "fn_index": {fn_index}, "session_hash": "{session}"}}'
    joined = httpx.post(
        f"{server.url}gradio_api/queue/join", content=body, headers={"content-type": "application/json"}
    )
    if joined.status_code == 200:
        events = httpx.get(f"{server.url}gradio_api/queue/data", params={"session_hash": session}, timeout=30).text
        assert '"success":false' in events
    assert generate(client)[0]["status"] == "done"


def test_markup_in_a_prompt_is_kept_as_text(client):
    prompt = '<img src=x onerror=alert(1)> ${1+1} {{1+1}} "quoted"'
    assert generate(client, prompt=prompt)[3]["prompt"] == prompt


def test_the_queue_cannot_be_bypassed(server):
    answer = httpx.post(f"{server.url}gradio_api/run/generate", json={"data": list(GOOD.values())})
    assert answer.status_code == 404


def test_large_uploads_are_refused(server):
    files = {"files": ("big.bin", bytes(33 << 20))}
    assert httpx.post(f"{server.url}gradio_api/upload", files=files).status_code == 413


def test_a_failing_film_says_why_and_the_next_one_works(client):
    with pytest.raises(AppError, match="out of memory"):
        generate(client, prompt="fail")
    assert generate(client)[0]["status"] == "done"


def test_two_visitors_never_get_each_others_film(server):
    clients, films = [connect(server) for _ in range(3)], {}

    def run(index: int) -> None:
        films[index] = [generate(clients[index], seed=100 * index + turn) for turn in range(2)]

    threads = [threading.Thread(target=run, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, made in films.items():
        for turn, (_, seed, film, _) in enumerate(made):
            assert seed == 100 * index + turn
            assert np.abs(read_video(film)[0].astype(float) - film_of(seed)).mean() < 6


def test_cancelling_ends_the_session(slow_server):
    running = connect(slow_server).submit(**GOOD, api_name="/generate")
    wait_for(lambda: engine(slow_server).load()[0] == 1)
    running.cancel()
    wait_for(lambda: engine(slow_server).load() == (0, 0))


def test_nothing_is_left_in_the_temporary_folder(server, client):
    def there():
        return set(Path(tempfile.gettempdir()).glob("videoar-*"))

    before = there()  # of other programs
    generate(client)
    wait_for(lambda: there() <= before)


def test_films_are_made_without_ffmpeg(client, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert generate(client)[2].endswith(".mp4")


def test_a_model_that_does_not_load_is_explained(caplog):
    def load():
        raise ValueError("the built-in model is missing")

    broken = launch(EngineDevice(load), port=free_port("127.0.0.1", None))
    try:
        with pytest.raises(AppError, match="The built-in model is missing"):
            generate(connect(broken))
    finally:
        broken.close()


def test_our_own_part_of_the_page_is_light():
    static = Path(__file__).parents[2] / "app" / "static"
    assert sum(path.stat().st_size for path in static.iterdir()) < 200_000


def test_the_page_itself_asks_for_nothing_from_elsewhere(server):
    page = httpx.get(server.url).text
    assert "va-header" in page
    for host in ("fonts.googleapis.com", "fonts.gstatic.com", "cdn."):
        assert host not in page


def test_the_example_of_the_documentation_runs(server, capsys):
    text = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert "http://127.0.0.1:7860" in example
    exec(example.replace("http://127.0.0.1:7860/", server.url).replace("http://127.0.0.1:7860", server.url), {})
    said = capsys.readouterr().out
    assert "done" in said
    assert "Cubes 2×2×2 · 4 steps" in said
    assert "/gradio_api/units/" in said
    wait_for(lambda: engine(server).load() == (0, 0))


def test_the_contenders_may_be_of_several_models():
    device = EngineDevice(
        {"first": FakeModel, "second one": lambda: FakeModel(info=replace(INFO, steps=2))},
        lambda model: Engine(model, run=generate_film),
    )
    several = launch(device, port=free_port("127.0.0.1", None))
    try:
        client = connect(several)
        contenders = [{"plan": "cube"}, {"plan": "cube", "model": "second one"}]
        player, _, films = client.predict("a ball", contenders, 7, False, api_name="/compare")
        made = player["summary"]["contenders"]
        assert [c["label"] for c in made] == ["Cubes 2×2×2 · 4 steps · first", "Cubes 2×2×2 · 2 steps · second one"]
        assert [read_settings(film)["model"] for film in films] == ["first", "second one"]
        with pytest.raises(AppError, match="No model 'third' is served here: choose one of first, second one"):
            client.predict("a ball", [{"plan": "cube", "model": "third"}] * 2, 7, False, api_name="/compare")
    finally:
        several.close()
