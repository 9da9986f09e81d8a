from django.contrib import admin
from django.urls import include, path

from cpvpanel import views

urlpatterns = [
    path("", include("partners.urls")),
    path("", include("consent.urls")),
    path("admin/", admin.site.urls),
    path("healthz", views.healthz, name="healthz"),
    path("readyz", views.readyz, name="readyz"),
]
handler404 = "cpvpanel.views.not_found"
