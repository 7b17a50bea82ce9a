"""The reference of the YAML, as Markdown, made from the models and tables that the product itself runs on."""

from policies.reference.page import CHAPTERS, text

__all__ = ["CHAPTERS", "text"]
