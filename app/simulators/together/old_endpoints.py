"""A simulated Together's older dedicated endpoints (v1), which hold one model each.

Wire format: the SDK 2.42.0's types.
"""

from dataclasses import dataclass
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from app.simulators.answers import at_time, json_response
from app.simulators.runs import Plan
from app.simulators.together.files import FilesSimulator

SLUG = "simulated"
HARDWARE = "1x_nvidia_h100_80gb_sxm"


@dataclass(frozen=True)
class MadeModel:
    id: str
    name: str
    base: str
    adapter: bool


@dataclass
class OldEndpoint:
    """Of v1: `wanted` is what it is on its way to."""

    id: str
    asked: dict[str, Any]
    wanted: str
    changed_at: float


class OldEndpointsSimulator(FilesSimulator):
    def __init__(self, plan: Plan | None = None, seed: int = 0) -> None:
        super().__init__(plan, seed)
        self.old_endpoints: dict[str, OldEndpoint] = {}

    def made(self) -> list[MadeModel]:
        """The models that jobs made."""
        raise NotImplementedError

    def old_routes(self) -> list[tuple[str, str, Any]]:
        return [
            ("GET", "/v1/hardware", self.hardware),
            ("POST", "/v1/endpoints", self.create_old),
            ("GET", "/v1/endpoints", self.list_old),
            ("GET", "/v1/endpoints/{id}", self.get_old),
            ("PATCH", "/v1/endpoints/{id}", self.update_old),
            ("DELETE", "/v1/endpoints/{id}", self.delete_old),
        ]

    async def hardware(self, request: Request) -> Response:
        price = {"cents_per_minute": 5.6}
        row = {"object": "hardware", "id": HARDWARE, "pricing": price}
        return json_response({"object": "list", "data": [row]})

    async def create_old(self, request: Request) -> Response:
        asked = orjson.loads(await request.body())
        for name in ("model", "hardware", "autoscaling"):
            if not asked.get(name):
                return self.refusal(400, "missing_field", f"{name} is required.", name)
        if asked["model"] not in {model.name for model in self.made()}:
            return self.refusal(404, "not_found", f"There is no model {asked['model']}.", "model")
        wanted = asked.get("state") or "STARTED"
        made = OldEndpoint(self.id("endpoint-"), asked, wanted, self.now())
        self.old_endpoints[made.id] = made
        return json_response(self.old_object(made))

    async def list_old(self, request: Request) -> Response:
        rows = [self.old_object(one) for one in self.old_endpoints.values()]
        return json_response({"object": "list", "data": rows})

    async def get_old(self, request: Request) -> Response:
        found = self.old_endpoints.get(request.path_params["id"])
        return json_response(self.old_object(found)) if found else self.nothing("endpoint")

    async def update_old(self, request: Request) -> Response:
        found = self.old_endpoints.get(request.path_params["id"])
        asked = orjson.loads(await request.body())
        if found is None:
            return self.nothing("endpoint")
        if asked.get("state") in ("STARTED", "STOPPED") and asked["state"] != found.wanted:
            found.wanted, found.changed_at = asked["state"], self.now()
        found.asked |= {name: value for name, value in asked.items() if name != "state"}
        return json_response(self.old_object(found))

    async def delete_old(self, request: Request) -> Response:
        found = self.old_endpoints.pop(request.path_params["id"], None)
        return Response(status_code=204) if found else self.nothing("endpoint")

    def old_object(self, one: OldEndpoint) -> dict[str, Any]:
        passed, plan = self.now() - one.changed_at, self.plan
        state = one.wanted
        if state == "STARTED" and passed < plan.queued:
            state = "PENDING" if passed < plan.queued / 2 else "STARTING"
        elif state == "STOPPED" and passed < plan.stopping:
            state = "STOPPING"
        return {
            "object": "endpoint",
            "id": one.id,
            "name": f"{one.asked['model']}-{one.id[9:17]}",
            "display_name": one.asked.get("display_name") or one.asked["model"],
            "model": one.asked["model"],
            "hardware": one.asked["hardware"],
            "autoscaling": one.asked["autoscaling"],
            "inactive_timeout": one.asked.get("inactive_timeout"),
            "type": "dedicated",
            "owner": SLUG,
            "state": state,
            "created_at": at_time(one.changed_at),
        }

    def old_serves(self, name: str) -> str | None:
        """The model behind a name that can be called now."""
        for old in map(self.old_object, self.old_endpoints.values()):
            if old["name"] == name and old["state"] == "STARTED":
                return str(old["model"])
        return None
