"""One stage as several processes of this machine, each on a device of its own: what
``torchrun --nproc-per-node N`` does, from within the stage.
"""

import signal
import sys

from trimodal.core.errors import UserError
from trimodal.core.machine import Device, Devices
from trimodal.models.devices import count_devices
from trimodal.training.distributed import under_torchrun


class LaunchError(UserError, RuntimeError):
    """One of the processes ended with an error; the others were ended then."""


def run_on_devices(devices: Devices, wanted: Device) -> bool:
    """Runs this very command once for each of ``devices``; False, at once, where it is to run here:
    on one device, or where torchrun has started this process already.

    Raises LaunchError, once all have ended, if one ends with an error.
    """
    processes = count_devices(devices, wanted)
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
            f"process {rank + 1} of {processes} {_how_it_ended(failure.exitcode)}; the others were "
            "ended. What was saved stays: run dvc repro again"
        ) from None
    return True


def _how_it_ended(exit_code: int) -> str:
    if exit_code < 0:
        return f"died of signal {-exit_code} ({signal.strsignal(-exit_code)})"
    return f"left with exit code {exit_code} (its message stands above)"
