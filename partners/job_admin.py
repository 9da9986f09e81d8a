"""The work of all partners at the desk: where each job stands, what its runs said, and what support may do about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from django.contrib import admin
from django.db.models import OuterRef, Q, QuerySet, Subquery
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html_join

from partners import bringing_back, jobs, removals, workboard
from partners.desk_acts import NotDone, Page, PartnersReason, confirmed
from partners.desk_roles import Act, may
from partners.models import Job, Run, User
from partners.standing import current_token, standing
from partners.taking_back import DOUBTFUL
from tokens.long_lists import ReadOnlyAdmin
from tokens.tenancy import partner_scope

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
    "gone": (
        "accept_removals",
        "They are gone",
        "So much of “{kind}” of {partner} is missing at Microsoft at once, or all of a list, that nothing of it is"
        " taken away before somebody says so. It is taken away after the next complete reading, not before its day is"
        " over, and can be brought back for 30 days.",
        "What is missing of {job} is taken away after the next complete reading.",
        "Nothing of it waits for somebody to say so.",
    ),
    "theirs": (
        "accept_strangers",
        "They are theirs",
        "Hardly anybody on Microsoft's list of “{kind}” was known before, so it may be another organisation's; or it"
        " went on far beyond what was known of it, so it may have no end. The next complete reading takes it as"
        " {partner}'s, be it far longer than before; look at Partner Center with them first.",
        "The next complete reading of {job} takes the list as it is.",
        "Its newest run was not refused for that.",
    ),
}


def _accept(job: Job, **said: Any) -> bool:
    return removals.accept(job.partner, job.kind, **said) > 0


def _accept_strangers(job: Job, **said: Any) -> bool:
    return removals.accept_strangers(job.partner, job.kind, **said)


ACCEPTS: dict[str, Callable[..., bool]] = {"gone": _accept, "theirs": _accept_strangers}
DO = workboard.ACTS | ACCEPTS


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
    list_display = ("partner", "kind", "lane", "state", "progress", "reason", "who_acts", "next_run_at", "failures")
    list_select_related = ("partner",)
    list_filter = (KindFilter, AttentionFilter)
    finds_of = ("partner",)
    ordering = ("-id",)
    readonly_fields = ("state", "progress", "reason", "who_acts")
    exclude = ("cursor",)  # where it stopped, be it at a customer

    def get_queryset(self, request: HttpRequest) -> QuerySet[Job]:
        newest = Run.objects.filter(job=OuterRef("pk")).order_by("-pk")
        names = ("outcome", "error", "error_code", "pages", "seen", "expected")
        said = {f"run_{name}": Subquery(newest.values(name)[:1]) for name in names}
        rows: QuerySet[Job] = super().get_queryset(request)
        is_doubtful = Q(run_error_code__in=DOUBTFUL)
        return rows.annotate(**said, missing=workboard.missing()).annotate(asks_whose_it_is=is_doubtful)

    @admin.display(description="state")
    def state(self, job: Job) -> str:
        return workboard.state_at_the_desk(job).title

    @admin.display(description="progress", empty_value="")
    def progress(self, job: Job) -> str:
        return workboard.progress_at_the_desk(job)

    @admin.display(description="reason", empty_value="")
    def reason(self, job: Any) -> str:
        state = workboard.state_at_the_desk(job)
        reason = f"{state.reason} (reference {state.code})" if state.code else state.reason
        held = f"{job.missing:,} are missing at once; somebody has to look." if job.missing else ""
        return f"{reason} {held}".strip()

    @admin.display(description="who acts")
    def who_acts(self, job: Job) -> str:
        return workboard.state_at_the_desk(job).owner

    @admin.display(description="what may be done", empty_value="")
    def what_may_be_done(self, job: Job) -> str:
        offered = workboard.state_at_the_desk(job).buttons
        links = [(reverse(f"admin:{ACTS[one.act][0]}", args=[job.pk]), ACTS[one.act][1]) for one in offered]
        return format_html_join(" · ", '<a href="{}">{}</a>', links)

    def get_list_display(self, request: HttpRequest) -> Any:
        columns = super().get_list_display(request)
        is_theirs = isinstance(request.user, User) and may(request.user, Act.TRY_AGAIN)
        return [*columns, "what_may_be_done"] if is_theirs else columns

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
        if not DO[act](job, by=user.as_actor(), reason=said["reason"]):
            raise NotDone(why_not)
        return done.format(**names)

    back = reverse("admin:partners_job_change", args=[pk])
    may_do = Act.ACCEPT if act in ACCEPTS else Act.TRY_AGAIN
    return confirmed(request, Page(may_do, title, [what.format(**names)], back, PartnersReason), do)


class RunAdmin(ReadOnlyAdmin):
    change_form_template = "admin/partners/run.html"
    list_display = (
        "started_at", "partner", "kind", "outcome", "pages", "seen", "created", "updated", "removed", "error_code"
    )  # fmt: skip
    list_select_related = ("partner", "job")
    list_filter = ("outcome", KindFilter)
    finds, finds_of, finds_newest = ("correlation_id",), ("partner",), ("error_code",)
    ordering = ("-id",)

    @admin.display(description="kind")
    def kind(self, run: Run) -> str:
        return run.job.kind

    def get_urls(self) -> list[URLPattern]:
        own = path("<int:pk>/bring_back/", self.admin_site.admin_view(_bring_back), name="bring_back")
        return [own, *super().get_urls()]


def _bring_back(request: HttpRequest, pk: int) -> HttpResponse:
    """Undo what the whole list of one run took away, once somebody has said why."""
    run = get_object_or_404(Run.objects.select_related("partner", "job"), pk=pk)

    def do(user: User, said: dict[str, Any]) -> str:
        try:
            with partner_scope(run.partner_id):  # the desk itself sees nothing of customers
                return bringing_back.bring_back(run, by=user.as_actor(), reason=said["reason"]).words
        except bringing_back.NotNow as why:
            raise NotDone(str(why)) from why

    what = [
        f"{run.removed:,} of “{run.job.kind}” of {run.partner.name}, taken away by this run's list, are there again.",
        "What Microsoft's next two complete lists, a day apart, still lack is taken away again; much at once only after"
        " somebody has looked.",
    ]
    back = reverse("admin:partners_run_change", args=[pk])
    return confirmed(request, Page(Act.TRY_AGAIN, "Bring back what it took away", what, back, PartnersReason), do)
