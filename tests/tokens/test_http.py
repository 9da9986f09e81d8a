import gzip
import logging
import socket
import ssl
import threading
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
import requests

from bench.ground import a_certificate
from tests.tokens.fake_entra import FakeServer
from tokens.clouds import CHINA, GLOBAL
from tokens.connections import PooledAdapter
from tokens.http import (
    HostRefused,
    Network,
    NotSendable,
    StandInAdapter,
    TooLarge,
    Unreachable,
    retry_after,
    same_origin,
)

ME = "https://graph.microsoft.com/v1.0/me"


def network(server, **options):
    return Network(clouds=[GLOBAL], adapter=server, **options)


def answering(*answer):
    return FakeServer(lambda request: answer)


# --- What may leave -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://graph.microsoft.com/v1.0/me", "Only https"),
        ("https://graph.windows.net/me", "graph.windows.net is retired"),
        ("https://evil.example/", "evil.example is not an address"),
        ("https://graph.microsoft.com.evil.example/", "not an address"),
        ("https://graph.microsoft.com:8443/", "not an address"),
        ("https://user:word@graph.microsoft.com/", "user name"),
        ("https://graph.microsoft.com@evil.example/", "user name"),
        ("https://login.partner.microsoftonline.cn/common", "not an address"),
        ("https://169.254.169.254/metadata", "not an address"),
    ],
)
def test_nothing_leaves_for_an_address_outside_the_clouds(url, says):
    server = answering(200, {})

    with pytest.raises(HostRefused, match=says):
        network(server).request("GET", url, headers={"Authorization": "Bearer canary"})

    assert server.seen == []


def test_the_clouds_given_decide_what_is_allowed():
    server = answering(200, {})

    Network(clouds=[GLOBAL, CHINA], adapter=server).request("GET", "https://login.partner.microsoftonline.cn/x")

    assert len(server.seen) == 1


def test_a_caller_cannot_talk_the_session_out_of_its_rules(monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/elsewhere.pem")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example")
    server = answering(302, {}, {"Location": "https://evil.example/"})

    response = network(server, verify="/ours.pem").session.get(
        ME, verify=False, proxies={"https": "http://proxy.example"}, cert="/x.pem", allow_redirects=True, stream=False
    )

    assert (response.status_code, len(server.seen)) == (302, 1)
    assert response.next is None
    options = server.options[0]
    assert (options["verify"], options["proxies"], options["cert"]) == ("/ours.pem", {}, None)
    assert options["timeout"] == (5.0, 20.0)


def test_a_prepared_request_meets_the_same_rules():
    server = answering(200, {})

    with pytest.raises(HostRefused):
        network(server).session.send(requests.PreparedRequest())
    with pytest.raises(HostRefused):
        network(server).session.send(requests.Request("GET", "http://graph.microsoft.com/").prepare())

    assert server.seen == []


def test_before_send_can_stop_every_request():
    def inside_a_transaction():
        raise RuntimeError("inside a transaction")

    server = answering(200, {})

    with pytest.raises(RuntimeError, match="inside a transaction"):
        network(server, before_send=inside_a_transaction).session.get(ME)

    assert server.seen == []


def test_credentials_lying_about_on_the_machine_are_not_sent(monkeypatch, tmp_path):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine graph.microsoft.com login somebody password canary\n")
    monkeypatch.setenv("NETRC", str(netrc))
    server = answering(200, {})

    network(server).request("GET", ME)

    assert "Authorization" not in server.seen[0].headers


@pytest.mark.parametrize(
    ("given", "used"), [(None, (5, 20)), (7, (7, 7)), ((1, 2), (1, 2)), ((1, None), (1, 20)), (99, (30, 30))]
)
def test_timeouts_have_defaults_and_end_with_the_deadline(given, used):
    server = answering(200, {})

    network(server).session.get(ME, timeout=given)

    assert server.options[0]["timeout"] == pytest.approx(used, abs=0.1)


# --- What comes back ----------------------------------------------------------------------------------------------
def test_an_answer_larger_than_the_cap_is_not_read_to_its_end_even_when_it_was_packed_small():
    bomb = gzip.compress(b"0" * 200_000)
    server = answering(200, bomb, {"Content-Encoding": "gzip"})

    with pytest.raises(TooLarge):
        network(server, max_bytes=100_000).request("GET", ME)

    assert len(bomb) < 1000


def test_an_answer_up_to_the_cap_is_returned_whole():
    response = network(answering(200, b"0" * 100_000), max_bytes=100_000).request("GET", ME, params={"a": "b"})

    assert len(response.content) == 100_000


def test_a_deadline_holds_for_everything_inside_it():
    door = network(answering(200, {}))

    with door.fixed_deadline(0), pytest.raises(Unreachable, match="in time"):
        door.request("GET", ME)
    assert door.request("GET", ME).status_code == 200


def test_an_answer_that_begins_after_the_deadline_is_too_late():
    def slowly(request):
        time.sleep(0.1)
        return 200, {}

    with pytest.raises(Unreachable, match="in time"):
        network(FakeServer(slowly), deadline=0.05).request("GET", ME)


@pytest.mark.parametrize(
    ("error", "raised", "code"),
    [
        (requests.ConnectTimeout("canary"), Unreachable, "timeout"),
        (requests.ReadTimeout("canary"), Unreachable, "timeout"),
        (requests.ConnectionError("canary"), Unreachable, "unreachable"),
        (requests.exceptions.ChunkedEncodingError("canary"), Unreachable, "unreachable"),
        (requests.exceptions.SSLError("canary"), Unreachable, "tls"),
    ],
)
def test_a_failed_request_says_what_failed_and_nothing_of_what_was_sent(error, raised, code):
    with pytest.raises(raised) as caught:
        network(FakeServer(lambda request: error)).request("GET", ME, params={"code": "canary"})

    assert caught.value.code == code
    assert "canary" not in str(caught.value)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("headers", [{"Authorization": "Bearer canary\r\nX: y"}])
def test_a_header_that_cannot_be_sent_is_not_quoted(headers):
    with pytest.raises(NotSendable) as caught:
        network(answering(200, {})).request("GET", ME, headers=headers)

    assert "canary" not in str(caught.value)


def test_an_address_that_cannot_be_read_is_refused():
    with pytest.raises(NotSendable):
        network(answering(200, {})).request("GET", "https://[::1/")
    with pytest.raises(HostRefused, match="Not a web address"):
        same_origin("https://[::1/", "/")


# --- A server on a socket -----------------------------------------------------------------------------------------
@contextmanager
def listening(*pieces, pause=0.05):
    """A server that writes these pieces one after the other to whoever connects."""
    got = []

    def serve(listener):
        with listener:
            while True:
                try:
                    peer, _ = listener.accept()
                except OSError:
                    return
                with peer:
                    request = peer.recv(65536)
                    if b"Content-Length: 4" in request and not request.endswith(b"body"):
                        request += peer.recv(4)  # the body may come in a packet of its own
                    got.append(request)
                    for piece in pieces:
                        try:
                            peer.sendall(piece)
                        except OSError:
                            break
                        time.sleep(pause)

    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=serve, args=(listener,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/", got
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def test_a_stand_in_gets_the_same_request_with_the_original_host():
    with listening(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}") as (url, got):
        door = Network(clouds=[GLOBAL], adapter=StandInAdapter(url))
        response = door.request("POST", ME + "?a=b%20c", headers={"X-Ours": "1"}, data=b"body")
        door.session.close()

    first, _, rest = got[0].partition(b"\r\n")
    assert first == b"POST /v1.0/me?a=b%20c HTTP/1.1"
    assert b"Host: graph.microsoft.com\r\n" in rest
    assert b"X-Ours: 1\r\n" in rest
    assert rest.endswith(b"body")
    assert (response.url, response.request.url) == (ME + "?a=b%20c", ME + "?a=b%20c")
    assert "Host" not in response.request.headers
    assert response.json() == {}


@pytest.mark.parametrize(
    "pieces",
    [
        [b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", *[b"x"] * 100],
        [b"HTTP/1.1 200 OK\r\nX: ", *[b"x"] * 100],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", *[b"1\r\nx\r\n"] * 100],
    ],
    ids=["body", "headers", "chunks"],
)
def test_a_server_that_drips_does_not_hold_us_beyond_the_deadline(pieces):
    with listening(*pieces) as (url, _):
        door = Network(clouds=[GLOBAL], adapter=StandInAdapter(url), deadline=0.3)
        started = time.monotonic()
        with pytest.raises(Unreachable):
            door.request("GET", ME)
        door.session.close()

    assert time.monotonic() - started < 1


def test_one_partners_cookie_is_not_sent_with_the_next_ones_request():
    answer = b"HTTP/1.1 200 OK\r\nSet-Cookie: sso=a; Path=/\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    with listening(answer) as (url, got):
        door = Network(clouds=[GLOBAL], adapter=StandInAdapter(url))
        for _ in range(2):
            door.request("GET", ME)
            door.session.get(ME)  # as MSAL and azure-core do
        door.session.close()

    assert len(got) == 4
    assert not [sent for sent in got if b"Cookie" in sent]


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_a_request_without_a_body_leaves_as_requests_itself_would_send_it(method):
    with listening(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n") as (url, got):
        door = Network(clouds=[GLOBAL], adapter=StandInAdapter(url))
        door.request(method, ME + "?a=b c", headers={"X-Ours": "1"})
        theirs = {"X-Ours": "1", "Host": "graph.microsoft.com"}
        requests.request(method, f"{url}v1.0/me?a=b c", headers=theirs, timeout=5)
        door.session.close()

    sent, expected = (sorted(one.split(b"\r\n")) for one in got)
    assert sent == expected
    assert any(line.startswith(b"Accept-Encoding: gzip") for line in sent)


def test_a_connection_whose_answer_is_not_read_to_its_end_is_closed():
    closed = threading.Event()

    def serve():
        peer, _ = listener.accept()
        with peer:
            peer.recv(65536)
            with suppress(ConnectionResetError, BrokenPipeError):  # of what was not read
                peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n" + bytes(1_100_000))
                assert peer.recv(1) == b""
            closed.set()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        adapter = StandInAdapter(f"http://127.0.0.1:{listener.getsockname()[1]}")
        with pytest.raises(TooLarge) as failure:
            Network(clouds=[GLOBAL], adapter=adapter, max_bytes=1_000).request("GET", ME)
        assert closed.wait(5), failure  # which keeps all that is left of the request


def test_a_silent_server_is_left_after_the_read_timeout():
    with listening(b"", pause=1) as (url, _):
        door = Network(clouds=[GLOBAL], adapter=StandInAdapter(url))
        with pytest.raises(Unreachable, match="in time"):
            door.request("GET", ME, timeout=0.1)
        door.session.close()


def test_a_request_is_not_repeated_after_it_was_read():
    with listening() as (url, got):
        door = Network(clouds=[GLOBAL], adapter=StandInAdapter(url))
        with pytest.raises(Unreachable):
            door.request("GET", ME)
        door.session.close()

    assert len(got) == 1


@pytest.mark.parametrize("status", [b"429 Too Many Requests", b"503 Service Unavailable", b"413 Too Large"])
def test_an_answer_that_asks_to_wait_arrives_as_it_is_and_at_once(status):
    with listening(b"HTTP/1.1 " + status + b"\r\nRetry-After: 7\r\nContent-Length: 2\r\n\r\n{}") as (url, got):
        door = Network(clouds=[GLOBAL], adapter=StandInAdapter(url))
        response = door.request("GET", ME)
        door.session.close()

    assert response.status_code == int(status[:3])
    assert retry_after(response) == 7
    assert len(got) == 1


def test_whoever_sends_is_asked_once_more_when_a_connection_had_to_be_opened():
    def stop():
        raise HostRefused("stopped meanwhile", code="stopped")

    with listening(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}") as (url, got):
        door = Network(clouds=[GLOBAL], adapter=StandInAdapter(url))
        with pytest.raises(HostRefused, match="stopped meanwhile"), door.last_word(stop):
            door.request("GET", ME)
        assert got in ([], [b""]), "no byte of the request left"

        assert door.request("GET", ME).status_code == 200, "outside of it nobody is asked"


def test_a_closed_port_is_unreachable():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

    with pytest.raises(Unreachable):
        Network(clouds=[GLOBAL], adapter=StandInAdapter(f"http://127.0.0.1:{port}")).request("GET", ME)


@contextmanager
def over_tls(certificate):
    """The address of a server that proves itself with this certificate; it answers each request with 200."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    listener = context.wrap_socket(socket.create_server(("127.0.0.1", 0)), server_side=True)

    def serve():
        while True:
            try:
                peer, _ = listener.accept()
            except ssl.SSLError:
                continue  # somebody did not trust it
            except OSError:
                return
            with peer:
                peer.recv(65536)
                peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"https://localhost:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def test_only_a_server_with_a_certificate_of_those_we_trust_is_spoken_to(tmp_path):
    own, other = tmp_path / "own.pem", tmp_path / "other.pem"
    for path in (own, other):
        path.write_text(a_certificate())
    with over_tls(own) as url:
        adapter = StandInAdapter(url)  # one for both, so that no connection of who trusts it serves who does not
        trusting, strange = (Network(clouds=[GLOBAL], adapter=adapter, verify=str(path)) for path in (own, other))

        for _ in range(2):
            assert trusting.request("GET", ME).status_code == 200
            with pytest.raises(Unreachable) as refused:
                strange.request("GET", ME)
            assert refused.value.code == "tls"
        usual = Network(clouds=[GLOBAL], adapter=adapter)
        with pytest.raises(Unreachable) as refused:
            usual.request("GET", ME)
        assert refused.value.code == "tls"


def test_each_origin_has_connections_of_its_own():
    adapter = PooledAdapter()

    def pool(address, verify=True):
        request = requests.Request("GET", address).prepare()
        return adapter.get_connection_with_tls_context(request, verify)

    graph = pool("https://graph.microsoft.com/")
    assert pool("https://graph.microsoft.com/v1.0/me?a=/") is graph
    other_hosts = [pool("https://login.microsoftonline.com/"), pool("https://graph.microsoft.com:444/")]
    others = [*other_hosts, pool(ME, requests.certs.where())]
    assert len({id(one) for one in [graph, *others]}) == 4
    adapter.close()
    assert pool("https://graph.microsoft.com/") is not graph, "what was closed is not used again"


def test_without_a_stand_in_connections_are_pooled():
    adapter = Network(clouds=[GLOBAL]).session.get_adapter("https://graph.microsoft.com")

    assert adapter._pool_maxsize == 128, "more than a worker has threads"
    assert (adapter.max_retries.connect, adapter.max_retries.read) == (1, False)


# --- Links and waits ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("link", "address"),
    [
        ("/v1/customers?seek=2", "https://api.partnercenter.microsoft.com/v1/customers?seek=2"),
        ("next?x=1", "https://api.partnercenter.microsoft.com/v1/next?x=1"),
        ("https://api.partnercenter.microsoft.com:443/v1", "https://api.partnercenter.microsoft.com:443/v1"),
        ("HTTPS://API.PartnerCenter.microsoft.com/v1", "HTTPS://API.PartnerCenter.microsoft.com/v1"),
    ],
)
def test_a_continuation_on_the_same_origin_is_followed(link, address):
    joined = same_origin("https://api.partnercenter.microsoft.com/v1/customers", link)

    assert joined.lower() == address.lower()


@pytest.mark.parametrize(
    "link",
    [
        "https://evil.example/v1",
        "//evil.example/v1",
        "http://api.partnercenter.microsoft.com/v1",
        "https://api.partnercenter.microsoft.com:444/v1",
        "https://me@api.partnercenter.microsoft.com/v1",
        "https://api.partnercenter.microsoft.com@evil.example/",
        "https://api.partnercenter.microsoft.com\\@evil.example/",
        "/v1\n/x",
        "https://[::1/",
        "javascript:alert(1)",
    ],
)
def test_a_continuation_that_leads_elsewhere_is_refused(link):
    with pytest.raises(HostRefused):
        same_origin("https://api.partnercenter.microsoft.com/v1/customers", link)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7), ("0.5", 0.5), ("-3", 0), ("soon", None), ("", None), ("nan", None), ("1_0", None), ("1e9", None)],
)
def test_retry_after_in_seconds(header, seconds):
    response = requests.Response()
    response.headers["Retry-After"] = header

    assert retry_after(response) == seconds


@pytest.mark.parametrize(("seconds", "expected"), [(90, 90), (-90, 0)])
def test_retry_after_as_a_date(seconds, expected):
    response = requests.Response()
    response.headers["Retry-After"] = format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)

    assert retry_after(response) == pytest.approx(expected, abs=2)


def test_retry_after_as_a_date_without_zone_counts_as_utc():
    response = requests.Response()
    moment = datetime.now(UTC) + timedelta(seconds=90)
    response.headers["Retry-After"] = moment.strftime("%a, %d %b %Y %H:%M:%S -0000")

    assert retry_after(response) == pytest.approx(90, abs=2)
    assert retry_after(requests.Response()) is None


def test_msals_complaint_about_an_answer_loses_the_answer(caplog):
    with caplog.at_level(logging.DEBUG):
        try:
            raise ValueError("canary")
        except ValueError:
            logging.getLogger("msal.oauth2cli.oauth2").exception("Token response is not in json format: %s", "canary")

    assert "not JSON" in caplog.text
    assert "canary" not in caplog.text
