from django.db import migrations

from tokens.rls import APPEND, READ, EnableRLS, SamePartner


class Migration(migrations.Migration):
    dependencies = [("partners", "0006_staff_role"), ("tokens", "0013_emergency_alarm_and_mail")]

    operations = [
        EnableRLS("refreshtoken"),
        EnableRLS("secretversion"),
        EnableRLS("tokenuse"),
        EnableRLS("halt", tenant=READ, shared=True),  # everybody's gate sees a stop of all
        EnableRLS("alarm", tenant=""),
        EnableRLS("auditevent", tenant=APPEND, system=APPEND),
        EnableRLS("auditlink", tenant=READ, system=APPEND),
        SamePartner("secretversion", "token"),
    ]
