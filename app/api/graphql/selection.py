"""What a document asks for beneath a field, so that no more is read than that."""

from graphql import FieldNode, FragmentSpreadNode, SelectionSetNode

from app.api.graphql.context import Info

Fields = dict[str, list[FieldNode]]


def selected(info: Info) -> Fields:
    """The fields beneath this one, by name. Directives are not judged: it may be more than is
    answered in the end, never less."""
    return beneath(info, info._raw_info.field_nodes)


def beneath(info: Info, nodes: list[FieldNode]) -> Fields:
    found: Fields = {}
    for node in nodes:
        _collect(info, node.selection_set, found)
    return found


def _collect(info: Info, selections: SelectionSetNode | None, found: Fields) -> None:
    for node in selections.selections if selections else ():
        if isinstance(node, FieldNode):
            found.setdefault(node.name.value, []).append(node)
        elif isinstance(node, FragmentSpreadNode):
            _collect(info, info._raw_info.fragments[node.name.value].selection_set, found)
        else:
            _collect(info, node.selection_set, found)  # type: ignore[attr-defined]
