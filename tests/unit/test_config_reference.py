"""The list of keys, and the reference in the documentation."""

from pathlib import Path

from pgtasks.config_reference import fields, reference

REFERENCE = Path(__file__).parents[2] / "docs" / "configuration.md"


def test_keys_and_variables_are_spelt_as_documented() -> None:
    by_key = {field.key: field for field in fields()}
    assert (
        by_key["worker.queue-fetch.empty-delay"].variable
        == "PGTASKS__WORKER__QUEUE_FETCH__EMPTY_DELAY"
    )
    assert "worker.queue-config.<name>.concurrency" in by_key


def test_the_reference_in_the_documentation_is_this_list() -> None:
    """When this fails, put what `python -m pgtasks.config_reference` prints between the marks."""
    text = REFERENCE.read_text("utf-8")
    documented = text.partition("<!-- keys -->\n")[2].partition("<!-- end of keys -->")[0]
    assert documented.strip() == reference().strip()
