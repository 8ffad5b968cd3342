"""Stage ``train``: shards and captions -> the best checkpoint and its curves."""

import argparse
from pathlib import Path


def main() -> None:
    """Reads the command line and the sections ``train, loss, model, mel, augment, leaks``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--params", type=Path, required=True)
    parser.add_argument("--av", type=Path, required=True, help="in: clip shards")
    parser.add_argument("--captions", type=Path, required=True, help="in: caption tables")
    parser.add_argument("--images", type=Path, required=True, help="in: image shards")
    parser.add_argument("--model", type=Path, required=True, help="out: .safetensors and .json")
    parser.add_argument("--resume", type=Path, required=True, help="the run, killed or done")
    parser.add_argument(
        "--curves", type=Path, required=True, help="out: losses by epoch, best epoch"
    )
    args = parser.parse_args()

    from trimodal.core.config import load_section
    from trimodal.core.progress import stage
    from trimodal.losses.config import LossConfig
    from trimodal.media.mel import MelConfig
    from trimodal.models.networks import ModelConfig
    from trimodal.models.preprocessing import AugmentConfig
    from trimodal.training.config import TrainConfig
    from trimodal.training.distributed import joined
    from trimodal.training.launch import run_on_devices
    from trimodal.training.leaks import LeaksConfig
    from trimodal.training.train import train

    with stage("train"):
        config = load_section(args.params, "train", TrainConfig)
        if run_on_devices(config.devices, config.device):
            return
        with joined(config.device) as ranks:
            train(
                args.av,
                args.captions,
                args.images,
                args.model,
                args.curves,
                args.resume,
                config=config,
                loss=load_section(args.params, "loss", LossConfig),
                model=load_section(args.params, "model", ModelConfig),
                mel=load_section(args.params, "mel", MelConfig),
                augment=load_section(args.params, "augment", AugmentConfig),
                leaks=load_section(args.params, "leaks", LeaksConfig),
                ranks=ranks,
            )


if __name__ == "__main__":
    main()
