"""Stage ``train``: shards and captions -> the best checkpoint and the training curves."""

import argparse
from pathlib import Path


def main() -> None:
    """Reads the command line and its sections of params.yaml."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--params", type=Path, required=True)
    parser.add_argument("--av", type=str, required=True, help="in: clip shards, a folder or URL")
    parser.add_argument("--captions", type=Path, required=True, help="in: caption tables")
    parser.add_argument("--images", type=str, required=True, help="in: image shards, as --av")
    parser.add_argument("--features", type=Path, required=True, help="in: of model.freeze")
    parser.add_argument("--model", type=Path, required=True, help="out: the model's folder")
    parser.add_argument("--resume", type=Path, required=True, help="in and out: the run's state")
    parser.add_argument("--curves", type=Path, required=True, help="out: losses, best epoch")
    args = parser.parse_args()

    from trimodal.core.progress import stage

    with stage("train", removed=args.model):
        from trimodal.core.config import Params
        from trimodal.core.machine import MachineConfig
        from trimodal.core.storage import storage_path
        from trimodal.features.config import FeaturesConfig
        from trimodal.losses.config import LossConfig
        from trimodal.media.mel import MelConfig
        from trimodal.media.windows import AudioFrontEnd, WindowConfig
        from trimodal.models.config import ModelConfig
        from trimodal.models.preprocessing import AugmentConfig
        from trimodal.training.config import TrainConfig
        from trimodal.training.distributed import process_group
        from trimodal.training.launch import run_on_devices
        from trimodal.training.leaks import LeaksConfig
        from trimodal.training.train import train

        section = Params(args.params).section
        machine = section("machine", MachineConfig)
        if run_on_devices(machine.devices, machine.device):
            return
        with process_group(machine.device) as world:
            train(
                storage_path(args.av), args.captions, storage_path(args.images), args.model,
                args.curves, args.resume,
                config=section("train", TrainConfig),
                loss=section("loss", LossConfig),
                model=section("model", ModelConfig),
                front_end=AudioFrontEnd(
                    mel=section("mel", MelConfig), window=section("window", WindowConfig)
                ),
                augment=section("augment", AugmentConfig),
                leaks=section("leaks", LeaksConfig),
                features=(args.features, section("features", FeaturesConfig)),
                machine=machine, world=world,
            )  # fmt: skip


if __name__ == "__main__":
    main()
