from django.urls import path

from partners import (
    views,
    views_borrowed,
    views_changes,
    views_evidence,
    views_jobs,
    views_relationships,
    views_switch,
    views_users,
)

urlpatterns = [
    path("", views.home, name="home"),
    path("progress", views.progress, name="progress"),
    path("sync", views.sync_now, name="sync_now"),
    path("customers/", views.customers, name="customers"),
    path("customers/<uuid:tenant_id>/", views.customer, name="customer"),
    path("customers/<uuid:tenant_id>/users/", views_users.customer_users, name="customer_users"),
    path("customers/<uuid:tenant_id>/users", views.ask_for_users, name="ask_for_users"),
    path("customers/<uuid:tenant_id>/subscriptions/", views_changes.subscriptions, name="subscriptions"),
    path("customers/<uuid:tenant_id>/changes", views_changes.begin_change, name="begin_change"),
    path("customers/<uuid:tenant_id>/changes/<uuid:change_id>/", views_changes.change, name="change"),
    path(
        "customers/<uuid:tenant_id>/changes/<uuid:change_id>/choose", views_changes.choose_change, name="choose_change"
    ),
    path(
        "customers/<uuid:tenant_id>/changes/<uuid:change_id>/confirm",
        views_changes.confirm_change,
        name="confirm_change",
    ),
    path(
        "customers/<uuid:tenant_id>/changes/<uuid:change_id>/back",
        views_changes.take_back_change,
        name="take_back_change",
    ),
    path("relationships/", views_relationships.relationship_list, name="relationships"),
    path("connection/", views.connection, name="connection"),
    path("connection/period", views.choose_period, name="choose_period"),
    path("connection/revoke", views.revoke, name="revoke"),
    path("jobs/", views_jobs.job_list, name="jobs"),
    path("jobs/<slug:kind>/choose", views_jobs.choose_kind, name="choose_kind"),
    path("jobs/<slug:kind>/act", views_jobs.job_act, name="job_act"),
    path("jobs/<slug:kind>/removals", views_jobs.accept_removals, name="accept_removals"),
    path("jobs/<slug:kind>/removed/", views_jobs.removed, name="removed"),
    path("jobs/<slug:kind>/bring-back", views_jobs.bring_back, name="bring_back"),
    path("permissions/", views.permissions, name="permissions"),
    path("switch/", views_switch.switch, name="switch"),
    path("activity/", views.activity_log, name="activity"),
    path("access/", views_borrowed.access, name="access"),
    path("access/allow", views_borrowed.allow, name="allow_access"),
    path("access/refuse", views_borrowed.refuse, name="refuse_access"),
    path("access/end", views_borrowed.end, name="end_access"),
    path("evidence/", views_evidence.evidence, name="evidence"),
    path("evidence/export", views_evidence.export_evidence, name="export_evidence"),
    path("activity/export", views.export_activity, name="export_activity"),
]
