"""One page for whoever has to show, or to drill: stops, alarms, certificates, staff, the audit's last anchor."""

from __future__ import annotations

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from cpvpanel.desk_door import page
from partners import second_factor
from partners.desk_roles import Act, may
from partners.models import User
from tokens import expiry
from tokens.models import Alarm, AuditAnchor, Halt

DRILLS = (
    ("rotatecredential", "tries each certificate at Microsoft, and says what to do next to change one"),
    ("provesplit", "tries rows, vault and credential, each alone, against a connected partner: all must be refused"),
    ("verifyaudit", "walks the audit: each line, its link, each anchor"),
    ("exposure --since T", "what was opened with our credentials in a span of time"),
    ("kill --all --reason drill", "the big stop, for the rehearsal's panel only; `unkill --all` takes two of you"),
)


def evidence(request: HttpRequest) -> HttpResponse:
    """To read, print and sign; everything here has a list of its own at the desk."""
    if not may(request.user, Act.EVIDENCE):
        raise PermissionDenied
    people = [
        (user, len(second_factor.devices_of(user)), second_factor.codes_left(user))
        for user in User.objects.filter(is_staff=True).order_by("username")
    ]
    return page(
        request, "evidence", "Evidence", at=timezone.now(), people=people, certificates=expiry.configured(),
        stops=Halt.objects.select_related("partner").order_by("-pk")[:20],
        alarms=Alarm.objects.filter(closed_at=None).select_related("partner"),
        anchor=AuditAnchor.objects.order_by("-pk").first(), drills=DRILLS,
    )  # fmt: skip
