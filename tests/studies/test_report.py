"""The report: one page with everything that is there, which says what is not."""

import base64
import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from odeflow import load, save
from studies import STUDIES
from studies.__main__ import main
from studies.registry import run_study
from studies.report import read_result, write_report

CLAIMS = 3
"""Of scenario1."""
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class _Page(HTMLParser):
    """Collects what a page refers to, its identifiers and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.resources: list[str] = []
        self.images: list[dict[str, str]] = []
        self.ids: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "a":
            self.links.append(values["href"])
        else:
            self.resources += [values[name] for name in ("src", "href", "srcset", "data") if name in values]
        if tag == "img":
            self.images.append(values)
        if "id" in values:
            self.ids.append(values["id"])

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a quick run of scenario1."""
    folder = tmp_path_factory.mktemp("quick")
    run_study(STUDIES["scenario1"], out=folder, quick=True)
    return folder


@pytest.fixture
def folder(quick: Path, tmp_path: Path) -> Path:
    """Return a copy of it, to be changed."""
    return Path(shutil.copytree(quick, tmp_path / "results"))


def _page(folder: Path) -> _Page:
    return _Page(write_report(folder).path.read_text(encoding="utf-8"))


def test_the_page_has_everything_that_is_there(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--out", str(folder)]) == 0
    printed = capsys.readouterr()
    assert printed.out.strip() == str(folder / "report.html")
    assert "python -m studies run scenario2 finite_size" in printed.err
    page = _Page((folder / "report.html").read_text(encoding="utf-8"))
    data = load(folder / "scenario1.nc")
    for claim in json.loads(data.attrs["claims"]):
        assert claim["statement"][1:] in page.text
        assert claim["measured"] in page.text
        assert f"What fails it: {claim['rival']}: {claim['rival_measured']}." in page.text
    assert data.attrs["table"] in page.text
    assert "python -m studies run scenario1 --quick" in page.text
    assert "rule.eta_w" in page.text
    assert data.attrs["device"] in page.text
    assert f"1 of {len(STUDIES)} studies have results; {CLAIMS} of {CLAIMS} claims hold." in page.text
    assert [image["alt"] for image in page.images] == ["Figure of scenario1", ""]  # the empty one is for zooming
    assert page.images[0]["src"].startswith("data:image/svg+xml;base64,")


def test_the_page_needs_nothing_else_and_every_link_resolves(folder: Path) -> None:
    page = _page(folder)
    assert all(resource.startswith("data:") for resource in page.resources)
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert set(re.findall(r"""https?://[^\s"'<)]*""", text)) == {"http://www.w3.org/2000/svg"}  # a name, not an address
    assert "@import" not in text
    assert "$" not in page.text.split("const Explorer")[0]  # of the template
    assert len(page.ids) == len(set(page.ids))
    assert {link for link in page.links if not link.startswith("#")} == {
        f"scenario1{suffix}" for suffix in (".nc", ".pdf", ".svg", ".png")
    }
    for link in page.links:
        assert link[1:] in page.ids if link.startswith("#") else (folder / link).is_file()
    assert set(STUDIES) < set(page.ids)


def test_an_empty_folder_says_what_to_run(tmp_path: Path) -> None:
    page = _page(tmp_path)
    assert f"0 of {len(STUDIES)} studies have results." in page.text
    assert f"python -m studies run {' '.join(STUDIES)}" in page.text
    assert "There is no scenario1.nc: the study has not been run." in page.text


def test_a_result_of_another_version_is_named_as_such(folder: Path) -> None:
    data = load(folder / "scenario1.nc")
    data.attrs["odeflow_version"] = "0.0.1<b>"
    save(data, folder / "scenario1.nc")
    page = _page(folder)
    assert "Made by another version of odeflow, 0.0.1<b>; this page was made by" in page.text


@pytest.mark.parametrize("damage", ["truncated", "text", "claims", "other study"])
def test_a_damaged_file_is_one_line_and_the_rest_is_built(
    damage: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = folder / "scenario1.nc", folder / "scenario2.nc"
    if damage == "truncated":
        target.write_bytes(source.read_bytes()[:3000])
    elif damage == "text":
        target.write_text("this is <no> data")
    else:
        data = load(source)
        data.attrs |= {"claims": '[{"statement": 1}]', "study": "scenario2"} if damage == "claims" else {}
        save(data, target)
    assert main(["report", "--out", str(folder)]) == 0
    assert "scenario2: scenario2.nc cannot be used: " in capsys.readouterr().err
    page = _Page((folder / "report.html").read_text(encoding="utf-8"))
    assert "scenario2.nc cannot be used: " in page.text
    assert "cannot be read" in page.text
    assert f"1 of {len(STUDIES)} studies have results; {CLAIMS} of {CLAIMS} claims hold." in page.text
    assert f"python -m studies run {' '.join(name for name in STUDIES if name != 'scenario1')}" in page.text


DEEP = "[" * 100_000 + "]" * 100_000
HOSTILE: dict[str, list[Any]] = {
    "figures": ['["/../../secret"]', '["_a/../../secret"]', '[".."]', '["_\\u0000"]', "[3]", "3", '{"a": 1}', "[", DEEP, "null"],
    "claims": [
        "3", "[3]", '["a"]', "[null]", "[[]]", '[{"statement": 1, "measured": 2, "holds": true}]', '{"a": 1}', DEEP,
        '[{"statement": "a", "measured": "b", "holds": "no"}]', '[{"statement": "a"}]', "nonsense",
        '[{"statement": "\\ud800", "measured": "b", "holds": true}]', "9" * 5000,
    ],
    "parts": ["3", "[3]", '[{"git_commit": 1, "code": 2}]', '[{"git_commit": [], "code": {}}]', "null", DEEP, '["ab"]'],
    "configuration": ["3", "[1]", "null", "nonsense", DEEP, '{"a": NaN}', '{"\\ud800": "\\ud800"}', '{"a": ' * 2000 + "1" + "}" * 2000],
    "table": ["``` \n# broken out", "</pre><script>alert(1)</script>", 3, np.arange(5)],
    "quick": [np.array([1, 2]), 3.0, "maybe"],
    "note": [np.array([1, 2]), "<b>", 3],
    "odeflow_version": [np.array([1, 2]), 3],
    "created": [np.array([1, 2]), 3],
    "study": [np.array([1, 2]), 3, "../scenario1"],
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_any_attribute_makes_a_page(name: str, folder: Path, tmp_path: Path) -> None:
    """What cannot be used is a problem that is stated; nothing is read or written outside the folder."""
    for suffix in (".svg", ".png"):
        (tmp_path.parent / f"secret{suffix}").write_text("SECRET")
        (tmp_path / f"secret{suffix}").write_text("SECRET")
    docs = tmp_path / "docs"
    docs.mkdir()
    data = load(folder / "scenario1.nc")
    good = dict(data.attrs)
    for value in HOSTILE[name]:
        data.attrs[name] = value
        save(data, folder / "scenario1.nc")
        assert main(["report", "--out", str(folder), "--gallery", str(docs)]) == 0
        text = (folder / "report.html").read_text(encoding="utf-8")
        gallery = (docs / "gallery.md").read_text(encoding="utf-8")
        assert base64.b64encode(b"SECRET").decode() not in text
        assert "<script>alert" not in text
        assert "\n# broken out" not in gallery or "````text" in gallery
        assert {path.name for path in docs.rglob("*.png")} <= {"scenario1.png"}
        page = _Page(text)
        assert not any("secret" in link for link in page.links)
        if name in ("figures", "claims", "study") and "ud800" not in str(value):
            assert "scenario1.nc cannot be used: " in page.text, value
    data.attrs = good
    save(data, folder / "scenario1.nc")
    assert f"{CLAIMS} of {CLAIMS} claims hold" in _page(folder).text


def test_what_lies_in_the_folder_is_what_is_shown(folder: Path, tmp_path: Path) -> None:
    """No figure through a link that leads out of it, no folder or pipe for a file, and a figure that is none is left out."""
    secret = tmp_path / "secret.svg"
    secret.write_text("SECRET")
    (folder / "scenario1.svg").unlink()
    (folder / "scenario1.svg").symlink_to(secret)
    (folder / "scenario1.png").write_text("no image")
    (folder / "scenario2.nc").mkdir()
    os.mkfifo(folder / "finite_size.nc")
    docs = tmp_path / "docs"
    docs.mkdir()
    assert main(["report", "--out", str(folder), "--gallery", str(docs)]) == 0
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert base64.b64encode(b"SECRET").decode() not in text
    for name in ("scenario2", "finite_size"):
        assert f"{name}.nc cannot be used: it is no regular file" in text
    assert not list(docs.rglob("*.png"))


def test_a_failed_claim_is_shown(folder: Path) -> None:
    data = load(folder / "scenario1.nc")
    claims = json.loads(data.attrs["claims"])
    claims[2] |= {"holds": False, "measured": "<script>no</script> & more"}
    data.attrs["claims"] = json.dumps(claims)
    save(data, folder / "scenario1.nc")
    page = _page(folder)
    assert f"1 of {CLAIMS} FAIL" in page.text
    assert f"{CLAIMS - 1} of {CLAIMS} claims hold" in page.text
    assert "<script>no</script> & more" in page.text


def test_what_would_fail_a_claim_and_whose_the_kept_parts_are(folder: Path) -> None:
    data = load(folder / "scenario1.nc")
    parts = [{"name": name, "git_commit": "0123456789abcdef", "code": "fedcba9876543210"} for name in ("a", "b")]
    data.attrs["parts"] = json.dumps([*parts, parts[0] | {"code": "8" * 64}])
    save(data, folder / "scenario1.nc")
    page = _page(folder)
    assert page.text.count("What fails it: ") == CLAIMS
    assert "2 of commit 0123456789ab, code fedcba98" in page.text
    assert "1 of commit 0123456789ab, code 88888888" in page.text
    claims = [
        {key: claim[key] for key in ("statement", "measured", "holds")} for claim in json.loads(data.attrs["claims"])
    ]
    data.attrs["claims"] = json.dumps(claims)  # as earlier versions wrote them
    data.attrs["parts"] = "none"
    save(data, folder / "scenario1.nc")
    page = _page(folder)
    assert f"{CLAIMS} of {CLAIMS} claims hold" in page.text
    assert "What fails it" not in page.text
    for claim in claims:
        claim |= {"rival": "a moon of cheese", "not_computed": "there is none"}
    data.attrs["claims"] = json.dumps(claims)
    save(data, folder / "scenario1.nc")
    assert _page(folder).text.count("What would fail it: a moon of cheese (not computed: there is none).") == CLAIMS


def test_figures_of_older_results_are_found_by_their_names(folder: Path) -> None:
    """Data files did not always list their figures, nor hold their tables, and there was no SVG."""
    data = load(folder / "scenario1.nc")
    for name in ("figures", "table"):
        del data.attrs[name]
    save(data, folder / "scenario1.nc")
    for name in ("scenario1_more.png", "scenario12.png"):
        shutil.copy(folder / "scenario1.png", folder / name)
    result = read_result(STUDIES["scenario1"], folder)
    assert result.figures == (("", folder / "scenario1.svg"), ("more", folder / "scenario1_more.png"))
    assert "Not in this file: run the study again." in _page(folder).text


def test_a_lost_figure_is_missed(folder: Path) -> None:
    (folder / "scenario1.svg").unlink()
    result = read_result(STUDIES["scenario1"], folder)
    assert result.figures == (("", folder / "scenario1.png"),)
    (folder / "scenario1.png").unlink()
    assert "No figure that can be shown here for scenario1" in _page(folder).text


def test_a_folder_that_is_not_there_is_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--out", str(tmp_path / "none")]) == 2
    assert "does not exist" in capsys.readouterr().err


# --- in a browser ---


@dataclass(frozen=True)
class _Seen:
    dom: str
    console: list[str]


def _browse(page: Path, profile: Path) -> _Seen:
    assert CHROMIUM is not None
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        f"--user-data-dir={profile}",
        "--enable-logging=stderr",
    ]
    command = [CHROMIUM, *options, "--dump-dom", page.as_uri()]
    run = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
    return _Seen(run.stdout, [line for line in run.stderr.splitlines() if "CONSOLE" in line])


# What a reader does: move a slider, type a wrong number, look closer at a figure. What is seen goes into the title.
_VISIT = """<script>
addEventListener("load", () => {
  const seen = [];
  const line = () => document.querySelector("path.attacked").getAttribute("d");
  const enter = (id, value) => {
    const input = document.getElementById(id);
    input.value = value;
    input.dispatchEvent(new Event("input"));
  };
  const before = line();
  enter("explorer-epsilon", 0.5);
  seen.push(line() !== before, document.getElementById("explorer-epsilon-number").value);
  enter("explorer-p-number", 2);
  seen.push(document.querySelector(".status").textContent);
  document.querySelector(".figures button").click();
  seen.push(document.getElementById("zoom").open);
  document.getElementById("zoom-close").click();
  seen.push(document.getElementById("zoom").open);
  document.title = "seen: " + seen.join(" | ");
});
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium to look at the page with")
def test_the_page_works_in_a_browser(folder: Path, tmp_path: Path) -> None:
    write_report(folder)
    visited = folder / "visited.html"
    page = (folder / "report.html").read_text(encoding="utf-8")
    visited.write_text(page.replace("</body>", f"{_VISIT}</body>"), encoding="utf-8")
    seen = _browse(visited, tmp_path / "profile")
    assert seen.console == []
    assert seen.dom.count('class="line attacked"') == 5
    title = re.search("<title>(.*?)</title>", seen.dom)
    assert title is not None
    assert title[1] == "seen: true | 0.5 | Not drawn anew: p (allowed: &gt; 0 and &lt; 1) | true | false"


def test_the_gallery_has_what_the_report_has(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    assert main(["report", "--out", str(folder), "--gallery", str(docs)]) == 0
    assert str(docs / "gallery.md") in capsys.readouterr().out
    page = (docs / "gallery.md").read_text()
    figures = re.findall(r"!\[[^]]*]\(([^)]*)\)", page)
    assert figures == ["gallery/scenario1.png"]
    assert (docs / figures[0]).read_bytes().startswith(b"\x89PNG")
    data = load(folder / "scenario1.nc")
    assert data.attrs["table"] in page
    assert page.count("- pass: ") == len(json.loads(data.attrs["claims"]))
    assert "(scenario1)=" in page
    assert "scenario2" not in page
    assert main(["report", "--out", str(folder), "--gallery", str(tmp_path / "none")]) == 2
    assert "gallery = " in capsys.readouterr().err
