"""Routes for the contacts of new users. No answer says who is a member."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from nextedge.api.problems import problem
from nextedge.errors import ContactBudgetError
from nextedge.recommender import Recommender

UserId = Annotated[str, Path(min_length=1, max_length=256, description="id as in your tables")]
Entry = Annotated[str, Field(max_length=1024)]


class ContactsIn(BaseModel):
    """What a user gives; what is left out stays as it was."""

    own: list[Entry] | None = Field(
        None, description="e-mail addresses and phone numbers that you have proven to be the user's"
    )
    contacts: list[Entry] | None = Field(None, description="the address book, in place of the last")
    consent: bool = Field(False, description="the user agreed that contacts are matched")
    discoverable_by_contacts: bool | None = Field(
        None, description="may those who have the user in their book be shown the user"
    )


class RefusedEntry(BaseModel):
    """An entry that is no e-mail address and no phone number."""

    index: int
    reason: str


class ContactsOut(BaseModel):
    """What became of an upload; the same whoever is a member."""

    stored: int
    refused: list[RefusedEntry]
    left_today: int


def routes(recommender: Recommender) -> APIRouter:
    """The routes over one tenant."""
    router = APIRouter(tags=["onboarding"])

    @router.put("/v1/users/{user_id}/contacts", response_model=ContactsOut)
    def put(user_id: UserId, body: ContactsIn) -> ContactsOut | JSONResponse:
        """Keep a user's identifiers and address book, as hashes. 429 beyond a day's budget."""
        try:
            upload = recommender.contacts.put(
                user_id, own=body.own, contacts=body.contacts, consent=body.consent,
                discoverable=body.discoverable_by_contacts,
            )  # fmt: skip
        except ContactBudgetError as error:
            return problem(429, "ContactBudget", str(error))
        refused = [RefusedEntry(index=place, reason=fault) for place, fault in upload.refused]
        return ContactsOut(stored=upload.stored, refused=refused, left_today=upload.left_today)

    @router.delete("/v1/users/{user_id}/contacts", status_code=204)
    def delete(user_id: UserId) -> Response:
        """Withdraw a user's consent: the address book and given identifiers are deleted."""
        recommender.contacts.remove(user_id)
        return Response(status_code=204)

    return router
