"""Chunks, copies, precision and failures of networks on a GPU, on one that is pretended on the CPU."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from support.errors import expect_error
from support.fake_gpu import FakeGpu, pretend_gpu
from support.models import tiny_stair
from support.polling import poll_until
from torch import Tensor, nn

from stair_es.errors import DeviceLost, DeviceOutOfMemory
from stair_es.model import cuda, registry
from stair_es.model.base import ModelSpec
from stair_es.model.torch_device import FIRST_CHUNK, MAX_CHUNK, TorchDevice, open_gpu
from stair_es.types import Pixels, Precision

SPEC = ModelSpec(name="x")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    return pretend_gpu(monkeypatch)


def draw_pixels(count: int) -> Pixels:
    return np.random.default_rng(count).integers(0, 256, (count, 4, 4, 3), np.uint8)


def compute_sums(pixels_BHWC: Tensor) -> Sequence[Tensor | None]:
    assert pixels_BHWC.dtype == torch.uint8
    return pixels_BHWC.long().sum((1, 2, 3)), None


def run_sums(device: TorchDevice, pixels_BHWC: Pixels) -> list[int]:
    chunks = list(device.run_chunks(pixels_BHWC, compute_sums))
    assert all(nothing is None for _, nothing in chunks)
    return [total for totals, _ in chunks for total in totals.tolist()]


def check_sums(device: TorchDevice, count: int) -> None:
    pixels_BHWC = draw_pixels(count)
    assert run_sums(device, pixels_BHWC) == pixels_BHWC.sum((1, 2, 3), np.int64).tolist()


def test_chunks_grow_to_what_fits(gpu: FakeGpu) -> None:
    device = TorchDevice(SPEC)
    check_sums(device, 2000)
    assert gpu.chunks == [FIRST_CHUNK, MAX_CHUNK, MAX_CHUNK, MAX_CHUNK, 2000 - FIRST_CHUNK - 3 * MAX_CHUNK]
    gpu.chunks.clear()
    check_sums(device, 100)
    assert gpu.chunks == [50, 50]  # one is copied while the other is computed
    check_sums(device, 0)
    assert len(gpu.chunks) == 2


def test_chunks_leave_memory_to_others(gpu: FakeGpu) -> None:
    gpu.free_bytes = 200 << 30
    check_sums(TorchDevice(SPEC), 300)
    assert gpu.chunks == [FIRST_CHUNK, 100, 100, 68]


def test_buffers_are_reused_and_hold_bytes(gpu: FakeGpu) -> None:
    device = TorchDevice(SPEC)
    for _ in range(3):
        check_sums(device, FIRST_CHUNK * 4)
    assert len(gpu.pinned) <= 4
    assert sum(size for _, size in gpu.copies) == 3 * FIRST_CHUNK * 4 * 48
    assert {dtype for dtype, _ in gpu.copies} == {torch.uint8}


def test_reversed_and_read_only_arrays_are_sent(gpu: FakeGpu) -> None:
    pixels_BHWC = draw_pixels(50)
    pixels_BHWC.flags.writeable = False
    assert run_sums(TorchDevice(SPEC), pixels_BHWC[::-1]) == pixels_BHWC[::-1].sum((1, 2, 3), np.int64).tolist()


def test_a_chunk_is_sent_before_the_last_one_is_awaited(gpu: FakeGpu) -> None:
    device = TorchDevice(SPEC)
    check_sums(device, 3 * FIRST_CHUNK)
    assert gpu.log == ["copy", "run", "copy", "run", "fetched", "copy", "run", "fetched", "fetched"]


def test_a_thread_sends_while_another_computes(gpu: FakeGpu) -> None:
    device, has_sent = TorchDevice(SPEC), threading.Event()

    def compute(pixels_BHWC: Tensor) -> Sequence[Tensor | None]:
        assert has_sent.wait(30)
        return compute_sums(pixels_BHWC)

    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(lambda: list(device.run_chunks(draw_pixels(3), compute))) for _ in range(2)]
        poll_until(lambda: len(gpu.copies) == 2, 30)
        has_sent.set()
        assert [len(run.result(30)) for run in runs] == [1, 1]
    assert gpu.log[:2] == ["copy", "copy"]


def test_threads_share_the_buffers(gpu: FakeGpu) -> None:
    device = TorchDevice(SPEC)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda count: check_sums(device, count), range(1, 200)))


def test_a_chunk_that_does_not_fit_is_halved_for_good(gpu: FakeGpu) -> None:
    gpu.max_items = 9
    device = TorchDevice(SPEC)
    check_sums(device, 40)
    assert gpu.chunks == [8, 8, 8, 8, 8]
    assert gpu.releases == 2  # 32, 16
    check_sums(device, 20)
    assert gpu.chunks[5:] == [8, 8, 4]
    assert gpu.releases == 2


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_every_form_of_too_little_memory_is_tried_again(gpu: FakeGpu, error: Exception) -> None:
    gpu.failures = [error]
    check_sums(TorchDevice(SPEC), 40)
    assert gpu.chunks == [16, 16, 8]


def test_a_single_item_that_does_not_fit_is_an_error(gpu: FakeGpu) -> None:
    gpu.max_items = 0
    device = TorchDevice(SPEC)
    with pytest.raises(DeviceOutOfMemory) as caught:
        run_sums(device, draw_pixels(5))
    assert caught.value.code == "device-out-of-memory"
    gpu.max_items = None
    check_sums(device, 5)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be reported later"),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
        torch.AcceleratorError("uncorrectable ECC error encountered", 214),
    ],
)
def test_a_lost_device_is_an_error_of_its_own(gpu: FakeGpu, error: Exception) -> None:
    gpu.failures = [error]
    with pytest.raises(DeviceLost) as caught:
        run_sums(TorchDevice(SPEC), draw_pixels(5))
    assert caught.value.code == "device-lost"
    assert str(error).partition("\n")[0] in caught.value.message


def test_other_errors_stay_what_they_are(gpu: FakeGpu) -> None:
    gpu.failures = [RuntimeError("mat1 and mat2 shapes cannot be multiplied")]
    with pytest.raises(RuntimeError, match="mat1"):
        run_sums(TorchDevice(SPEC), draw_pixels(5))


@pytest.mark.parametrize(
    ("precision", "bf16", "dtype", "tf32"),
    [
        ("auto", True, torch.bfloat16, True),
        ("auto", False, torch.float32, True),
        ("fp32", True, torch.float32, False),
        ("fp16", True, torch.float16, False),
        ("auto", None, torch.float32, False),
        ("bf16", None, torch.bfloat16, False),
    ],
)
def test_weights_are_cast_once(
    monkeypatch: pytest.MonkeyPatch, precision: Precision, bf16: bool | None, dtype: torch.dtype, tf32: bool
) -> None:
    """`auto` is bf16 on a GPU that has it, and fp32 elsewhere; None is the CPU."""
    gpu = None if bf16 is None else pretend_gpu(monkeypatch, bf16=bf16)
    device = TorchDevice(ModelSpec(name="x", precision=precision, device="cpu"))
    network = device.place_network(nn.Linear(2, 3))
    assert {parameter.dtype for parameter in network.parameters()} == {dtype}
    assert not network.training
    assert (gpu is not None and gpu.tf32) == tf32
    rows_BD = np.ones((5, 2), np.float32)
    [(outputs,)] = device.run_chunks(rows_BD, lambda rows: [network(rows.to(dtype))])
    assert outputs.shape == (5, 3)
    assert outputs.dtype == np.float32


def test_a_network_that_does_not_fit_is_an_error(gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    def raise_error(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    network = nn.Linear(2, 3)
    monkeypatch.setattr(network, "to", raise_error)
    with expect_error("network-too-large"):
        TorchDevice(SPEC).place_network(network)


def test_devices_are_counted_and_selected(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    for found in (True, False):
        monkeypatch.setattr(cuda, "is_cuda_available", lambda *packages, found=found: found)
        assert cuda.count_cuda_devices() == (3 if found else 0)
        assert [cuda.can_use_cuda(ModelSpec(name="x", device=device)) for device in ("", "cuda:1", "cpu")] == [
            found,
            True,
            False,
        ]
        assert not cuda.can_use_cuda(ModelSpec(name="x", backend="onnx"))
    opened: list[str] = []
    monkeypatch.setattr("stair_es.model.torch_device.open_gpu", opened.append)
    model = registry.resolve_model(ModelSpec(name=str(tiny_stair.write_checkpoint(tmp_path)), backend="torch", device="cuda:1"))
    for device in (None, "cuda:2"):
        model.load(device=device).encode_texts(["dog"])
    assert opened == ["cuda:1", "cuda:2"]
    with expect_error("unknown-device"):
        model.load(device="tpu")


def test_the_device_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("stair_es.model.torch_device.CudaGpu", opened.append)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for device in ("", "cuda", "cuda:1", "cpu"):
        open_gpu(device)
    assert opened == ["cuda:0", "cuda:0", "cuda:1"]
    with expect_error("device-not-found") as caught:
        open_gpu("cuda:2")
    assert "2" in caught.value.message
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert open_gpu("") is None
    with expect_error("device-not-found"):
        open_gpu("cuda")
