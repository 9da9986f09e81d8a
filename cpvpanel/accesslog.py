"""The web server's access log without what opens doors: links of invitations and of new staff are masked."""

import re
from typing import Any

from gunicorn.glogging import Logger

LINKS = re.compile(r"(?<=/connect/)[\w-]{20,}|(?<=/join/)[\w-]{20,}|(?<=/welcome/)[\w/-]+")


class AccessLogger(Logger):  # type: ignore[misc] # gunicorn has no types
    def atoms(self, resp: Any, req: Any, environ: Any, request_time: Any) -> dict[str, Any]:
        atoms: dict[str, Any] = super().atoms(resp, req, environ, request_time)
        return atoms | {"U": LINKS.sub("[masked]", atoms["U"])}
