"""Settings: what wins over what, and what a user reads when one is wrong."""

import ast
import json
import re
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest

from avo.agents.errors import NoModel, NoPrice, NoProgram
from avo.agents.settings import ModelSettings, Settings
from avo.agents.supervisor import Patience
from avo.config import ISOLATION, START, TOOLS, TRANSFERRED, RunConfig, usable_cpus
from avo.errors import ConfigError
from avo.limits import RUN_LIMITS
from avo.lineage_db.records import Run, RunState
from avo.search.budget import Allowance
from tests.avo.fakes import NOW

ROOT = Path(__file__).parents[2]


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    return tmp_path / "run.toml"


def run_with(config: dict[str, Any]) -> Run:
    """Return a run that was stored with this configuration."""
    return Run(1, "x", "mha", "h100", "quick", "mutate", 0, config, RunState.FINISHED, NOW, NOW)


def test_flags_win_over_the_file_and_the_file_over_defaults(toml: Path) -> None:
    toml.write_text('target = "b200"\nseed = 7\nmax_hours = 1\n')
    config = RunConfig.resolve(toml, {"target": "a100", "seed": None, "workers": 3})
    assert (config.target, config.seed, config.workers, config.max_hours) == ("a100", 7, 3, 1.0)
    assert (config.problem, config.suite, config.operator, config.max_attempts) == ("mha", "quick", "mutate", None)


def test_workers_are_as_many_as_usable_cpus_but_at_most_eight() -> None:
    assert RunConfig().workers == min(usable_cpus(), 8)


@pytest.mark.parametrize(("given", "kept"), [("off", "off"), (0.1, 0.1), ("0.1", 0.1), (0, 0.0)])
def test_a_cascade_is_a_fraction_or_off(given: object, kept: object) -> None:
    assert RunConfig.resolve(None, {"target": "cuda", "cascade": given}).cascade == kept


@pytest.mark.parametrize(
    "option", [{"device": "0"}, {"clock": "burst"}, {"trace": "runs.jsonl"}, {"worker_prefix": "ncu"}, {"cascade": 0.1}]
)
def test_an_option_for_measuring_is_refused_where_speed_is_predicted(toml: Path, option: dict[str, Any]) -> None:
    flag = f"--{next(iter(option)).replace('_', '-')}"
    words = f"^{flag} is for --target cuda, where speed is measured: leave it out, for h100 speed is predicted$"
    for resolve in (partial(RunConfig.resolve, None), partial(RunConfig.stored, run_with({"target": "h100"}))):
        with pytest.raises(ConfigError, match=words):
            resolve(option)
    assert RunConfig.resolve(None, {"target": "cuda", **option}).measured
    toml.write_text('clock = "burst"\n')
    assert RunConfig.resolve(toml, {}).clock == "burst", "a file may be for several targets"


def test_a_stored_configuration_comes_back() -> None:
    config = RunConfig(target="b200", workers=3, max_attempts=9, name="x", cascade="off", alpha=0.01)
    stored = {**config.model_dump(), "start": {"origin": "seeds", "source": ""}}
    assert RunConfig.stored(run_with(stored), {"max_attempts": None}) == config
    assert RunConfig.stored(run_with(stored), {"max_attempts": 20}).max_attempts == 20


def test_a_stored_setting_that_is_unknown_is_named() -> None:
    kept = {**RunConfig(name="x").model_dump(), START: {}, ISOLATION: [], TOOLS: [], TRANSFERRED: {}}
    assert RunConfig.stored(run_with(kept), {}).name == "x"
    with pytest.raises(ConfigError, match=r"^run 'x' was stored with the setting 'foo', which this release does not"):
        RunConfig.stored(run_with({**kept, "foo": 1}), {})


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("tarket = 'h100'", ["run.toml: tarket: unknown setting: did you mean target?"]),
        ("qqqqqq = 1", ["run.toml: qqqqqq: unknown setting: choose from", "target"]),
        ("workers = 'two'", ["run.toml: workers", "'two'", "valid integer"]),
        ("workers = true", ["run.toml: workers", "True", "valid integer"]),
        ("workers = 0", ["run.toml: workers", "0", "greater than or equal to 1"]),
        ("max_attempts = -1", ["run.toml: max_attempts", "-1"]),
        ("max_hours = nan", ["run.toml: max_hours", "finite"]),
        ("target = 3", ["run.toml: target", "3", "valid string"]),
        ("alpha = 0", ["run.toml: alpha", "0", "greater than 0"]),
        ("alpha = 1.0", ["run.toml: alpha", "1.0", "less than 1"]),
        ("equivalence_margin = -0.1", ["run.toml: equivalence_margin", "-0.1", "greater than 0"]),
        ("cascade = true", ["run.toml: cascade", "True", "a fraction from 0 to 1, or 'off'"]),
        ("evaluator_command = 7", ["run.toml: evaluator_command", "7", "valid string"]),
        ("target = ", ["run.toml", "not valid TOML"]),
    ],
)
def test_a_wrong_line_of_the_file_is_named(toml: Path, text: str, parts: list[str]) -> None:
    toml.write_text(text)
    with pytest.raises(ConfigError) as error:
        RunConfig.resolve(toml, {})
    message = str(error.value)
    assert "\n" not in message
    assert [part for part in parts if part not in message] == []


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        ({"max_attempts": 0}, ["--max-attempts", "0"]),
        ({"problem": "nope"}, ["nope", "mha"]),
        ({"suite": "nope"}, ["nope", "quick", "paper"]),
        ({"target": "nope"}, ["nope", "h100"]),
        ({"operator": "nope"}, ["nope", "mutate"]),
        ({"target": "nope"}, ["nope", "b200", "cuda"]),
        ({"cascade": "fast"}, ["--cascade", "'fast'", "a fraction from 0 to 1, or 'off'"]),
        ({"cascade": "1"}, ["--cascade", "'1'", "a fraction from 0 to 1, or 'off'"]),
        ({"evaluator_command": " "}, ["--evaluator-command", "should be a command like: ssh gpu-box python"]),
        ({"evaluator_command": "ssh 'gpu"}, ["--evaluator-command", "should be a command like: ssh gpu-box python"]),
    ],
)
def test_a_wrong_flag_is_named(flags: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        RunConfig.resolve(None, flags)
    message = str(error.value)
    assert "\n" not in message
    assert [part for part in parts if part not in message] == []


def test_no_search_is_shown_the_shapes_that_are_held_out() -> None:
    with pytest.raises(ConfigError, match="suite 'held_out' has the shapes that no search is shown"):
        RunConfig.resolve(None, {"suite": "held_out"})


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml: No such file"):
        RunConfig.resolve(tmp_path / "nowhere.toml", {})
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"binary\.toml: not UTF-8"):
        RunConfig.resolve(tmp_path / "binary.toml", {})


def test_models_come_from_the_file_and_are_named_by_flags(toml: Path) -> None:
    toml.write_text('[[models]]\nname = "a"\nweight = 2\ninput_usd_per_mtok = 1.5\n[[models]]\nname = "b"\n')
    assert [model.name for model in RunConfig.resolve(toml, {}).models] == ["a", "b"]
    chosen = RunConfig.resolve(toml, {"model": ["a", "c"]})
    assert [(model.name, model.weight, model.input_usd_per_mtok) for model in chosen.models] == [
        ("a", 2.0, 1.5), ("c", 1.0, None),
    ]  # fmt: skip
    stored = RunConfig.stored(run_with(json.loads(json.dumps(chosen.model_dump()))), {})
    assert stored == chosen
    assert RunConfig.stored(run_with(stored.model_dump()), {"model": ["a"]}).models == chosen.models[:1]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ('[[models]]\nnam = "a"', ["run.toml: models.0.name", "Field required"]),
        ('[[models]]\nname = "a"\nprice = 3', ["models.0.price: unknown setting", "input_usd_per_mtok"]),
        ('[[models]]\nname = "a"\ncontext_tokens = 10', ["models.0.context_tokens", "8000"]),
        ('models = "a"', ["run.toml: models", "valid tuple"]),
        ("max_tokens = 0", ["run.toml: max_tokens", "greater than or equal to 1"]),
        ("step_usd = -1", ["run.toml: step_usd", "greater than 0"]),
    ],
)
def test_a_wrong_setting_of_a_model_is_named(toml: Path, text: str, parts: list[str]) -> None:
    toml.write_text(text)
    with pytest.raises(ConfigError) as error:
        RunConfig.resolve(toml, {})
    assert [part for part in parts if part not in str(error.value)] == []


def test_only_operators_that_ask_models_need_any() -> None:
    RunConfig().check_models({})
    with pytest.raises(NoModel):
        RunConfig(operator="agent").check_models({"OPENAI_API_KEY": "k"})
    models = (ModelSettings(name="m"),)
    RunConfig(operator="agent", models=models, max_tokens=5).check_models({"OPENAI_API_KEY": "k"})
    for limit in ("max_usd", "step_usd"):
        with pytest.raises(NoPrice):
            RunConfig(operator="single_turn", models=models, **{limit: 1.0}).check_models({"OPENAI_API_KEY": "k"})


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({}, NoProgram, "operator 'command' needs --command: avo run --help has an example"),
        ({"command": "  "}, NoProgram, "operator 'command' needs --command: avo run --help has an example"),
        (
            {"command": "x {source}"},
            NoProgram,
            "--command: {source} stands for nothing; known: {task}, {mcp}, {server}",
        ),
        ({"command": "x", "command_env": ["ITS_KEY"]}, NoProgram, "--command-env: ITS_KEY is not set: export it"),
        ({"command": "x", "max_usd": 1.0}, ConfigError, "--max-usd: what a program uses is not known while it works"),
        ({"command": "x", "step_tokens": 1}, ConfigError, "--step-tokens: what a program uses"),
    ],
)
def test_a_program_needs_a_command_its_variables_and_no_limit_that_cannot_be_held(
    settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        RunConfig.resolve(None, {"operator": "command", **settings}).check_models({})


def test_braces_that_other_programs_use_are_left_to_them() -> None:
    command = "curl -w '%{http_code}' ${HOME} HEAD@{upstream} run_{folder} { echo; } {task}"
    RunConfig.resolve(None, {"operator": "command", "command": command}).check_models({})


def test_a_program_is_started_with_its_command_and_variables() -> None:
    config = RunConfig.resolve(None, {"operator": "command", "command": "x", "command_env": ["ITS_KEY"]})
    config.check_models({"ITS_KEY": "k"})
    assert (config.settings.command, config.settings.command_env) == ("x", ("ITS_KEY",))
    assert RunConfig.resolve(None, {"command_env": []}).command_env == ()


@cache
def code() -> list[list[ast.AST]]:
    """Return the nodes of each module that may read settings."""
    return [
        [*ast.walk(ast.parse(file.read_text()))] for room in ("agents", "avo") for file in (ROOT / room).rglob("*.py")
    ]


def read_of(kind: type) -> set[str]:
    """Return the attributes that the code reads of objects of ``kind``.

    An object is ``self`` in its class, a name that its module annotates or assigns as one, an attribute that any class
    annotates as one, and an item of these. Neither ``getattr`` is seen nor whether a value that is read has an effect.
    """
    says = re.compile(rf"\b{kind.__name__}\b").search
    classes = [node for nodes in code() for node in nodes if isinstance(node, ast.ClassDef)]
    fields = [node for each in classes for node in each.body if isinstance(node, ast.AnnAssign)]
    attributes = {ast.unparse(each.target) for each in fields if says(ast.unparse(each.annotation))}
    own = [([*ast.walk(each)], {"self"}) for each in classes if each.name == kind.__name__]
    found = set()
    for nodes, held in (*own, *((nodes, set(attributes)) for nodes in code())):
        for node in nodes:
            match node:
                case ast.arg(annotation=ast.expr() as said) if says(ast.unparse(said)):
                    held.add(node.arg)
                case ast.Assign(targets=[target]) if says(ast.unparse(node.value)):
                    held.add(last_name(target))
                case ast.For() | ast.comprehension() if last_name(node.iter) in held:
                    held.add(last_name(node.target))
        found |= {node.attr for node in nodes if isinstance(node, ast.Attribute) and last_name(node.value) in held}
    return found


def last_name(node: ast.expr) -> str:
    """Return ``config`` for ``config`` and for ``self._config``; what has no name is only itself."""
    return str(getattr(node, "attr", getattr(node, "id", node))).lstrip("_")


@pytest.mark.parametrize("kind", [RunConfig, ModelSettings, Settings, Allowance, Patience])
def test_every_setting_is_read_wherever_it_is_handed_on(kind: type) -> None:
    by_name = {*(limit.setting for limit in RUN_LIMITS), *Allowance.__annotations__} if kind is RunConfig else set()
    assert {*kind.__annotations__} - read_of(kind) - by_name == set()
