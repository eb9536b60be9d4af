"""The data converter of connections that runward makes: Temporal's own for pydantic, made once.

The SDK makes a converter for every workflow and for every activation. This one keeps the type
adapters that it has built, which a new one would build anew.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Self

from temporalio.contrib.pydantic import PydanticPayloadConverter, pydantic_data_converter


class _Shared(PydanticPayloadConverter):
    _made: ClassVar[Self | None] = None

    def __new__(cls) -> Self:
        if cls._made is None:
            cls._made = super().__new__(cls)
        return cls._made

    def __init__(self) -> None:
        if not vars(self):
            super().__init__()


DATA_CONVERTER = replace(pydantic_data_converter, payload_converter_class=_Shared)
