"""Who a registry wants to be asked by: a login, or an access token of its token server."""

import re
from dataclasses import replace
from urllib.parse import urlencode

from .. import UsageError
from ..http_client import (
    Response,
    is_loopback,
    origin,
)
from . import limits
from .exchange import Broken, Exchange, reason


class Authorization(Exchange):
    """A registry that may ask for a login."""

    def _authorize(self, answer: Response, *, writes: bool, seconds: float) -> None:
        """Be who the registry asks for.

        Raises:
            UsageError: We cannot, or may not.
        """
        challenge = answer.headers.get("WWW-Authenticate", "")
        bearer = re.search(r"(?i)\bbearer\s+(.*)", challenge)
        known = re.match(r"(?i)\s*basic\b|.*,\s*basic\s", challenge)
        if self.login and not self.encrypted and not is_loopback(self.origin[1]):
            raise UsageError(
                f"{self.url}: the registry asks for a login, and that is sent encrypted only: "
                f"use oci://{self.host}/{self.name}"
            )
        if bearer:
            self.authorization = self._token(bearer[1], writes=writes, seconds=seconds)
        elif known and self.login.password and not self.authorization:
            self.authorization = f"Basic {self.login.basic}"
        else:
            raise self._refused(answer, "", "")

    def _token(self, challenge: str, *, writes: bool, seconds: float) -> str:
        """Ask the registry's token server for an access token."""
        if self.login.registry_token:
            return f"Bearer {self.login.registry_token}"
        params = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
        realm = params.get("realm", "")
        try:
            scheme, host, _ = origin(realm)
        except ValueError:
            scheme = ""
            host = ""
        if not host or (scheme != "https" and (self.encrypted or not is_loopback(host))):
            named = f"{scheme}://{host}" if host else "no address"
            raise UsageError(f"{self.url}: the registry names {named} for logins, not one with TLS")
        scope = f"repository:{self.name}:pull,push" if writes else params.get("scope")
        query = {"scope": scope or f"repository:{self.name}:pull"}
        if params.get("service"):
            query["service"] = params["service"]
        if self.login.identity_token:
            query |= {"grant_type": "refresh_token", "client_id": "rung"}
            body = urlencode(query | {"refresh_token": self.login.identity_token}).encode()
            form = {"Content-Type": "application/x-www-form-urlencoded"}
            answer = self._exchange("POST", realm, body, form, limits.MAX_JSON, seconds, None)
        else:
            url = f"{realm}{'&' if '?' in realm else '?'}{urlencode(query)}"
            own = {"Authorization": f"Basic {self.login.basic}"} if self.login.password else {}
            answer = self._exchange("GET", url, b"", own, limits.MAX_JSON, seconds, None)
        if answer.status in limits.AGAIN:
            raise Broken(f"its token server answers {reason(answer)}")
        if answer.status != 200:
            raise self._refused(replace(answer, url=self.base), "", "")
        content = self._json(answer, "token")
        token = content.get("token") or content.get("access_token")
        if not isinstance(token, str) or not re.fullmatch(r"[\x21-\x7e]+", token):
            raise UsageError(f"{self.url}: the registry's token is malformed")
        return f"Bearer {token}"
