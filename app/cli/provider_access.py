"""A provider's credential from what was typed, from files, or from the environment."""

import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer

from app.cli.job_submit import pairs
from app.client import ApiError

# What the API takes as a number; everything else is text, even when it consists of digits.
NUMBERS = frozenset({"capacity", "model_units"})

# Where each vendor's own SDK looks: variable → our name. Of several for one name the first counts.
VARIABLES: dict[str, dict[str, str]] = {
    "openai": {
        "OPENAI_API_KEY": "api_key",
        "OPENAI_ORG_ID": "organization",
        "OPENAI_PROJECT_ID": "project",
        "OPENAI_WEBHOOK_SECRET": "webhook_secret",
    },
    "azure": {
        "AZURE_OPENAI_API_KEY": "api_key",
        "AZURE_TENANT_ID": "tenant_id",
        "AZURE_CLIENT_ID": "client_id",
        "AZURE_CLIENT_SECRET": "client_secret",
        "AZURE_SUBSCRIPTION_ID": "subscription",
    },
    "bedrock": {
        "AWS_ACCESS_KEY_ID": "access_key_id",
        "AWS_SECRET_ACCESS_KEY": "secret_access_key",
        "AWS_SESSION_TOKEN": "session_token",
        "AWS_REGION": "region",
        "AWS_DEFAULT_REGION": "region",
    },
    "vertex": {
        "GOOGLE_APPLICATION_CREDENTIALS": "service_account",
        "GOOGLE_CLOUD_PROJECT": "project",
        "GOOGLE_CLOUD_LOCATION": "location",
    },
    "fireworks": {"FIREWORKS_API_KEY": "api_key", "FIREWORKS_ACCOUNT_ID": "account"},
    "together": {"TOGETHER_API_KEY": "api_key"},
}
_FILES = frozenset({"GOOGLE_APPLICATION_CREDENTIALS"})  # it holds a path
_QUOTED = re.compile(r",? found: .*", re.S)  # long values are cut in there, so no search finds them


@dataclass
class Access:
    """`secrets` are the values among the fields that must not be shown, `typed` whether one stood
    on the command line, `variables` those of the environment that were used."""

    provider: str
    fields: dict[str, str] = field(default_factory=dict, repr=False)
    webhook_secret: str | None = field(default=None, repr=False)
    secrets: list[str] = field(default_factory=list, repr=False)
    typed: bool = False
    variables: list[str] = field(default_factory=list)

    def input(self, check: bool) -> dict[str, Any]:
        """What setProviderCredential takes."""
        told = {camel(name): _typed(name, value) for name, value in self.fields.items()}
        made: dict[str, Any] = {"credential": {self.provider: told}, "check": check}
        return made | ({"webhookSecret": self.webhook_secret} if self.webhook_secret else {})

    def without_secrets(self, refused: ApiError) -> ApiError:
        """The same refusal, without what was sent: GraphQL quotes a value that it does not take."""
        hidden = [one for one in (*self.secrets, self.webhook_secret) if one and len(one) > 3]

        def hide(value: Any) -> Any:
            if isinstance(value, dict):
                return {key: hide(one) for key, one in value.items()}
            if isinstance(value, list):
                return [hide(one) for one in value]
            if isinstance(value, str):
                value = _QUOTED.sub(".", value)
                for secret in hidden:
                    value = value.replace(secret, "…")
            return value

        return ApiError(hide(refused.message), refused.code, hide(refused.errors))


def read(
    provider: str,
    secrets: list[str],
    settings: list[str],
    webhook_secret: str | None,
    environment: Mapping[str, str] = os.environ,
) -> Access:
    """Without any secret given, they are those of the environment: a key from here never meets one
    from there. Raises a usage error."""
    found = Access(provider)
    own = _Reader()
    named = {name: own.read(text, "--secret") for name, text in pairs(secrets, "--secret").items()}
    if not named:
        _from_environment(found, environment)
    found.secrets += named.values()
    found.fields |= {**named, **pairs(settings, "--setting")}
    if webhook_secret is not None:
        found.webhook_secret = own.read(webhook_secret, "--webhook-secret")
    found.typed = own.typed
    if not found.fields:
        known = ", ".join(VARIABLES.get(provider, {})) or "none that are known"
        raise typer.BadParameter(
            f"Give --secret name=@FILE, or set what its SDK reads: {known}.", param_hint="--secret"
        )
    return found


def _from_environment(found: Access, environment: Mapping[str, str]) -> None:
    for variable, name in VARIABLES.get(found.provider, {}).items():
        value = environment.get(variable)
        if not value or name in found.fields:
            continue
        if variable in _FILES:
            value = _file(value, variable)
        if name == "webhook_secret":
            found.webhook_secret = value
        else:
            found.fields[name] = value
            found.secrets.append(value)
        found.variables.append(variable)


class _Reader:
    """`@FILE`, `-` for stdin (once), or the secret itself."""

    def __init__(self, stdin: Callable[[], str] | None = None) -> None:
        self.typed = False
        self._stdin = stdin or (lambda: sys.stdin.read())
        self._used = False

    def read(self, text: str, option: str) -> str:
        if text == "-":
            if self._used:
                raise typer.BadParameter("Only one secret can be stdin.", param_hint=option)
            self._used = True
            found = self._stdin().strip()
        elif text.startswith("@"):
            found = _file(text[1:], option)
        else:
            self.typed, found = True, text
        if not found:
            raise typer.BadParameter("A secret is empty.", param_hint=option)
        return found


def _file(path: str, hint: str) -> str:
    try:
        return Path(path).expanduser().read_text().strip()
    except (OSError, UnicodeDecodeError) as wrong:
        why = getattr(wrong, "strerror", None) or "it is no text"
        raise typer.BadParameter(f"{path}: {why}.", param_hint=hint) from wrong


def camel(name: str) -> str:
    first, *rest = name.replace("-", "_").split("_")
    return first + "".join(word.capitalize() for word in rest)


def _typed(name: str, value: str) -> Any:
    return int(value) if name.replace("-", "_") in NUMBERS and value.isdigit() else value
