"""Fitted estimators as bytes and back, by skops: no pickle, and nothing is loaded that the user did not trust."""

from __future__ import annotations

import importlib
import io
import json
import zipfile
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

_INSTALL = "pip install 'tansaku-zenkai[sklearn]' (skops), which writes estimators without pickle"
_TIME = (1980, 1, 1, 0, 0, 0)
OURS = ("zenkai_core.modules.estimators.PerOutput",)


def dumps(estimators: Sequence[Any]) -> Tensor:
    """The estimators as bytes `[m]` uint8; equal estimators give equal bytes.

    Raises:
        RuntimeError: skops is not installed.
    """
    return torch.frombuffer(bytearray(_canonical(_skops("write").dumps(list(estimators)))), dtype=torch.uint8)


def loads(data: Tensor, trusted: bool | Sequence[str]) -> list[Any]:
    """The estimators of these bytes, if the user trusts where they come from.

    Args:
        data: `[m]` uint8.
        trusted: True, the types of scikit-learn, numpy and scipy that skops holds safe; a sequence of full names, those
            types too; False, nothing.

    Raises:
        RuntimeError: nothing is trusted, a type is not, or skops is not installed.
        ValueError: the bytes are no archive.
    """
    if trusted is False:
        raise RuntimeError(
            "a state_dict with fitted estimators expected to be trusted, got trusted=False: if you know who made the "
            "file, make the module with Estimators(..., trusted=True); modules.Trees is tensors alone and needs none"
        )
    skops, raw = _skops("read"), bytes(data.cpu().numpy())
    if not zipfile.is_zipfile(io.BytesIO(raw)):
        raise ValueError(
            f"a state_dict with fitted estimators expected the bytes that were saved, got {len(raw)} that are no "
            "archive: the file is damaged; save it again"
        )
    also = [*OURS, *(() if trusted is True else trusted)]
    unknown = sorted(set(skops.get_untrusted_types(data=raw)) - set(also))
    if unknown:
        raise RuntimeError(
            f"a state_dict with fitted estimators expected trusted types, got {unknown}: if you trust them, make the "
            f"module with Estimators(..., trusted={unknown})"
        )
    return skops.loads(raw, trusted=also)


def _skops(what: str) -> Any:
    try:
        return importlib.import_module("skops.io")
    except ImportError as error:
        raise RuntimeError(
            f"a state_dict of fitted estimators expected skops to {what} it, got none: {_INSTALL}"
        ) from (error)


def _canonical(raw: bytes) -> bytes:
    """The same archive with numbers in the order of first use where skops writes addresses, and no clock."""
    source = zipfile.ZipFile(io.BytesIO(raw))
    numbers: dict[int, int] = {}
    files: dict[str, str] = {}

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            if "__id__" in node:  # a constant may be one object or several that are equal: no two share a number here
                key = -len(numbers) if node.get("__loader__") == "JsonNode" else node["__id__"]
                node["__id__"] = numbers.setdefault(key, len(numbers) + 1)
            if isinstance(name := node.get("file"), str) and name in source.namelist():
                node["file"] = files.setdefault(name, f"{len(files)}.{name.rsplit('.', 1)[-1]}")
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    schema = json.loads(source.read("schema.json"))
    walk(schema)
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for old, new in files.items():
            archive.writestr(zipfile.ZipInfo(new, _TIME), source.read(old))
        archive.writestr(zipfile.ZipInfo("schema.json", _TIME), json.dumps(schema))
    return target.getvalue()
