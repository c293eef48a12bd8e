import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ai_models_mosaic.errors import OutputError
from ai_models_mosaic.outputs.grib.files import OPEN_AT_ONCE, MessageFiles, check_writable

FULL = Path("/dev/full")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def open_below(folder):
    """How many of this process's open files are below a folder."""
    count = 0
    for link in Path("/proc/self/fd").iterdir():
        try:
            count += link.readlink().is_relative_to(folder)
        except FileNotFoundError:
            continue
    return count


def elsewhere(program, folder):
    """Run a program in a process of its own; returns what it prints."""
    ran = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


# Names.


def test_files_bear_their_names_only_when_all_is_finished(tmp_path):
    first, second = tmp_path / "b.grib", tmp_path / "a.grib"
    files = MessageFiles()
    for path, message in [(first, b"one"), (second, b"two"), (first, b"three")]:
        files.append(path, message)
        assert not [name for name in names(tmp_path) if not name.endswith(".partial")]
    assert files.paths == [first, second]
    assert files.finish() == [first, second], "in the order of first use"
    assert names(tmp_path) == ["a.grib", "b.grib"]
    assert (first.read_bytes(), second.read_bytes()) == (b"onethree", b"two")
    assert open_below(tmp_path) == 0


def test_every_message_is_in_the_partial_file_as_soon_as_it_is_appended(tmp_path):
    files = MessageFiles()
    for count in (1, 2, 3):
        files.append(tmp_path / "x.grib", b"message")
        assert (tmp_path / "x.grib.partial").read_bytes() == b"message" * count
    files.abandon()


def test_abandoned_files_keep_their_suffix_and_the_complete_file_from_before_is_untouched(tmp_path):
    path = tmp_path / "x.grib"
    path.write_bytes(b"complete")
    files = MessageFiles()
    files.append(path, b"new")
    assert files.abandon() == [tmp_path / "x.grib.partial"]
    assert path.read_bytes() == b"complete"
    assert (tmp_path / "x.grib.partial").read_bytes() == b"new"
    assert open_below(tmp_path) == 0


def test_a_new_run_replaces_what_earlier_ones_left(tmp_path):
    path = tmp_path / "x.grib"
    path.write_bytes(b"complete, and longer than what comes")
    (tmp_path / "x.grib.partial").write_bytes(b"left by a run that failed")
    files = MessageFiles()
    files.append(path, b"new")
    files.finish()
    assert names(tmp_path) == ["x.grib"]
    assert path.read_bytes() == b"new"


def test_two_runs_in_one_process_share_nothing(tmp_path):
    first, second = MessageFiles(), MessageFiles()
    first.append(tmp_path / "x", b"1")
    assert second.paths == []
    second.append(tmp_path / "y", b"2")
    first.finish()
    assert names(tmp_path) == ["x", "y.partial"]
    second.finish()
    assert names(tmp_path) == ["x", "y"]


# Many files.


def test_thousands_of_files_are_written_with_few_open_at_once(tmp_path):
    files = MessageFiles()
    paths = [tmp_path / f"{index:04d}.grib" for index in range(2000)]
    most = 0
    for turn in (b"first;", b"second;"):
        for index, path in enumerate(paths):
            files.append(path, turn + path.name.encode())
            if index % 50 == 0:
                most = max(most, open_below(tmp_path))
    assert OPEN_AT_ONCE // 2 < most <= OPEN_AT_ONCE
    assert files.finish() == paths
    assert names(tmp_path) == [path.name for path in paths]
    for path in paths:
        assert path.read_bytes() == b"first;%bsecond;%b" % (path.name.encode(), path.name.encode())


def test_the_file_used_last_stays_open(tmp_path):
    files = MessageFiles()
    for index in range(3 * OPEN_AT_ONCE):
        files.append(tmp_path / "often", b"x")
        files.append(tmp_path / f"once-{index}", b"x")
    identity = (tmp_path / "often.partial").stat().st_ino
    assert any(link.stat().st_ino == identity for link in Path("/proc/self/fd").iterdir() if link.exists())
    files.finish()
    assert (tmp_path / "often").read_bytes() == b"x" * 3 * OPEN_AT_ONCE


LIMITED = """
import resource
from pathlib import Path
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
from ai_models_mosaic.outputs.grib.files import MessageFiles
files, others = MessageFiles(), []
try:
    # Others of the process take all that is left.
    while {take}:
        others.append(open("/dev/null"))
except OSError:
    for other in others[-3:]:
        other.close()
most = 0
for turn in range(3):
    for index in range(100):
        files.append(Path(f"{{index}}.grib"), b"message")
        most = most if {take} else max(most, len(list(Path("/proc/self/fd").iterdir())))
files.flush()
files.finish()
print(most, set(path.read_bytes() for path in Path().glob("*.grib")), len(list(Path().iterdir())))
"""


@pytest.mark.parametrize("take", [False, True])
def test_the_number_of_open_files_follows_the_limit_of_the_process(tmp_path, take):
    (said,) = elsewhere(LIMITED.format(take=take), tmp_path)
    most, found = said.split(" ", 1)
    assert int(most) < 32
    assert found == f"{{{b'message' * 3}}} 100"


def test_what_another_run_does_to_a_file_that_is_closed_meanwhile_is_noticed(tmp_path):
    paths = [tmp_path / f"{index}.grib" for index in range(OPEN_AT_ONCE + 3)]
    first, second = MessageFiles(), MessageFiles()
    for path in paths:
        first.append(path, b"first")
    with pytest.raises(OutputError, match=r"0.grib: another run is writing it"):
        second.append(paths[0], b"second")
    second.append(paths[1], b"second")
    with pytest.raises(OutputError, match=r"1.grib: another run is writing it"):
        first.append(paths[1], b"first")
    second.finish()
    with pytest.raises(OutputError, match=r"1.grib: its partial file was removed while it was being written"):
        first.append(paths[1], b"first")
    with pytest.raises(OutputError, match=r"1.grib: its partial file was removed while it was being written"):
        first.finish()
    first.abandon()
    assert paths[1].read_bytes() == b"second"


# Pipes and devices.


def test_a_pipe_is_written_to_directly(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    received = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()))
    reader.start()
    files = MessageFiles()
    files.append(pipe, b"one")
    files.append(pipe, b"two")
    assert files.finish() == [pipe]
    reader.join(timeout=10)
    assert received == [b"onetwo"]
    assert names(tmp_path) == ["pipe"]


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
def test_a_full_device_is_named(tmp_path):
    link = tmp_path / "link.grib"
    link.symlink_to(FULL)
    for path in (FULL, link):
        files = MessageFiles()
        with pytest.raises(OutputError) as caught:
            files.append(path, b"GRIB")
        assert str(caught.value) == f"cannot write {path}: No space left on device"
        files.abandon()
    assert FULL.is_char_device()
    assert names(tmp_path) == ["link.grib"]


FILLS_UP = """
import resource, sys
from pathlib import Path
from ai_models_mosaic.errors import OutputError
from ai_models_mosaic.outputs.grib.files import MessageFiles
files = MessageFiles()
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
for message in (b"a", b"b", b"c", b"d"):
    try:
        files.append(Path("x.grib"), message * 300)
    except OutputError as error:
        print(error)
"""


def test_a_disk_that_fills_up_in_the_middle_of_a_message_leaves_whole_messages_only(tmp_path):
    # Python ignores SIGXFSZ, so a limit on the size of files acts as a disk that fills up.
    said = elsewhere(FILLS_UP + "print(files.abandon())", tmp_path)
    assert said == [
        "cannot write x.grib: only 100 of 300 bytes were taken; is the disk full?",
        "[PosixPath('x.grib.partial')]",
    ]
    assert (tmp_path / "x.grib.partial").read_bytes() == b"a" * 300 + b"b" * 300 + b"c" * 300


def test_a_message_that_follows_one_that_failed_joins_the_whole_ones(tmp_path):
    program = FILLS_UP + "files.append(Path('x.grib'), b'e' * 90)\nfiles.finish()"
    assert len(elsewhere(program, tmp_path)) == 1
    assert (tmp_path / "x.grib").read_bytes() == b"a" * 300 + b"b" * 300 + b"c" * 300 + b"e" * 90


# Places that cannot be written to.


def test_a_folder_that_is_absent_when_the_run_ends_is_named(tmp_path):
    path = tmp_path / "absent" / "x.grib"
    files = MessageFiles()
    with pytest.raises(OutputError) as caught:
        files.append(path, b"GRIB")
    assert str(caught.value) == f"cannot write {path}: No such file or directory"
    assert files.paths == []


def test_a_place_is_refused_before_the_run_if_its_folder_is_absent_or_it_is_a_folder(tmp_path):
    (tmp_path / "file").touch()
    for path, message in [
        (tmp_path / "no" / "x.grib", f"there is no folder {tmp_path}/no; create it first"),
        (tmp_path / "file" / "x.grib", f"there is no folder {tmp_path}/file; create it first"),
        (tmp_path, "it is a folder; expected the name of a file"),
    ]:
        with pytest.raises(OutputError) as caught:
            check_writable(path)
        assert str(caught.value) == f"cannot write {path}: {message}"


@pytest.mark.parametrize("place", ["new.grib", "there.grib"])
def test_a_place_that_can_be_written_to_is_left_as_it_was(tmp_path, place):
    (tmp_path / "there.grib").write_bytes(b"complete")
    check_writable(tmp_path / place)
    assert names(tmp_path) == ["there.grib"]
    assert (tmp_path / "there.grib").read_bytes() == b"complete"


# The superuser may write anywhere, so this is tried as somebody else.
AS_NOBODY = """
import os
from pathlib import Path
from ai_models_mosaic.errors import OutputError
from ai_models_mosaic.outputs.grib.files import MessageFiles, check_writable
if os.getuid() == 0:
    os.setuid(65534)
try:
    {}
except OutputError as error:
    print(error)
"""


def test_no_file_is_made_among_devices(tmp_path):
    with pytest.raises(OutputError, match=r"^cannot write /dev/nul: there is no such device$"):
        check_writable(Path("/dev/nul"))
    # What is opened next has the number of what is closed.
    program = (
        "import os\nfrom pathlib import Path\nfrom ai_models_mosaic.errors import OutputError\n"
        "from ai_models_mosaic.outputs.grib.files import check_writable\n"
        "kept = os.dup(1)\nos.close(1)\n"
        "try:\n    check_writable(Path('/dev/stdout'))\nexcept OutputError as error:\n"
        "    os.write(kept, str(error).encode())\n"
    )
    assert elsewhere(program, tmp_path) == ["cannot write /dev/stdout: there is no such device"]


def test_a_folder_that_may_only_be_read_is_refused_before_the_run(tmp_path):
    tmp_path.chmod(0o555)
    try:
        said = elsewhere(AS_NOBODY.format("check_writable(Path('x.grib'))"), tmp_path)
    finally:
        tmp_path.chmod(0o755)
    assert said == ["cannot write x.grib: the folder . is not writable"]


def test_a_folder_that_may_not_be_entered_is_refused_before_the_run(tmp_path):
    (tmp_path / "private").mkdir(mode=0o000)
    try:
        said = elsewhere(AS_NOBODY.format("check_writable(Path('private/x.grib'))"), tmp_path)
    finally:
        (tmp_path / "private").chmod(0o755)
    assert len(said) == 1
    assert said[0].startswith("cannot write private/x.grib: ")


def test_a_partial_file_that_belongs_to_somebody_else_is_an_error_that_names_the_file(tmp_path):
    (tmp_path / "x.grib.partial").touch(mode=0o444)
    tmp_path.chmod(0o777)
    said = elsewhere(AS_NOBODY.format("MessageFiles().append(Path('x.grib'), b'GRIB')"), tmp_path)
    assert said == ["cannot write x.grib: Permission denied"]


# Going on.


def test_a_run_goes_on_where_its_record_says_and_what_came_after_is_cut_off(tmp_path: Path):
    path = tmp_path / "a.grib"
    first = MessageFiles()
    first.append(path, b"one")
    first.append(path, b"two")
    first.flush()
    positions = first.positions()
    assert positions == {str(path): 6}
    first.append(path, b"three, cut")
    first.abandon()
    second = MessageFiles()
    assert second.resume(positions) == [tmp_path / "a.grib.partial"]
    second.append(path, b"three")
    assert second.finish() == [path]
    assert path.read_bytes() == b"onetwothree"


def test_files_that_were_named_before_a_death_stay_and_the_others_are_named(tmp_path: Path):
    paths = [tmp_path / "a.grib", tmp_path / "b.grib"]
    first = MessageFiles()
    for path in paths:
        first.append(path, b"whole")
    positions = first.positions()
    first.abandon()
    (tmp_path / "a.grib.partial").replace(paths[0])
    second = MessageFiles()
    assert second.resume(positions, finished=True) == [paths[0], tmp_path / "b.grib.partial"]
    assert second.finish() == paths
    assert [path.read_bytes() for path in paths] == [b"whole", b"whole"]


def test_an_older_file_of_the_same_name_is_not_taken_for_the_lost_one(tmp_path: Path):
    path = tmp_path / "a.grib"
    path.write_bytes(b"older and longer")
    with pytest.raises(OutputError, match=r"expected 5 bytes of an unfinished run in .*a.grib.partial, got 0$"):
        MessageFiles().resume({str(path): 5})
    assert path.read_bytes() == b"older and longer"


def test_what_is_no_file_has_no_position():
    files = MessageFiles()
    files.append(Path("/dev/null"), b"gone")
    files.flush()
    assert files.positions() == {}
    files.finish()
