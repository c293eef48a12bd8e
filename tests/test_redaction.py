"""Passwords and tokens in URLs: nowhere in what a run shows or leaves."""

import json
import logging
import subprocess
import sys

import pytest
import xarray
from running import Runner
from test_zarr_input import dataset as dataset
from test_zarr_input import sample as sample

from ai_models_mosaic.cli import main
from ai_models_mosaic.errors import InputError
from ai_models_mosaic.wording.redaction import is_redacted, redact_process, redacted

SECRET = "PW-7f3a"  # noqa: S105

URLS = {
    f"http://user:{SECRET}@127.0.0.1:8000/x.zarr": "http://***@127.0.0.1:8000/x.zarr",
    f"'https://user:{SECRET}@host/a'": "'https://***@host/a'",
    f"https://{SECRET}@host": "https://***@host",
    f"https://:{SECRET}@host/a and s3://key:{SECRET}@bucket/b": "https://***@host/a and s3://***@bucket/b",
    f"simplecache::ftp://u:{SECRET}@host/a": "simplecache::ftp://***@host/a",
    f"http://u:a@{SECRET}@host/a@b": "http://***@host/a@b",
    f"http://u:a/{SECRET}@host/a": "http://***@host/a",
    f"/data/http:/u:{SECRET}@host/a.zarr": "/data/http:/***@host/a.zarr",
    f"https://host/a?token={SECRET}&b=1": "https://host/a?token=***&b=1",
    f"https://host/a?b=1&X-Amz-Signature={SECRET}&X-Amz-Credential={SECRET}%2Fx)": (
        "https://host/a?b=1&X-Amz-Signature=***&X-Amz-Credential=***)"
    ),
    f"az://a/b?sv=1&sig={SECRET}'": "az://a/b?sv=1&sig=***'",
    f"GET /a?access_token={SECRET} HTTP": "GET /a?access_token=*** HTTP",
    f'{{"source":"http://u:{SECRET}@h/a","at":"me@b"}}': '{"source":"http://***@h/a","at":"me@b"}',
}

PLAIN = (
    "http://host:8000/a@b/x.zarr",
    "https://host/a?time=3&level=500",
    "me@host: see https://host/a",
    "http://host:80: ask me@host",
    "tokens = 3, key=4 and a?b",
    "https://host:443?a=b@c",
    "s3://bucket/a:b@c.zarr",
)


@pytest.mark.parametrize("text", URLS)
def test_what_is_secret_in_a_url_is_hidden_and_nothing_else(text):
    assert redacted(text) == redacted(redacted(text)) == URLS[text]
    assert is_redacted(redacted(text))


@pytest.mark.parametrize("text", PLAIN)
def test_a_text_without_secrets_is_left_as_it_is(text):
    assert redacted(text) == text
    assert not is_redacted(text)


def test_messages_of_errors_hide_them():
    assert str(InputError(f"http://u:{SECRET}@h/a: HTTP 403")) == "http://***@h/a: HTTP 403"


def test_log_records_of_any_library_hide_them(caplog):
    redact_process()
    redact_process()
    logging.getLogger("fsspec").warning("Cannot open %s: %d", f"http://u:{SECRET}@h/a", 3)
    logging.getLogger("fsspec").warning("%d of %s", 3, "all")
    assert caplog.messages == ["Cannot open http://***@h/a: 3", "3 of all"]
    assert caplog.records[1].args == (3, "all")


def test_tracebacks_hide_them():
    program = (
        "from ai_models_mosaic.wording.redaction import redact_process\nredact_process()\n"
        "url = 'http://u:' + 'PW-' + '7f3a@h/a'\nraise FileNotFoundError(url)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.endswith("FileNotFoundError: http://***@h/a\n")


# All outputs of a run.


@pytest.fixture
def store(dataset: xarray.Dataset) -> str:
    """A store that is only found with its password; fsspec's memory takes all of a URL for a path."""
    url = f"memory://user:{SECRET}@host/era5.zarr"
    dataset.to_zarr(url, mode="w", consolidated=True)
    return url


def test_nothing_that_a_run_leaves_has_the_password(run: Runner, store: str, caplog):
    words = ("mosaic", "--variant", "mini", "--file", store, "--lead-time", "24", "--path", "out.grib")
    more = ("--progress-file", "progress", "--zarr", "out.zarr", "--debug", "--dump-provenance", "dump.json")
    out = run(*words, *more)
    out += run(*words, *more, "--resume")
    assert "is complete already" in caplog.text
    texts = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    assert {"out.grib.provenance.json", "progress", "dump.json"} <= {path.name for path in texts}
    assert not [path for path, content in texts.items() if SECRET.encode() in content]
    assert SECRET not in caplog.text + out
    card = json.loads((run.folder / "out.grib.provenance.json").read_bytes())
    assert card["input"]["source"] == "memory://***@host/era5.zarr"


def test_replay_asks_for_the_address_that_no_card_has(run: Runner, store: str, capsys):
    run("mosaic", "--variant", "mini", "--file", store, "--lead-time", "24", "--path", "out.grib")
    card = run.folder / "out.grib.provenance.json"
    words = [
        "replay",
        str(card),
        "--member",
        "1",
        "--steps",
        "24",
        "--params",
        "2t",
        "--output",
        str(run.path("again")),
    ]
    assert main(words) == 3
    message = (
        f"the input of {card} was memory://***@host/era5.zarr, whose password or token is kept nowhere: give the whole "
        "address with --file"
    )
    assert message in capsys.readouterr().err
    assert main([*words, "--file", store]) == 0
    assert "1 of 1 identical" in capsys.readouterr().out


@pytest.mark.parametrize("more", [(), ("--debug",)])
def test_nothing_that_a_failed_run_leaves_has_the_password(run: Runner, caplog, more):
    url = f"memory://user:{SECRET}@host/absent.zarr"
    words = ("mosaic", "--variant", "mini", "--file", url, "--progress-file", "progress", "--path", "out.grib", *more)
    if more:
        with pytest.raises(InputError) as caught:
            run(*words)
        said = str(caught.value)
    else:
        refused = run.refused(*words)
        assert refused.status == 3
        said = refused.message
    assert "memory://***@host/absent.zarr cannot be opened" in said
    progress = (run.folder / "progress").read_text()
    assert "memory://***@host/absent.zarr" in progress
    assert SECRET not in said + progress + caplog.text
