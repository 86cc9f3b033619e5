"""Writes a language model of random weights as GGUF: ``python tiny_model.py FILE``. Runs in the runtime's own
environment.

Llama's architecture, two blocks of width 64; a vocabulary of Latin characters with bytes for all else, as
SentencePiece's models have. Bytes and the end of text are unlikely, so that completions are readable and as long as was
asked.
"""

import sys

import numpy as np
from gguf import GGUFWriter, TokenType

WIDTH, BLOCKS, HEADS, INNER, CONTEXT = 64, 2, 4, 160, 2048
CHARACTERS = ["▁", *map(chr, range(0x21, 0x7F))]
CONTROL = ["<unk>", "<s>", "</s>"]
BYTES = [f"<0x{value:02X}>" for value in range(256)]
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"


def describe(out: GGUFWriter) -> None:
    """Sizes and vocabulary."""
    out.add_context_length(CONTEXT)
    out.add_embedding_length(WIDTH)
    out.add_block_count(BLOCKS)
    out.add_feed_forward_length(INNER)
    out.add_head_count(HEADS)
    out.add_head_count_kv(HEADS)
    out.add_rope_dimension_count(WIDTH // HEADS)
    out.add_layer_norm_rms_eps(1e-5)
    kinds = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL]
    out.add_tokenizer_model("llama")
    out.add_token_list([*CONTROL, *BYTES, *CHARACTERS])
    out.add_token_scores([0.0] * (len(CONTROL) + len(BYTES) + len(CHARACTERS)))
    out.add_token_types([*kinds, *[TokenType.BYTE] * len(BYTES), *[TokenType.NORMAL] * len(CHARACTERS)])
    out.add_bos_token_id(1)
    out.add_eos_token_id(2)
    out.add_unk_token_id(0)
    out.add_chat_template(TEMPLATE)


def weigh(out: GGUFWriter) -> None:
    """The same random weights each time."""
    random = np.random.default_rng(7)

    def matrix(rows: int, columns: int, scale: float = 1.0) -> np.ndarray:
        return (scale * random.standard_normal((rows, columns)) / np.sqrt(columns)).astype(np.float32)

    rare = len(CONTROL) + len(BYTES)
    vocabulary = rare + len(CHARACTERS)
    last = matrix(vocabulary, WIDTH, 3.0)
    last[:rare] *= 0.02
    out.add_tensor("token_embd.weight", matrix(vocabulary, WIDTH, 8.0))
    for block in range(BLOCKS):
        for part in ("attn_norm", "ffn_norm"):
            out.add_tensor(f"blk.{block}.{part}.weight", np.ones(WIDTH, np.float32))
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            out.add_tensor(f"blk.{block}.{part}.weight", matrix(WIDTH, WIDTH))
        for part, shape in {"ffn_gate": (INNER, WIDTH), "ffn_up": (INNER, WIDTH), "ffn_down": (WIDTH, INNER)}.items():
            out.add_tensor(f"blk.{block}.{part}.weight", matrix(*shape))
    out.add_tensor("output_norm.weight", np.ones(WIDTH, np.float32))
    out.add_tensor("output.weight", last)


def main() -> None:
    out = GGUFWriter(sys.argv[1], "llama")
    describe(out)
    weigh(out)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


main()
