"""The report as one page that needs nothing but itself."""

from __future__ import annotations

import pathlib

from fourfold._analysis import extra
from fourfold._analysis.report import Report, duration, faster, number, percent, size, smaller

_CARDS = 12  # layers whose distributions are drawn, the costliest


def render(report: Report) -> str:
    """Raises ImportError where matplotlib or Jinja is missing."""
    extra.require("the page")
    import jinja2
    from markupsafe import Markup

    from fourfold._analysis import pictures

    distributions = [
        {
            "layer": layer,
            "inputs": layer.inputs and Markup(pictures.small_histogram(layer.inputs, "int8")),
            "errors": layer.errors and Markup(pictures.small_histogram(layer.errors, "error")),
        }
        for layer in report.by_error()[:_CARDS]
    ]
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)  # fmt: skip
    environment.filters.update(
        duration=duration, faster=faster, number=number, percent=percent, size=size, smaller=smaller
    )
    template = environment.from_string(
        (pathlib.Path(__file__).parent / "page.html").read_text(encoding="utf-8")
    )
    return template.render(
        report=report,
        after=report.dtype,
        error_by_layer=Markup(pictures.error_by_layer(report)),
        size_by_layer=Markup(pictures.size_by_layer(report)),
        latency=Markup(pictures.latency(report)),
        errors=Markup(pictures.wide_histogram(report.errors, "error")),
        distributions=distributions,
    )
