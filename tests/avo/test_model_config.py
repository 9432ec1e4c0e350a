"""The problem of a model's attention, from its configuration.

``configs/`` has what the published configurations of six models say of their attention; all other fields are left out.
"""

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from avo.errors import ConfigError
from avo.evaluator.catalogue import get_problem
from avo.model_config import Phase, read_model

CONFIGS = Path(__file__).parent / "configs"


@pytest.mark.parametrize(
    ("model", "phase", "problem", "read", "not_served"),
    [
        ("Llama-3.1-8B", "prefill", "gqa-h32x8-8192x1", "head dim 128, bfloat16", ()),
        ("Llama-3.1-8B", "train", "gqa_backward-h32x8-8192x1", "32 query heads on 8 KV heads", ()),
        ("Qwen3-8B", "decode", "decode-h32x8-32768x1", "36 layers of full_attention", ()),
        ("MiniMax-M2", "prefill", "gqa-h48x8-8192x1", "62 layers of full_attention", ()),
        (
            "gemma-3-27b-it",
            "prefill",
            "gqa-h32x16-w1024-global-8192x1",
            "52 layers of sliding_attention with a window of 1024 keys",
            (),
        ),
        (
            "gemma-3-27b-it",
            "train",
            "gqa_backward-h32x16-w1024-global-8192x1",
            "a scale of 168 ** -0.5, which is an argument of each call",
            (),
        ),
        ("gemma-2-27b-it", "prefill", "gqa-h32x16-w4096-global-c50-8192x1", "scores below a soft cap of 50", ()),
        ("gpt-oss-20b", "prefill", "gqa-h64x8-d64-w128-global-sinks-8192x1", "a sink for each query head", ()),
        ("gpt-oss-20b", "train", "gqa_backward-h64x8-d64-w128-global-sinks-8192x1", "a sink for each query head", ()),
        ("gpt-oss-20b", "decode", "decode-h64x8-d64-w128-global-sinks-32768x1", "a sink for each query head", ()),
    ],
)
def test_a_models_problem_has_its_heads_dims_and_type(
    model: str, phase: Phase, problem: str, read: str, not_served: tuple[str, ...]
) -> None:
    found = read_model(CONFIGS / f"{model}.json", phase)
    assert (found.model, found.problem, found.not_served) == (model, problem, not_served)
    assert read in found.read
    assert get_problem(problem).suites["quick"]


def test_each_length_is_a_case_with_the_batch() -> None:
    found = read_model(CONFIGS / "Qwen3-8B.json", "prefill", (4096, 16384), 2)
    assert [(case.kv_len, case.batch) for case in get_problem(found.problem).suites["quick"]] == [(4096, 2), (16384, 2)]


def test_a_model_is_trained_on_packed_sequences_and_does_not_decode_them() -> None:
    found = read_model(CONFIGS / "gpt-oss-20b.json", "train", (4096,), 2, packed=True)
    assert found.problem == "gqa_backward-h64x8-d64-w128-global-sinks-packed-4096x2"
    assert "packed sequences" in found.read
    with pytest.raises(ConfigError, match="--packed: sequences are not packed in decode: each has its own length"):
        read_model(CONFIGS / "Qwen3-8B.json", "decode", packed=True)


def test_a_window_on_every_layer_leaves_no_global_layers(tmp_path: Path) -> None:
    path = written(tmp_path, sliding_window=4096, model_type="mistral")
    assert read_model(path, "prefill").problem == "gqa-h32x8-w4096-8192x1"
    assert read_model(path, "decode").problem == "decode-h32x8-w4096-32768x1"


LLAMA = json.loads((CONFIGS / "Llama-3.1-8B.json").read_text())


def written(folder: Path, **changes: Any) -> Path:
    """A configuration like that of Llama with some fields changed; None leaves one out."""
    path = folder / "config.json"
    path.write_text(json.dumps({key: value for key, value in {**LLAMA, **changes}.items() if value is not None}))
    return path


def test_the_name_is_that_in_the_file_or_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / "My-Model").mkdir()
    assert read_model(written(tmp_path / "My-Model"), "prefill").model == "My-Model"
    assert read_model(tmp_path / "My-Model", "prefill").model == "My-Model"
    found = read_model(written(tmp_path, _name_or_path="org/model"), "prefill")
    assert (found.model, found.label) == ("org/model", "org-model-prefill")
    commit = tmp_path / "models--Qwen--Qwen3-8B" / "snapshots" / "b968826d9c46"
    commit.mkdir(parents=True)
    assert read_model(written(commit), "prefill").model == "Qwen/Qwen3-8B"


def test_a_foreign_files_words_are_one_line_and_a_valid_name(tmp_path: Path) -> None:
    odd = "x\x1b[31m\n" + "y" * 100
    found = read_model(written(tmp_path, _name_or_path=odd, model_type=odd), "prefill")
    assert (found.model + found.read[0]).isprintable()
    assert len(found.label) < 70


def test_latent_keys_are_keys_of_their_own_size(tmp_path: Path) -> None:
    latent = {
        "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
        "num_attention_heads": 16, "num_key_value_heads": 16,
    }  # fmt: skip
    path = written(tmp_path, model_type="deepseek_v3", **latent)
    assert read_model(path, "prefill").problem == "mha-h16x16-d192x128-8192x1"
    assert read_model(path, "train").problem == "mha_backward-h16x16-d192x128-8192x1"
    found = read_model(path, "decode")
    assert found.problem == "decode-h16x16-d192x128-32768x1"
    assert "latent keys and values (kv_lora_rank) as expanded ones" in found.read


def test_quantised_weights_change_no_attention_but_a_quantised_cache_is_not_decoded_from(tmp_path: Path) -> None:
    usual = read_model(written(tmp_path), "decode").problem
    weights = {"quant_method": "compressed-tensors", "kv_cache_scheme": None}
    assert read_model(written(tmp_path, quantization_config=weights), "decode").problem == usual
    path = written(tmp_path, quantization_config={**weights, "kv_cache_scheme": {"num_bits": 8, "type": "float"}})
    assert read_model(path, "prefill").problem == "gqa-h32x8-8192x1"
    with pytest.raises(ConfigError, match="kv_cache_quant_algo: a quantised cache cannot be served: leave it out"):
        read_model(path, "decode")
    text = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({"text_config": text, "model_type": "any"}), encoding="utf-8")
    with pytest.raises(ConfigError, match="a quantised cache"):
        read_model(path, "decode")


def test_values_may_have_a_head_dim_of_their_own(tmp_path: Path) -> None:
    path = written(tmp_path, head_dim=192, v_head_dim=128, num_key_value_heads=32)
    assert read_model(path, "prefill").problem == "mha-h32x32-d192x128-8192x1"


def test_layers_that_say_the_same_do_not_differ(tmp_path: Path) -> None:
    usual = read_model(written(tmp_path), "prefill").problem
    same = {"num_attention_heads_per_layer": [32] * 32, "num_sliding_attention_heads": 32, "per_layer_config": {}}
    assert read_model(written(tmp_path, **same), "prefill").problem == usual


def test_a_default_length_that_does_not_fit_is_called_that(tmp_path: Path) -> None:
    path = written(tmp_path, num_attention_heads=128, num_key_value_heads=128, head_dim=256)
    with pytest.raises(ConfigError, match=r"^--lengths, by default 32768: "):
        read_model(path, "decode")
    with pytest.raises(ConfigError, match=r"^--lengths, --batch: "):
        read_model(path, "decode", (65536,))
    with pytest.raises(ConfigError, match=r"^--lengths, --batch: "):
        read_model(path, "decode", batch=0)


def test_a_scale_that_is_not_the_usual_one_is_told(tmp_path: Path) -> None:
    found = read_model(written(tmp_path, attention_multiplier=0.015625), "prefill")
    assert "a scale of 0.015625, which is an argument of each call" in found.read
    usual = read_model(written(tmp_path, attention_multiplier=128**-0.5), "prefill")
    assert not [each for each in usual.read if "scale" in each]


SPARSE = {
    "sparse_block_size": 128, "sparse_topk_blocks": 16, "sparse_local_block": 1, "sparse_num_index_heads": 4,
    "sparse_attention_freq": [0, 1, 1, 1], "sparse_disable_index_value": [0, 1, 1, 1],
}  # fmt: skip
M3 = {
    "architectures": ["MiniMaxM3SparseForConditionalGeneration"], "model_type": "minimax_m3",
    "num_attention_heads": 64, "num_key_value_heads": 4, "head_dim": 128, "num_hidden_layers": 4,
}  # fmt: skip


def test_layers_that_select_blocks_are_selected_attention_with_a_models_blocks(tmp_path: Path) -> None:
    path = written(tmp_path, **M3, sparse_attention_config=SPARSE)
    found = read_model(path, "prefill", (8192, 16384))
    assert found.problem == "fsa-h64x4-b128x16-local-8192x1-16384x1"
    assert found.not_served == ("1 layer of full_attention",)
    assert "16 selected blocks of 128 keys, the query's own always among them" in found.read
    assert read_model(path, "train").problem == "fsa_backward-h64x4-b128x16-local-8192x1"
    with pytest.raises(ConfigError, match="decoding with selected blocks cannot be served: take another --phase"):
        read_model(path, "decode")


def test_blocks_are_read_beside_the_configuration_of_the_language_model_too(tmp_path: Path) -> None:
    text = {**LLAMA, **M3}
    path = written(tmp_path, text_config=text, sparse_attention_config=SPARSE)
    assert read_model(path, "prefill").problem == "fsa-h64x4-b128x16-local-8192x1"
    path = written(tmp_path, **M3, sparse_attention_config={**SPARSE, "use_sparse_attention": False})
    assert read_model(path, "prefill").problem == "gqa-h64x4-8192x1"


def test_the_blocks_are_read_from_what_transformers_writes_too(tmp_path: Path) -> None:
    layers = ["full_attention", *["minimax_m3_sparse"] * 3]
    fields = {"index_block_size": 64, "index_topk_blocks": 8, "index_local_blocks": 2, "index_n_heads": 4}
    path = written(tmp_path, **M3, layer_types=layers, **fields)
    assert read_model(path, "prefill").problem == "fsa-h64x4-b64x8-local-8192x1"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sparse_num_index_heads": 1}, "a selection for each of 1 groups cannot be served: there are 4 KV heads"),
        ({"sparse_local_block": 0}, "sparse_local_block: 0 should be a whole number above zero"),
        ({"sparse_topk_blocks": None}, "it has no sparse_topk_blocks: write it down"),
        ({"sparse_disable_index_value": [0, 1, 0, 1]}, "layers whose index adds a value cannot be served"),
        ({"sparse_topk_blocks": 2048}, "a query may select 3 to 64 blocks, not 2048"),
        ({"sparse_attention_freq": [1]}, "sparse_attention_freq: it should list all layers, num_hidden_layers: 4"),
        ({"sparse_attention_freq": None}, "sparse_attention_config: which layers select blocks is not known"),
        ({"sparse_attention_freq": [0] * 4}, "sparse_attention_config: which layers select blocks is not known"),
    ],
)
def test_a_selection_that_cannot_be_served_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = written(tmp_path, **M3, sparse_attention_config={**SPARSE, **changes})
    with pytest.raises(ConfigError) as raised:
        read_model(path, "prefill")
    assert message in str(raised.value)


@pytest.mark.long
def test_the_configurations_of_all_models_of_transformers_are_read_or_refused_and_sinks_are_never_missed(
    tmp_path: Path,
) -> None:
    models = importlib.import_module("transformers.models.auto.modeling_auto").MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    classes = importlib.import_module("transformers.models.auto.configuration_auto").CONFIG_MAPPING
    without_defaults = {"gemma4_assistant"}
    read = 0
    for kind in sorted({*models} - without_defaults):
        config = classes[kind]()
        fields = {**config.to_dict(), "model_type": kind, "dtype": "bfloat16", "architectures": [models[kind]]}
        path = tmp_path / "config.json"
        path.write_text(json.dumps(fields, default=str))
        try:
            found = read_model(path, "prefill")
        except ConfigError:
            continue
        read += 1
        assert get_problem(found.problem).suites["quick"]
        folder = Path(str(importlib.import_module(type(config).__module__).__file__)).parent
        if any("s_aux=" in source.read_text() for source in folder.glob("modeling_*.py")):
            assert "a sink for each query head" in found.read, kind
    assert read > 50


def test_float16_is_read_under_either_name(tmp_path: Path) -> None:
    for field in ({"torch_dtype": "float16"}, {"torch_dtype": None, "dtype": "torch.float16"}):
        assert read_model(written(tmp_path, **field), "prefill").problem == "gqa-h32x8-fp16-8192x1"
    assert any("no dtype in the file" in each for each in read_model(written(tmp_path, torch_dtype=None), "train").read)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_attention_heads": None}, "it has no num_attention_heads: write it down"),
        ({"num_attention_heads": "32"}, "num_attention_heads: '32' should be a whole number"),
        ({"num_key_value_heads": 5}, "32 query heads cannot share 5 KV heads"),
        ({"hidden_size": 2560}, "head dim 80 is not served"),
        ({"hidden_size": 4100}, "hidden_size 4100 is no multiple of 32 heads"),
        ({"model_type": "qwen3"}, "it has no head_dim, and model type 'qwen3' has a default of its own"),
        ({"torch_dtype": "float32"}, "bfloat16 and float16, so write down the one to run in"),
        (
            {"model_type": "gemma2", "head_dim": 128, "sliding_window": 64},
            "it has no attn_logit_softcapping, and model",
        ),
        ({"attn_logit_softcapping": float("nan")}, "attn_logit_softcapping: nan should be a whole number"),
        ({"attn_logit_softcapping": 50.5}, "attn_logit_softcapping: 50.5 should be a whole number"),
        ({"alibi": True}, "alibi: biases by distance"),
        ({"model_type": "bloom"}, "model type 'bloom': biases by distance (ALiBi) cannot be served"),
        ({"model_type": "mpt"}, "model type 'mpt': biases by distance (ALiBi) cannot be served"),
        ({"attention_other_setting": {"num_attention_heads": 96}}, "attention_other_setting: layers with other heads"),
        ({"layer_group_size": 4}, "layer_group_size: which layers attend is not known: add layer_types"),
        ({"attention_types": [[["global", "local"], 12]]}, "attention_types: which layers attend is not known"),
        ({"index_topk": 2048}, "index_topk: keys that an index selects cannot be served"),
        ({"sparse_attention_config": {"topk": 16}}, "sparse_attention_config: which layers select blocks is not known"),
        ({"sparse_attention_config": 16}, "sparse_attention_config: 16 should be an object"),
        ({"block_configs": [{}]}, "block_configs: blocks that differ from each other cannot be served"),
        ({"linear_attn_config": {}}, "linear_attn_config: which layers attend is not known: add layer_types"),
        ({"model_type": "diffllama"}, "model type 'diffllama': differential attention cannot be served"),
        ({"num_attention_heads_per_layer": [32, 48]}, "num_attention_heads_per_layer: layers with other heads"),
        ({"num_sliding_attention_heads": 64}, "num_sliding_attention_heads: layers with other heads"),
        ({"per_layer_config": {"5": {"head_dim": 512}}}, "per_layer_config: layers with other heads or head dims"),
        ({"is_encoder_decoder": True}, "is_encoder_decoder: an encoder cannot be served"),
        ({"architectures": ["BertForMaskedLM"]}, "'BertForMaskedLM' is not known to be a causal language model"),
        ({"sliding_window": 4096}, "which layers of model type 'llama' have it is not known: add layer_types"),
        ({"sliding_window": 64, "sliding_window_pattern": -1}, "sliding_window_pattern: -1 should be a whole number"),
        ({"model_type": "mistral"}, "it has no sliding_window, and model type 'mistral' has a default of its own"),
        ({"model_type": "qwen3_next", "head_dim": 64}, "it has no full_attention_interval: write it down"),
        ({"attn_layer_period": 8}, "attn_layer_period: which layers attend is not known: add layer_types"),
        ({"layer_types": []}, "layer_types: it should list the kinds of all layers, num_hidden_layers: 32"),
        ({"multi_query": True, "num_key_value_heads": None}, "multi_query: how many KV heads this makes is not known"),
        ({"num_kv_heads": 8, "num_key_value_heads": None}, "num_kv_heads: how many KV heads this makes is not known"),
        ({"num_attention_groups": 8, "num_key_value_heads": None}, "num_attention_groups: how many KV heads this"),
        ({"architectures": 5}, "architecture '5' is not known"),
        ({"architectures": "Bert"}, "architecture 'Bert' is not known"),
        ({"layer_types": ["linear_attention"] * 32}, "32 layers of linear_attention cannot be served"),
        ({"num_hidden_layers": 0}, "num_hidden_layers: 0 should be"),
    ],
)
def test_what_cannot_be_served_is_refused_by_its_name(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = written(tmp_path, **changes)
    with pytest.raises(ConfigError) as raised:
        read_model(path, "prefill")
    assert str(raised.value).startswith(f"--for {path}: ")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_layers_that_cannot_be_served_are_named_beside_those_that_can(tmp_path: Path) -> None:
    layers = ["linear_attention", "linear_attention", "linear_attention", "full_attention"]
    for fields in ({"layer_types": layers}, {"full_attention_interval": 4}):
        found = read_model(written(tmp_path, num_hidden_layers=4, num_key_value_heads=1, **fields), "prefill")
        assert found.not_served == ("3 layers of linear_attention",)
        assert {"1 layer of full_attention", "32 query heads on 1 KV head"} <= {*found.read}


@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_layers_whose_window_is_longer_than_any_case_see_all_keys(tmp_path: Path, phase: Phase) -> None:
    usual = read_model(written(tmp_path), phase).problem
    found = read_model(written(tmp_path, sliding_window=2**18, model_type="phi3"), phase)
    assert found.problem == usual
    assert {"32 layers of full_attention", "a window of 262144 keys, longer than any case"} <= {*found.read}


def test_a_window_that_is_switched_off_is_none(tmp_path: Path) -> None:
    found = read_model(written(tmp_path, sliding_window=4096, use_sliding_window=False), "prefill")
    assert found.not_served == ()


def test_dropout_is_refused_in_training_alone(tmp_path: Path) -> None:
    path = written(tmp_path, attention_dropout=0.1)
    assert read_model(path, "prefill").problem == "gqa-h32x8-8192x1"
    with pytest.raises(ConfigError, match="attention_dropout: dropout cannot be served in training"):
        read_model(path, "train")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "it is not JSON"),
        pytest.param("[" * 10**5, "it is not JSON", id="nested"),
        ("[]", "no configuration of a model"),
        ("{}", "no configuration"),
    ],
)
def test_a_file_that_is_no_configuration_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "config.json"
    with pytest.raises(ConfigError, match=r"No such file or directory: name a model's config\.json or its folder"):
        read_model(path, "prefill")
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_model(path, "prefill")
