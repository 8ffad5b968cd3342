"""Stage ``evaluate``: one of section ``evaluate``'s test sets, by its kind."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from trimodal.core.config import ConfigError
from trimodal.core.machine import MachineConfig
from trimodal.evaluation.audio_image import evaluate_audio_image
from trimodal.evaluation.config import EvaluateConfig
from trimodal.evaluation.localisation_stage import evaluate_localisation_set
from trimodal.evaluation.task import Inputs, Task
from trimodal.evaluation.text_audio import evaluate_text_audio
from trimodal.evaluation.text_image import evaluate_text_image
from trimodal.evaluation.text_video import evaluate_text_video
from trimodal.evaluation.zero_shot_stage import evaluate_zero_shot
from trimodal.models.checkpoint import load_vocabulary, read_checkpoint
from trimodal.models.devices import pick_device
from trimodal.training.distributed import World
from trimodal.training.leaks import LeaksConfig

# A kind of trimodal.evaluation.config.TestSet is a line here.
_KINDS: Mapping[str, Callable[[Task, Any], None]] = {
    "text_video": evaluate_text_video,
    "text_image": evaluate_text_image,
    "text_audio": evaluate_text_audio,
    "audio_image": evaluate_audio_image,
    "zero_shot": evaluate_zero_shot,
    "localisation": evaluate_localisation_set,
}


def evaluate(
    name: str,
    inputs: Inputs,
    out: Path,
    *,
    config: EvaluateConfig,
    leaks: LeaksConfig,
    machine: MachineConfig,
    world: World | None = None,
) -> None:
    """Evaluates the test set ``name`` into the folder ``out``: embeddings.parquet, which the next
    run uses again if they are still of the same model and items; metrics.json, finite numbers only;
    audit.json, counts and fingerprints; of searches ranks.parquet, a row a query; of videos also
    curve.csv, R@K by audio weight; of kind zero_shot classes, confusions and items.parquet; of kind
    localisation sound_maps.parquet.

    Earlier results are removed first. Raises ConfigError for an unknown name and what the kind's
    function raises. All ranks of ``world`` call this and rank 0 writes; None is this process alone.
    """
    world = world or World(device=pick_device(machine.device))
    if name not in config.sets:
        raise ConfigError(f"evaluate.sets has no '{name}' (it has: {', '.join(config.sets)})")
    checkpoint = read_checkpoint(inputs.model)
    task = Task(
        name=name,
        config=config,
        leaks=leaks,
        machine=machine,
        inputs=inputs,
        out=out,
        checkpoint=checkpoint,
        vocabulary=load_vocabulary(inputs.model, checkpoint),
        world=world,
    )
    if world.is_main:
        task.remove_results()
    _KINDS[config.sets[name].kind](task, config.sets[name])
