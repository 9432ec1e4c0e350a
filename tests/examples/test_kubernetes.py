"""The Dockerfile and the manifests for KubeRay name what there is; fields of manifests are those of their schemas."""

import json
import re
import shlex
import subprocess
import tomllib
from copy import deepcopy
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from avo.cli.main import app

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "kubernetes"
SCHEMAS: dict[str, Any] = json.loads(Path(__file__).with_name("kubernetes_schemas.json").read_text())
MANIFESTS: list[dict[str, Any]] = [
    manifest for file in sorted(FOLDER.glob("*.yaml")) for manifest in yaml.safe_load_all(file.read_text())
]
(JOB,) = (each for each in MANIFESTS if each["kind"] == "RayJob")
CLUSTER = JOB["spec"]["rayClusterSpec"]
PODS = [CLUSTER["headGroupSpec"]["template"], *(group["template"] for group in CLUSTER["workerGroupSpecs"])]


def faults(manifest: dict[str, Any]) -> list[str]:
    return [error.message for error in Draft202012Validator(SCHEMAS[manifest["kind"]]).iter_errors(manifest)]


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda each: each["kind"])
def test_a_manifest_has_the_fields_of_its_schema(manifest: dict[str, Any]) -> None:
    assert faults(manifest) == []
    wrong = deepcopy(manifest)
    wrong["spec"]["replica"] = 1
    assert len(faults(wrong)) == 1


def test_a_field_of_a_container_that_there_is_not_is_found() -> None:
    wrong = deepcopy(JOB)
    wrong["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]["imagee"] = "avo:cpu"
    assert len(faults(wrong)) == 1


def test_the_driver_calls_avo_with_options_that_there_are() -> None:
    shell, flag, script = shlex.split(JOB["spec"]["entrypoint"])
    assert (shell, flag) == ("sh", "-c")
    commands = [shlex.split(each.strip().removeprefix("exec ")) for each in re.split(r"&&|\|\|", script)]
    assert [each[:2] for each in commands] == [["avo", "status"], ["avo", "resume"], ["avo", "run"]]
    for command in commands:
        said = CliRunner().invoke(app, [command[1], "--help"]).output
        assert all(word in said for word in command if word.startswith("--"))


@pytest.mark.parametrize(("known", "called"), [(0, ["status", "resume"]), (2, ["status", "run"])])
def test_the_driver_begins_a_run_only_where_there_is_none(tmp_path: Path, known: int, called: list[str]) -> None:
    fake = tmp_path / "avo"
    fake.write_text(f"#!/bin/sh\necho $1 >> {tmp_path}/called\n[ $1 = status ] && exit {known}\nexit 1\n")
    fake.chmod(0o755)
    done = subprocess.run(
        shlex.split(JOB["spec"]["entrypoint"]), env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, check=False
    )
    assert (done.returncode, (tmp_path / "called").read_text().split()) == (1, called)


def test_the_driver_reaches_the_database_by_the_name_and_the_secret_that_it_has() -> None:
    (service,) = (each for each in MANIFESTS if each["kind"] == "Service")
    (database,) = (each for each in MANIFESTS if each["kind"] == "StatefulSet")
    variables = {each["name"]: each for each in PODS[0]["spec"]["containers"][0]["env"]}
    assert variables["AVO_DB"]["value"] == f"postgresql://avo:$(AVO_DB_PASSWORD)@{service['metadata']['name']}/avo"
    given = {each["name"]: each for each in database["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert variables["AVO_DB_PASSWORD"]["valueFrom"] == given["POSTGRES_PASSWORD"]["valueFrom"]
    assert service["spec"]["selector"] == database["spec"]["template"]["metadata"]["labels"]


def test_pods_run_as_the_user_of_the_image_on_the_tested_ray() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert CLUSTER["rayVersion"] == version("ray")
    assert "useradd --create-home --uid 1000" in dockerfile
    stages = re.split(r"^FROM ", dockerfile, flags=re.M)[2:]
    assert [stage.split()[2] for stage in stages] == ["cuda", "cpu"], "the last is built by default"
    assert all("\nUSER 1000\n" in stage for stage in stages)
    for pod in PODS:
        assert pod["spec"]["securityContext"] == {"runAsNonRoot": True, "runAsUser": 1000}
        (container,) = pod["spec"]["containers"]
        assert container["image"] == "avo:cpu"
        assert container["securityContext"]["allowPrivilegeEscalation"] is False


def test_the_image_has_all_packages_and_extras_that_there_are() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    copied = set(re.findall(r"^COPY (\w+) \1$", dockerfile, re.M))
    assert copied == {"avo"} | {link.name for link in (ROOT / "avo").iterdir() if link.is_symlink()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (extras,) = set(re.findall(r"\.\[([\w,]+)\]", dockerfile))
    assert set(extras.split(",")) <= set(project["optional-dependencies"])
