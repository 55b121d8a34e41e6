"""A finished model that a network learns from: its class scores for the same images (models/train/teacher.c)."""
import json

import torch

import hwgq_torch
import weights


class Teacher:
    """Of a .hwgq model or a file of train.py, for a student of this description, whose images go through `preprocess` and whose
    classes are `labels`."""

    def __init__(self, path, description, preprocess, labels, device):
        own, state, metadata = weights.read(path)
        if "preprocess" not in metadata or "labels" not in metadata:
            raise ValueError(f"{path}: a teacher is a .hwgq model, or a file of train.py with preprocessing and labels")
        other = json.loads(metadata["preprocess"])
        if own["input"] != description["input"]:
            raise ValueError(f"{path}: the teacher takes images of {own['input']}, not {description['input']}")
        if json.loads(metadata["labels"]) != labels:
            raise ValueError(f"{path}: the teacher has other classes than the data, or in another order")
        if other["order"] != preprocess["order"] or other.get("invert", False) != preprocess["invert"]:
            raise ValueError(f"{path}: the teacher takes channels in another order, or inverted pixels: give the same --order "
                             "and --invert as it was trained with")
        self.network = hwgq_torch.Network(own)
        hwgq_torch.load_state(self.network, state, path)
        self.network.to(device).eval().requires_grad_(False)
        channels = [torch.tensor(values, device=device).view(1, -1, 1, 1)
                    for values in (other["mean"], other["scale"], preprocess["mean"], preprocess["scale"])]
        mean, scale, student_mean, student_scale = channels
        self.factor, self.offset = scale / student_scale, (student_mean - mean) * scale

    @torch.no_grad()
    def scores(self, x):
        """What its softmax takes, for a batch as the student gets it."""
        return self.network.logits(x * self.factor + self.offset)
