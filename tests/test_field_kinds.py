"""What a message holds, by the keys that say so."""

from collections.abc import Iterator
from pathlib import Path

import eccodes
import pytest

from ai_models_mosaic.inputs.field_kinds import FieldKind, kind_of

SAMPLE = Path(__file__).parent.parent / "examples" / "mini-input.grib"
LABELLED = {"setLocalDefinition": 1, "localDefinitionNumber": 1}


@pytest.fixture
def kind():
    """The kind of a sample message of an edition with other keys, set in order."""

    def of(edition: int, **keys: int | str) -> FieldKind:
        handle = eccodes.codes_grib_new_from_samples(f"regular_ll_pl_grib{edition}")
        try:
            for key, value in keys.items():
                eccodes.codes_set(handle, key, value)
            return kind_of(handle)
        finally:
            eccodes.codes_release(handle)

    return of


@pytest.mark.parametrize(
    ("edition", "keys"),
    [
        (2, {"productDefinitionTemplateNumber": 0}),
        (2, {"productDefinitionTemplateNumber": 1, "typeOfEnsembleForecast": 1}),
        (2, {"productDefinitionTemplateNumber": 1, "perturbationNumber": 3, "typeOfEnsembleForecast": 3}),
        (2, {"productDefinitionTemplateNumber": 60}),
        (2, {"productDefinitionTemplateNumber": 117}),
        (2, {"typeOfProcessedData": 2, "typeOfGeneratingProcess": 4}),
        (2, {"typeOfGeneratingProcess": 255, "typeOfProcessedData": 255}),
        (2, LABELLED | {"type": "4v", "stream": "elda"}),
        (2, LABELLED | {"type": "fc", "stream": "scda"}),
        (1, {"timeRangeIndicator": 0}),
        (1, {"timeRangeIndicator": 1}),
        (1, {"timeRangeIndicator": 10, "P1": 6}),
        (1, {"type": "cf", "stream": "enfo"}),
        (1, {"type": "pf", "stream": "mnfc"}),
        (1, {"setLocalDefinition": 0}),
    ],
)
def test_a_field_at_a_point_in_time_of_an_analysis_a_forecast_or_a_member_is_a_state(kind, edition, keys):
    found = kind(edition, **keys)
    assert found.is_state, found


@pytest.mark.parametrize(
    ("edition", "keys", "expected"),
    [
        (2, {"productDefinitionTemplateNumber": 2, "derivedForecast": 0}, "the ensemble mean (template 2)"),
        (2, {"productDefinitionTemplateNumber": 2, "derivedForecast": 4}, "the ensemble spread (template 2)"),
        (2, {"productDefinitionTemplateNumber": 3, "derivedForecast": 6}, "the mean of a cluster (template 3)"),
        (2, {"productDefinitionTemplateNumber": 4, "derivedForecast": 9}, "the ensemble maximum (template 4)"),
        (2, {"productDefinitionTemplateNumber": 12, "derivedForecast": 8}, "the ensemble minimum (template 12)"),
        (2, {"productDefinitionTemplateNumber": 5}, "a probability (template 5)"),
        (2, {"productDefinitionTemplateNumber": 6}, "a percentile (template 6)"),
        (2, {"productDefinitionTemplateNumber": 7}, "an analysis or forecast error (template 7)"),
        (2, {"productDefinitionTemplateNumber": 9}, "a probability (template 9)"),
        (2, {"productDefinitionTemplateNumber": 10}, "a percentile (template 10)"),
        (2, {"productDefinitionTemplateNumber": 15}, "a statistic over an area (template 15)"),
        (2, {"productDefinitionTemplateNumber": 32}, "satellite data (template 32)"),
        (2, {"productDefinitionTemplateNumber": 40}, "a constituent or aerosol (template 40)"),
        (2, {"productDefinitionTemplateNumber": 86}, "a quantile (template 86)"),
        (
            2,
            {"productDefinitionTemplateNumber": 8, "typeOfStatisticalProcessing": 0},
            "an average over time (template 8)",
        ),
        (2, {"productDefinitionTemplateNumber": 8, "typeOfStatisticalProcessing": 1}, "an accumulation (template 8)"),
        (
            2,
            {"productDefinitionTemplateNumber": 11, "typeOfStatisticalProcessing": 2},
            "a maximum over time (template 11)",
        ),
        (
            2,
            {"productDefinitionTemplateNumber": 61, "typeOfStatisticalProcessing": 6},
            "a standard deviation over time (template 61)",
        ),
        (2, {"typeOfGeneratingProcess": 7}, "an analysis error (typeOfGeneratingProcess 7)"),
        (2, {"typeOfGeneratingProcess": 9}, "a climatology (typeOfGeneratingProcess 9)"),
        (2, {"typeOfProcessedData": 8}, "a probability (typeOfProcessedData 8)"),
        (2, LABELLED | {"type": "em"}, "the ensemble mean (template 2)"),
        (2, LABELLED | {"marsType": "em"}, "the ensemble mean (type em)"),
        (2, LABELLED | {"stream": "moda"}, "a monthly mean (stream moda)"),
        (2, LABELLED | {"stream": "ewmm"}, "a monthly mean (stream ewmm)"),
        (1, {"timeRangeIndicator": 2}, "a field over a range of time (time range 2)"),
        (1, {"timeRangeIndicator": 3}, "an average over time (time range 3)"),
        (1, {"timeRangeIndicator": 4}, "an accumulation (time range 4)"),
        (1, {"timeRangeIndicator": 5}, "a difference in time (time range 5)"),
        (1, {"timeRangeIndicator": 51}, "a climatology (time range 51)"),
        (1, {"timeRangeIndicator": 113}, "an average over time (time range 113)"),
        (1, {"timeRangeIndicator": 118}, "a variance over time (time range 118)"),
        (1, {"timeRangeIndicator": 123}, "an average over time (time range 123)"),
        (1, {"timeRangeIndicator": 200}, "a statistic over time (time range 200)"),
        (1, {"type": "es"}, "the ensemble spread (type es)"),
        (1, {"type": "taem"}, "a time average of the ensemble mean (type taem)"),
        (1, {"type": "cd"}, "a climate distribution (type cd)"),
        (1, {"type": "cv"}, "a field of another kind (type cv)"),
        (1, {"type": 199}, "a field of another kind (type 199)"),
        (1, {"stream": "mnth"}, "a monthly mean (stream mnth)"),
        (1, {"stream": "mmsa"}, "an anomaly (stream mmsa)"),
    ],
)
def test_what_was_made_of_several_states_is_no_state_and_is_called_what_it_is(kind, edition, keys, expected):
    found = kind(edition, **keys)
    assert not found.is_state
    assert str(found) == expected


def ncep(kind: int, product: int) -> bytes:
    """A message of NCEP's ensembles of old, with octets 41 to 45 of section 1, which ecCodes reads but does not make."""
    handle = eccodes.codes_grib_new_from_samples("regular_ll_pl_grib1")
    plain = eccodes.codes_get_message(handle)
    eccodes.codes_release(handle)
    length = int.from_bytes(plain[8:11], "big")
    section = bytearray(plain[8:36]) + bytes(12) + bytes([1, kind, 2, product, 1])
    section[:3], section[4], section[25] = len(section).to_bytes(3, "big"), 7, 2
    total = len(plain) + len(section) - length
    return plain[:4] + total.to_bytes(3, "big") + plain[7:8] + bytes(section) + plain[8 + length :]


@pytest.mark.parametrize(("type_", "product", "is_state"), [(1, 1, True), (2, 1, True), (3, 1, True), (5, 3, False)])
def test_ncep_tells_the_mean_of_an_ensemble_from_its_members_in_a_section_of_its_own(type_, product, is_state):
    handle = eccodes.codes_new_from_message(ncep(type_, product))
    found = kind_of(handle)
    eccodes.codes_release(handle)
    assert found.is_state is is_state


def test_every_field_of_the_bundled_sample_is_a_state():
    kinds = set(map(str, kinds_of(SAMPLE)))
    assert kinds == {"an instantaneous field (template 0)"}


def kinds_of(path: Path) -> Iterator[FieldKind]:
    with path.open("rb") as file:
        while (handle := eccodes.codes_grib_new_from_file(file, headers_only=True)) is not None:
            yield kind_of(handle)
            eccodes.codes_release(handle)
