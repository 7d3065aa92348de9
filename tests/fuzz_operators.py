"""Random calls of every function, right ones and hostile ones: none crashes, right ones are right.

    python tests/fuzz_operators.py --cases 20000 --seed 1
    python tests/fuzz_operators.py --only 1234

Each case follows from its number alone. A case that fails is printed with what it called; the
number of the case that runs is on the last line of the output, should the interpreter die.
"""

from __future__ import annotations

import argparse
import random
import sys
import traceback

import torch
from op_samples import FUNCTIONS, Sample, batch, values_and_gradients

from mcfa_fast import functional, reference

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def matrix(generator: torch.Generator, rows: int, width: int) -> torch.Tensor:
    return torch.randn(rows, width, dtype=torch.float64, generator=generator)


def sizes(choose: random.Random) -> tuple[int, int, int]:
    """Instances, classes and width: mostly small, some larger than any tile."""
    instances = choose.choice([0, 1, 2, choose.randrange(3, 40), choose.randrange(40, 1200)])
    classes = choose.choice([1, 2, choose.randrange(3, 30), choose.randrange(30, 300)])
    width = choose.choice([1, choose.randrange(2, 20), choose.randrange(20, 130), 257])
    return instances, classes, width


def right_call(choose: random.Random, function) -> Sample:
    """A call that the documentation allows."""
    instances, classes, width = sizes(choose)
    generator = torch.Generator().manual_seed(choose.randrange(2**31))
    options = {"reduction": choose.choice(["sum", "mean", "none"])}
    name = function.name
    visual, semantic, labels = batch(
        instances,
        classes,
        width,
        ignored=choose.choice([0.0, 0.3, 1.0]),
        seed=choose.randrange(2**31),
        skew=choose.choice([0.3, 1.0, 5.0]),
    )
    if name == "reparameterize":
        noise = matrix(generator, instances, choose.choice([1, width]))
        tensors = (visual, matrix(generator, instances, width), noise)
        return Sample(tensors, {"power": choose.choice([0.5, 1.0])}, constant=(2,))
    if name in ("info_nce_loss", "clip_loss", "nt_xent_loss", "anchor_key"):
        return right_pairs(choose, name, instances, classes, width, generator)
    if name == "kl_divergence":
        return Sample((visual, matrix(generator, instances, width)), options)
    if name in ("wasserstein_alignment", "l1_reconstruction"):
        labels = labels.clamp(min=0) if choose.random() < 0.7 else None
        table = semantic if labels is not None else matrix(generator, instances, width)
        if name == "l1_reconstruction":
            return Sample((visual, table, labels), options)
        logvars = matrix(generator, instances, width), matrix(generator, len(table), width)
        return Sample((visual, logvars[0], table, logvars[1], labels), options)
    options["normalize"] = choose.random() < 0.7
    log_temperature = choose.uniform(-2, 3) if options["normalize"] else choose.uniform(1, 3)
    options["temperature"] = torch.tensor(10**log_temperature, dtype=torch.float64)
    if name != "vtos_loss":
        options["positives"] = choose.choice(["out", "in"])
    tensors = (visual, labels) if name == "vtov_loss" else (visual, semantic, labels)
    return Sample(tensors, options)


def right_pairs(
    choose: random.Random,
    name: str,
    anchors: int,
    others: int,
    width: int,
    generator: torch.Generator,
) -> Sample:
    """A call of a function of anchors and keys."""
    options: dict = {"temperature": torch.tensor(10 ** choose.uniform(-2, 3), dtype=torch.float64)}
    if name != "anchor_key":
        # A mean over nothing is 0.
        tensors = (matrix(generator, anchors, width), matrix(generator, anchors, width))
        if name == "info_nce_loss" and choose.random() < 0.5:
            tensors = (*tensors, matrix(generator, others, width))
        if name != "clip_loss":
            options["reduction"] = choose.choice(["sum", "mean", "none"])
        return Sample(tensors, options)
    options["positives"] = choose.choice(["out", "in"])
    options["key_side"] = choose.random() < 0.5

    def labels(rows: int) -> torch.Tensor:
        values = torch.randint(-3, 4, (rows,), generator=generator)
        return values.where(values > -3, -100)

    own_keys = choose.random() < 0.3
    labelled = choose.random() < 0.7
    keys = None if own_keys else matrix(generator, others, width)
    selves = torch.randint(-1, others + 1, (anchors,), generator=generator)
    return Sample(
        (
            matrix(generator, anchors, width),
            keys,
            labels(anchors) if labelled else None,
            labels(others) if labelled and not own_keys else None,
            selves if not own_keys and choose.random() < 0.5 else None,
        ),
        options,
    )


def strange_tensor(choose: random.Random, tensor: torch.Tensor) -> torch.Tensor:
    """Something else in place of a tensor."""
    if tensor.is_meta or tensor.layout != torch.strided:  # strange already
        return tensor
    integral = not tensor.is_floating_point()
    generator = torch.Generator().manual_seed(choose.randrange(2**31))
    shape = [choose.randrange(0, 9) for _ in range(choose.randrange(0, 4))]
    choices = [
        lambda: tensor[..., :0],
        lambda: tensor[:1].expand(tensor.shape) if tensor.dim() and len(tensor) else tensor,
        lambda: tensor.flatten(),
        lambda: tensor.unsqueeze(choose.randrange(tensor.dim() + 1)),
        lambda: tensor.mT if tensor.dim() == 2 else tensor,
        lambda: tensor.to(choose.choice([torch.int8, torch.bool, torch.complex64, torch.uint64])),
        lambda: torch.randn(shape, generator=generator).to(tensor.dtype),
        lambda: tensor.to("meta"),
        lambda: tensor.to_sparse() if tensor.dim() else tensor,
    ]
    if integral:
        far = choose.choice([-1, 2**31, 2**63 - 1, -(2**63), len(tensor)])
        # Wraps around in the narrower types that a first change may have made.
        choices += [lambda: torch.full(tensor.shape, far).to(tensor.dtype)] * 4
    else:
        value = choose.choice([float("nan"), float("inf"), -float("inf"), 3e38, 1e-45, 0.0])
        places = torch.rand(tensor.shape, generator=generator) < choose.choice([0.01, 1.0])
        choices += [lambda: torch.where(places, value, tensor).to(tensor.dtype)] * 4
    return choose.choice(choices)()


def hostile_call(choose: random.Random, sample: Sample) -> Sample:
    """A call with one or two arguments changed into something else."""
    tensors, options = list(sample.tensors), dict(sample.options)
    for _ in range(choose.choice([1, 1, 2])):
        place = choose.randrange(len(tensors) + 1)
        if place < len(tensors):
            if isinstance(tensors[place], torch.Tensor):
                tensors[place] = strange_tensor(choose, tensors[place])
        else:
            name = choose.choice(list(options))
            options[name] = choose.choice(
                [
                    "other", 0.0, -1.0, float("nan"), 1e-300, 1e300, torch.ones(2), torch.tensor(1),
                    torch.tensor(float("inf")), True,
                ]
            )  # fmt: skip
    return sample._replace(tensors=tuple(tensors), options=options)


def check_right(function, sample: Sample, dtype: torch.dtype) -> None:
    data = sample.to(dtype)._replace(options=sample.options)
    ours = values_and_gradients(getattr(functional, function.name), data)
    oracle = values_and_gradients(getattr(reference, function.name), data.to(torch.float64))
    rows = 20 + len(sample.tensors[0])
    similarity = 1.0
    if "temperature" in sample.options:
        floating = (t for t in sample.tensors if t is not None and t.is_floating_point())
        latents = [tensor for tensor in floating if len(tensor) > 0]
        longest = max([tensor.norm(dim=1).max().item() for tensor in latents], default=1.0)
        similarity = (1 if sample.options.get("normalize", True) else longest**2) / float(
            sample.options["temperature"]
        )
    tolerance = rows * torch.finfo(dtype).eps * (1 + similarity) ** 2
    if dtype == torch.float64:
        tolerance *= 2  # the oracle rounds as much
    for got, want in zip(ours, oracle, strict=True):
        assert got.shape == want.shape
        finite = want.where(want.isfinite(), 0)  # the logarithm of an empty sum is not
        size = max(finite.abs().max().item(), similarity, 1.0) if want.numel() else 1.0
        difference = (got.double() - want).where(got.double() != want, 0)
        error = difference.abs().max().item() if want.numel() else 0.0
        assert error <= tolerance * size, f"an error of {error} where {tolerance * size} is allowed"


def check_hostile(function, sample: Sample, overwrite: bool) -> None:
    call = getattr(functional, function.name)
    labels = next((t for t in sample.tensors if t is not None and t.dtype == torch.int64), None)

    def overwriting(*tensors, **options):
        outputs = call(*tensors, **options)
        if overwrite and labels is not None and labels.is_cpu and labels.layout == torch.strided:
            labels.numpy()[...] = 2**40
        return outputs

    try:
        values_and_gradients(overwriting, sample)
    except (ValueError, TypeError, NotImplementedError):
        pass
    except RuntimeError as error:
        # PyTorch does not pass on everything to an operator, or lacks one of its own.
        assert "Expected a value of type" in str(error) or "mcfa_fast" not in str(error), error


def run_case(number: int) -> None:
    choose = random.Random(number)
    function = choose.choice(FUNCTIONS)
    sample = right_call(choose, function)
    dtype = choose.choice(DTYPES)
    kind = choose.choice(["right", "hostile"])
    try:
        if kind == "right":
            check_right(function, sample, dtype)
        else:
            sample = hostile_call(choose, sample.to(dtype)._replace(options=sample.options))
            check_hostile(function, sample, choose.random() < 0.5)
    except Exception:
        print(f"case {number} failed: {kind} {function.name}, {dtype}")
        for tensor in sample.tensors:
            print("  ", None if tensor is None else (tensor.dtype, tuple(tensor.shape), tensor))
        print("  ", sample.options)
        raise


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="the number of a single case")
    options = parser.parse_args()
    torch.set_num_threads(2)
    first = options.seed * 10**9
    numbers = range(first, first + options.cases) if options.only is None else [options.only]
    failed = 0
    for number in numbers:
        print(f"case {number}", file=sys.stderr, flush=True)
        try:
            run_case(number)
        except Exception:
            traceback.print_exc(file=sys.stdout)
            failed += 1
    print(f"{len(numbers)} cases, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
