"""`transformers:ID_OR_FOLDER`: image classifiers of the library transformers, with labels and preprocessing."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from seewhy._shared.extras import missing_extra
from seewhy._shared.text import brief
from seewhy.contract.metadata import Preprocessing
from seewhy.errors import ExportArgumentError, ExportError
from seewhy_export._shared.messages import one_line
from seewhy_export.sources.downloads import build_with_weights
from seewhy_export.sources.measured_preprocessing import source_preprocessing
from seewhy_export.sources.source import Source, SourceRequest
from seewhy_export.sources.torchvision_import import import_torchvision

_SCORES = {"single_label_classification": "softmax", "multi_label_classification": "sigmoid", "regression": "none"}
# Nothing is unpickled, and no code of a model folder or repository is run.
_SAFE: dict[str, Any] = {"trust_remote_code": False}
_SAFE_WEIGHTS: dict[str, Any] = {"use_safetensors": True, **_SAFE}
_REPOSITORY = re.compile(r"[\w.-]*\w(/[\w.-]*\w)?")
"""Form of the names of repositories on the Hugging Face hub."""
_LARGEST = 8192
"""Largest length to which an image processor may resize images, in pixels."""


def load_transformers(spec: str, request: SourceRequest) -> Source:
    """Load the image classifier that `spec` names with `AutoModelForImageClassification`.

    Weights are read from safetensors files only. Preprocessing is that of the model's image processor.

    Args:
        spec: `transformers:ID_OR_FOLDER`: a repository of the Hugging Face hub, or a folder that `save_pretrained`
            wrote.
        request: What the user requests.

    Returns:
        The classifier with its labels, its preprocessing and the score that its problem type implies.

    Raises:
        ExportError: If the model cannot be loaded, its weights lack a classifier, or a model file cannot record its
            preprocessing.
        MissingExtraError: If transformers is not installed.
    """
    name = spec.partition(":")[2]
    if not (Path(name).is_dir() or _REPOSITORY.fullmatch(name)):
        raise ExportArgumentError(f"{spec}: there is no folder {name}")
    if "/" not in name and not Path(name).is_dir():
        raise ExportArgumentError(
            f"{spec}: there is no folder {name} here, and a repository of the Hugging Face hub is named ORG/NAME"
        )
    transformers = _import_transformers()
    with _silent(transformers):
        return _load(spec, name, request, transformers)


def _load(spec: str, name: str, request: SourceRequest, transformers: Any) -> Source:
    config = _loaded(spec, lambda: transformers.AutoConfig.from_pretrained(name, **_SAFE))
    own_weights = request.weights == "DEFAULT"
    for flag, wanted, key in (
        ("--classes", request.class_count, "num_labels"),
        ("--channels", request.channels, "num_channels"),
    ):
        own = getattr(config, key, None)
        if wanted is None or wanted == own:
            continue
        if own_weights:
            raise ExportArgumentError(
                f"{spec}: its own weights are for {key} {own}; {flag} {wanted} requires --weights FILE or "
                f"--weights none"
            )
        setattr(config, key, wanted)
    build = _pretrained if own_weights else _untrained
    module = build_with_weights(spec, lambda: build(transformers.AutoModelForImageClassification, name, config))
    channels = getattr(config, "num_channels", None)
    process, notes = _image_processor(spec, transformers.AutoImageProcessor, name)
    preprocessing: Preprocessing | None = None
    size: tuple[int, int] | None = None
    if process is not None:
        preprocessing, size = source_preprocessing(
            spec, process, resize_given=request.resize_given, channels=channels or 3
        )
        if preprocessing is None:
            notes = (f"{spec}: its image processor is not for {channels} channels; set --mean and --std",)
    return Source(
        module=module,
        name=Path(name).name if Path(name).is_dir() else name,
        labels=_labels(config),
        preprocessing=preprocessing,
        image_size=size or _config_size(config),
        score=_score(config),
        channels=channels,
        notes=notes,
    )


def _pretrained(auto_model: Any, name: str, config: Any) -> Any:
    """Build the classifier with its own weights, all of which the files must hold."""
    module, found = auto_model.from_pretrained(name, config=config, output_loading_info=True, **_SAFE_WEIGHTS)
    absent = [*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])]
    if absent:
        raise ExportError(
            f"transformers:{name}: its files hold no weights for {brief(sorted(absent)[0])}"
            f"{f' and {len(absent) - 1} more' if len(absent) > 1 else ''}, so the network is not a trained classifier; "
            f"fine-tune it"
        )
    return module


def _untrained(auto_model: Any, name: str, config: Any) -> Any:
    """Build the classifier with random weights."""
    # Some model types have several classifiers, among which transformers chooses by this list.
    config.architectures = config.architectures or []
    return auto_model.from_config(config, **_SAFE)


def _image_processor(spec: str, auto_processor: Any, name: str) -> tuple[Any, tuple[str, ...]]:
    """Return the image processor of a model, or None and a note if it has none."""
    try:
        processor = auto_processor.from_pretrained(name, backend="pil", **_SAFE)
    except Exception as error:
        if not isinstance(error, (OSError, ValueError)) or (Path(name) / "preprocessor_config.json").exists():
            raise ExportError(f"{spec}: its image processor cannot be loaded: {one_line(error)}") from error
        return None, (f"{spec}: has no image processor ({one_line(error)}); set --mean and --std",)
    for key in ("size", "crop_size"):
        lengths = getattr(processor, key, None) or {}
        for length in [lengths] if isinstance(lengths, int) else dict(lengths).values():
            if isinstance(length, int) and length > _LARGEST:
                raise ExportError(f"{spec}: its image processor resizes images to {length:,} pixels; check its {key}")
    return processor, ()


def _config_size(config: Any) -> tuple[int, int]:
    """Return the (H, W) of the input that a configuration states, in pixels, or 224x224."""
    size = getattr(config, "image_size", None) or Source.image_size
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    return int(height), int(width)


def _labels(config: Any) -> tuple[str, ...] | None:
    """Return the labels of a configuration, or None if it has only those that transformers makes up."""
    labels = tuple(str(config.id2label.get(index, "")) for index in range(config.num_labels))
    return None if all(label in ("", f"LABEL_{index}") for index, label in enumerate(labels)) else labels


def _score(config: Any) -> str:
    """Return the score that a configuration's problem type implies; without one, a single value is a regression."""
    return _SCORES.get(str(config.problem_type), "none" if config.num_labels == 1 else "softmax")


def _loaded(spec: str, load: Callable[[], Any]) -> Any:
    """Return what a function of transformers loads, with its errors in one line."""
    try:
        return load()
    except Exception as error:  # OSError, ValueError, and errors of downloads
        if "trust_remote_code" in str(error):
            raise ExportError(
                f"{spec}: needs Python code of its own, which is not run; load the model in a function of yours and "
                f"export package.module:function"
            ) from error
        raise ExportError(f"{spec}: cannot be loaded: {one_line(error)}") from error


def _import_transformers() -> Any:
    """Return transformers, imported after torchvision, which it imports."""
    import_torchvision()
    try:
        import transformers
    except ImportError as error:
        raise missing_extra("transformers is not installed", "transformers") from error
    return transformers


@contextlib.contextmanager
def _silent(transformers: Any) -> Iterator[None]:
    """Silence the logs and progress bars of transformers, which print names from files as they are."""
    log = transformers.utils.logging
    level, has_bars = log.get_verbosity(), log.is_progress_bar_enabled()
    hub = logging.getLogger("huggingface_hub")
    hub_level = hub.level
    log.set_verbosity(logging.CRITICAL + 1)
    hub.setLevel(logging.CRITICAL + 1)
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        hub.setLevel(hub_level)
        if has_bars:
            log.enable_progress_bar()
