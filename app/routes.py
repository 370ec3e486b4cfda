"""The route that streams the messages of a job to the player."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from app.hub import Hub

_MOST_DIGITS = 15


def job_routes(hub: Hub) -> list[Route]:
    """Routes for Gradio's server, under /gradio_api/ because everything else belongs to the page on a Space."""

    async def units(request: Request) -> Response:
        job = hub.get(request.path_params["job"])
        if job is None:
            return JSONResponse({"error": "there is no such job"}, 404)
        start = request.query_params.get("start", "0")
        if not start.isascii() or not start.isdigit() or len(start) > _MOST_DIGITS:
            return JSONResponse({"error": "start must be a whole number of messages"}, 400)
        # No buffering on the way, no guessing of types, no copies kept.
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", "X-Content-Type-Options": "nosniff"}
        return StreamingResponse(job.read(int(start)), media_type="application/octet-stream", headers=headers)

    return [Route("/gradio_api/units/{job}", units, methods=["GET"])]
