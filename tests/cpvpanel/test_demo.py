"""The first look's partners are only for the stand-in that knows them; its two of the staff come in as line 3 says."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from django.test import Client

from cpvpanel import demo
from partners.models import Partner, User
from tests.desk import code_of, password
from tests.entra_staff import comes
from tests.pretend import Person

pytestmark = pytest.mark.django_db


class SomebodyElse(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"tenants": [{"id": "another"}]}')

    def log_message(self, *_args: object) -> None:
        pass


@pytest.fixture
def another_stand_in() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), SomebodyElse)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_stand_in_with_other_people_gets_no_partners_of_ours(another_stand_in):
    said: list[str] = []

    [line] = demo.seed(base_url="http://localhost", sandbox_url=another_stand_in, say=said.append)

    assert another_stand_in in line
    assert not Partner.objects.exists()
    assert not said


@pytest.fixture
def line(world, contoso, settings, tmp_path) -> str:
    """The third of the lines that say what to try."""
    settings.VAR_DIR = tmp_path
    partner = Partner.objects.create(cloud="global", tenant_id=contoso.id, name="Contoso")
    return demo._lines("http://localhost", partner, demo._staff_password())[2]


@pytest.mark.parametrize(("name", "offered"), [("security", True), ("support", False)])
def test_a_newcomer_comes_in_as_the_line_says_and_may_try_the_stop(line, name, offered):
    found = re.search(
        r"user (\w+) or (\w+), password (\S+)\) with the six digits of: \S+ manage.py deskcode (\w+)", line
    )
    assert found, line
    assert name in found.groups()
    client = Client()

    password(client, name, found[3])
    client.post("/admin/second-factor/", {"code": code_of(name)})

    listed = client.get("/admin/partners/partner/")
    assert listed.status_code == 200
    assert ("Stop everything" in listed.content.decode()) == offered


def test_where_staff_come_in_with_microsoft_a_fifth_line_says_as_whom(world, contoso, settings):
    partner = Partner.objects.create(cloud="global", tenant_id=contoso.id, name="Contoso")
    assert len(demo._lines("http://testserver", partner, "x")) == 4
    settings.CPV_STAFF_ENTRA, settings.CPV_STAFF_CONTEXT = True, "c1"

    fifth = demo._lines("http://testserver", partner, "x")[4]

    found = re.search(r"“Sign in with Microsoft” at http://testserver/admin/ +\(as (\S+), with MFA\)", fifth)
    assert found, fifth
    browser = Person(Client(), world)
    comes(browser, found[1])
    assert "Stop everything" in browser.portal.get("/admin/partners/partner/").content.decode()


def test_a_second_start_changes_neither_password_nor_seed(line):
    people = list(User.objects.filter(is_staff=True).order_by("pk").values_list("password", "totpdevice__key"))

    demo._staff_password()

    again = User.objects.filter(is_staff=True).order_by("pk").values_list("password", "totpdevice__key")
    assert list(again) == people
    assert len(people) == 2
