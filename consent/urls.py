from django.urls import path

from consent import views

urlpatterns = [
    path("connect/callback", views.callback, name="callback"),
    path("connect/connected", views.connected, name="connected"),
    path("connect/waiting", views.waiting, name="waiting"),
    path("connect/admin-consent", views.admin_consent, name="admin_consent"),
    path("connect/admin-consent/callback", views.admin_consent_callback, name="admin_consent_callback"),
    path("connect/<str:link>", views.connect, name="connect"),
    path("connection/renew", views.renew, name="renew"),
    path("connection/renewal", views.renewal, name="renewal"),
    path("signin", views.signin, name="signin"),
    path("signin/callback", views.signin_callback, name="signin_callback"),
    path("signout", views.signout, name="signout"),
    path("signed-out", views.signed_out, name="signed_out"),
]
