"""The weights that a network begins with, and those of a teacher: from a .hwgq model, a file of hwgq_torch.export, a
checkpoint of `hwgq train` or one of train.py."""
import json

import numpy
import torch

import hwgq_torch
from checkpoint import CHECKPOINT, part, read_tensors


def weight_of_model(module, arrays, name):
    """Of a .hwgq file. Binary weights come back as +-alpha: their signs and, averaged, the same alpha."""
    if not module.binary:
        return arrays[name + ".weight"].reshape(module.weight.shape)
    out = module.weight.shape[0]
    bits = numpy.unpackbits(arrays[name + ".weight_bits"], axis=1, count=module.weight[0].numel(), bitorder="little")
    alpha = arrays[name + ".alpha"] if module.has_alpha else numpy.ones(out, numpy.float32)
    return (numpy.where(bits == 1, 1, -1) * alpha[:, None]).reshape(module.weight.shape)


def weight_of_checkpoint(module, arrays, name):
    """`hwgq train` keeps weights as [place in the window][input channel][output channel]."""
    shape = module.weight.shape
    channels = module.in_channels if isinstance(module, hwgq_torch.Linear) else shape[1]
    return arrays[name + ".weight"].reshape(-1, channels, shape[0]).transpose(2, 1, 0).reshape(shape)


def state_of(network, arrays, weight_of):
    """The state_dict of a network, without biases that are not there."""
    state = {}
    for name, module in network.named_modules():
        if isinstance(module, hwgq_torch.Weighted):
            state[name + ".weight"], names = weight_of(module, arrays, name), {"bias": "bias"}
        elif isinstance(module, hwgq_torch.BatchNorm):
            names = {"running_mean": "mean", "running_var": "variance"}
        else:
            names = {"weight": "gamma", "bias": "beta"} if isinstance(module, hwgq_torch.Scale) else {}
        there = {own: arrays.get(f"{name}.{other}") for own, other in names.items()}
        state.update({f"{name}.{own}": array for own, array in there.items() if array is not None})
    return {name: torch.from_numpy(numpy.array(array, numpy.float32)) for name, array in state.items()}


def averaged(state, arrays):
    """Of a checkpoint with an average: its tensors."""
    measured = json.loads(state).get("average_measured")
    return {name: arrays.get(name + ".average", array) if measured else array for name, array in arrays.items()}


def read(path):
    """The description, the state_dict, and what else a model file says: its metadata."""
    metadata, arrays = read_tensors(path)
    if "network" not in metadata:
        raise ValueError(f"{path}: its metadata has no network description")
    description, kind = json.loads(metadata["network"]), metadata.get("format", "")
    try:
        if kind == "hwgq":
            state = state_of(hwgq_torch.Network(description), arrays, weight_of_model)
        elif kind.startswith("hwgq training checkpoint"):
            arrays = averaged(metadata["state"], arrays)
            state = state_of(hwgq_torch.Network(description), arrays, weight_of_checkpoint)
        else:
            if kind == CHECKPOINT:
                measured = json.loads(metadata["state"])["average_measured"]
                arrays = part(arrays, "average." if measured else "network.")
            state = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
    except KeyError as error:
        raise ValueError(f"{path}: there is no {error}")
    return description, state, metadata


def begin(network, path):
    """Takes the weights of layers of the same name. Every layer must be there in the same shape, but for scales, and for the
    classifier, which then stay as they are. Returns how many were found, and how many latent weights lay beyond [-1, 1] and
    were cut to it."""
    description, state, _ = read(path)
    there = {layer["name"]: layer["op"] for layer in description["layers"]}
    own, taken = network.state_dict(), 0
    layers = [layer for layer in network.description["layers"] if layer["op"] in ("conv2d", "linear", "batch_norm", "scale")]
    classifier = [layer["name"] for layer in layers if layer["op"] in ("conv2d", "linear")][-1]
    for layer in layers:
        name, op = layer["name"], layer["op"]
        keys = [key for key in own if key.rpartition(".")[0] == name and not key.endswith(".num_batches_tracked")]
        good = there.get(name) == op and all(
            state[key].shape == own[key].shape if key in state else key.endswith(".bias") for key in keys)
        if not good and name != classifier and not (op == "scale" and name not in there):
            raise ValueError(f"{path} has {'another' if name in there else 'no'} layer {name}: begin with the same network and "
                             "width")
        taken += good
        for key in keys if good else ():
            own[key] = state.get(key, torch.zeros_like(own[key]))
    network.load_state_dict(own)
    latent = [m.weight for m in network.modules() if isinstance(m, hwgq_torch.Weighted) and m.binary]
    beyond = sum(int((weight.detach().abs() > 1).sum()) for weight in latent)
    hwgq_torch.clamp_latent(network)
    return taken, beyond
