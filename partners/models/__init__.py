"""Who the partners are, who may see them, the jobs done for them, and the mirror of their customers."""

from partners.models.mirror import Customer, CustomerQuerySet, Lookup
from partners.models.people import ACCESS_DAYS, CLOUDS, Member, Partner, User
from partners.models.work import LEASE, Job, Pulse, Run

__all__ = [
    "ACCESS_DAYS",
    "CLOUDS",
    "LEASE",
    "Customer",
    "CustomerQuerySet",
    "Job",
    "Lookup",
    "Member",
    "Partner",
    "Pulse",
    "Run",
    "User",
]
