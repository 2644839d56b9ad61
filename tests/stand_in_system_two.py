"""A System 2 for tests, which needs no endpoint."""

from instructvla.evaluation.system_two import Rewriting, SystemTwoError


class StandInSystemTwo:
    """Says everything in capitals, and fails at "fail".

    Attributes:
        asked: instructions, in their order.
    """

    model = "strong-vlm"

    def __init__(self):
        self.asked: list[str] = []

    def rewriting(self, images, instruction):
        self.asked.append(instruction)
        if "fail" in instruction:
            raise SystemTwoError("System 2 (strong-vlm) gave no plain instruction")
        return Rewriting(instruction, instruction.upper(), self.model, 100, 10, 0.5)
