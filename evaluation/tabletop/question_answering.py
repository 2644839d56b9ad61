"""`instructvla tabletop-questions`: what checkpoints answer about pictures that they never saw, by kind of question."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from PIL import Image
from tqdm import tqdm

from instructvla.command_errors import errors_on_stderr
from instructvla.evaluation.intervals import Rate
from instructvla.evaluation.tabletop.checkpoints import load_checkpoint
from instructvla.evaluation.tabletop.picture_chats import GRIPPER_AREA
from instructvla.evaluation.tabletop.questions import Fact, asked, draw_facts, facts
from instructvla.evaluation.tabletop.sampling import SPLITS, check_split, sample_scene
from instructvla.evaluation.tabletop.scene_xml import FRONT_CAMERA
from instructvla.evaluation.tabletop.simulation import Simulation
from instructvla.evaluation.tabletop.view import View
from instructvla.model_card import markdown_table
from instructvla.training.annotation.categories import QUESTION_CATEGORIES, Category
from instructvla.training.answer_scores import exact_match
from instructvla.training.greedy_answers import greedy_answers

EXAM_SEED = 1_000_000  # apart from those of generated data
BLIND = "commonest answer of each kind of question"
ALL = "all"
CAPTION = (
    "Exactly right answers in %, 95 % intervals (Wilson) in brackets; {count} questions about {pictures} pictures."
)

app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class ExamQuestion:
    """A question about a picture.

    Args:
        picture: (S, S, 3) uint8, of the front camera.
        fact: what is asked, with its answer.
        text: of the question.
    """

    picture: np.ndarray
    fact: Fact
    text: str


def exam(pictures: int, split: str = "test", image_size: int = 128, seed: int = EXAM_SEED) -> Iterator[ExamQuestion]:
    """Questions about random tables, one of each category per picture where there is something to ask.

    Args:
        pictures: how many tables.
        split: "train" or "test", of scenes and forms of questions.
        image_size: px.
        seed: of all.

    Raises:
        ValueError: an unknown split.
    """
    check_split(split)
    for number in range(pictures):
        rng = np.random.default_rng([seed, SPLITS.index(split), number])
        scene, _ = sample_scene(rng, split)
        simulation = Simulation(scene, tuple(float(rng.uniform(*bounds)) for bounds in GRIPPER_AREA))
        try:
            picture = simulation.picture(FRONT_CAMERA, image_size)
            points = simulation.picture_positions(FRONT_CAMERA)
        finally:
            simulation.close()
        found = facts(View.of_scene(scene, points), split)
        for category in QUESTION_CATEGORIES:
            for fact in draw_facts([fact for fact in found if fact.category is category], 1, rng):
                yield ExamQuestion(picture, fact, asked(fact, split, rng))


def model_answers(model: Any, questions: Sequence[ExamQuestion], batch_size: int = 16) -> list[str]:
    """What a model in evaluation mode says, greedily."""
    said: list[str] = []
    for start in tqdm(range(0, len(questions), batch_size), unit="batch", disable=None):
        batch = questions[start : start + batch_size]
        conversations = [
            [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": one.text}]}] for one in batch
        ]
        images = [Image.fromarray(one.picture) for one in batch]
        said += greedy_answers(model, model.processor, conversations, images)
    return said


def blind_answers(questions: Sequence[ExamQuestion]) -> list[str]:
    """The floor: the commonest answer of each kind of question in this very exam, without a look at the picture."""
    counts: dict[str, Counter[str]] = {}
    for one in questions:
        counts.setdefault(one.fact.kind, Counter())[one.fact.answer] += 1
    return [counts[one.fact.kind].most_common(1)[0][0] for one in questions]


def answer_rates(questions: Sequence[ExamQuestion], answers: Iterable[str]) -> dict[str, Rate]:
    """How many are exactly right (case, punctuation and articles don't count), per category and in all."""
    right: dict[str, list[float]] = {}
    for one, answer in zip(questions, answers, strict=True):
        hit = exact_match(answer, one.fact.answer)
        for name in (one.fact.category, ALL):
            right.setdefault(name, []).append(hit)
    return {name: Rate(int(sum(hits)), len(hits)) for name, hits in right.items()}


def answers_table(rows: dict[str, dict[str, Rate]]) -> str:
    """Markdown: one row per checkpoint, one column per category."""
    columns = [category for category in Category if any(category in rates for rates in rows.values())] + [ALL]
    return markdown_table(
        ["", *columns], [[title, *(str(rates[name]) for name in columns)] for title, rates in rows.items()]
    )


@dataclass
class QuestionRows:
    """What checkpoints answered.

    Args:
        pictures: how many were asked about.
        rates: title → category → rate; the floor first.
        answers: title → every question with its reference and the answer.
    """

    pictures: int
    rates: dict[str, dict[str, Rate]] = field(default_factory=dict)
    answers: dict[str, list[dict[str, str]]] = field(default_factory=dict)

    def add(self, title: str, questions: Sequence[ExamQuestion], said: Sequence[str]) -> None:
        self.rates.setdefault(BLIND, answer_rates(questions, blind_answers(questions)))
        self.rates[title] = answer_rates(questions, said)
        self.answers[title] = [
            {"kind": one.fact.kind, "question": one.text, "reference": one.fact.answer, "answer": answer}
            for one, answer in zip(questions, said, strict=True)
        ]

    def text(self) -> str:
        """As Markdown."""
        caption = CAPTION.format(count=self.rates[BLIND][ALL].trials, pictures=self.pictures)
        return f"{caption}\n\n{answers_table(self.rates)}"

    def record(self) -> dict[str, Any]:
        """As JSON."""
        rates = {title: {name: rate.record() for name, rate in row.items()} for title, row in self.rates.items()}
        return {"rates": rates, "answers": self.answers}


def question_rows(models: Mapping[str, str], pictures: int, split: str = "test") -> QuestionRows:
    """Asks each of the checkpoints, title → folder or repository, the same questions.

    Raises:
        ValueError: no such checkpoint, one that reads pictures of another size than the first, or an unknown split.
    """
    rows, questions, size = QuestionRows(pictures), [], None
    for title, name in models.items():
        model = load_checkpoint(name)
        size = size or model.processor.image_size
        if model.processor.image_size != size:
            raise ValueError(f"{title} reads pictures of {model.processor.image_size} px, the first one of {size} px.")
        questions = questions or list(exam(pictures, split, size))
        rows.add(title, questions, model_answers(model, questions))
    return rows


@app.command()
def main(
    models: Annotated[list[str], typer.Argument(help="Checkpoints, FOLDER or TITLE=FOLDER, one per row.")],
    pictures: Annotated[int, typer.Option(min=1, help="Tables that are asked about, five questions each.")] = 200,
    split: Annotated[str, typer.Option(help="Of scenes and questions: test, or train.")] = "test",
    output: Annotated[Path | None, typer.Option(help="JSON file of rates and answers.")] = None,
) -> None:
    """What checkpoints answer about pictures they never saw: one row each, e.g. before and after stages 1 and 2."""
    with errors_on_stderr():
        if output is not None and output.suffix != ".json":
            raise ValueError(f"--output {output} must end in .json, such as answers.json.")
        titles = [given.rpartition("=") for given in models]
        rows = question_rows({title or name: name for title, _, name in titles}, pictures, split)
        if output is not None:
            output.parent.mkdir(parents=True, exist_ok=True)
            output.write_text(json.dumps(rows.record(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    typer.echo(rows.text())


if __name__ == "__main__":
    app()
