from django.db import migrations

from tokens.rls import EnableRLS, SamePartner


class Migration(migrations.Migration):
    dependencies = [
        ("consent", "0009_notices_of_looks"),
        ("partners", "0011_row_level_security"),
        ("tokens", "0014_row_level_security"),
    ]

    operations = [
        EnableRLS("invitation"),
        EnableRLS("consentattempt"),
        EnableRLS("consent", tenant="SELECT, INSERT", system="SELECT, INSERT, UPDATE"),
        EnableRLS("notice"),
        EnableRLS("memberinvitation"),
        SamePartner("consentattempt", "invitation"),
        SamePartner("consentattempt", "member_invitation"),
        SamePartner("consent", "token"),
        SamePartner("notice", "token"),
    ]
