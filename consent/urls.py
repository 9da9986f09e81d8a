from django.urls import path

from consent import sign_in_views, views, views_team

urlpatterns = [
    path("connect/callback", views.callback, name="callback"),
    path("connect/connected", views.connected, name="connected"),
    path("connect/waiting", views.waiting, name="waiting"),
    path("connect/agreed", views.agreed, name="agreed"),
    path("connect/admin-consent", views.admin_consent, name="admin_consent"),
    path("connect/admin-consent/callback", views.admin_consent_callback, name="admin_consent_callback"),
    path("connect/<str:link>", views.connect, name="connect"),
    path("connection/renew", views.renew, name="renew"),
    path("connection/renewal", views.renewal, name="renewal"),
    path("join/<str:link>", views_team.join, name="join"),
    path("team/", views_team.team_page, name="team"),
    path("team/invite", views_team.invite, name="team_invite"),
    path("team/invitations/<int:invitation_id>/end", views_team.take_back, name="team_take_back"),
    path("team/<int:member_id>/role", views_team.change_role, name="team_role"),
    path("team/<int:member_id>/remove", views_team.remove, name="team_remove"),
    path("team/<int:member_id>/limit", views_team.limit, name="team_limit"),
    path("team/<int:member_id>/customers/", views_team.customers, name="team_customers"),
    path("team/<int:member_id>/customers/choose", views_team.choose_customers, name="team_choose"),
    path("signin", sign_in_views.signin, name="signin"),
    path("signin/callback", sign_in_views.signin_callback, name="signin_callback"),
    path("signin/again", sign_in_views.signin_again, name="signin_again"),
    path("signout", sign_in_views.signout, name="signout"),
    path("signed-out", sign_in_views.signed_out, name="signed_out"),
]
