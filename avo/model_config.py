"""Reads from a model's Hugging Face configuration what its attention computes, and names the problem that does so.

Only what the file says counts, and defaults of transformers that are named here. What is not served is refused by name.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from avo.errors import ConfigError
from avo.evaluator.catalogue import settable
from avo.evaluator.setting import LONGEST, Setting, named
from avo.watch.wording import counted

Phase = Literal["prefill", "train", "decode"]
PHASES: tuple[str, ...] = get_args(Phase)
DEFAULT_LENGTHS: Mapping[Phase, tuple[int, ...]] = {"prefill": (8192,), "train": (8192,), "decode": (32768,)}
FULL, SLIDING, LINEAR = "full_attention", "sliding_attention", "linear_attention"
SELECTED = "minimax_m3_sparse"
"""Layers whose queries select blocks of keys, their own always: MiniMax Sparse Attention (arXiv 2606.13392)."""

_OWN_HEAD_DIM = {
    "gemma", "gemma2", "gemma3_text", "gemma4_text", "gpt_oss", "llama4_text", "qwen3", "qwen3_next", "qwen3_5_text",
}  # fmt: skip
"""Model types whose default head dim in transformers 5 is not ``hidden_size / num_attention_heads``."""
_EVERY_OTHER = {"gemma2": 2, "gemma3_text": 6, "gpt_oss": 2}
"""Model types in which by default one layer of so many sees all keys, and others have a window (transformers 5)."""
_WINDOWED = {"mistral", "mixtral", "phi3", "starcoder2"}
"""Model types in which ``sliding_window`` alone puts a window on every layer (transformers 5)."""
_OWN_WINDOW = {
    "cohere2", "exaone4", "gemma2", "gemma3_text", "gemma3n_text", "gemma4_text", "gpt_oss", "ministral", "mistral",
    "olmo3",
}  # fmt: skip
"""Model types that have a window where ``sliding_window`` is missing (transformers 5)."""
_OWN_CAP = {"gemma2", "vaultgemma"}
"""Model types that have a soft cap where ``attn_logit_softcapping`` is missing (transformers 5)."""
_INTERVAL = {"qwen3_next", "qwen3_5_text", "qwen3_5_moe_text"}
"""Model types in which one layer of ``full_attention_interval`` sees all keys and the others are linear."""
_OWN_LAYERS = (
    "attention_types", "attn_layer_period", "attn_layer_indices", "block_types", "cross_attention_layers",
    "dense_attention_every_n_layers", "full_attn_idxs", "hybrid_override_pattern", "layer_group_size",
    "layers_block_type", "linear_attn_config",
)  # fmt: skip
"""Fields in which some models say which layers attend."""
_OWN_KV_HEADS = ("multi_query", "num_kv_heads", "multi_query_group_num", "num_attention_groups")
"""Fields in which some models say how many KV heads there are."""
_OTHER_NAMES = {"attention": FULL, "mamba": LINEAR}  # which transformers 5 replaces too
_SINKS = {"flint", "gpt_oss", "granite_swa", "granitemoe_swa"}
"""Model types whose heads have a learned sink, which no field of the configuration says."""
_REFUSED = {
    "alibi": "biases by distance (ALiBi)",
    "attention_other_setting": "layers with other heads",
    "attention_chunk_size": "attention in chunks",
    "index_topk": "keys that an index selects",
    "blocksparse_block_size": "block-sparse attention",
    "block_configs": "blocks that differ from each other",
    "global_head_dim": "layers with another head dim",
    "attention_k_eq_v": "keys that are the values",
    "use_bidirectional_attention": "attention in both directions",
    "is_encoder_decoder": "an encoder",
}
"""Fields that change what attention computes, or its shapes, wherever they are set."""
_REFUSED_TYPES = {
    "baichuan": "biases by distance (ALiBi) in the larger models, which no field says,",
    "big_bird": "block-sparse attention",
    "diffllama": "differential attention",
    "doge": "masks that layers compute",
    "mimo_v2_flash": "layers with other heads, of which some have sinks,",
    **dict.fromkeys(("bloom", "mpt"), "biases by distance (ALiBi)"),
}
"""Model types whose attention is another one, though no field says so."""
_SPARSE, _QUANTISED = "sparse_attention_config", "quantization_config"
_OUTSIDE = ("dtype", "torch_dtype", _SPARSE, _QUANTISED)  # of the language model's fields, in models with other senses
_OF_CACHE = ("kv_cache_scheme", "kv_cache_quant_algo")
_HEADS_OF_SOME = ("num_attention_heads_per_layer", "num_sliding_attention_heads", "per_layer_config")
"""Fields in which some models say that layers differ in heads or head dims."""
_CAUSAL = ("ForCausalLM", "ForConditionalGeneration", "LMHeadModel")
_MOST_CHARACTERS = 60  # of a model's name are in that of a run, which has at most 80


@dataclass(frozen=True, slots=True)
class ModelProblem:
    """The problem of a model's attention, and what was read."""

    model: str
    """Name of the model."""
    problem: str
    phase: Phase
    read: tuple[str, ...]
    """What was read from which fields, in words."""
    config: Mapping[str, Any]
    """The file that it was read from."""
    not_served: tuple[str, ...] = ()
    """Kinds of layers that the problem leaves out, with why."""

    @property
    def label(self) -> str:
        """Model and phase as a part of a run's name."""
        return "-".join((*re.findall(r"[A-Za-z0-9._]+", self.model[:_MOST_CHARACTERS]), self.phase))

    def to_json(self) -> dict[str, Any]:
        """Return plain data, as it is stored with a run."""
        return {"model": self.model, "phase": self.phase, "read": [*self.read], "not_served": [*self.not_served]}


def read_model(
    path: Path, phase: Phase, lengths: Sequence[int] = (), batch: int = 1, *, packed: bool = False
) -> ModelProblem:
    """Return the problem of the model whose ``config.json``, or its folder, is at ``path``, with a case at each length.

    ``packed``: sequences of several lengths are packed one after another.

    Raises ``ConfigError`` with one line for a file that is no such configuration, and for what cannot be served.
    """
    path = path / "config.json" if path.is_dir() else path
    whole = _load(path)
    inner = whole.get("text_config")  # of the language model, which models with other senses keep apart
    text = inner if isinstance(inner, dict) else whole
    config = _Fields(path, {**{field: whole[field] for field in _OUTSIDE if field in whole}, **text})
    for refused in _refused(config, whole):
        raise config.error(refused)
    heads, kv_heads = _heads(config)
    head_dim, head_dim_v = _head_dims(config, heads)
    dtype = _dtype(config, phase)
    layers, window = _layers(config)
    selects = SELECTED in layers
    if selects and phase == "decode":
        raise config.error(f"{SELECTED}: decoding with selected blocks cannot be served: take another --phase")
    block_size, blocks = _blocks(config, kv_heads) if selects else (0, 0)
    served = [layer for layer in layers if layer in ((SELECTED,) if selects else (FULL, SLIDING))]
    not_served = tuple(words for layer, words in layers.items() if layer not in served)
    if not served:
        raise config.error(f"{' and '.join(not_served)} cannot be served, and there are no others")
    setting = Setting(
        head_dim, head_dim_v, dtype, block_size=block_size, blocks=blocks, local=selects,
        window=window if SLIDING in served else 0, everywhere=len(served) > 1, softcap=_softcap(config),
        sinks=config.type in _SINKS,
        packed=packed, heads=(heads, kv_heads),
        shapes=tuple((length, batch) for length in lengths or DEFAULT_LENGTHS[phase]),
    )  # fmt: skip
    dense = "fsa" if selects else "gqa" if heads > kv_heads else "mha"
    kind = {"prefill": "{}", "train": "{}_backward", "decode": "decode"}[phase].format(dense)
    sizes = "--lengths, --batch" if lengths or batch != 1 else f"--lengths, by default {DEFAULT_LENGTHS[phase][0]}"
    _check(config, kind, setting, sizes)
    read = (
        f"model type {config.type}",
        f"{counted(heads, 'query head')} on {counted(kv_heads, 'KV head')}",
        setting.words + ("" if config.get("dtype") or config.get("torch_dtype") else " (no dtype in the file)"),
        *(layers[layer] for layer in served),
        f"a window of {window} keys, longer than any case" if window > LONGEST else "",
        f"{blocks} selected blocks of {block_size} keys, the query's own always among them" if selects else "",
        f"scores below a soft cap of {setting.softcap}" if setting.softcap else "",
        "a sink for each query head" if setting.sinks else "",
        "latent keys and values (kv_lora_rank) as expanded ones" if config.get("kv_lora_rank") else "",
        "packed sequences" if packed else "",
        _scale(config, head_dim),
    )
    return ModelProblem(_name(path, whole), named(kind, setting), phase, tuple(filter(None, read)), whole, not_served)


@dataclass(frozen=True)
class _Fields:
    """The fields of a configuration."""

    path: Path
    values: Mapping[str, Any]

    def get(self, name: str) -> Any:
        return self.values.get(name)

    def count(self, name: str, default: int | None = None) -> int:
        """Return a whole number above zero; ``default`` for a field that is missing."""
        value = self.values.get(name)
        if value is None and default is not None:
            return default
        if value is None:
            raise self.error(f"it has no {name}: write it down, as defaults of transformers are not read")
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self.error(f"{name}: {value!r} should be a whole number above zero")
        return value

    @property
    def type(self) -> str:
        return _printable(str(self.values.get("model_type") or "unknown"))

    @property
    def sparse(self) -> Mapping[str, Any]:
        """What is said of sparse attention in fields of its own; nothing where there is none, or vLLM sees none."""
        found = self.get(_SPARSE) or {}
        if not isinstance(found, dict):
            raise self.error(f"{_SPARSE}: {found!r} should be an object")
        return found if found.get("use_sparse_attention", True) else {}

    def error(self, message: str) -> ConfigError:
        return ConfigError(f"--for {self.path}: {message}")


def _load(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"--for {path}: {error.strerror}: name a model's config.json or its folder") from None
    except (ValueError, RecursionError):
        raise ConfigError(f"--for {path}: it is not JSON: name a model's config.json") from None
    if not isinstance(found, dict) or not ("num_attention_heads" in found or "model_type" in found):
        raise ConfigError(f"--for {path}: it is no configuration of a model: it has neither model_type nor heads")
    return found


def _name(path: Path, whole: Mapping[str, Any]) -> str:
    """Return the name that the file has inside, that of its folder where it is called config.json, or its own.

    In the cache of Hugging Face that folder is a commit, and the model's is two above.
    """
    inside = whole.get("_name_or_path")
    if isinstance(inside, str) and inside and not inside.startswith((".", "/")):
        return _printable(inside)
    folder = path.absolute().parent
    if folder.parent.name == "snapshots":
        return folder.parent.parent.name.removeprefix("models--").replace("--", "/")
    return folder.name if path.name == "config.json" else path.stem


def _printable(text: str) -> str:
    """Return ``text`` without line ends and whatever else a terminal would obey."""
    return "".join(character for character in text if character.isprintable())


def _refused(config: _Fields, whole: Mapping[str, Any]) -> Iterator[str]:
    """Yield why the attention of a model is not one that can be served, whatever its shapes are."""
    given = whole.get("architectures") or []
    architectures = [str(each) for each in (given if isinstance(given, list) else [given])]
    if architectures and not any(each.endswith(_CAUSAL) for each in architectures):
        yield f"architecture {architectures[0]!r} is not known to be a causal language model"
    yield from (f"{field}: {what} cannot be served" for field, what in _REFUSED.items() if config.get(field))
    if config.type in _REFUSED_TYPES:
        yield f"model type {config.type!r}: {_REFUSED_TYPES[config.type]} cannot be served"
    for field in _OWN_KV_HEADS:
        if config.get(field) and config.get("num_key_value_heads") is None:
            yield f"{field}: how many KV heads this makes is not known: add num_key_value_heads"


def _softcap(config: _Fields) -> int:
    """Return the soft cap of scores, 0 where there is none."""
    if config.type in _OWN_CAP and "attn_logit_softcapping" not in config.values:
        raise config.error(f"it has no attn_logit_softcapping, and model type {config.type!r} has a default of its own")
    cap = config.get("attn_logit_softcapping") or 0
    if isinstance(cap, bool) or not isinstance(cap, int | float) or not (0 <= cap < math.inf) or cap != int(cap):
        raise config.error(f"attn_logit_softcapping: {cap!r} should be a whole number above zero, or null")
    return int(cap)


def _heads(config: _Fields) -> tuple[int, int]:
    """Return how many query heads and KV heads every layer has."""
    heads = config.count("num_attention_heads")
    kv_heads = config.count("num_key_value_heads", heads)
    for field in _HEADS_OF_SOME:
        if _differs(config.get(field), heads):
            raise config.error(f"{field}: layers with other heads or head dims cannot be served")
    return heads, kv_heads


def _differs(value: Any, heads: int) -> bool:
    """Return whether a field says of some layer that it has other heads than ``heads``, or another head dim."""
    if isinstance(value, dict):
        return any("head" in field for each in value.values() if isinstance(each, dict) for field in each)
    return any(each not in (None, heads) for each in (value if isinstance(value, list) else [value]))


def _head_dims(config: _Fields, heads: int) -> tuple[int, int]:
    """Return the head dim of keys, and that of values where it is another one, else 0."""
    if config.get("kv_lora_rank"):
        keys = config.count("qk_nope_head_dim") + config.count("qk_rope_head_dim")
        values = config.count("v_head_dim")
    elif config.get("head_dim") is not None:
        keys = config.count("head_dim")
        values = config.count("v_head_dim", keys)
    elif config.type in _OWN_HEAD_DIM:
        raise config.error(
            f"it has no head_dim, and model type {config.type!r} has a default of its own: write it down"
        )
    else:
        hidden = config.count("hidden_size")
        keys = values = hidden // heads
        if hidden % heads:
            raise config.error(
                f"it has no head_dim, and hidden_size {hidden} is no multiple of {heads} heads: write it down"
            )
    return keys, 0 if keys == values else values


def _dtype(config: _Fields, phase: Phase) -> str:
    """Return the type that the model runs in, after a look at what else changes its attention in this phase."""
    dtype = str(config.get("dtype") or config.get("torch_dtype") or "bfloat16").removeprefix("torch.")
    if dtype not in ("bfloat16", "float16"):
        raise config.error(
            f"dtype {dtype!r} cannot be served: kernels are for bfloat16 and float16, so write down the one to run in"
        )
    if phase == "train" and config.get("attention_dropout"):
        raise config.error("attention_dropout: dropout cannot be served in training")
    quantised = config.get(_QUANTISED)  # of weights it changes no attention
    if phase == "decode" and isinstance(quantised, dict) and any(map(quantised.get, _OF_CACHE)):
        raise config.error(f"{', '.join(_OF_CACHE)}: a quantised cache cannot be served: leave it out for {dtype}")
    return dtype


def _check(config: _Fields, kind: str, setting: Setting, sizes: str) -> None:
    """Raise ``ConfigError`` where no problem of a kind has the setting, by the file or the options that say it."""
    refusal, short = settable()[kind].refusal, replace(setting, shapes=((128, 1),))
    # Every judge has room for one short sequence: what is refused then, without options, lies in the file.
    if refused := refusal(replace(short, packed=False)):
        raise config.error(refused)
    for options, part in (("--packed", short), (sizes, setting)):
        if refused := refusal(part):
            raise ConfigError(f"{options}: {refused}")


def _layers(config: _Fields) -> tuple[dict[str, str], int]:
    """Return the kinds of layers, with how many there are in words, and the window of those that slide (0 for none).

    Layers whose window is longer than any case see all keys.
    """
    layers = _kinds(config)
    if config.sparse and not layers[SELECTED]:
        raise config.error(f"{_SPARSE}: which layers select blocks is not known")
    window = config.count("sliding_window") if layers[SLIDING] else 0
    if window > LONGEST:
        layers[FULL] += layers.pop(SLIDING)
    words = {layer: f"{counted(count, 'layer')} of {layer}" for layer, count in sorted((+layers).items())}
    if SLIDING in words:
        words[SLIDING] += f" with a window of {window} keys"
    return words, window


def _kinds(config: _Fields) -> Counter[str]:
    count = config.count("num_hidden_layers")
    for field in ("layer_types", "attn_type_list"):
        if (listed := config.get(field)) is None:
            continue
        if not isinstance(listed, list) or len(listed) != count:
            raise config.error(f"{field}: it should list the kinds of all layers, num_hidden_layers: {count}")
        if field == "layer_types":
            return Counter(_OTHER_NAMES.get(str(each), _printable(str(each))) for each in listed)
        return Counter(FULL if each == 1 else LINEAR for each in listed)
    if (selecting := config.sparse.get("sparse_attention_freq")) is not None:
        if not isinstance(selecting, list) or len(selecting) != count:
            raise config.error(f"sparse_attention_freq: it should list all layers, num_hidden_layers: {count}")
        return Counter(SELECTED if each else FULL for each in selecting)
    for field in _OWN_LAYERS:
        if config.get(field) is not None:
            raise config.error(f"{field}: which layers attend is not known: add layer_types")
    if config.type in _INTERVAL or config.get("full_attention_interval") is not None:
        full = count // config.count("full_attention_interval")
        return Counter({FULL: full, LINEAR: count - full})
    if config.type in _OWN_WINDOW and "sliding_window" not in config.values:
        raise config.error(
            f"it has no sliding_window, and model type {config.type!r} has a default of its own: write it down, "
            "null for none"
        )
    if not config.get("sliding_window") or config.get("use_sliding_window") is False:
        return Counter({FULL: count})
    every = _EVERY_OTHER.get(config.type)
    if every or config.get("sliding_window_pattern") is not None:
        full = count // config.count("sliding_window_pattern", every)
        return Counter({SLIDING: count - full, FULL: full})
    if config.type in _WINDOWED:
        return Counter({SLIDING: count})
    raise config.error(
        f"sliding_window: which layers of model type {config.type!r} have it is not known: add layer_types"
    )


def _blocks(config: _Fields, kv_heads: int) -> tuple[int, int]:
    """Return how many keys a block has that queries select, and how many blocks they select at most."""
    found = _Fields(config.path, {**config.values, **config.sparse})

    def either(*fields: str) -> int:
        return found.count(next((field for field in fields if field in found.values), fields[0]))

    if (heads := either("sparse_num_index_heads", "index_n_heads")) != kv_heads:
        raise config.error(f"a selection for each of {heads} groups cannot be served: there are {kv_heads} KV heads")
    either("sparse_local_block", "index_local_blocks")  # without one, some queries would not select their own
    selecting, without = found.get("sparse_attention_freq") or [], found.get("sparse_disable_index_value") or []
    if any(selects and not none for selects, none in zip(selecting, without, strict=False)):
        raise config.error("sparse_disable_index_value: layers whose index adds a value cannot be served")
    return either("sparse_block_size", "index_block_size"), either("sparse_topk_blocks", "index_topk_blocks")


def _scale(config: _Fields, head_dim: int) -> str:
    """Return, in words, a scale that is not the usual one, empty for that; kernels take any."""
    scalar, factor = config.get("query_pre_attn_scalar"), config.get("attention_multiplier")
    words = f"{factor}" if isinstance(factor, int | float) and abs(factor * head_dim**0.5 - 1) > 1e-4 else ""
    if isinstance(scalar, int | float) and scalar != head_dim:
        words = f"{scalar} ** -0.5"
    return f"a scale of {words}, which is an argument of each call" if words else ""
