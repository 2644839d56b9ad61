"""Turning images, instructions and states into model inputs, and model outputs into robot actions."""

from .processing_instructvla import InstructVLAProcessor, released_chat_template

__all__ = ["InstructVLAProcessor", "released_chat_template"]
