from django.urls import path

from partners import views

urlpatterns = [
    path("", views.home, name="home"),
    path("progress", views.progress, name="progress"),
    path("sync", views.sync_now, name="sync_now"),
    path("customers/", views.customers, name="customers"),
    path("customers/<uuid:tenant_id>/", views.customer, name="customer"),
    path("customers/<uuid:tenant_id>/users", views.ask_for_users, name="ask_for_users"),
    path("connection/", views.connection, name="connection"),
    path("connection/period", views.choose_period, name="choose_period"),
    path("connection/revoke", views.revoke, name="revoke"),
    path("permissions/", views.permissions, name="permissions"),
    path("activity/", views.activity_log, name="activity"),
    path("activity/export", views.export_activity, name="export_activity"),
]
