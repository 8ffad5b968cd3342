from pathlib import Path

import pytest
from configs import config_for_tests

from trimodal.download.demo.annotations import write_annotations
from trimodal.download.demo.world import DemoConfig, World, sample_world


@pytest.fixture(scope="session")
def cfg() -> DemoConfig:
    return config_for_tests(
        DemoConfig, clips=90, seed=11, clip_seconds=4.0, frame_px=64, fps=5, images_per_clip=3
    )


@pytest.fixture(scope="session")
def world(cfg: DemoConfig) -> World:
    return sample_world(cfg)


@pytest.fixture(scope="session")
def written(world: World, cfg: DemoConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("demo")
    write_annotations(world, directory, cfg)
    return directory
