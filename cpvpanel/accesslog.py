"""The web server's access log without what opens doors: an invitation's link is masked in the path."""

import re
from typing import Any

from gunicorn.glogging import Logger

INVITATION = re.compile(r"(?<=/connect/)[\w-]{20,}")


class AccessLogger(Logger):  # type: ignore[misc] # gunicorn has no types
    def atoms(self, resp: Any, req: Any, environ: Any, request_time: Any) -> dict[str, Any]:
        atoms: dict[str, Any] = super().atoms(resp, req, environ, request_time)
        return atoms | {"U": INVITATION.sub("[masked]", atoms["U"])}
