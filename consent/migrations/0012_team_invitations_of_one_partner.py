from django.db import migrations

from tokens.rls import SamePartner


class Migration(migrations.Migration):
    dependencies = [("consent", "0011_staff_attempts"), ("partners", "0011_row_level_security")]

    operations = [SamePartner("memberinvitation", "invited_by"), SamePartner("memberinvitation", "member")]
