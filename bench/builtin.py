"""The built-in model as a viewer meets it.

Time until the page can be used, to the first pixels and to the whole clip through a running server, the server's peak
memory, the speed of few-step cubes beside the same model all at once with 50 guided steps, end to end, in one process,
and that of the codec as it is served beside the codec in float32.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import psutil

from app.wire import unpack
from videoar.checkpoint import load_model
from videoar.decoder import StreamDecoder
from videoar.evaluate.playbench import held_out_cases, psnr, render_of
from videoar.generate import ClipFinished, Request, UnitDecoded, generate

from .machine import machine, write_result
from .page import interactive_seconds
from .serving import serving

PROMPT = "a red rocket rises under a starry night sky"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench builtin", description=__doc__)
    parser.add_argument("--model", help="model folder (default: the built-in model)")
    parser.add_argument("--runs", type=int, default=5, help="measured runs of each kind (default: 5)")
    parser.add_argument("--out", type=Path, help="default: bench/results/builtin.json")
    args = parser.parse_args(argv)
    if args.runs < 1:
        raise ValueError("--runs is at least 1")
    result = {**machine(), **serve(args.model, args.runs), **compare(args.model, args.runs)}
    print(write_result("builtin", result, args.out))
    shown = ["app_start_s", "page_interactive_s", "first_pixels_s", "clip_s"]
    for key in (*shown, "speedup_vs_full50", "diffusion_speedup_vs_full50", "peak_rss_mb"):
        print(f"{key:28} {result[key]}")
    return 0


def serve(model: str | None, runs: int) -> dict[str, Any]:
    """Start the app as a user does and ask for clips over HTTP, as the page does."""
    from gradio_client import Client

    command = [sys.executable, "-u", "app.py", *(["--model", model] if model else [])]
    begin = time.perf_counter()
    with serving(command) as (url, server):
        client = Client(url, verbose=False)
        _one_clip(client, url)  # loads the model and warms up
        app_start_s = time.perf_counter() - begin
        opened = interactive_seconds(url, runs)
        firsts, wholes = zip(*(_one_clip(client, url) for _ in range(runs)), strict=True)
        memory = psutil.Process(server.pid).memory_info()
        peak = _peak_rss(server.pid) or memory.rss
    return {
        "first_pixels_s": round(statistics.median(firsts), 3),
        "clip_s": round(statistics.median(wholes), 3),
        "app_start_and_first_clip_s": round(app_start_s, 1),
        "app_start_s": round(app_start_s - statistics.median(wholes), 1),
        "page_interactive_s": round(statistics.median(opened), 2) if opened else None,
        "peak_rss_mb": round(peak / 2**20),
        "first_pixels_runs": [round(s, 3) for s in firsts],
        "page_interactive_runs": [round(s, 2) for s in opened],
        "clip_runs": [round(s, 3) for s in wholes],
    }


def _one_clip(client, url: str) -> tuple[float, float]:
    """Seconds from the request to the first painted region, and to the end of the film."""
    begin = time.perf_counter()
    job = client.submit(prompt=PROMPT, plan="cube", seed=1, randomise=False, api_name="/generate")
    while not (outputs := job.outputs()):
        if job.done():
            job.result()  # raises what went wrong
        time.sleep(0.005)
    first = None
    held = b""
    with httpx.stream("GET", f"{url}/gradio_api/units/{outputs[0][0]['job']}", timeout=300) as stream:
        for data in stream.iter_bytes():
            held += data
            for head, _ in _whole_messages(held):
                if head.get("kind") == "paint" and first is None:
                    first = time.perf_counter() - begin
                if head.get("kind") == "end":
                    whole = time.perf_counter() - begin
                    if head["status"] != "done":
                        raise ValueError(f"the film ended as {head['status']}: {head.get('message', '')}")
                    job.result(timeout=60)
                    assert first is not None
                    return first, whole
    raise ValueError("the stream ended before the film")


def _whole_messages(data: bytes):
    """The messages that have arrived completely."""
    end = 0
    while len(data) - end >= 8:
        size = 8 + int.from_bytes(data[end : end + 4], "little") + int.from_bytes(data[end + 4 : end + 8], "little")
        if len(data) - end < size:
            break
        end += size
    return unpack(data[:end])


def _peak_rss(pid: int) -> int | None:
    """The most memory a process ever had resident, in bytes; None where the system does not say."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found.group(1)) * 1024 if found else None


def compare(model_path: str | None, runs: int) -> dict[str, Any]:
    """Few-step cubes against everything at once with 50 guided steps: pairs of runs, and the median of their ratios.

    End to end, and the diffusion alone (denoising and clean passes, which decoding only joins on its own thread).
    """
    model = load_model(model_path)
    cube = Request(PROMPT, plan="cube", seed=1)
    full = Request(PROMPT, plan="full", seed=1, steps=50, guidance_scale=5.0)
    _seconds(model, cube)
    _seconds(model, Request(PROMPT, plan="full", seed=1, steps=2, guidance_scale=5.0))
    pairs = [(_seconds(model, cube), _seconds(model, full)) for _ in range(runs)]
    return {
        **_decoding(model, 4 * runs),
        **_comparison("speedup_vs_full50", "", [(fast[0], slow[0]) for fast, slow in pairs]),
        **_comparison("diffusion_speedup_vs_full50", "diffusion_", [(fast[1], slow[1]) for fast, slow in pairs]),
        "cube_steps": model.info.steps,
        "cube_guidance": model.info.guidance_scale,
        "model": model.info.name,
    }


def _decoding(model, runs: int) -> dict[str, Any]:
    """A render's first four latent frames to pixels, as served and in float32: medians, and how alike they are."""
    render = render_of(model, held_out_cases(2)[0])
    latents = StreamDecoder(model.vae).encode(render[None].to(model.device))[:, :, :4]
    decoders = {"decode_s": model.stream_decoder, "decode_float32_s": lambda: StreamDecoder(model.vae)}
    times: dict[str, list[float]] = {name: [] for name in decoders}
    for _ in range(runs):
        pictures = []
        for name, decoder in decoders.items():
            begin = time.perf_counter()
            pictures.append(decoder().push(latents)[0].numpy())
            times[name].append(time.perf_counter() - begin)
    result = {name: round(statistics.median(seconds), 4) for name, seconds in times.items()}
    return result | {"decode_psnr_vs_float32_db": round(psnr(*pictures), 1)}


def _comparison(name: str, prefix: str, pairs: list[tuple[float, float]]) -> dict[str, Any]:
    return {
        name: round(statistics.median(slow / fast for fast, slow in pairs), 2),
        f"{prefix}cube_s": round(statistics.median(fast for fast, _ in pairs), 3),
        f"{prefix}full50_s": round(statistics.median(slow for _, slow in pairs), 3),
        f"{prefix}comparison_pairs": [[round(fast, 3), round(slow, 3)] for fast, slow in pairs],
    }


def _seconds(model, request: Request) -> tuple[float, float]:
    """How long a film takes, and how long its diffusion alone."""
    begin, diffusion = time.perf_counter(), 0.0
    for event in generate(model, request, previews=False):
        if isinstance(event, UnitDecoded):
            diffusion += event.denoise_s + event.clean_s
    assert isinstance(event, ClipFinished)
    return time.perf_counter() - begin, diffusion
