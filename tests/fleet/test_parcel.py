"""A parcel that a board sends is unpacked as if the board meant harm."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from bench.fleet.parcel import Allowance, ParcelError, digested, pack, unpack

ENOUGH = Allowance(1_000_000, 100)


def _tar(file: Path, *members: tuple[tarfile.TarInfo, bytes], kind: int = tarfile.USTAR_FORMAT) -> Path:
    with tarfile.open(file, "w", format=kind) as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file


def _member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def test_what_was_packed_comes_out_the_same(tmp_path: Path) -> None:
    results = tmp_path / "results"
    launch = results / "quick" / "20260101-000000-abc" / "launches" / "000-00-engine=sim+fp32"
    launch.mkdir(parents=True)
    (launch / "launch.json").write_text("{}")
    (launch / "requests.parquet").write_bytes(os.urandom(100_000))
    (launch.parents[1] / ".lock").write_text("17")

    parcel = pack(results, tmp_path / "parcel.tar")
    count = unpack(tmp_path / "parcel.tar", tmp_path / "out", ENOUGH)

    assert digested(tmp_path / "parcel.tar") == (parcel.sha256, parcel.size_bytes)
    assert count == parcel.files == 2
    there = tmp_path / "out" / launch.relative_to(results)
    assert (there / "requests.parquet").read_bytes() == (launch / "requests.parquet").read_bytes()
    assert not (there.parents[1] / ".lock").exists()


def test_the_same_results_have_the_same_digest_whoever_packs_them(tmp_path: Path) -> None:
    results = tmp_path / "results"
    results.mkdir()
    (results / "a").write_text("1")
    os.utime(results / "a", (1, 1))
    first = pack(results, tmp_path / "1.tar")
    (results / "a").chmod(0o600)

    assert pack(results, tmp_path / "2.tar").sha256 == first.sha256


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("../outside", tarfile.REGTYPE),
        ("results/../../outside", tarfile.REGTYPE),
        ("/etc/outside", tarfile.REGTYPE),
        ("results//x", tarfile.REGTYPE),
        ("./x", tarfile.REGTYPE),
        ("a\nb", tarfile.REGTYPE),
        ("-rf", tarfile.REGTYPE),
        ("/".join("abcdefghijklm"), tarfile.REGTYPE),
        ("x", tarfile.SYMTYPE),
        ("x", tarfile.LNKTYPE),
        ("x", tarfile.CHRTYPE),
        ("x", tarfile.BLKTYPE),
        ("x", tarfile.FIFOTYPE),
        ("x", tarfile.GNUTYPE_SPARSE),
        ("x", tarfile.XHDTYPE),
        ("x", tarfile.GNUTYPE_LONGNAME),
    ],
)
def test_nothing_but_folders_and_regular_files_below_it_is_taken(tmp_path: Path, name: str, kind: bytes) -> None:
    file = _tar(tmp_path / "p.tar", (_member("good"), b"1"), (_member(name, kind, "/etc/passwd"), b""))

    with pytest.raises(ParcelError, match="in the parcel"):
        unpack(file, tmp_path / "out", ENOUGH)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.tar"]


def test_a_link_cannot_be_followed_by_what_comes_after_it(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    link = _member("results", tarfile.SYMTYPE, str(outside))

    with pytest.raises(ParcelError, match="is a link"):
        unpack(_tar(tmp_path / "p.tar", (link, b""), (_member("results/x"), b"1")), tmp_path / "out", ENOUGH)
    assert list(outside.iterdir()) == []


def test_a_file_may_come_once(tmp_path: Path) -> None:
    with pytest.raises(ParcelError, match="'x' twice"):
        unpack(_tar(tmp_path / "p.tar", (_member("x"), b"1"), (_member("x"), b"2")), tmp_path / "out", ENOUGH)


def test_a_file_cannot_be_a_folder_too(tmp_path: Path) -> None:
    with pytest.raises(ParcelError, match="a file and a folder at once"):
        unpack(_tar(tmp_path / "p.tar", (_member("x"), b"1"), (_member("x/y"), b"2")), tmp_path / "out", ENOUGH)


def test_more_bytes_than_allowed_are_refused_before_they_are_written(tmp_path: Path) -> None:
    file = _tar(tmp_path / "p.tar", (_member("x"), b"0" * 600), (_member("y"), b"0" * 600))

    assert unpack(file, tmp_path / "out", Allowance(1200, 2)) == 2
    with pytest.raises(ParcelError, match="more than 0 MB"):
        unpack(file, tmp_path / "again", Allowance(1199, 2))
    with pytest.raises(ParcelError, match="more than 1 files"):
        unpack(file, tmp_path / "again", Allowance(1200, 1))


def test_a_size_that_is_only_claimed_is_not_believed(tmp_path: Path) -> None:
    info = _member("x")
    info.size = 8**11
    block = info.tobuf(tarfile.GNU_FORMAT)
    (tmp_path / "p.tar").write_bytes(block)

    with pytest.raises(ParcelError, match="more than 1 MB"):
        unpack(tmp_path / "p.tar", tmp_path / "out", ENOUGH)


@pytest.mark.parametrize("keep", [100, 700, 1024, 1300])
def test_a_parcel_cut_short_is_refused_whole(tmp_path: Path, keep: int) -> None:
    whole = _tar(tmp_path / "p.tar", (_member("x"), b"0" * 600)).read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[:keep])

    with pytest.raises(ParcelError, match=r"cut short|damaged"):
        unpack(tmp_path / "cut.tar", tmp_path / "out", ENOUGH)
    assert not (tmp_path / "out").exists()


def test_noise_is_no_parcel(tmp_path: Path) -> None:
    (tmp_path / "p.tar").write_bytes(os.urandom(2048))

    with pytest.raises(ParcelError, match="damaged"):
        unpack(tmp_path / "p.tar", tmp_path / "out", ENOUGH)


def test_results_that_are_here_are_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()

    with pytest.raises(ParcelError, match="exists already"):
        unpack(_tar(tmp_path / "p.tar", (_member("x"), b"1")), tmp_path / "out", ENOUGH)
