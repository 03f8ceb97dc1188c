"""Compute resources: the GPU, if any, and Ray."""

from __future__ import annotations

import subprocess
from collections.abc import Collection, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from stair_es.doctor.result import CheckResult
from stair_es.errors import StairError
from stair_es.model import cuda
from stair_es.optional import format_install_command
from stair_es.system.ray_session import check_ray_address, mask_ray_address

_SMI_TIMEOUT_S = 10.0


def check_accelerator() -> Iterator[CheckResult]:
    """Check which GPUs exist and which runtime can use them."""
    import onnxruntime

    torch = cuda.is_cuda_available() if find_spec("torch") else None
    yield evaluate_accelerator(list_gpus(), torch=torch, providers=onnxruntime.get_available_providers())


def evaluate_accelerator(gpus: Sequence[str], *, torch: bool | None, providers: Collection[str]) -> CheckResult:
    """Evaluate whether an existing GPU is used. `torch` is whether PyTorch can use one, None if it is not installed."""
    if torch:
        return CheckResult.ok("accelerator", f"{', '.join(gpus) or 'CUDA'}, used through PyTorch (--backend auto)")
    if not gpus:
        return CheckResult.ok("accelerator", "no GPU: networks run on the CPU, in onnxruntime")
    onnx_message = f"onnxruntime has {'its' if 'CUDAExecutionProvider' in providers else 'no'} CUDA provider"
    if torch is None:
        return CheckResult.warn(
            "accelerator", f"{', '.join(gpus)}, but PyTorch isn't installed; {onnx_message}", format_install_command("torch")
        )
    return CheckResult.warn(
        "accelerator",
        f"{', '.join(gpus)}, but PyTorch sees no CUDA; {onnx_message}",
        "Install PyTorch for the CUDA of this driver (nvidia-smi names it): https://pytorch.org/get-started",
    )


def check_ray(address: str | None) -> Iterator[CheckResult]:
    """Check Ray, and the cluster that it would join."""
    try:
        installed = version("ray")
    except PackageNotFoundError:
        if address:
            yield CheckResult.warn(
                "ray", f"Ray's address is {mask_ray_address(address)}, but Ray isn't installed", format_install_command("ray")
            )
        else:
            yield CheckResult.ok("ray", "not installed: --runner ray would need stair-es[ray]")
        return
    if find_spec("ray") is None:
        message = f"Ray {installed} is registered, but its files are missing"
        yield CheckResult.warn("ray", message, f"pip install --force-reinstall ray=={installed}")
        return
    try:
        if address:
            check_ray_address(address, StairError, "use --runner local")
    except StairError as error:
        yield CheckResult.from_error("ray", error)
        return
    yield CheckResult.ok(
        "ray",
        f"{installed}, {f'a cluster listens at {address}' if address else 'no cluster given: it would start on this machine'}",
    )


def list_gpus() -> list[str]:
    """Return the names of the GPUs that the NVIDIA driver lists."""
    try:
        result = subprocess.run(
            ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=_SMI_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in result.stdout.splitlines() if line.strip()] if result.returncode == 0 else []
