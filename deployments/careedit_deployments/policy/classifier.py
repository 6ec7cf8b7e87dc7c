"""An image classifier as a check: any model that transformers' `AutoModelForImageClassification` loads.

It runs in the ingress replica, on the CPU unless `device` says otherwise, and picture by picture. For a large model or heavy
traffic, put it behind an address of its own (`careedit_deployments.policy.service`).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, Literal, cast

from careedit.errors import InputError
from careedit.hub import split_hub_id, warn_unless_pinned
from careedit_deployments.policy.contract import ALLOW, Check, PolicyInput, Verdict


def image_classifier(
    model: str,
    labels: Mapping[str, float],
    verdict: Literal["refuse", "mark"] = "refuse",
    device: str = "cpu",
) -> Check:
    """A check that refuses or marks a picture if the probability of one of `labels` reaches its limit, above 0 to 1.

    `model` is a folder or a hub id, "owner/name@commit", with safetensors weights. Raises `InputError` for a model that cannot
    be loaded, or a label that it does not have.
    """
    import torch
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    if verdict not in ("refuse", "mark"):
        raise InputError(f"The verdict of a classifier is refuse or mark, not {verdict!r}; correct options.verdict.")
    name, revision = split_hub_id(model)
    warn_unless_pinned("The classifier", name, revision)
    given = {"revision": revision} if revision else {}
    try:
        network = AutoModelForImageClassification.from_pretrained(name, use_safetensors=True, **given)
        processor = cast(Any, AutoImageProcessor).from_pretrained(name, **given)
    except (OSError, ValueError) as error:
        raise InputError(
            f"The classifier {model!r} cannot be loaded ({type(error).__name__}); give a folder or a hub id of an image "
            "classifier with safetensors weights."
        ) from None
    known = {str(label): index for index, label in network.config.id2label.items()}
    for label, limit in labels.items():
        if label not in known or not 0 < limit <= 1:
            raise InputError(
                f"The classifier has the labels {', '.join(known)}; {label!r}: {limit} is not one of them with a limit above "
                "0 to 1."
            )
    if not labels:
        raise InputError(f"No label of the classifier {model!r} is named; give options.labels.")
    is_multi_label = network.config.problem_type == "multi_label_classification"
    network = network.eval().requires_grad_(False).to(device)
    one_at_a_time = threading.Lock()
    answer = Verdict(verdict=verdict, reason="A picture shows what this server's policy does not allow; use another.")

    def check(about: PolicyInput) -> Verdict:
        pictures = [one.picture.convert("RGB") for one in about.pictures if one.role != "mask"]
        for picture in pictures:
            inputs = processor(images=picture, return_tensors="pt").to(device)
            with one_at_a_time, torch.inference_mode():
                logits = network(**inputs).logits.float()[0]
            shares = logits.sigmoid() if is_multi_label else logits.softmax(-1)
            if any(float(shares[known[label]]) >= limit for label, limit in labels.items()):
                return answer
        return ALLOW

    return check
