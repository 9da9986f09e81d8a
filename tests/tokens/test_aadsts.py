import pytest

from tokens.aadsts import MEANINGS, Kind, classify, codes_in


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (50173, Kind.REAUTH),
        (700082, Kind.REAUTH),
        (50076, Kind.MFA),
        (65001, Kind.CONSENT),
        (7000222, Kind.APP_CREDENTIAL),
        (50011, Kind.CONFIG),
        (53003, Kind.PARTNER_ADMIN),
        (7000112, Kind.PARTNER_ADMIN),
        (90033, Kind.RETRY),
    ],
)
def test_the_number_says_who_acts(code, kind):
    meaning = classify([code], "invalid_grant", "", 400)

    assert (meaning.code, meaning.kind, meaning.known) == (code, kind, True)


def test_the_table_is_large_and_speaks_in_sentences():
    assert len(MEANINGS) >= 60
    for code, meaning in MEANINGS.items():
        assert meaning.code == code
        assert meaning.summary.endswith(".")
        assert meaning.advice.endswith(".")
        assert "AADSTS" not in meaning.summary + meaning.advice


def test_the_first_number_we_know_decides_before_suberror_error_and_status():
    meaning = classify([99999999, 65001], "invalid_client", "bad_token", 503)

    assert (meaning.code, meaning.kind) == (65001, Kind.CONSENT)


@pytest.mark.parametrize(
    ("error", "suberror", "status", "kind"),
    [
        ("invalid_grant", "consent_required", 400, Kind.CONSENT),
        ("invalid_grant", "basic_action", 400, Kind.MFA),
        ("invalid_grant", "unheard_of", 400, Kind.REAUTH),
        ("interaction_required", "", 400, Kind.REAUTH),
        ("access_denied", "", 0, Kind.CONSENT),
        ("invalid_client", "", 401, Kind.APP_CREDENTIAL),
        ("temporarily_unavailable", "", 400, Kind.RETRY),
        ("unheard_of", "", 400, Kind.CONFIG),
        ("unheard_of", "", 429, Kind.RETRY),
        ("", "", 503, Kind.RETRY),
        ("", "", 0, Kind.CONFIG),
    ],
)
def test_an_unknown_number_falls_back_to_suberror_then_error_then_status(error, suberror, status, kind):
    meaning = classify([99999999], error, suberror, status)

    assert (meaning.code, meaning.kind, meaning.known) == (99999999, kind, False)


def test_a_refusal_without_a_number_has_code_zero():
    assert classify([], "invalid_grant", "", 400).code == 0


def test_a_loop_asks_for_a_quarter_of_an_hour():
    assert classify([50196], "invalid_grant", "", 400).wait == 900


def test_numbers_are_read_from_a_redirects_text():
    text = "AADSTS65004: declined. AADSTS65004 again, AADSTS90094. AADSTS12 AADSTS123456789012 aadsts50076"

    assert codes_in(text) == [65004, 90094]
    assert codes_in("x" * 5000 + "AADSTS65004") == []
