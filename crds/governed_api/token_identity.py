"""Who shows a token: what a ModelConsumer says of its issuer and of what stands in it."""

import hashlib
import json
from functools import lru_cache
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from governed_api.base import Part
from governed_api.callers import CallerToken, TokenClaim, TokenIssuer
from governed_api.rules import Rule
from governed_api.token_keys import check_pem, given_keys

__all__ = ["PUBLISHED", "IssuerSource", "Oidc", "ServiceAccount", "TokenIdentity"]

_PRINTABLE_ASCII = r"^[ -~]+$"
_ISSUER = r'^https://[!-"$->A-~]+$'
"""https, and no user, query or fragment (OpenID Connect Discovery 1.0, 3)."""
PUBLISHED = r'^https://[!-"$-?A-~]+$'
"""Where keys may be published: https, and neither user nor fragment."""
_KEYS = 16_384
"""Characters of a set of keys."""
CLUSTER_ISSUER = "kubernetes"
"""Stands for the cluster's issuer until it has said who it is: no token bears it."""
_REGISTERED = ("iss", "sub", "aud", "exp", "nbf", "iat", "jti")


def _jwks(text: str) -> str:
    given_keys(text)
    return text


def _pem(text: str) -> str:
    check_pem(text)
    return text


class OidcClaim(Part):
    """A claim that the token has."""

    name: str = Field(min_length=1, max_length=256, pattern=_PRINTABLE_ASCII)
    """As it stands at the token's top: groups, azp, https://example.com/team."""
    value: str = Field(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$")
    """The claim is this text, or a list of texts that has it; code point by code point."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"!(self.name in {json.dumps(list(_REGISTERED))})",
            "a claim must be one that says who calls: give the token's sub as subject; the others are judged anyway",
            ".name",
        ),
    )


class Oidc(Part):
    """Tokens (JWT) of an OpenID Connect issuer: whose signature, for whom, and who they must speak of."""

    issuer: str = Field(max_length=512, pattern=_ISSUER)
    """The token's iss, character by character."""
    audience: str = Field(min_length=1, max_length=256, pattern=_PRINTABLE_ASCII)
    """Must be in the token's aud: a token that was made for another service opens nothing here."""
    subject: str | None = Field(default=None, min_length=1, max_length=255, pattern=_PRINTABLE_ASCII)
    """The token's sub, character by character."""
    claim: OidcClaim | None = None
    """In place of a subject: whoever's token has this claim, such as a group's members."""
    jwks: Annotated[str, AfterValidator(_jwks)] | None = Field(default=None, max_length=_KEYS)
    """The issuer's public keys, a JWK set as one text: '{"keys": […]}'."""
    public_keys: Annotated[str, AfterValidator(_pem)] | None = Field(default=None, max_length=_KEYS)
    """The issuer's public keys as PEM (BEGIN PUBLIC KEY)."""

    jwks_url: str | None = Field(default=None, alias="jwksURL", max_length=2048, pattern=PUBLISHED)
    """Where the issuer publishes its public keys as a JWK set; fetched every minute, no redirect followed. Without keys
    and without this, the issuer's /.well-known/openid-configuration says where."""
    certificate_authority: str | None = Field(default=None, max_length=_KEYS)
    """PEM of those who vouch for the issuer's own certificate, where the operator's machine doesn't know them."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule("has(self.subject) != has(self.claim)", "oidc needs one of subject and claim: who the token speaks of"),
        Rule(
            "[has(self.jwks), has(self.publicKeys), has(self.jwksURL)].filter(given, given).size() <= 1",
            "oidc takes one of jwks, publicKeys and jwksURL; without any, the issuer's discovery document is asked",
        ),
        Rule(
            "!has(self.certificateAuthority) || !(has(self.jwks) || has(self.publicKeys))",
            "certificateAuthority is for keys that are fetched: leave it out beside jwks and publicKeys",
            ".certificateAuthority",
        ),
    )


class ServiceAccount(Part):
    """A ServiceAccount of the cluster; its pods show a projected token (serviceAccountToken with the audience)."""

    name: str = Field(max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
    """Of the ServiceAccount."""
    namespace: str = Field(max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    """In which it is."""
    audience: str = Field(min_length=1, max_length=256, pattern=_PRINTABLE_ASCII)
    """Must be in the token's aud. Not the API server's own: who answered here could act there."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!self.audience.contains('kubernetes.default')",
            "audience must not be the API server's: a token for it would let whoever answers act there; choose another",
            ".audience",
        ),
    )


class IssuerSource(Part):
    """An issuer, an audience and where its keys come from: what is alike is kept once in a document."""

    issuer: str
    audience: str
    jwks: str = ""
    public_keys: str = ""
    jwks_url: str = ""
    certificate_authority: str = ""
    cluster: bool = False
    """The API server, which says who it is."""

    @property
    def id(self) -> str:
        """How callers name it."""
        return _id_of(self)

    @property
    def published(self) -> bool:
        """Its keys are fetched."""
        return not self.jwks and not self.public_keys

    @property
    def place(self) -> "IssuerSource":
        """What is fetched once, whatever the audience."""
        return _place_of(self)

    @property
    def named(self) -> str:
        """In words."""
        return "the cluster's service accounts" if self.cluster else self.issuer

    def given(self) -> TokenIssuer:
        """Of the keys that were given with it, none where they are to be fetched."""
        return TokenIssuer(
            id=self.id, issuer=self.issuer, audience=self.audience, jwks=self.jwks, public_keys=self.public_keys
        )


@lru_cache(maxsize=1024)  # asked about every half second; a cached property would go along into copies
def _id_of(source: IssuerSource) -> str:
    return _digest(source.model_dump())


@lru_cache(maxsize=1024)
def _place_of(source: IssuerSource) -> IssuerSource:
    return source.model_copy(update={"audience": ""})


class TokenIdentity(Part):
    """What makes a token a consumer's."""

    source: IssuerSource
    token: CallerToken

    @property
    def id(self) -> str:
        """The same for all that would let the same token in: two consumers can't both have it."""
        whom = self.token.model_dump(exclude={"issuer"})
        return _digest({"issuer": self.source.issuer, "audience": self.source.audience, **whom})

    @classmethod
    def of_service_account(cls, account: ServiceAccount) -> "TokenIdentity":
        source = IssuerSource(issuer=CLUSTER_ISSUER, audience=account.audience, cluster=True)
        subject = f"system:serviceaccount:{account.namespace}:{account.name}"
        return cls(source=source, token=CallerToken(issuer=source.id, subject=subject))

    @classmethod
    def of_oidc(cls, oidc: Oidc) -> "TokenIdentity":
        source = IssuerSource(
            issuer=oidc.issuer, audience=oidc.audience, jwks=oidc.jwks or "", public_keys=oidc.public_keys or "",
            jwks_url=oidc.jwks_url or "", certificate_authority=oidc.certificate_authority or "",
        )  # fmt: skip
        claim = TokenClaim(name=oidc.claim.name, value=oidc.claim.value) if oidc.claim else None
        return cls(source=source, token=CallerToken(issuer=source.id, subject=oidc.subject, claim=claim))


def _digest(plain: object) -> str:
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:32]
