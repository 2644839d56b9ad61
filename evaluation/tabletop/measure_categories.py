"""How often the rules for appendix C.1's categories are right, measured on annotations of the tabletop.

`python -m instructvla.evaluation.tabletop.measure_categories` prints it. The rules were written for any English
text, but corrected with these phrases in view: on other texts they do worse than here.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Annotated

import numpy as np
import typer

from instructvla.command_errors import errors_on_stderr
from instructvla.evaluation.tabletop.annotations import LabelledAnnotation, labelled_annotation
from instructvla.evaluation.tabletop.sampling import SPLITS, check_split, sample_scene
from instructvla.evaluation.tabletop.scene import Scene
from instructvla.evaluation.tabletop.world_state import ObjectState, WorldState
from instructvla.training.annotation.categories import Category
from instructvla.training.annotation.category_agreement import Agreement, agreement_lines
from instructvla.training.annotation.category_rules import instruction_category, question_category

app = typer.Typer(add_completion=False)

Labels = Iterator[tuple[str, Category, Category]]


def labels(annotation: LabelledAnnotation, original: str) -> Labels:
    """(text, category by rules, true category) of each turn."""
    for turn in (*annotation.rewritten, *annotation.contexts):
        yield turn.question, instruction_category(turn.question, original), turn.category
    for turn in annotation.questions:
        yield turn.question, question_category(turn.question), turn.category


def measured(scenes: int, split: str, seed: int) -> Labels:
    """Labels of annotations of so many scenes by chance.

    Raises:
        ValueError: an unknown split.
    """
    check_split(split)
    rng = np.random.default_rng(seed)
    for _ in range(scenes):
        scene, task = sample_scene(rng, split)
        annotation = labelled_annotation(scene, task, [untouched(scene)], rng, split)
        yield from labels(annotation, task.instruction())


def untouched(scene: Scene) -> WorldState:
    """Everything where the scene has it."""
    objects = {title: ObjectState(*placed.position, 0.02) for title, placed in scene.titles().items()}
    return WorldState(objects, (0.4, 0.0, 0.2, 0.0, 0.0, 0.0), 1.0, drawer=scene.drawer)


@app.command()
def main(
    scenes: Annotated[int, typer.Option(min=1, help="Of each split.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Of the scenes.")] = 0,
    mistakes: Annotated[int, typer.Option(min=0, help="Show so many of the commonest mistakes.")] = 0,
) -> None:
    """Agreement of the rules with the truth, by split and category."""
    with errors_on_stderr():
        for split in SPLITS:
            found = list(measured(scenes, split, seed))
            typer.echo(f"{split} phrases, {scenes} scenes")
            agreement = Agreement.of((given, true) for _, given, true in found)
            typer.echo("\n".join(agreement_lines(agreement, "rules", "truth")))
            wrong = Counter(label for label in found if label[1] is not label[2])
            for (text, given, true), count in wrong.most_common(mistakes):
                typer.echo(f"  {count:4} × {given}, but {true}: {text}")


if __name__ == "__main__":
    app()
