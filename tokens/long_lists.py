"""
Lists at the desk that cost what their page costs, however many rows a table has.

What no index leads to is looked for among the newest rows alone, and the list says so; what an index leads to is found
whatever its age. Nothing is counted, leafed through or sorted beyond the first rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import ORDER_VAR, ChangeList
from django.core.exceptions import ValidationError
from django.core.paginator import Paginator
from django.db.models import CharField, Field, ForeignKey, Model, Q, QuerySet
from django.http import HttpRequest

MOST = 10_000  # rows that a list counts, leafs through and knows the values of
NEWEST = 50_000  # rows among which it looks for what has no index
FEW = 100  # partners or people that one search may mean


class FewPages(Paginator):  # type: ignore[type-arg] # not subscriptable at run time
    """Counts no further than anybody leafs: a table of millions of rows costs what one of thousands does."""

    @cached_property
    def count(self) -> int:
        rows: QuerySet[Any] = self.object_list  # type: ignore[assignment]
        return rows.order_by()[:MOST].count()


class FewPagesList(ChangeList):
    """Says where it ends, and keeps the order that has an index."""

    def __init__(self, request: HttpRequest, *args: Any, **kwargs: Any) -> None:
        super().__init__(request, *args, **kwargs)
        if self.result_count >= MOST:
            self.title = f"{self.title} (of the first {MOST:,}; filter or search for others)"
        elif self.get_filters_params() and not self.query:
            self.title = f"{self.title} (among the newest {NEWEST:,}; search for older ones, too)"

    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> QuerySet[Any]:
        self.params.pop(ORDER_VAR, None)
        rows: QuerySet[Any] = super().get_queryset(request, exclude_parameters)
        return rows.filter(newest(self.model)) if self.get_filters_params() and not self.query else rows


class NewestValues(admin.AllValuesFieldListFilter):
    """Offers the values that the newest rows have: for those of all rows, all would be read."""

    def __init__(self, field: Any, request: HttpRequest, params: Any, model: Any, *others: Any, **named: Any) -> None:
        super().__init__(field, request, params, model, *others, **named)
        rows = model._default_manager.order_by("-pk").values("pk")[:MOST]
        known = model._default_manager.filter(pk__in=rows).values_list(field.name, flat=True)
        self.lookup_choices = known.distinct().order_by(field.name)


# --- Searching ------------------------------------------------------------------------------------------------------
def newest(model: type[Model]) -> Q:
    """The rows that were made last, by their ids."""
    last: int = model._default_manager.order_by("-pk").values_list("pk", flat=True).first() or 0
    return Q(pk__gt=last - NEWEST)


def whole(model: type[Model], name: str, text: str) -> Q | None:
    """The rows with exactly this in a column; None where the column takes no such thing."""
    field: Field[Any, Any] = model._meta.get_field(name)  # type: ignore[assignment]
    try:
        return Q(**{name: field.to_python(text)})
    except ValidationError:
        return None


def one_of(found: Iterable[Q | None]) -> Q:
    """Whatever any of these finds; nothing, where none can find anything."""
    together = Q(pk__in=())
    for condition in found:
        together = together if condition is None else together | condition
    return together


class ReadOnlyAdmin(admin.ModelAdmin):  # type: ignore[type-arg] # not subscriptable at run time
    """
    Nothing is added, changed or deleted at the desk; what may be done is an action of its own.

    A search takes the whole text as one: `finds` are columns with an index, that hold exactly it; `finds_parts`
    columns with an index of parts, that hold it anywhere; `finds_of` foreign keys, to whoever it finds over there;
    `finds_newest` columns without an index, that hold it anywhere, among the newest rows.
    """

    finds: tuple[str, ...] = ()
    finds_parts: tuple[str, ...] = ()
    finds_of: tuple[str, ...] = ()
    finds_newest: tuple[str, ...] = ()
    list_per_page = 50
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER  # they would count every row once for each value
    sortable_by = ()
    paginator = FewPages

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return FewPagesList

    def get_list_filter(self, request: HttpRequest | None) -> list[Any]:
        return [(name, NewestValues) if self._is_open(name) else name for name in self.list_filter]

    def lookup_allowed(self, lookup: str, _value: Any, request: HttpRequest | None = None) -> bool:
        """
        Only what the list's own filters ask: any other condition tells what stands in a column, shown or not.

        Django lets an address name every column of the table.
        """
        asked: set[str] = set()
        for offered in self.get_list_filter(request):
            if isinstance(offered, type) and issubclass(offered, admin.SimpleListFilter):
                asked.add(str(offered.parameter_name))
            else:
                name = offered[0] if isinstance(offered, tuple) else offered
                asked |= {name, f"{name}__exact", f"{name}__isnull"}
        return lookup in asked

    def _is_open(self, name: Any) -> bool:
        """Whether it is a text of which no list says what it can be."""
        field = self.opts.get_field(name) if isinstance(name, str) else None
        return isinstance(field, CharField) and not field.choices

    # --- Searching ----------------------------------------------------------------------------------------------------
    def get_search_fields(self, request: HttpRequest) -> tuple[str, ...]:
        return *self.finds_of, *self.finds, *self.finds_parts, *self.finds_newest

    @property
    def search_help_text(self) -> str:  # type: ignore[override]
        """What may be written into the field."""
        names: Callable[[tuple[str, ...]], str] = lambda names: ", ".join(map(self._called, names))  # noqa: E731
        said = [
            f"by {names((*self.finds_of, *self.finds_parts))}" if self.finds_of or self.finds_parts else "",
            f"by the whole {names(self.finds)}" if self.finds else "",
            f"among the newest {NEWEST:,} by a part of {names(self.finds_newest)}" if self.finds_newest else "",
        ]
        text = "; ".join(filter(None, said))
        return f"{text[:1].upper()}{text[1:]}." if text else ""

    def _called(self, name: str) -> str:
        return str(getattr(self.opts.get_field(name), "verbose_name", name))

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        text = search_term.strip()
        return (queryset.filter(self.found(text)) if text else queryset), False

    def found(self, text: str) -> Q:
        """What a search for this text finds."""
        indexed = [whole(self.model, name, text) for name in self.finds]
        indexed += [Q(**{f"{name}__icontains": text}) for name in self.finds_parts]
        indexed += [self._of(name, text) for name in self.finds_of]
        texts = one_of(self.found_in(name, text) for name in self.finds_newest)
        return one_of([*indexed, texts & newest(self.model) if self.finds_newest else None])

    def found_in(self, name: str, text: str) -> Q:
        """The rows that hold a text in a column without an index."""
        return Q(**{f"{name}__icontains": text})

    def _of(self, name: str, text: str) -> Q | None:
        """Rows that belong to the first few whom the text means; asked for first, so that an index leads to them."""
        field = self.opts.get_field(name)
        assert isinstance(field, ForeignKey)  # noqa: S101 - ours, and tests go through all of them
        there = self.admin_site._registry[field.related_model]
        assert isinstance(there, ReadOnlyAdmin)  # noqa: S101
        meant = there.model._default_manager.filter(there.found(text)).order_by("pk").values_list("pk", flat=True)
        keys = list(meant[:FEW])
        return Q(**{f"{name}__in": keys}) if keys else None

    # --- Changing nothing ---------------------------------------------------------------------------------------------
    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False
