"""Who may use the search page: this machine's browser, and only with the server's token."""

import re
import secrets
from collections.abc import Awaitable, Callable
from html import escape
from pathlib import Path

from trimodal.core.errors import UserError
from trimodal.core.extras import imports_of

with imports_of("search"):
    from fastapi import Request, Response
    from fastapi.responses import JSONResponse

_HEADERS = {
    # Nothing from other hosts, only the page's own script, and no framing.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
        "media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
# The page is revalidated, so that a browser does not run an earlier version's script.
_CACHE = "private, no-cache"
_NO_TOKEN = "open the address that `trimodal serve` printed: it holds the token"  # noqa: S105


def write_redirect(folder: Path, address: str) -> str:
    """The URL of a file that leads to ``address``: a browser's command line, which other accounts
    can see, should not hold the token. They should not be able to read ``folder``.
    """
    page = folder / "open.html"
    refresh = f'<meta http-equiv="refresh" content="0; url={escape(address)}">'
    page.write_text(f"<!doctype html>{refresh}", encoding="utf-8")
    return page.as_uri()


class TokenError(UserError, ValueError):
    """A token that cannot stand in a URL and a cookie."""


def new_token() -> str:
    """A random token, which can stand in a URL."""
    return secrets.token_urlsafe(24)


class Guard:
    """Refuses requests without the token, if there is one, and those by other sites' pages. The
    token comes as ``?token=``, as Jupyter's does, and from then on in a cookie.
    """

    def __init__(self, token: str) -> None:
        if not re.fullmatch(r"[A-Za-z0-9._~-]*", token):
            raise TokenError("a token consists of letters a-z, digits and . _ ~ -")
        self._token = token.encode()

    async def __call__(
        self, request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        """Answers a request; every response has the security headers."""
        by_url = self._is_token(request.query_params.get("token"))
        same_site = request.headers.get("sec-fetch-site", "same-origin") in ("same-origin", "none")
        cookie = f"trimodal-{request.scope['server'][1]}"  # cookies know no ports
        if not by_url and not same_site:
            return secured(JSONResponse({"detail": "requested by another site"}, 403))
        if self._token and not by_url and not self._is_token(request.cookies.get(cookie)):
            return secured(JSONResponse({"detail": _NO_TOKEN}, 403))
        response = await call_next(request)
        if by_url:
            response.set_cookie(cookie, self._token.decode(), httponly=True, samesite="strict")
        return secured(response)

    def _is_token(self, given: str | None) -> bool:
        encoded = (given or "").encode(errors="backslashreplace")
        return bool(self._token) and secrets.compare_digest(encoded, self._token)


def secured(response: Response) -> Response:
    """The response with the security headers; it is not stored unless it says otherwise."""
    response.headers.update(_HEADERS)
    response.headers.setdefault("Cache-Control", _CACHE)
    return response
