"""The device that a model runs on, and this process's share of it."""

from typing import TYPE_CHECKING, NamedTuple

from service.runtime.settings import ModelSettings

if TYPE_CHECKING:
    import torch


class GpuMemory(NamedTuple):
    """Bytes on a card: held by this process's PyTorch, what it may hold, and free for all who share the card."""

    reserved: int
    share: int
    free: int


def gpu_memory(settings: ModelSettings, device: "torch.device") -> GpuMemory:
    """What `claim_device` bounds, as it is now. A neighbour that takes too much shows as little that is free."""
    import torch

    free, total = torch.cuda.mem_get_info(device)
    return GpuMemory(torch.cuda.memory_reserved(device), int(total * (settings.gpu_memory_fraction or 1)), free)


def is_lost(device: "torch.device") -> bool:
    """Whether this process can use its card no more, asked after an error of the model.

    After an illegal access or a failed assertion on the card every later call of the process fails as that one did
    (CUDA Runtime API, cudaErrorIllegalAddress: "the process must be terminated and relaunched"); after a batch that
    was too large for the memory the next one works.
    """
    if device.type != "cuda":
        return False
    import torch

    try:
        torch.cuda.synchronize(device)
    except RuntimeError:
        return True
    return False


def claim_device(settings: ModelSettings) -> "torch.device":
    """The GPU if there is one, else the CPU. On a GPU, PyTorch is kept to the model's share of the memory.

    Ray shares a GPU by bookkeeping only: without the limit, one replica can take the memory that its neighbour needs.
    The limit bounds PyTorch's allocator, not the CUDA context; `gpu_memory_fraction` leaves room for that.
    """
    # Not at the top: Ray also imports this module where it only builds applications, and torch takes seconds.
    import torch

    if not torch.cuda.is_available():
        torch.set_num_threads(settings.cpu_threads)
        return torch.device("cpu")
    device = torch.device("cuda", 0)
    if settings.gpu_memory_fraction is not None:
        torch.cuda.set_per_process_memory_fraction(settings.gpu_memory_fraction, device)
    return device
