"""A link to the page as other devices can open it, and its QR code."""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import SplitResult, urlsplit

import segno
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

_LONGEST_LINK = 2500  # beyond that a QR code cannot be read from a screen
_ANY_HOST = ("0.0.0.0", "::")
# A documentation address (RFC 5737): choosing a route to it sends nothing.
_SOMEWHERE = ("192.0.2.1", 9)
_ONLY_HERE = "Only this machine can open it. To let others in, start the server with --host 0.0.0.0."


def share_routes(host: str) -> list[Route]:
    """`/gradio_api/share?link=...`: the link for other devices, its QR code as a data URI, and a note.

    host: the address that the server listens on.
    """

    def share(request: Request) -> Response:
        try:
            link, note = reachable(request.query_params.get("link", ""), host)
        except ValueError as error:
            return JSONResponse({"error": str(error)}, 400)
        code = segno.make(link, error="l", micro=False)
        return JSONResponse({"link": link, "note": note, "picture": code.svg_data_uri(omitsize=True, light="#fff")})

    return [Route("/gradio_api/share", share)]


def reachable(link: str, host: str, here: str | None = None) -> tuple[str, str]:
    """A link of this page as other devices reach it, and what is to be said about that.

    host: the address that the server listens on; here: this machine's in its network (None: found out). Raises
    ValueError for what is no link.
    """
    if len(link) > _LONGEST_LINK:
        raise ValueError("The settings are too long for a QR code: use a shorter prompt.")
    parts = urlsplit(link)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("The link is no address of a page.")
    if not _is_loopback(parts.hostname):
        return link, ""
    here = here or (own_address() if host in _ANY_HOST else None)
    if host not in _ANY_HOST or here is None:
        return link, _ONLY_HERE
    return _at(parts, here), "For devices in the same network."


def own_address() -> str | None:
    """This machine's IPv4 address in its network, if it is in one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_SOMEWHERE)
        except OSError:
            return None
        address = str(probe.getsockname()[0])
    return None if _is_loopback(address) or address in _ANY_HOST else address


def _is_loopback(name: str) -> bool:
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback or name in _ANY_HOST
    except ValueError:
        return False


def _at(parts: SplitResult, address: str) -> str:
    return parts._replace(netloc=f"{address}:{parts.port}" if parts.port else address).geturl()
