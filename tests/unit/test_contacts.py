"""Address books: matches both ways, choices, budgets, deletion; what a disk holds of them."""

from __future__ import annotations

import stat
from pathlib import Path

import pyarrow as pa
import pytest

from nextedge.config import OnboardingConfig, parse_config
from nextedge.data.contact_columns import UsersIdentifiers
from nextedge.engines.duckdb.engine import LocalEngine
from nextedge.errors import ContactBudgetError, InputError
from nextedge.serving.contacts.address_books import Contacts, Match

ADA, BO, CY = "ada@example.com", "+491701234567", "cy@example.org"


@pytest.fixture
def contacts(tmp_path: Path) -> Contacts:
    settings = OnboardingConfig(max_contacts=10, contacts_per_day=15, uploads_per_day=3)
    return Contacts(tmp_path, settings, "acme")


def put(store: Contacts, user: str, **given: object) -> None:
    store.put(user, consent=True, **given)  # type: ignore[arg-type]


def test_a_match_is_seen_from_both_ends(contacts: Contacts) -> None:
    put(contacts, "ada", own=[ADA])
    put(contacts, "bo", own=[BO], contacts=[" ADA@example.com"])
    assert contacts.matches("bo") == [Match("ada", in_book=True, has_user=False)]
    assert contacts.matches("ada") == [Match("bo", in_book=False, has_user=True)]
    put(contacts, "ada", contacts=["0049 170 123 45 67", CY, ADA])
    assert contacts.matches("bo") == [Match("ada", True, True)]
    assert contacts.matches("ada") == [Match("bo", True, True)]  # oneself is no match


def test_who_will_not_be_found_is_found_by_those_they_have(contacts: Contacts) -> None:
    put(contacts, "ada", own=[ADA])
    put(contacts, "bo", own=[BO], contacts=[ADA])
    contacts.put("ada", discoverable=False)
    assert contacts.matches("bo") == []
    put(contacts, "ada", contacts=[BO])
    assert contacts.matches("bo") == [Match("ada", True, True)]
    put(contacts, "ada", contacts=[CY])
    contacts.put("ada", discoverable=True)
    assert contacts.matches("bo") == [Match("ada", True, False)]


def test_members_who_said_nothing_follow_the_configuration(tmp_path: Path) -> None:
    silent = Contacts(tmp_path, OnboardingConfig(discoverable_by_contacts=False), "acme")
    put(silent, "ada", own=[ADA])
    put(silent, "bo", contacts=[ADA])
    assert silent.matches("bo") == []
    silent.put("ada", discoverable=True)
    assert [match.user_id for match in silent.matches("bo")] == ["ada"]


def test_nothing_is_kept_without_consent(contacts: Contacts, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="consent"):
        contacts.put("ada", own=[ADA])
    assert not (tmp_path / "contacts.sqlite").exists()


def test_what_cannot_be_read_is_named_by_its_place(contacts: Contacts) -> None:
    upload = contacts.put("ada", contacts=[BO, "nonsense", "bo@", CY, BO], consent=True)
    assert upload.stored == 2
    assert [place for place, _ in upload.refused] == [1, 2]
    with pytest.raises(InputError, match=r"own\.1: no e-mail"):
        put(contacts, "ada", own=[ADA, "bo@"])
    with pytest.raises(InputError, match="no entry can be read"):
        put(contacts, "ada", contacts=["nonsense"])


def test_uploads_are_bounded_at_once_and_by_the_day(contacts: Contacts) -> None:
    def book(size: int) -> list[str]:
        return [f"{number}@example.com" for number in range(size)]

    with pytest.raises(InputError, match="max_contacts"):
        put(contacts, "ada", contacts=book(11))
    assert contacts.put("ada", contacts=book(10), consent=True, now=0).left_today == 5
    contacts.remove("ada")  # withdrawing gives no budget back
    with pytest.raises(ContactBudgetError, match="contacts_per_day"):
        contacts.put("ada", contacts=book(6), consent=True, now=60)
    contacts.put("ada", contacts=book(2), consent=True, now=60)
    contacts.put("ada", contacts=book(2), consent=True, now=60)
    with pytest.raises(ContactBudgetError, match="uploads_per_day"):
        contacts.put("ada", contacts=book(1), consent=True, now=60)
    contacts.put("bo", contacts=book(10), consent=True, now=60)
    assert contacts.put("ada", contacts=book(1), consent=True, now=90_000).left_today == 14


def test_a_refused_upload_changes_nothing(contacts: Contacts) -> None:
    put(contacts, "cy", own=[CY])
    contacts.put("ada", contacts=[CY] * 10, consent=True)
    with pytest.raises(ContactBudgetError):
        put(contacts, "ada", own=[ADA], contacts=[BO] * 10)
    put(contacts, "bo", contacts=[ADA])
    assert [match.user_id for match in contacts.matches("ada")] == ["cy"]


def test_an_identifier_of_many_is_nobodys(contacts: Contacts) -> None:
    for number in range(6):
        put(contacts, f"clerk{number}", own=[CY])
    put(contacts, "ada", contacts=[CY])
    assert contacts.matches("ada") == []
    assert contacts.matches("clerk0") == []
    contacts.forget("clerk5")
    assert len(contacts.matches("ada")) == 5


def test_the_forgotten_are_in_nobodys_book(contacts: Contacts, tmp_path: Path) -> None:
    put(contacts, "ada", own=[ADA], contacts=[BO])
    put(contacts, "bo", own=[BO], contacts=[ADA, CY])
    digest = contacts.hash_of(ADA)
    assert contacts.forget("ada") >= 4
    assert contacts.matches("bo") == contacts.matches("ada") == []
    put(contacts, "ada", own=[ADA])
    assert contacts.matches("ada") == []
    contacts.forget("ada")
    assert all(digest not in path.read_bytes() for path in tmp_path.iterdir())
    assert contacts.forget("ada") == 0


def test_withdrawing_leaves_what_the_table_says(contacts: Contacts) -> None:
    contacts.replace_table([("ada", contacts.hash_of(ADA)), (7, contacts.hash_of(CY))])
    put(contacts, "bo", own=[BO], contacts=[ADA, CY])
    assert [match.user_id for match in contacts.matches("bo")] == ["7", "ada"]
    put(contacts, "ada", own=[BO], contacts=[CY])
    contacts.remove("ada")
    assert [match.user_id for match in contacts.matches("bo")] == ["7", "ada"]
    assert contacts.matches("7") == [Match("bo", False, True)]
    contacts.replace_table([])
    assert contacts.matches("bo") == []


def test_books_that_nobody_renews_end(contacts: Contacts) -> None:
    put(contacts, "cy", own=[CY])
    contacts.put("ada", contacts=[CY], consent=True, now=0)
    contacts.put("bo", contacts=[CY], consent=True, now=300 * 86400)
    contacts.put("cy", discoverable=True, now=400 * 86400)
    assert [match.user_id for match in contacts.matches("cy")] == ["bo"]


def test_other_processes_see_it_and_other_accounts_do_not(tmp_path: Path) -> None:
    first, second = (Contacts(tmp_path, OnboardingConfig(), "acme") for _ in range(2))
    assert second.matches("ada") == []
    put(first, "ada", own=[ADA])
    put(first, "bo", contacts=[ADA])
    assert len(second.matches("ada")) == 1
    for name in ("contacts.sqlite", "pepper"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    content = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"example" not in content


def test_the_users_table_is_hashed_as_it_is_read(contacts: Contacts) -> None:
    users = pa.table(
        {
            "member": [1.0, 2.0, None, 4.0],
            "email": [ADA, None, CY, " "],
            "phones": [[BO, "0170 5"], [], [BO], None],
        }
    )
    raw = {
        "data": {"users": "memory", "columns": {"users": {"user_id": "member"}}},
        "onboarding": {"identifier_columns": ["email", "phones"]},
    }
    config = parse_config(raw, base=Path(), origin="test")
    with LocalEngine(threads=1) as engine:
        given = UsersIdentifiers(config, engine, {"users": users}, contacts.hash_of)
        rows = set(given.rows())
    assert rows == {(1, contacts.hash_of(ADA)), (1, contacts.hash_of(BO))}
    assert given.refused == 1


def test_every_setting_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "onboarding.md").read_text()
    for name, field in OnboardingConfig.model_fields.items():
        default = field.default
        written = (
            str(default).lower()
            if isinstance(default, bool)
            else f"{default:g}"
            if isinstance(default, float)
            else default
        )
        assert f"{name} = {'[]' if default == () else written}" in text, name
