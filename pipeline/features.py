"""Stage ``features``: what frozen towers make of pictures and captions -> arrays for training."""

import argparse
from pathlib import Path


def main() -> None:
    """Reads the command line and the sections ``features, model, augment, machine``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--params", type=Path, required=True)
    parser.add_argument("--av", type=str, required=True, help="in: clip shards, a folder or URL")
    parser.add_argument("--captions", type=Path, required=True, help="in: caption tables")
    parser.add_argument("--images", type=str, required=True, help="in: image shards, as --av")
    parser.add_argument("--out", type=Path, required=True, help="out: arrays, index")
    args = parser.parse_args()

    from trimodal.core.progress import stage

    with stage("features"):
        from trimodal.core.config import Params
        from trimodal.features.config import FeaturesConfig, make_nothing
        from trimodal.models.config import ModelConfig

        section = Params(args.params).section
        config = section("features", FeaturesConfig)
        model = section("model", ModelConfig)
        if not model.freeze:
            make_nothing(args.out)
            return
        from trimodal.core.machine import MachineConfig
        from trimodal.core.storage import storage_path
        from trimodal.features.frozen import FrozenTowers
        from trimodal.features.stage import make_features
        from trimodal.models.preprocessing import AugmentConfig

        make_features(
            storage_path(args.av),
            storage_path(args.images),
            args.out,
            FrozenTowers(
                model=model,
                config=config,
                augment=section("augment", AugmentConfig),
                captions_dir=args.captions,
            ),
            section("machine", MachineConfig),
        )


if __name__ == "__main__":
    main()
