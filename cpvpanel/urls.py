from django.contrib import admin
from django.urls import include, path

from cpvpanel import views

admin.autodiscover()

urlpatterns = [
    path("", include("partners.urls")),
    path("", include("consent.urls")),
    path("admin/", admin.site.urls),
    path("healthz", views.healthz, name="healthz"),
    path("readyz", views.readyz, name="readyz"),
]
handler400 = "cpvpanel.views.bad_request"
handler403 = "cpvpanel.views.forbidden"
handler404 = "cpvpanel.views.not_found"
handler500 = "cpvpanel.views.server_error"
