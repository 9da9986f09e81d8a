"""The work of all partners at the desk: where each job stands, what its runs said, and what support may do about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from django.contrib import admin
from django.db.models import OuterRef, QuerySet, Subquery
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import URLPattern, path, reverse

from partners import jobs, workboard
from partners.desk_acts import NotDone, Page, PartnersReason, confirmed
from partners.desk_roles import Act
from partners.models import Job, Run, User
from partners.standing import current_token, standing
from tokens.long_lists import ReadOnlyAdmin

NOT_CHANGED = "It is not so any more: look at the job again."
# By act: its name in addresses, its title, what it does, what is said afterwards, and why it may not be possible.
ACTS: dict[str, tuple[str, str, str, str, str]] = {
    "run": (
        "try_again",
        "Try again now",
        "A worker runs “{kind}” for {partner} as soon as possible; one that waits goes on where it was.",
        "A worker takes up {job} now.",
        "It runs already, or it is paused.",
    ),
    "pause": (
        "pause_job",
        "Pause",
        "“{kind}” of {partner} stops as soon as what it read is kept, and goes on from there once resumed.",
        "{job} is paused.",
        "It is paused already.",
    ),
    "resume": (
        "resume_job",
        "Resume",
        "“{kind}” of {partner} goes on from where it stopped.",
        "A worker takes up {job} now.",
        "It is not paused.",
    ),
    "cancel": (
        "cancel_job",
        "Cancel its run",
        "The run of “{kind}” of {partner} ends; what it has written stays, and the next one begins at the beginning.",
        "The run of {job} is cancelled.",
        "Nothing of it was begun.",
    ),
    "release": (
        "release_job",
        "Release",
        "“{kind}” of {partner} failed too often in a row. It tries again now, with a clean slate.",
        "A worker takes up {job} now.",
        "It is not held.",
    ),
}


class KindFilter(admin.SimpleListFilter):
    """By kind as this release knows them; the table need not be read for it."""

    title, parameter_name = "kind", "kind"

    def lookups(self, _request: HttpRequest, _admin: admin.ModelAdmin[Any]) -> list[tuple[str, str]]:
        return [(kind.name, kind.title) for kind in jobs.kinds().values()]

    def queryset(self, _request: HttpRequest, rows: QuerySet[Any]) -> QuerySet[Any]:
        column = "kind" if rows.model is Job else "job__kind"
        return rows.filter(**{column: self.value()}) if self.value() else rows


class AttentionFilter(admin.SimpleListFilter):
    title, parameter_name = "attention", "needs"
    BY: ClassVar[dict[str, tuple[str, dict[str, Any]]]] = {
        "held": ("held: failed too often", {"quarantined_at__isnull": False}),
        "paused": ("paused", {"paused_at__isnull": False}),
        "failing": ("failing", {"failures__gt": 0}),
        "running": ("running", {"leased_until__isnull": False}),
    }

    def lookups(self, _request: HttpRequest, _admin: admin.ModelAdmin[Any]) -> list[tuple[str, str]]:
        return [(name, words) for name, (words, _) in self.BY.items()]

    def queryset(self, _request: HttpRequest, rows: QuerySet[Any]) -> QuerySet[Any]:
        wanted = self.BY.get(self.value() or "")
        return rows.filter(**wanted[1]) if wanted else rows


class JobAdmin(ReadOnlyAdmin):
    change_form_template = "admin/partners/job.html"
    list_display = ("partner", "kind", "lane", "state", "reason", "who_acts", "next_run_at", "failures")
    list_select_related = ("partner",)
    list_filter = (KindFilter, AttentionFilter)
    finds_of = ("partner",)
    ordering = ("-id",)
    readonly_fields = ("state", "reason", "who_acts")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Job]:
        newest = Run.objects.filter(job=OuterRef("pk")).order_by("-pk")
        said = {f"run_{name}": Subquery(newest.values(name)[:1]) for name in ("outcome", "error", "error_code")}
        rows: QuerySet[Job] = super().get_queryset(request)
        return rows.annotate(**said)

    @admin.display(description="state")
    def state(self, job: Job) -> str:
        return workboard.state_at_the_desk(job).title

    @admin.display(description="reason", empty_value="")
    def reason(self, job: Job) -> str:
        state = workboard.state_at_the_desk(job)
        return f"{state.reason} (reference {state.code})" if state.code else state.reason

    @admin.display(description="who acts")
    def who_acts(self, job: Job) -> str:
        return workboard.state_at_the_desk(job).owner

    def get_urls(self) -> list[URLPattern]:
        own = [
            path(f"<int:pk>/{act}/", self.admin_site.admin_view(_page_of(act)), name=known[0])
            for act, known in ACTS.items()
        ]
        return own + super().get_urls()


def _page_of(act: str) -> Callable[..., HttpResponse]:
    def page(request: HttpRequest, pk: int) -> HttpResponse:
        return _act(request, pk, act=act)

    return page


def _act(request: HttpRequest, pk: int, *, act: str) -> HttpResponse:
    """Do to a job what support decided, once somebody has said why."""
    job = get_object_or_404(Job.objects.select_related("partner"), pk=pk)
    _, title, what, done, why_not = ACTS[act]
    names = {"kind": job.kind, "partner": job.partner.name, "job": job}

    def do(user: User, said: dict[str, Any]) -> str:
        stands = standing(job.partner, current_token(job.partner))
        if act in ("run", "resume", "release") and not stands.is_live:
            raise NotDone(f"{job.partner.name}: {stands.title}. {stands.action}")
        change: Callable[..., bool] = workboard.ACTS[act]
        if not change(job, by=user.as_actor(), reason=said["reason"]):
            raise NotDone(why_not)
        return done.format(**names)

    back = reverse("admin:partners_job_change", args=[pk])
    return confirmed(request, Page(Act.TRY_AGAIN, title, [what.format(**names)], back, PartnersReason), do)


class RunAdmin(ReadOnlyAdmin):
    list_display = ("started_at", "partner", "kind", "outcome", "pages", "seen", "created", "updated", "error_code")
    list_select_related = ("partner", "job")
    list_filter = ("outcome", KindFilter)
    finds, finds_of, finds_newest = ("correlation_id",), ("partner",), ("error_code",)
    ordering = ("-id",)

    @admin.display(description="kind")
    def kind(self, run: Run) -> str:
        return run.job.kind
