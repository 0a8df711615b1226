"""Images that runs generated: every address is on one known site, and of one run's name."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

import peft_shop
from peft_shop import load_catalog
from peft_shop.catalog.samples import Samples, sample_addresses
from peft_shop.catalog.store import parse
from peft_shop.curate.intake.conventions import load_conventions
from peft_shop.errors import CatalogError
from peft_shop.show.samples import samples_sentence

EMBEDDED = Path(peft_shop.__file__).parent / "_catalog.json"
DATA = Path(__file__).parents[2] / "data"
FOLDER = (
    "https://huggingface.co/buckets/peft-internal-testing/image-gen-benchmark"
    "/resolve/sample-images/results/"
)


def kept() -> Samples:
    samples = load_catalog().benchmark_by_id["image_gen"].samples
    assert samples is not None
    return samples


def test_every_run_of_the_image_benchmark_has_addresses_of_its_own_name() -> None:
    names = defaultdict(set)
    runs = load_catalog().runs_by_benchmark["image_gen"]
    assert len(runs) > 30
    for run in runs:
        addresses = sample_addresses(load_catalog().benchmark_by_id["image_gen"], run)
        assert len(set(addresses)) == len(addresses) == kept().count
        for place, address in enumerate(addresses, 1):
            assert address == f"{FOLDER}{run.experiment.replace('/', '--')}_{place:02}.png"
            assert urlsplit(address).scheme == "https"
            names[address].add(run.experiment)
    assert all(len(experiments) == 1 for experiments in names.values())


def test_no_other_run_has_any() -> None:
    catalog = load_catalog()
    others = [run for run in catalog.runs if run.benchmark != "image_gen"]
    assert len(others) > 100
    for run in others:
        assert sample_addresses(catalog.benchmark_by_id[run.benchmark], run) == ()
    # files of one's own repeat the suite's names, and are in nobody's bucket
    run = catalog.runs_by_benchmark["image_gen"][0]
    own = run.model_copy(
        update={"provenance": run.provenance.model_copy(update={"source": "local"})}
    )
    assert sample_addresses(catalog.benchmark_by_id["image_gen"], own) == ()


def test_the_number_of_prompts_is_one_that_the_importer_holds_runs_to() -> None:
    # their text is not taken, but its digest pins it, so that a run of other prompts is flagged
    assert "sample_image_prompts" in load_conventions(DATA).rules.benchmarks["image_gen"].texts


def test_what_is_said_names_the_site_and_what_was_not_checked() -> None:
    assert kept().host == "huggingface.co"
    assert "another site, huggingface.co (not checked here" in samples_sentence(kept())


@pytest.mark.parametrize(
    "image",
    [
        "javascript:alert(1)//{experiment}_{number}.png",
        "data:text/html,{experiment}{number}",
        "http://huggingface.co/{experiment}_{number}.png",
        "HTTPS://huggingface.co/{experiment}_{number}.png",
        "//huggingface.co/{experiment}_{number}.png",
        "https://{experiment}.example.org/{number}.png",
        "https://user@example.org/{experiment}_{number}.png",
        "https://huggingface.co@example.org/{experiment}_{number}.png",
        "https://example.org:8080/{experiment}_{number}.png",
        "https://localhost/{experiment}_{number}.png",
        "https://example.org/{experiment}.png",
        "https://example.org/{number}/{experiment}.png",
        "https://example.org/{experiment}_{number}_{secret}.png",
        "https://example.org/{experiment}_{number}{number}.png",
        'https://example.org/"onclick="x"/{experiment}_{number}.png',
        "https://example.org/<b>/{experiment}_{number}.png",
        "https://example.org/a b/{experiment}_{number}.png",
        "https://example.org/{experiment}_{number}.png\n",
        "https://example.org/{experiment}_{number}.png?next=javascript:alert(1)",
        "https://example.org/\u202e{experiment}_{number}.png",
    ],
)
def test_a_hostile_address_is_refused_where_catalogs_are_read(image: str) -> None:
    document: dict[str, Any] = json.loads(EMBEDDED.read_bytes())
    benchmark = next(one for one in document["benchmarks"] if one["id"] == "image_gen")
    benchmark["samples"]["image"] = image
    with pytest.raises(CatalogError, match=r"samples\.image"):
        parse(json.dumps(document).encode(), name="mine.json")


@given(st.text(min_size=1))
def test_a_name_cannot_leave_its_place_in_the_address(name: str) -> None:
    before, _, after = kept().image.partition("{experiment}")
    for place, address in enumerate(kept().addresses(name), 1):
        own = address.removeprefix(before).removesuffix(after.replace("{number}", f"{place:02}"))
        assert not set(own) & set("/\\?#:@\"'<> \n{}")
        assert address.isascii()
