"""The routes that stream a job's messages to the player, that tell what it has shown, and how busy the server is."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from app.hub import Hub
from app.runs import Runs

_MOST_DIGITS = 15


def job_routes(hub: Hub, runs: Runs) -> list[Route]:
    """Routes for Gradio's server, under /gradio_api/ because everything else belongs to the page on a Space."""

    async def units(request: Request) -> Response:
        job = hub.get(request.path_params["job"])
        if job is None:
            return JSONResponse({"error": "there is no such job"}, 404)
        start = _whole(request.query_params.get("start", "0"))
        if start is None:
            return JSONResponse({"error": "start must be a whole number of messages"}, 400)
        # No buffering on the way, no guessing of types, no copies kept.
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", "X-Content-Type-Options": "nosniff"}
        return StreamingResponse(job.read(start), media_type="application/octet-stream", headers=headers)

    async def seen(request: Request) -> Response:
        job, frame = hub.get(request.path_params["job"]), _whole(request.query_params.get("frame", ""))
        if job is None or frame is None:
            return JSONResponse({"error": "there is no such job, or no such frame"}, 404 if job is None else 400)
        job.see(frame)
        return Response(status_code=204)

    async def state(request: Request) -> Response:
        return JSONResponse(runs.state(), headers={"Cache-Control": "no-store"})

    return [
        Route("/gradio_api/state", state, methods=["GET"]),
        Route("/gradio_api/units/{job}", units, methods=["GET"]),
        Route("/gradio_api/units/{job}/seen", seen, methods=["POST"]),
    ]


def _whole(text: str) -> int | None:
    """The whole number in a text; None for what is none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS else None
