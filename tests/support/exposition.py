"""What Prometheus reads: where it is, and what it says."""

from __future__ import annotations

from prometheus_client import parser

PAGE = "/_wschat/metrics"


def values(text: str) -> dict[str, float]:
    """Return the samples of an exposition, by name with labels."""
    families = parser.text_string_to_metric_families(text)
    return {
        sample.name + "".join(f"{{{k}={v}}}" for k, v in sample.labels.items()): (
            sample.value
        )
        for family in families
        for sample in family.samples
    }
