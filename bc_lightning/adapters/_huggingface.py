"""A folder of Hugging Face's transformers: text classification."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from bc_core.predicting._adapter import Batch, BatchError, ModelSettings, Predictor
from bc_lightning.adapters._tensors import checked_device


class _TextClassifier:
    def __init__(self, model: str, pipeline: Any) -> None:
        self._model, self._pipeline = model, pipeline
        labels = pipeline.model.config.id2label
        self.classes = tuple(str(labels[number]) for number in range(len(labels)))
        if len(set(self.classes)) < len(self.classes):
            raise ValueError(f"{model}: two classes of one name in config.json: {', '.join(self.classes)}")

    def __call__(self, batch: Batch) -> Any:
        if not isinstance(batch, list):
            raise ValueError(f"{self._model}: it reads texts; name their column by --text")
        try:
            found = self._pipeline(batch, top_k=None, truncation=True, batch_size=len(batch))
        except (RuntimeError, IndexError, ValueError) as error:
            raise BatchError(self._model, error) from error
        rows = [{entry["label"]: entry["score"] for entry in entries} for entries in found]
        return np.asarray([[row[name] for name in self.classes] for row in rows], np.float32)


def open_text_classifier(model: str, settings: ModelSettings) -> Predictor:
    """Open a folder that `save_pretrained` wrote; nothing is downloaded.

    Raises:
        ValueError: It is no text classifier, holds pickles or code that are not trusted, or is damaged.
        ImportError: transformers is not installed.
    """
    folder = Path(model)
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        architectures, own_code = config.get("architectures") or [""], "auto_map" in config
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{model}: config.json is damaged ({error})") from error
    if not str(architectures[0]).endswith("ForSequenceClassification"):
        raise ValueError(
            f"{model}: {architectures[0] or 'a model of no named kind'} is no text classifier; give a module:function "
            "for other tasks"
        )
    if not any(folder.glob("*.safetensors")) and not settings.trust:
        raise ValueError(
            f"{model}: its weights are a pickle, which may run code; save it again by save_pretrained, which writes "
            "safetensors, or say --trust if you know who made it"
        )
    if own_code and not settings.trust:
        raise ValueError(f"{model}: it brings code of its own (auto_map); say --trust if you know who made it")
    try:
        import transformers
    except ImportError as error:
        raise ImportError(
            f"{model}: it is read by transformers: pip install 'backward-compat-ml[huggingface]'"
        ) from error
    if own_code:
        settings.say(f"{model}: runs code of its own folder")
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call, unused-ignore]
    said = {"trust_remote_code": settings.trust, "local_files_only": True}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(model, **said)
        network = transformers.AutoModelForSequenceClassification.from_pretrained(
            model, use_safetensors=None if settings.trust else True, **said
        )
    except Exception as error:
        told = " ".join(str(error).split())[:200]
        raise ValueError(f"{model}: cannot be opened ({type(error).__name__}: {told})") from error
    # Tokenizers that were not told would let texts through that are longer than the network can read.
    longest = getattr(network.config, "max_position_embeddings", None)
    if longest is not None and tokenizer.model_max_length > longest:
        tokenizer.model_max_length = longest
    pipeline = transformers.pipeline(
        "text-classification", model=network, tokenizer=tokenizer, device=checked_device(settings.device)
    )
    return _TextClassifier(model, pipeline)
