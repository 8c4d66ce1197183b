"""API keys: what each may do, from when, and until when."""

from __future__ import annotations

from pathlib import Path

import pytest

from nextedge.api.keys import SCOPES, ApiKeys, digest_of
from nextedge.errors import InputError


def test_a_key_may_do_what_it_was_made_for(tmp_path: Path) -> None:
    keys = ApiKeys(tmp_path)
    assert not keys.required
    _, reader = keys.create(("read",))
    _, admin = keys.create(("admin",))
    assert keys.required
    assert keys.scopes(digest_of(reader)) == ("read",)
    assert keys.scopes(digest_of(admin)) == SCOPES
    assert keys.scopes(digest_of(reader + "x")) == ()
    assert reader not in keys.path.read_text()


def test_other_processes_see_a_new_key_and_a_revoked_one_at_once(tmp_path: Path) -> None:
    here, there = ApiKeys(tmp_path), ApiKeys(tmp_path)
    key, token = here.create(("read", "write"))
    assert there.scopes(digest_of(token)) == ("read", "write")
    before = there.version()
    here.revoke(key.id)
    assert there.scopes(digest_of(token)) == ()
    assert there.version() != before
    assert there.required, "a tenant whose keys are all revoked is open to nobody"


def test_keys_and_scopes_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    keys = ApiKeys(tmp_path)
    with pytest.raises(InputError, match="did you mean 'read'"):
        keys.create(("raed",))
    with pytest.raises(InputError, match="no key 'none'"):
        keys.revoke("none")


def test_a_given_key_may_do_all_and_is_written_nowhere(tmp_path: Path) -> None:
    keys = ApiKeys(tmp_path, extra_key="of the environment")
    assert keys.required
    assert keys.scopes(digest_of("of the environment")) == SCOPES
    assert not keys.path.exists()
