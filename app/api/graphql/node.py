"""`Node`: whatever has an opaque id of its own and can be looked up by it."""

import strawberry


@strawberry.interface(description="Whatever can be looked up by its opaque id.")
class Node:
    id: strawberry.ID = strawberry.field(description="Opaque and stable; do not take it apart.")
