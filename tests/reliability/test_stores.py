"""A store that is damaged, shared or in a strange place gives the right numbers, or one clear error."""

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from odeflow import Adversary, GaussianMixture, LearningRule, SweepInterrupted, integrate, load, save, sweep
from odeflow.laws import Continuous
from odeflow.sweeps.computations import point_seed
from odeflow.sweeps.store import Store
from tests.reliability.kills import content

PARTS = (GaussianMixture(p=0.7), LearningRule(), Adversary(0.3))
OVER = {"rho": [1.0, 2.0, 3.0], "epsilon": [0.0, 0.5]}
ALPHA = [0.0, 1.0, 10.0]


def values(result: Any) -> Any:
    with result:
        return result.load().drop_attrs()


def stopped(store: Path, *parts: Any, points: int = 4, **options: Any) -> Path:
    """Interrupt a sweep when its store holds `points` points, in parts of 2; return the folder of its journal."""
    write = Store.write

    def interrupted(self: Store, index: Any, rows: Any) -> None:
        if len(self.missing()) <= 6 - points:
            raise KeyboardInterrupt
        write(self, index, rows)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "write", interrupted)
        with pytest.raises(SweepInterrupted):
            sweep(*(parts or PARTS), **{"over": OVER, "alpha": ALPHA, "chunk": 2, **options}, store=store)
    folder = store.parent / f".{store.name}.parts"
    assert len(list(folder.glob("*.part"))) == points // 2
    return folder


def flipped(whole: bytes, at: int, bit: int) -> bytes:
    damaged = bytearray(whole)
    damaged[at] ^= 1 << bit
    return bytes(damaged)


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    **{f"bit {at}": lambda whole, at=at: flipped(whole, at * len(whole) // 16, at % 8) for at in range(16)},  # type: ignore[misc]
    "empty": lambda whole: whole[:0],
    "truncated": lambda whole: whole[:-1],
    "longer": lambda whole: whole + b"0",
    "no header": lambda whole: bytes(128) + whole[128:],
    "no numbers": lambda whole: whole[:128] + bytes(len(whole) - 128),
    "all zero": lambda whole: bytes(len(whole)),
}


def test_the_points_of_a_damaged_part_are_computed_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    expected = values(sweep(*PARTS, over=OVER, alpha=ALPHA))
    store = tmp_path / "sweep.nc"
    folder = stopped(store)
    whole = {path: path.read_bytes() for path in folder.iterdir()}
    for k, (name, damage) in enumerate(DAMAGES.items()):
        part = folder / f"{k % 2}.part"
        store.unlink(missing_ok=True)
        folder.mkdir(exist_ok=True)
        for path, there in whole.items():
            path.write_bytes(damage(there) if path == part else there)
        caplog.clear()
        result = values(sweep(*PARTS, over=OVER, alpha=ALPHA, store=store))
        assert result.identical(expected), name
        assert f"{part.name} is damaged, or of another sweep; its points are computed anew" in caplog.text


@pytest.mark.parametrize("manifest", [b"", b"{", b"null", b'{"attrs": {}, "alpha": null, "over": {}}', b"\xff\x00"])
def test_a_damaged_manifest_is_named_and_written_anew(
    tmp_path: Path, manifest: bytes, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "sweep.nc"
    (stopped(store) / "manifest.json").write_bytes(manifest)
    computed = count_points(monkeypatch)
    result = values(sweep(*PARTS, over=OVER, alpha=ALPHA, store=store))
    assert "manifest.json cannot be read and is written anew" in caplog.text
    assert sum(computed) == 2  # what is whole and of this sweep is kept
    assert result.identical(values(sweep(*PARTS, over=OVER, alpha=ALPHA)))


def count_points(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    from odeflow.sweeps.computations import Trajectories

    counts: list[int] = []
    call = Trajectories.__call__

    def counting(self: Trajectories, points: Any) -> Any:
        counts.append(len(next(iter(points.values()))))
        return call(self, points)

    monkeypatch.setattr(Trajectories, "__call__", counting)
    return counts


@pytest.mark.parametrize("manifest", [None, b"{"])
@pytest.mark.parametrize(
    "other",
    [
        (GaussianMixture(p=0.6), *PARTS[1:]),
        (PARTS[0], LearningRule(eta_w=0.2), PARTS[2]),
        (*PARTS[:2], Adversary(0.3, fraction=0.5)),
    ],
)
def test_parts_without_a_manifest_are_not_another_models(
    tmp_path: Path, other: tuple[Any, ...], manifest: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    """This took over 22 of 40 numbers of another model, without a message."""
    store = tmp_path / "sweep.nc"
    file = stopped(store) / "manifest.json"
    if manifest is None:
        file.unlink()
    else:
        file.write_bytes(manifest)
    result = values(sweep(*other, over=OVER, alpha=ALPHA, store=store))
    assert result.identical(values(sweep(*other, over=OVER, alpha=ALPHA)))
    assert caplog.text.count("is damaged, or of another sweep") == 2


def test_a_point_that_is_not_on_the_grid_is_nobodys(tmp_path: Path) -> None:
    store = tmp_path / "sweep.nc"
    (stopped(store) / "manifest.json").unlink()
    other = {**OVER, "rho": [1.5, 2.0, 4.0]}
    assert values(sweep(*PARTS, over=other, alpha=ALPHA, store=store)).identical(
        values(sweep(*PARTS, over=other, alpha=ALPHA))
    )


def test_laws_of_one_name_are_told_apart(tmp_path: Path) -> None:
    """The text of a histogram's law says nothing of its numbers."""
    laws = [Continuous(stats.rv_histogram((heights, [0.0, 1.0, 2.0])).freeze()) for heights in ([1, 3], [3, 1])]
    assert repr(laws[0]) == repr(laws[1])
    parts = [(*PARTS[:2], Adversary(0.3, law=law)) for law in laws]
    stopped(tmp_path / "sweep.nc", *parts[0])
    with pytest.raises(ValueError, match=r"is of another sweep: it has law\[0\] = .*, now law\[0\] = "):
        sweep(*parts[1], over=OVER, alpha=ALPHA, store=tmp_path / "sweep.nc")
    sweep(*parts[0], over=OVER, alpha=ALPHA, store=tmp_path / "sweep.nc").close()


def test_rounding_makes_no_other_sweep(tmp_path: Path) -> None:
    typed, counted = [1.0, 1.1, 1.2, 1.3, 1.4], np.arange(1, 1.45, 0.1)
    assert not np.array_equal(typed, counted)
    for suffix, first, then in ((".nc", typed, counted), (".zarr", counted, typed)):
        store = tmp_path / f"sweep{suffix}"
        expected = values(sweep(*PARTS, over={"rho": first}, alpha=first, store=store))
        assert values(sweep(*PARTS, over={"rho": then}, alpha=then, store=store)).identical(expected)
        more = values(sweep(*PARTS, over={"rho": [*then, 1.4 + 1e-9]}, alpha=then, store=store))
        assert more.rho.values.tolist() == [*first, 1.4 + 1e-9]
        assert more.isel(rho=slice(5)).identical(expected)


def test_where_long_lists_differ_is_said(tmp_path: Path) -> None:
    store = tmp_path / "sweep.nc"
    alpha = np.arange(8) / 10
    sweep(*PARTS, over=OVER, alpha=alpha, store=store).close()
    alpha[6] = 0.65
    with pytest.raises(ValueError, match=r"it has alpha\[6\] = 0.6, now alpha\[6\] = 0.65 is asked for"):
        sweep(*PARTS, over=OVER, alpha=alpha, store=store)


def test_minus_zero_is_zero(tmp_path: Path) -> None:
    assert point_seed(1, b0=-0.0).spawn_key == point_seed(1, b0=0.0).spawn_key
    options: dict[str, Any] = {"alpha": [1.0], "compute": "simulate", "N": 5, "runs": 2, "rng": 1}
    plus, minus = (values(sweep(*PARTS, over={"b0": [b0, 1.0]}, **options)) for b0 in (0.0, -0.0))
    assert plus.identical(minus)
    assert not np.signbit(minus.b0.values[0])


# In whose hands it is.


def test_a_store_is_used_by_one_thread_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = tmp_path / "sweep.nc"
    inside, go_on = threading.Event(), threading.Event()
    finish = Store.finish

    def waiting(self: Store) -> Any:
        inside.set()
        go_on.wait()
        return finish(self)

    monkeypatch.setattr(Store, "finish", waiting)
    first = threading.Thread(target=lambda: sweep(*PARTS, over=OVER, alpha=ALPHA, store=store).close())
    first.start()
    inside.wait()
    with pytest.raises(ValueError, match="is in use by another process, or by another thread"):
        sweep(*PARTS, over=OVER, alpha=ALPHA, store=store)
    go_on.set()
    first.join()
    assert values(sweep(*PARTS, over=OVER, alpha=ALPHA, store=store)).sizes["rho"] == 3
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.nc"]


def test_a_refused_sweep_leaves_nothing(tmp_path: Path) -> None:
    store = tmp_path / "sweep.nc"
    sweep(*PARTS, over=OVER, alpha=ALPHA, store=store).close()
    with pytest.raises(ValueError, match="is of another sweep"):
        sweep(GaussianMixture(), *PARTS[1:], over=OVER, alpha=ALPHA, store=store)
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.nc"]


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_what_a_dead_process_has_left_is_removed(tmp_path: Path, suffix: str) -> None:
    target = tmp_path / f"it{suffix}"
    for kind in ("new", "parts"):
        folder = tmp_path / f".{target.name}.{kind}"
        (folder / f"new{suffix}").mkdir(parents=True)
        (folder / f"new{suffix}" / "half").write_bytes(b"half")
        (folder / "3.part.tmp").write_bytes(b"half")
        (folder / "lock").touch()
    sweep(*PARTS, over=OVER, alpha=ALPHA, store=target).close()
    save(integrate(*PARTS, alpha=ALPHA), target)
    assert [path.name for path in tmp_path.iterdir()] == [target.name]


# Where it is.


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
@pytest.mark.parametrize("is_there", [True, False])
def test_a_link_is_written_through(tmp_path: Path, suffix: str, is_there: bool) -> None:
    (tmp_path / "disk").mkdir()
    real, link = tmp_path / "disk" / f"real{suffix}", tmp_path / f"link{suffix}"
    link.symlink_to(real)
    result = integrate(*PARTS, alpha=ALPHA)
    if is_there:
        save(integrate(*PARTS, alpha=[1.0]), real)
    save(result, link)
    assert link.is_symlink()
    assert load(real).identical(load(link).load())
    assert load(real).identical(result)

    sweep(*PARTS, over={"rho": [1.0]}, alpha=ALPHA, store=link, overwrite=True).close()
    stored = sweep(*PARTS, over={"rho": [1.0, 2.0]}, alpha=ALPHA, store=real)
    assert values(stored).identical(values(sweep(*PARTS, over={"rho": [1.0, 2.0]}, alpha=ALPHA, store=link)))
    assert link.is_symlink()
    assert sorted(path.name for path in tmp_path.rglob("*") if path.suffix == suffix) == [link.name, real.name]
    assert [path.name for path in (tmp_path / "disk").iterdir()] == [real.name]


def test_places_where_nothing_can_be_written(tmp_path: Path) -> None:
    result = integrate(*PARTS, alpha=ALPHA)
    circle = tmp_path / "circle.nc"
    circle.symlink_to(circle)
    for path, message in (
        (tmp_path / ("x" * 250 + ".nc"), "has a name of more than 200 bytes"),
        (tmp_path / ("\N{GREEK SMALL LETTER ALPHA}" * 100 + ".nc"), "has a name of more than 200 bytes"),
        (tmp_path / ("x" * 5000 + "/run.nc"), "is no path of a file|does not exist"),
        (tmp_path / "a\0.nc", "is no path of a file"),
        (circle, "is no path of a file|does not exist|is a file"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            save(result, path)
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            sweep(*PARTS, over=OVER, alpha=ALPHA, store=path)
    assert [path.name for path in tmp_path.iterdir()] == ["circle.nc"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="for root nothing is read-only")
def test_a_read_only_file_stays(tmp_path: Path) -> None:
    path = save(integrate(*PARTS, alpha=ALPHA), tmp_path / "run.nc")
    path.chmod(0o444)
    with pytest.raises(PermissionError, match="is read-only"):
        save(integrate(*PARTS, alpha=[1.0]), path)


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
@pytest.mark.parametrize("is_whole", [True, False])
def test_overwrite_begins_anew(tmp_path: Path, suffix: str, is_whole: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    store = tmp_path / f"sweep{suffix}"
    if is_whole:
        sweep(GaussianMixture(), *PARTS[1:], over=OVER, alpha=ALPHA, store=store).close()
    else:
        stopped(store, GaussianMixture(), *PARTS[1:])
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.name != "lock"}
    with pytest.raises(ValueError, match=r"rtol = 0\.0 is out of range"):
        sweep(*PARTS, over=OVER, alpha=ALPHA, store=store, rtol=0.0, overwrite=True)
    assert before == {path: path.read_bytes() for path in before}

    computed = count_points(monkeypatch)
    result = values(sweep(*PARTS, over=OVER, alpha=ALPHA, store=store, overwrite=True))
    assert sum(computed) == 6
    assert result.identical(values(sweep(*PARTS, over=OVER, alpha=ALPHA)))
    assert [path.name for path in tmp_path.iterdir()] == [store.name]


def test_every_fact_of_a_sweep_is_in_its_record(tmp_path: Path) -> None:
    """Each field of the three parts, changed, makes another sweep."""
    from dataclasses import fields, replace

    store = tmp_path / "sweep.nc"
    stopped(store)
    before = content(tmp_path / ".sweep.nc.parts")
    changed = 0
    for k in range(3):
        part: Any = PARTS[k]
        for field in fields(part):
            value = getattr(part, field.name)
            for other in (not value, 0.5, 1.0, 0.25, "hinge", "linear", Continuous(stats.gamma(4, scale=0.25))):
                try:
                    new: Any = replace(part, **{field.name: other})
                    if new == part or field.name in OVER:
                        continue
                except (ValueError, TypeError):  # the field does not take it
                    continue
                parts: list[Any] = [*PARTS[:k], new, *PARTS[k + 1 :]]
                with pytest.raises(ValueError, match=r"is of another sweep: it has |allowed"):
                    sweep(*parts, over=OVER, alpha=ALPHA, store=store)
                changed += 1
    assert changed >= 10
    after = content(tmp_path / ".sweep.nc.parts")
    assert before.keys() - {"lock"} == after.keys() - {"lock"}
    assert json.loads(after["manifest.json"]) == json.loads(before["manifest.json"])
