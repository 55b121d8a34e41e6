"""How a network is trained, by the options of the recipe: first weights, objective, learning rate, optimizer, average. Each
does what its namesake in models/train does (net_create.c, net_backward.c, optimizer.c, average.c, trainer.c)."""
import math

import torch
import torch.nn.functional as F

import hwgq_torch

AVERAGE_BATCHES = 100


@torch.no_grad()
def initialize(options, network):
    """Only weights: biases and scales are made as they shall be."""
    for module in network.modules():
        if isinstance(module, hwgq_torch.Weighted):
            inputs = module.weight[0].numel()
            if options.initializer == "msra":
                module.weight.normal_(0, math.sqrt(2 / inputs))
            else:
                module.weight.uniform_(-1 / math.sqrt(inputs), 1 / math.sqrt(inputs))


def objective(options, logits, labels, teacher=None):
    """Of a batch: (1 - w) * cross-entropy with the labels, smoothed, + w * T^2 * KL(t, p), where p and t are the softmax of the
    network's and the teacher's scores, divided by the temperature T."""
    value = F.cross_entropy(logits, labels, label_smoothing=options.label_smoothing)
    if teacher is None:
        return value
    temperature, share = options.distill_temperature, options.distill_weight
    divergence = F.kl_div(F.log_softmax(logits / temperature, 1), F.log_softmax(teacher / temperature, 1), log_target=True,
                          reduction="batchmean")
    return (1 - share) * value + share * temperature**2 * divergence


def rate(options, step, steps):
    """The learning rate of step `step` (from 0) of `steps`."""
    warm = options.warmup * steps
    if step < warm:
        return options.lr * (step + 1) / (warm + 1)
    if options.schedule == "constant":
        return options.lr
    left = min(max((steps - step) / (steps - warm), 0), 1)
    return options.lr * (1 - math.cos(math.pi * left)) / 2 if options.schedule == "cosine" else options.lr * left**options.power


class Momentum(torch.optim.Optimizer):
    """SGD as in Caffe: the velocity has the rate in it (torch's has not), so that what was gathered keeps its own."""

    def __init__(self, groups, lr, momentum):
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": 0})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                gradient = parameter.grad.add(parameter, alpha=group["weight_decay"])
                state = self.state[parameter]
                if "velocity" not in state:
                    state["velocity"] = torch.zeros_like(parameter)
                state["velocity"].mul_(group["momentum"]).sub_(gradient, alpha=group["lr"])
                parameter.add_(state["velocity"])


def make_optimizer(options, network):
    """Decay applies to weights only, and the classifier's rate to all of a float linear layer. Adam's second decay is 0.999."""
    groups = {}
    for module in network.modules():
        slow = isinstance(module, hwgq_torch.Linear) and not module.binary
        for name, parameter in module.named_parameters(recurse=False):
            decay = options.weight_decay if isinstance(module, hwgq_torch.Weighted) and name == "weight" else 0.0
            groups.setdefault((options.classifier_rate if slow else 1.0, decay), []).append(parameter)
    groups = [{"params": parameters, "factor": factor, "weight_decay": decay} for (factor, decay), parameters in groups.items()]
    if options.optimizer == "adam":
        return torch.optim.Adam(groups, lr=options.lr)
    return Momentum(groups, options.lr, options.momentum)


def set_rate(optimizer, value):
    for group in optimizer.param_groups:
        group["lr"] = value * group["factor"]


def statistics_share(step):
    """Of a batch's statistics in the running ones, which begin as a plain average: nothing stays of what they were before."""
    return max(1 / (step + 1), 0.1)


def set_statistics_share(network, share):
    for module in network.modules():
        if isinstance(module, hwgq_torch.BatchNorm):
            module.momentum = share


class Average:
    """A second set of weights beside those in training: their running average over steps. Averages of latent weights have other
    signs than any step had, so batch statistics are measured anew for them. Without --average and --average-epochs, but with
    --statistics-batches: the weights as they are."""

    def __init__(self, options, network):
        self.options, self.network = options, network
        self.count, self.measured = 0, False  # steps in it; whether the statistics are there
        self.values = {name: value.clone() for name, value in network.state_dict().items()}

    @torch.no_grad()
    def add(self, share):
        """Moves the average by `share` of the way to the weights; 1 is exactly there."""
        for name, weight in self.network.named_parameters():
            kept = self.values[name]
            kept.add_(weight - kept, alpha=share) if share < 1 else kept.copy_(weight)
        self.count += 1

    def update(self, epoch, step, per_epoch):
        """After step `step` (from 0) of epoch `epoch`."""
        options, first = self.options, self.options.epochs - self.options.average_epochs
        if options.average > 0:  # begins as a plain average: what the first steps had should not stay
            keep = (1 + self.count) / (10 + self.count) if self.count else 0
            self.add(1 - min(keep, options.average))
        elif options.average_epochs > 0:
            # More steps than the last epochs have had: of earlier ones, which were the last before --epochs was raised.
            begun = epoch - max(first, 0)
            if self.count > (begun * per_epoch + step if begun >= 0 else 0):
                self.count, self.measured = 0, False
            if epoch >= first:
                self.add(1 / (self.count + 1))

    @torch.no_grad()
    def swap(self):
        """Exchanges weights and statistics with the network's. Twice: nothing has changed."""
        for name, value in self.network.state_dict().items():
            kept = self.values[name].clone()
            self.values[name].copy_(value)
            value.copy_(kept)

    @torch.no_grad()
    def measure(self, batches):
        """Statistics, over `batches`: as many inputs as --statistics-batches says, changed as in training."""
        if self.options.average <= 0 and self.options.average_epochs == 0:
            self.count = 0
            self.add(1)
        if self.count == 0:
            return
        self.swap()
        for i, x in enumerate(batches):
            set_statistics_share(self.network, 1 / (i + 1))
            self.network.logits(x)
        self.swap()
        self.measured = True
