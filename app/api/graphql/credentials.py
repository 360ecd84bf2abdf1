"""A project's access to providers: set, shown without secrets, removed."""

from datetime import datetime
from enum import Enum
from typing import Annotated, Any

import strawberry

from app.accounts import credentials
from app.accounts import tables as rows
from app.accounts.credentials import NewCredential
from app.api.graphql.catalog import Provider
from app.api.graphql.context import Info
from app.api.graphql.errors import UserError, refusing
from app.api.graphql.pagination import arg
from app.api.graphql.scalars import JSON, BigInt
from app.core.actor import Role, Scope
from app.core.errors import Invalid
from app.providers.base import Account
from app.providers.errors import ProviderTrouble
from app.providers.registry import adapter_of


@strawberry.enum(description="Whether a credential works.")
class CredentialStatus(Enum):
    UNCHECKED = strawberry.enum_value("unchecked", description="Nobody has tried it yet.")
    OK = strawberry.enum_value("ok", description="The provider accepts it.")
    DENIED = strawberry.enum_value("denied", description="The provider does not accept it.")
    UNREACHABLE = strawberry.enum_value(
        "unreachable", description="The provider did not answer; the credential may be good."
    )


@strawberry.type(description="A project's access to a provider. Its secrets are never shown.")
class ProviderCredential:
    id: strawberry.ID = strawberry.field(description="Opaque id.")
    provider: Provider = strawberry.field(description="Which provider.")
    project_id: strawberry.ID = strawberry.field(description="The project that it is for.")
    settings: JSON = strawberry.field(description="What of it is not secret, such as URLs.")
    hint: str = strawberry.field(description="The end of its key, to tell keys apart.")
    key_version: str = strawberry.field(description="The master key that seals it.")
    status: CredentialStatus = strawberry.field(description="Whether it works.")
    trouble: str | None = strawberry.field(description="What the provider said against it.")
    checked_at: datetime | None = strawberry.field(description="When it was last tried.")
    webhook_path: str = strawberry.field(
        description="Where the provider's webhooks go, on this server. Keep it to yourself."
    )
    webhooks_configured: bool = strawberry.field(
        description="Whether there is a secret to check them by; none are taken without."
    )
    refused_webhooks: BigInt = strawberry.field(
        description="How many came in that nobody with the secret had signed."
    )
    created_at: datetime = strawberry.field(description="When it was first set.")
    updated_at: datetime = strawberry.field(description="When it was last set.")

    @staticmethod
    def of(row: rows.ProviderCredential) -> "ProviderCredential":
        settings: Any = row.settings
        return ProviderCredential(
            id=strawberry.ID(row.id),
            provider=Provider(row.provider),
            project_id=strawberry.ID(row.project_id),
            settings=settings,
            hint=row.hint,
            key_version=row.key_version,
            status=CredentialStatus(row.status),
            trouble=row.trouble,
            checked_at=row.checked_at,
            webhook_path=f"/webhooks/{row.provider}/{row.id}",
            webhooks_configured=row.webhook_secrets is not None,
            refused_webhooks=BigInt(row.refused_webhooks),
            created_at=row.created_at,
            updated_at=row.updated_at,
        )


_URL = "Another base URL; only the provider's own and those of LUTHIER_PROVIDER_ORIGINS."


@strawberry.input(description="Access to OpenAI.")
class OpenAICredential:
    api_key: str = strawberry.field(description="`sk-…`; write-only.")
    organization: str | None = strawberry.field(
        description="The organization there, if the key has several.", default=None
    )
    project: str | None = strawberry.field(
        description="The project there, if the key has several.", default=None
    )
    base_url: str | None = strawberry.field(description=_URL, default=None)


@strawberry.input(description="Access to Azure OpenAI. What is for ARM is needed to deploy.")
class AzureCredential:
    api_key: str = strawberry.field(description="Of the resource; write-only.")
    resource: str | None = strawberry.field(
        description="The resource's name, before `.openai.azure.com`.", default=None
    )
    api_version: str | None = strawberry.field(
        description="The classic surface with this api-version; the v1 surface when left out.",
        default=None,
    )
    training_type: str | None = strawberry.field(
        description="globalstandard or developerTier; Standard when left out.", default=None
    )
    subscription: str | None = strawberry.field(
        description="For ARM: the subscription's id.", default=None
    )
    resource_group: str | None = strawberry.field(
        description="For ARM: the resource group.", default=None
    )
    account: str | None = strawberry.field(
        description="For ARM: the account's name; the resource's when left out.", default=None
    )
    tenant_id: str | None = strawberry.field(description="For ARM: the Entra tenant.", default=None)
    client_id: str | None = strawberry.field(
        description="For ARM: the app registration.", default=None
    )
    client_secret: str | None = strawberry.field(
        description="For ARM: its secret; write-only.", default=None
    )
    sku: str | None = strawberry.field(
        description="Of deployments, such as GlobalStandard or DeveloperTier.", default=None
    )
    capacity: int | None = strawberry.field(
        description="Of deployments, in thousands of tokens a minute.", default=None
    )
    base_url: str | None = strawberry.field(description=_URL, default=None)
    arm_url: str | None = strawberry.field(description=_URL, default=None)
    login_url: str | None = strawberry.field(description=_URL, default=None)


@strawberry.input(description="Access to Amazon Bedrock, where Claude and others are tuned.")
class BedrockCredential:
    access_key_id: str = strawberry.field(description="Of an IAM user or role; write-only.")
    secret_access_key: str = strawberry.field(description="Write-only.")
    session_token: str | None = strawberry.field(
        description="Of temporary credentials; write-only.", default=None
    )
    region: str = strawberry.field(description="Such as us-west-2.")
    role_arn: str = strawberry.field(
        description="What Bedrock assumes to read the data and write the results."
    )
    bucket: str = strawberry.field(description="S3, in the same region, for data and results.")
    prefix: str | None = strawberry.field(
        description="Before the objects' names; `luthier` when left out.", default=None
    )
    model_units: int | None = strawberry.field(
        description="Deploy with so much provisioned throughput; on demand when left out.",
        default=None,
    )
    base_url: str | None = strawberry.field(description=_URL, default=None)
    runtime_url: str | None = strawberry.field(description=_URL, default=None)
    storage_url: str | None = strawberry.field(description=_URL, default=None)


@strawberry.input(description="Access to Google Vertex AI.")
class VertexCredential:
    service_account: str = strawberry.field(
        description="The service account's key file, as JSON text; write-only."
    )
    location: str = strawberry.field(description="Such as us-central1, or global.")
    bucket: str = strawberry.field(description="Cloud Storage, for the data.")
    project: str | None = strawberry.field(
        description="The project; the key's own when left out.", default=None
    )
    base_url: str | None = strawberry.field(description=_URL, default=None)
    storage_url: str | None = strawberry.field(description=_URL, default=None)
    token_url: str | None = strawberry.field(description=_URL, default=None)


@strawberry.input(description="Access to Fireworks AI.")
class FireworksCredential:
    api_key: str = strawberry.field(description="`fw_…`; write-only.")
    account: str = strawberry.field(description="The account's id there.")
    base_url: str | None = strawberry.field(description=_URL, default=None)


@strawberry.input(description="Access to Together AI.")
class TogetherCredential:
    api_key: str = strawberry.field(description="Write-only.")
    project: str | None = strawberry.field(
        description="The project there; needed to deploy.", default=None
    )
    project_slug: str | None = strawberry.field(
        description="Its name in the names of endpoints.", default=None
    )
    base_url: str | None = strawberry.field(description=_URL, default=None)


@strawberry.input(description="Access to exactly one provider.", one_of=True)
class CredentialInput:
    openai: strawberry.Maybe[OpenAICredential] = strawberry.field(description="OpenAI.")
    azure: strawberry.Maybe[AzureCredential] = strawberry.field(description="Azure OpenAI.")
    bedrock: strawberry.Maybe[BedrockCredential] = strawberry.field(description="Amazon Bedrock.")
    vertex: strawberry.Maybe[VertexCredential] = strawberry.field(description="Google Vertex AI.")
    fireworks: strawberry.Maybe[FireworksCredential] = strawberry.field(description="Fireworks AI.")
    together: strawberry.Maybe[TogetherCredential] = strawberry.field(description="Together AI.")

    def account(self) -> tuple[str, Account]:
        """The provider's name, and the access to it."""
        provider, given = next((n, v.value) for n, v in vars(self).items() if v)
        secret = adapter_of(provider).secrets
        told = {name: str(value) for name, value in vars(given).items() if value is not None}
        return provider, Account(
            {name: value for name, value in told.items() if name in secret},
            {name: value for name, value in told.items() if name not in secret},
        )


@strawberry.input(description="A credential for the key's project.")
class SetProviderCredentialInput:
    credential: CredentialInput = strawberry.field(description="Access to one provider.")
    webhook_secret: str | None = strawberry.field(
        description="What the provider signs its webhooks with (`whsec_…`), or for Bedrock what "
        "the API destination sends as x-api-key; write-only. The one before is taken for 24 h "
        "more; it stays when this is left out.",
        default=None,
    )
    check: bool = strawberry.field(
        description="Try it at the provider first, and store nothing that is not accepted.",
        default=True,
    )


@strawberry.type(description="What came of setProviderCredential.")
class SetProviderCredentialPayload:
    credential: ProviderCredential | None = strawberry.field(
        description="The credential, without its secrets.", default=None
    )
    user_errors: list[UserError] = strawberry.field(description="Why not.", default_factory=list)


@strawberry.input(description="Which provider's credential to forget.")
class RemoveProviderCredentialInput:
    provider: Provider = strawberry.field(description="The provider.")


@strawberry.type(description="What came of removeProviderCredential.")
class RemoveProviderCredentialPayload:
    removed_id: strawberry.ID | None = strawberry.field(description="What is gone.", default=None)
    user_errors: list[UserError] = strawberry.field(description="Why not.", default_factory=list)


@strawberry.type
class CredentialQueries:
    @strawberry.field(description="The project's access to providers, without secrets.")
    async def provider_credentials(self, info: Info) -> list[ProviderCredential]:
        async with info.context.transaction() as session:
            found = await credentials.credentials(session, info.context.actor)
        return [ProviderCredential.of(row) for row in found]


@strawberry.type
class CredentialMutations:
    @strawberry.mutation(
        description="Give the project access to a provider, in the place of what it had."
    )
    async def set_provider_credential(
        self,
        info: Info,
        input: Annotated[SetProviderCredentialInput, arg("The credential.")],
    ) -> SetProviderCredentialPayload:
        with refusing() as refused:
            services, who = info.context.services, info.context.actor
            who.require(Scope.ADMIN, Role.ADMIN)
            provider, account = input.credential.account()
            secret = input.webhook_secret
            if secret is not None and not 16 <= len(secret) <= 200:
                raise Invalid("A webhook secret has 16 to 200 characters.", path=("webhookSecret",))
            adapter = services.providers.adapter(provider, account, f"check {who.org_id}")
            if input.check:
                try:
                    await adapter.check()
                except ProviderTrouble as trouble:
                    raise Invalid(trouble.message, path=("credential", provider)) from trouble
            async with info.context.transaction() as session:
                row = await credentials.set_credential(
                    session, who, services.vault, NewCredential(provider, account, secret)
                )
            return SetProviderCredentialPayload(credential=ProviderCredential.of(row))
        return SetProviderCredentialPayload(user_errors=refused.user_errors)

    @strawberry.mutation(
        description="Forget the project's access to a provider. Its jobs there go on, unseen."
    )
    async def remove_provider_credential(
        self, info: Info, input: Annotated[RemoveProviderCredentialInput, arg("Which.")]
    ) -> RemoveProviderCredentialPayload:
        with refusing() as refused:
            async with info.context.transaction() as session:
                row = await credentials.remove_credential(
                    session, info.context.actor, str(input.provider.value)
                )
            return RemoveProviderCredentialPayload(removed_id=strawberry.ID(row.id))
        return RemoveProviderCredentialPayload(user_errors=refused.user_errors)
