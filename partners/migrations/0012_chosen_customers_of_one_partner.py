from django.db import migrations

from tokens.rls import SamePartner


class Migration(migrations.Migration):
    dependencies = [("partners", "0011_row_level_security")]

    operations = [SamePartner("chosencustomer", "customer"), SamePartner("chosencustomer", "member")]
