"""As much of JSON Schema as the HTTP service describes itself with: what is wrong with a value, and
values that are right."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

_KNOWN = {
    "$ref",
    "additionalProperties",
    "anyOf",
    "const",
    "description",
    "enum",
    "items",
    "maxItems",
    "maxLength",
    "maximum",
    "minItems",
    "minLength",
    "minimum",
    "oneOf",
    "pattern",
    "properties",
    "required",
    "title",
    "type",
}
_TYPES = {
    "array": list,
    "boolean": bool,
    "integer": int,
    "null": type(None),
    "number": (int, float),
    "object": dict,
    "string": str,
}


def problems(value: Any, schema: dict[str, Any], document: dict[str, Any]) -> list[str]:
    """What is wrong with a value; fails for a schema of words that this does not know."""
    assert schema.keys() <= _KNOWN, schema
    if "$ref" in schema:
        found = document
        for part in schema["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        return problems(value, found, document)
    wrong = []
    for word, allowed in (("oneOf", (1,)), ("anyOf", range(1, 99))):
        if word in schema:
            fitting = [not problems(value, one, document) for one in schema[word]]
            if sum(fitting) not in allowed:
                wrong.append(f"{word}: {sum(fitting)} fit")
    kind = schema.get("type")
    if kind is not None:
        is_bool = isinstance(value, bool) and kind != "boolean"
        if is_bool or not isinstance(value, _TYPES[kind]):
            return [*wrong, f"expected {kind}, got {value!r:.40}"]
    if value != schema.get("const", value) or value not in schema.get("enum", [value]):
        wrong.append(f"not one of {schema}")
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        wrong += [f"{name} is missing" for name in schema.get("required", []) if name not in value]
        for name, inner in value.items():
            if name in properties:
                wrong += [f"{name}: {text}" for text in problems(inner, properties[name], document)]
            elif schema.get("additionalProperties") is False:
                wrong.append(f"{name} is not expected")
    if isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", 10**9):
            wrong.append(f"{len(value)} items")
        for inner in value:
            wrong += problems(inner, schema.get("items", {}), document)
    if isinstance(value, str):
        if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", 10**9):
            wrong.append(f"{len(value)} characters")
        if not re.search(schema.get("pattern", ""), value):
            wrong.append(f"{value!r} does not fit {schema['pattern']}")
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not schema.get("minimum", value) <= value <= schema.get("maximum", value):
            wrong.append(f"{value} is out of bounds")
    return wrong


def values(schema: dict[str, Any]) -> SearchStrategy[Any]:
    """Values of a schema without references, most of them right."""
    kind = schema["type"]
    if kind == "number":
        return st.floats(schema["minimum"], schema["maximum"]) | st.floats(0, 1)
    if kind == "string":
        return st.text(min_size=schema.get("minLength", 0), max_size=8)
    if kind == "array":
        least, most = schema["minItems"], min(schema["maxItems"], schema["minItems"] + 2)
        return st.lists(values(schema["items"]), min_size=least, max_size=most)
    properties = {name: values(inner) for name, inner in schema["properties"].items()}
    required = {name: properties.pop(name) for name in schema["required"]}
    return st.fixed_dictionaries(required, optional=properties)
