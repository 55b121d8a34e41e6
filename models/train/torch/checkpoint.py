"""A run of train.py on disk: a safetensors file. Tensors: network.NAME and average.NAME of the state_dicts,
optimizer.NUMBER.WHAT of each parameter in the optimizer's order. Metadata: "format", "network" (the description) and "state"
(JSON)."""
import json
import os

import numpy
import torch

import hwgq_torch

CHECKPOINT = "hwgq torch checkpoint 1"


def read_tensors(path):
    """Of a safetensors file: its metadata, and arrays by name."""
    header, start = hwgq_torch.read_header(path)
    data = numpy.fromfile(path, numpy.uint8)[start:]
    metadata, arrays = header.pop("__metadata__", {}), {}
    for name, entry in header.items():
        try:
            begin, end = entry["data_offsets"]
            kind = {"F32": "<f4", "U8": "u1"}[entry["dtype"]]
            arrays[name] = data[begin:end].view(kind).reshape(entry["shape"])
        except (KeyError, TypeError, ValueError):
            raise ValueError(f"{path}: tensor '{name}' is not of F32 or U8, or not whole")
    return metadata, arrays


def part(tensors, prefix):
    """Those whose names begin so, under the rest of their names."""
    return {name[len(prefix):]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def write(path, session):
    run = {key: getattr(session.options, key) for key in ("network", "data", "no_test", "amp")}
    state = {"recipe": session.chosen, "run": run, "optimizer": session.options.optimizer, "labels": session.labels,
             "epoch": session.epoch, "result": session.result, "seconds": session.seconds,
             "average_measured": session.average is not None and session.average.measured,
             "average_count": session.average.count if session.average else 0}
    tensors = {"network." + name: value for name, value in session.network.state_dict().items()}
    if session.average:
        tensors.update({"average." + name: value for name, value in session.average.values.items()})
    for number, values in session.optimizer.state_dict()["state"].items():
        tensors.update({f"optimizer.{number}.{what}": torch.as_tensor(value) for what, value in values.items()})
    metadata = {"format": CHECKPOINT, "network": json.dumps(session.network.description), "state": json.dumps(state)}
    hwgq_torch.write_tensors(path + ".new", tensors, metadata)
    os.replace(path + ".new", path)


def read(path):
    """The description, the state and the tensors."""
    metadata, arrays = read_tensors(path)
    if metadata.get("format") != CHECKPOINT:
        raise ValueError(f"{path}: not a checkpoint of train.py")
    return json.loads(metadata["network"]), json.loads(metadata["state"]), \
        {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}


def same_model(session, state):
    """Whether what was chosen makes the model that the checkpoint's run made, but for the names of classes."""
    now = json.loads(json.dumps(session.chosen))  # as it would be read
    recipes = [{key: value for key, value in chosen.items() if key != "labels"} for chosen in (now, state["recipe"])]
    return recipes[0] == recipes[1] and all(getattr(session.options, key) == state["run"][key] for key in ("data", "no_test"))


def restore(session, state, tensors):
    """Puts a session of the same network where the checkpoint was written. The accuracy is that of the checkpoint's options."""
    options = session.options
    if state["optimizer"] != options.optimizer:
        raise ValueError(f"{options.resume} is a run with --optimizer {state['optimizer']}, which stays")
    if state["labels"] != session.labels:
        raise ValueError(f"{options.resume} is a run with other classes than those of {options.data}")
    hwgq_torch.load_state(session.network, part(tensors, "network."), options.resume)
    kept = {}
    for name, value in part(tensors, "optimizer.").items():
        number, what = name.split(".")
        kept.setdefault(int(number), {})[what] = value
    session.optimizer.load_state_dict({"state": kept, "param_groups": session.optimizer.state_dict()["param_groups"]})
    average = part(tensors, "average.")
    if session.average and average:
        for name, value in average.items():
            session.average.values[name].copy_(value)
        session.average.count, session.average.measured = state["average_count"], state["average_measured"]
    session.changed = not same_model(session, state)
    session.epoch, session.seconds = state["epoch"], state["seconds"]
    session.result = None if session.changed else state["result"]
