"""Runs a stage as several processes of this machine, each on a device of its own: what
``torchrun --nproc-per-node N`` does, but from within the stage.
"""

import signal
import sys

from trimodal.core.errors import UserError
from trimodal.core.machine import Device, Devices
from trimodal.models.devices import count_devices
from trimodal.training.distributed import under_torchrun


class LaunchError(UserError, RuntimeError):
    """One of the processes failed; the others were terminated."""


def run_on_devices(devices: Devices, device: Device) -> bool:
    """Runs this process's command again, once for each of ``devices``, and returns True. Returns
    False, without running anything, if this process is to do the work: there is one device, or
    torchrun has started this process already.

    Raises LaunchError, after all processes have ended, if one of them fails.
    """
    processes = count_devices(devices, device)
    if processes == 1 or under_torchrun():
        return False
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    once = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=processes, max_restarts=0,
        rdzv_backend="c10d", rdzv_endpoint="localhost:0", run_id="trimodal", local_addr="localhost",
    )  # fmt: skip
    try:
        elastic_launch(once, sys.executable)(*sys.orig_argv[1:])
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        raise LaunchError(
            f"process {rank + 1} of {processes} {_exit_reason(failure.exitcode)}; the others were "
            "terminated. Run dvc repro again; training resumes from its last checkpoint"
        ) from None
    return True


def _exit_reason(exit_code: int) -> str:
    if exit_code < 0:
        return f"died of signal {-exit_code} ({signal.strsignal(-exit_code)})"
    return f"failed with exit code {exit_code} (its message is above)"
