"""The layout of a kernel repository on the Hugging Face Hub: what the ``kernels`` library downloads, and no more."""

import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

HUB_VARIANT = Path("build/torch-cuda")
"""Where the ``kernels`` library looks for kernels in Python alone that run with CUDA."""
_BESIDE = (".md", "LICENSE", ".svg")
"""How the names of the files beside the package end: the README shows the pictures."""
_COMPATIBLE = '''"""The kernel in the folder above, where older releases of the kernels library look for it."""

import importlib.util
import sys
from pathlib import Path

_NAME = f"{{__name__}}_{digest}"


def _above() -> dict[str, object]:
    if _NAME not in sys.modules:
        spec = importlib.util.spec_from_file_location(_NAME, Path(__file__).parents[1] / "__init__.py")
        assert spec is not None and spec.loader is not None
        sys.modules[_NAME] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return vars(sys.modules[_NAME])


globals().update({{name: value for name, value in _above().items() if not name.startswith("__") or name == "__all__"}})
'''


def hub_layout(name: str, found: Mapping[str, str], variant: Path) -> dict[str, str]:
    """Return the files of the package ``name``, which lies in ``variant``, as a repository of the Hub has them.

    The package itself is the build variant, with the digest of each file in ``metadata.json``
    (https://huggingface.co/docs/kernels/kernel-requirements).
    """
    inside, metadata = f"{variant / name}/", json.loads(found[str(variant / "metadata.json")])
    files = {path.removeprefix(inside): text for path, text in found.items() if path.startswith(inside)}
    files[f"{name}/__init__.py"] = _COMPATIBLE.format(digest=metadata["id"].rpartition("_")[2])
    digests = {
        path: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for path, text in sorted(files.items())
    }
    metadata["digest"] = {"algorithm": "sha256", "files": digests}
    files["metadata.json"] = json.dumps(metadata, indent=2) + "\n"
    return {
        **{path: text for path, text in found.items() if "/" not in path and path.endswith(_BESIDE)},
        **{str(HUB_VARIANT / path): text for path, text in files.items()},
    }
