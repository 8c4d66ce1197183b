"""Normal forms of identifiers, their hashes, and the pepper."""

from __future__ import annotations

import hashlib
import hmac
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from nextedge.errors import ConfigError, InputError
from nextedge.serving.contacts.hashing import (
    HASH_BYTES,
    hashed,
    load_pepper,
    normal_email,
    normal_phone,
)

PEPPER = bytes(range(32))
part = st.text(
    st.characters(exclude_categories=("Z", "C"), exclude_characters="@"), min_size=1, max_size=20
)
digits = st.from_regex(r"[1-9][0-9]{6,14}", fullmatch=True)
between = st.sampled_from(["", " ", "-", ".", " (", ") ", "\u2011", "\u00a0"])


@given(name=part, domain=part, blanks=st.sampled_from(["", " ", "\t", "\n ", "\u3000"]))
def test_an_address_has_one_normal_form(name: str, domain: str, blanks: str) -> None:
    try:
        normal = normal_email(f"{name}@{domain}")
    except InputError:
        return  # what NFKC makes of it is no address: a full-width @, a blank
    assert normal_email(normal) == normal
    assert normal_email(f"{blanks}{name}@{domain}{blanks}") == normal
    assert normal == normal.lower()
    assert normal.count("@") == 1


@given(
    number=digits,
    parts=st.lists(between, min_size=15, max_size=15),
    prefix=st.sampled_from(["+", "00", "\uff0b"]),
)
def test_a_number_has_one_normal_form(number: str, parts: list[str], prefix: str) -> None:
    written = prefix + "".join(digit + blank for digit, blank in zip(number, parts, strict=False))
    assume("(0)" not in written.replace(" ", ""))  # ambiguous, hence refused
    assert normal_phone(written) == f"+{number}"
    assert normal_phone(normal_phone(written)) == f"+{number}"


def test_what_a_provider_ignores_is_kept() -> None:
    assert normal_email("A.da+news@Gmail.com") == "a.da+news@gmail.com"
    assert normal_email("ＡＤＡ@example.com") == "ada@example.com"


def test_numbers_of_other_scripts_are_numbers() -> None:
    assert normal_phone("+٤٩ ١٧٠ ١٢٣٤٥٦٧") == "+491701234567"


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("0170 1234567", "country code"),
        ("+49 (0) 170 1234567", "dialled from abroad"),
        ("+49 170 CALL ME", "digits"),
        ("+123", "7 to 15"),
        ("+0123456789", "country code first"),
        ("", "country code"),
        ("ada@", "name@domain"),
        ("a b@example.com", "name@domain"),
        ("a@b@example.com", "name@domain"),
    ],
)
def test_what_is_neither_is_refused_without_being_repeated(given: str, wanted: str) -> None:
    with pytest.raises(InputError, match=wanted) as fault:
        hashed(given, PEPPER)
    assert not given or given not in str(fault.value)


def test_a_hash_is_the_hmac_of_kind_and_normal_form() -> None:
    whole = hmac.new(PEPPER, b"email:ada@example.com", hashlib.sha256).digest()
    assert hashed(" Ada@EXAMPLE.com", PEPPER) == whole[:HASH_BYTES]
    number = hmac.new(PEPPER, b"phone:+491701234567", hashlib.sha256).digest()
    assert hashed("0049 170 1234567", PEPPER) == number[:HASH_BYTES]


@given(first=digits, second=digits)
def test_hashes_are_equal_where_normal_forms_are(first: str, second: str) -> None:
    same = hashed(f"+{first}", PEPPER) == hashed(f"00{second}", PEPPER)
    assert same == (first == second)
    assert hashed(f"+{first}", PEPPER) != hashed(f"+{first}", bytes(32))


def test_a_pepper_is_made_once_for_its_owner_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NEXTEDGE_PEPPER", raising=False)
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: load_pepper(tmp_path, "acme"), range(32)))
    assert len(found) == 1
    assert len(found.pop()) == 32
    assert [each.name for each in tmp_path.iterdir()] == ["pepper"]
    assert stat.S_IMODE((tmp_path / "pepper").stat().st_mode) == 0o600
    (tmp_path / "pepper").write_bytes(b"short")
    with pytest.raises(ConfigError, match="5 bytes; expected 32"):
        load_pepper(tmp_path, "acme")


def test_a_given_pepper_is_kept_nowhere_and_differs_by_tenant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEXTEDGE_PEPPER", "x" * 40)
    assert load_pepper(tmp_path, "acme") == load_pepper(tmp_path, "acme")
    assert load_pepper(tmp_path, "acme") != load_pepper(tmp_path, "other")
    assert not list(tmp_path.iterdir())
    monkeypatch.setenv("NEXTEDGE_PEPPER", "too short")
    with pytest.raises(ConfigError, match="at least 32"):
        load_pepper(tmp_path, "acme")
