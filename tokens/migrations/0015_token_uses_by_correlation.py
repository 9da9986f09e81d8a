from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("tokens", "0014_row_level_security")]

    operations = [
        migrations.AddIndex("tokenuse", models.Index(fields=["correlation_id"], name="token_use_by_correlation")),
    ]
