"""BLEU-1, BLEU-4, METEOR and CIDEr as pycocoevalcap computes them: a metric for `evaluate.load` (paper Tables 3 to 5).

Texts are split by the Penn Treebank tokenizer first, which lower-cases them and drops punctuation. It and METEOR are
Java programs that pycocoevalcap brings along.
"""

import shutil
from collections.abc import Sequence
from contextlib import suppress

import datasets
import evaluate
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.meteor.meteor import Meteor
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

Tokenised = dict[int, list[str]]  # number of the answer → its texts, words between single spaces

CITATION = """\
BLEU: Papineni et al., ACL 2002. METEOR 1.5: Denkowski and Lavie, WMT 2014. CIDEr: Vedantam et al., CVPR 2015.
Code: Chen et al., Microsoft COCO captions, arXiv 1504.00325."""
INPUTS = """\
Args:
    predictions: texts, two or more.
    references: the right texts of each prediction, one or more.
Returns:
    bleu_1, bleu_4 and meteor, 0 to 1, of all texts together; cider, 0 to 10, their mean."""


class CaptionScores(evaluate.Metric):
    """
    Raises:
        ValueError: no Java, fewer than two predictions, or a prediction without reference.
    """

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=__doc__,
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features({"predictions": text, "references": datasets.List(text)}),
        )

    def _compute(self, predictions: list[str], references: list[list[str]]) -> dict[str, float]:
        require_java()
        if len(predictions) < 2:
            raise ValueError(
                f"CIDEr needs 2 predictions or more, got {len(predictions)}: it weighs words by references."
            )
        if not all(references):
            raise ValueError(f"prediction {references.index([])} has no reference; give it one or more.")
        said, wanted = tokenised([[text] for text in predictions]), tokenised(references)
        (bleu_1, _, _, bleu_4), _ = Bleu(4).compute_score(wanted, said, verbose=0)
        return {
            "bleu_1": float(bleu_1),
            "bleu_4": float(bleu_4),
            "meteor": meteor(wanted, said),
            "cider": float(Cider().compute_score(wanted, said)[0]),
        }


def require_java() -> None:
    """
    Raises:
        ValueError: if there is no `java` to run.
    """
    if shutil.which("java") is None:
        raise ValueError(
            "METEOR and the Penn Treebank tokenizer need Java, but there is no `java` on the PATH; install one, e.g. "
            "`apt-get install default-jre-headless`."
        )


def tokenised(texts: Sequence[Sequence[str]]) -> Tokenised:
    """
    Raises:
        ValueError: if the tokenizer gave another number of texts.
    """
    # The tokenizer tells texts apart by line, and Java knows more ends of line than pycocoevalcap takes out.
    lines = {number: [{"caption": " ".join(text.split())} for text in some] for number, some in enumerate(texts)}
    found = PTBTokenizer().tokenize(lines)
    given, got = (sum(map(len, one.values())) for one in (lines, found))
    if got != given:
        raise ValueError(f"the Penn Treebank tokenizer gave {got} of {given} texts; does `java -version` work?")
    return found


def meteor(wanted: Tokenised, said: Tokenised) -> float:
    """
    Raises:
        ValueError: if METEOR's program broke off.
    """
    scorer = Meteor()
    try:
        return float(scorer.compute_score(wanted, said)[0])
    except (OSError, ValueError) as error:
        scorer.meteor_p.kill()
        told = scorer.meteor_p.stderr.read().decode(errors="replace").strip()
        # The scorer's own end takes the lock, and closes the pipe, once more.
        scorer.lock.release()
        with suppress(OSError):
            scorer.meteor_p.stdin.close()
        raise ValueError(f"METEOR's Java program broke off: {told or error}") from error
