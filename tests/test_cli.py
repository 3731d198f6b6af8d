"""The command line: what it prints, where, with which exit code, and in which order values win."""

import json
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from lowland import reproduce
from lowland.cli import main
from lowland.results import Claim, Record, Status, plain


@dataclass(frozen=True)
class Cycle:
    steps: int
    learning_rate: float = 0.1


@dataclass(frozen=True)
class Settings:
    scale: str
    cycles: tuple[Cycle, ...]
    width: int = 8


def settings(scale: str) -> Settings:
    """Values of a recipe that exists in this file only."""
    steps = {"smoke": 1, "laptop": 10, "hour": 100}
    if scale not in steps:
        raise ValueError(f"scale must be one of smoke, laptop, hour; got {scale!r}.")
    return Settings(scale, (Cycle(steps[scale]), Cycle(2 * steps[scale])))


class FakeRecipe(ModuleType):
    """A recipe that remembers how it was called and does as it was told."""

    def __init__(self) -> None:
        super().__init__("lowland.reproduce.fake2020")
        self.settings = settings
        self.calls: list[dict] = []
        self.verdicts = ["met"]
        self.status = Status.FINISHED.value
        self.error: BaseException | None = None

    def run(self, settings, *, seeds, out, progress, data=None, download=False, restart=False,
            command=""):  # fmt: skip
        self.calls.append({"settings": settings, **{k: v for k, v in locals().items()
                                                    if k not in ("self", "settings")}})  # fmt: skip
        if self.error is not None:
            raise self.error
        claims = [
            Claim(f"C{i}", "A claim.", "1", "at most 2", (1.0, 1.5), "nats", verdict)
            for i, verdict in enumerate(self.verdicts, 1)
        ]
        paper = {"title": "A Paper", "authors": "A. Author", "year": 2020, "arxiv": "2001.00001"}
        return Record("fake2020", paper, settings.scale, plain(settings), list(range(seeds or 2)),
                      [], claims, command=command, status=self.status)  # fmt: skip


@pytest.fixture
def recipe(monkeypatch, tmp_path) -> FakeRecipe:
    """The only recipe, and an empty folder to work in."""
    fake = FakeRecipe()
    monkeypatch.setitem(sys.modules, fake.__name__, fake)
    monkeypatch.setattr(reproduce, "RECIPES", {"fake2020": "A fake paper"})
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LOWLAND_TRACEBACK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setenv("COLUMNS", "100")
    return fake


def test_a_run_leaves_record_and_page_and_ends_with_its_path(recipe, tmp_path, capsys):
    """Nothing is written outside --out; stdout ends with the path; exit 0."""
    assert main(["run", "fake2020", "--scale", "smoke", "--quiet"]) == 0
    out = tmp_path / "lowland-out" / "fake2020-smoke"
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1] == str(out / "report.html")
    assert "fake2020, smoke scale: The one judged claim was met." in printed
    assert "1.25 ± 0.35 nats" in printed
    assert "n = 2" in printed
    assert {file.name for file in out.iterdir()} == {"record.json", "report.html", "report.md"}
    assert [file.name for file in tmp_path.iterdir()] == ["lowland-out"]
    assert Record.load(out / "record.json").command == "lowland run fake2020 --scale smoke --quiet"


def test_every_option_reaches_the_recipe(recipe):
    words = "run fake2020 --seeds 5 --out there --data d --download --restart --quiet"
    assert main(words.split()) == 0
    assert recipe.calls == [{
        "settings": settings("laptop"), "seeds": 5, "out": Path("there"), "progress": False,
        "data": Path("d"), "download": True, "restart": True, "command": f"lowland {words}",
    }]  # fmt: skip
    main(["run", "fake2020"])
    assert recipe.calls[1] == {
        "settings": settings("laptop"), "seeds": None, "out": Path("lowland-out/fake2020-laptop"),
        "progress": True, "data": None, "download": False, "restart": False,
        "command": "lowland run fake2020",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("verdicts", "code"),
    [
        ([], 0),
        (["met", "met"], 0),
        (["not judged at this scale"], 0),
        (["met", "not judged at this scale"], 0),
        (["met", "missed"], 3),
    ],
)
def test_exit_code_follows_the_verdicts(recipe, verdicts, code):
    recipe.verdicts = verdicts
    assert main(["run", "fake2020", "--quiet"]) == code
    assert main(["run", "demo", "--quiet"]) == 0  # a miss is a result of the demo


def test_json_leaves_stdout_clean(recipe, tmp_path, capsys):
    """Stdout is the record and nothing else; table and path go to stderr."""
    recipe.verdicts = ["missed"]
    assert main(["run", "fake2020", "--json"]) == 3
    captured = capsys.readouterr()
    record = json.loads((tmp_path / "lowland-out/fake2020-laptop/record.json").read_text())
    assert json.loads(captured.out) == record
    assert "0 of 1 judged claims met, 1 missed." in captured.err
    assert captured.err.splitlines()[-1].endswith("report.html")


def test_precedence_is_code_recipe_from_set(recipe, tmp_path):
    """width: code 8; steps: recipe 10, 20; --from and then --set win, each over what is before."""
    main(["run", "fake2020", "--quiet", "--seeds", "4", "--set", "width=16", "cycles.0.steps=11"])
    first = Settings("laptop", (Cycle(11), Cycle(20)), 16)
    assert recipe.calls[0]["settings"] == first
    file = str(tmp_path / "lowland-out/fake2020-laptop/record.json")
    assert main(["run", "--from", file, "--quiet"]) == 0
    assert recipe.calls[1]["settings"] == first
    assert recipe.calls[1]["seeds"] is None  # the settings of a record hold its repetitions
    words = ["run", "--from", file, "--set", "cycles.0.steps=12", "--set", "width=3", "--seeds=1"]
    main([*words, "--quiet"])
    assert recipe.calls[2]["settings"] == Settings("laptop", (Cycle(12), Cycle(20)), 3)
    assert recipe.calls[2]["seeds"] == 1


def test_shown_values_can_be_run_again(recipe, tmp_path, capsys):
    """`show --json` of a scale, saved, is a valid --from; values it lacks come from the recipe."""
    assert main(["show", "fake2020", "--scale", "hour", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values == plain(settings("hour"))
    (tmp_path / "values.json").write_text(json.dumps({"width": 5}))
    assert main(["run", "fake2020", "--scale", "hour", "--from", "values.json", "--quiet"]) == 0
    assert recipe.calls[0]["settings"] == Settings("hour", settings("hour").cycles, 5)


def test_show_prints_source_and_values(recipe, capsys):
    assert main(["show", "fake2020", "--set", "width=7"]) == 0
    printed = capsys.readouterr().out
    assert "def settings(scale: str) -> Settings:" in printed
    assert json.loads(printed[printed.index("\n{") :])["width"] == 7


def test_list_names_every_recipe_and_the_demo(recipe, capsys):
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "fake2020  A fake paper"
    assert [line.split()[0] for line in lines] == ["fake2020", "demo"]


def test_demo_runs_all_recipes_into_one_page(recipe, tmp_path, capsys):
    """Each record keeps the command that repeats its recipe alone."""
    recipe.verdicts = ["met", "missed"]
    assert main(["run", "demo", "--seeds", "3"]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines()[-1] == str(tmp_path / "lowland-out/demo/report.html")
    assert "1 of 1  fake2020: A fake paper" in captured.err
    record = Record.load(tmp_path / "lowland-out/demo/fake2020/record.json")
    assert record.scale == "laptop"
    assert record.command == "lowland run fake2020 --scale laptop --seeds 3"
    assert main([*shlex.split(record.command)[1:], "--quiet"]) == 3


def test_report_draws_saved_records_again(recipe, tmp_path, capsys):
    main(["run", "fake2020", "--out", "x", "--quiet"])
    page = tmp_path / "x" / "report.html"
    before = page.read_bytes()
    page.unlink()
    capsys.readouterr()
    assert main(["report", "x"]) == 0
    assert capsys.readouterr().out == f"{page}\n"
    assert page.read_bytes() == before
    assert main(["report", "nowhere"]) == 1
    assert "nowhere is not a folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("run fake202", "there is no recipe 'fake202'. Did you mean fake2020?"),
        ("run demmo", "Did you mean demo?"),
        ("show demo", "demo stands for all recipes; name one of fake2020."),
        ("run", "name a recipe first"),
        ("run fake2020 --scale tiny", "scale must be one of smoke, laptop, hour; got 'tiny'."),
        ("run fake2020 --set widht=3", "no setting 'widht'. Did you mean width? Known settings: "
         "scale, cycles.0.steps, cycles.0.learning_rate, width."),
        ("run fake2020 --set width=wide", "width must be a whole number; got 'wide'."),
        ("run fake2020 --set width", "a setting is given as name=value; got 'width'."),
        ("run demo --set width=3", "the demo runs all of them"),
        ("run --from nowhere.json", "--from must name a record.json; cannot read nowhere.json"),
        ("run fake2020 --from list.json", "does not hold a record"),
        ("run fake2020 --from other.json", "holds recipe other2020, not fake2020"),
        ("run fake2020 --from hour.json --scale smoke", "holds scale hour, not smoke"),
        ("run fake2020 --from typo.json", "no setting 'widht'. Did you mean width?"),
    ],
)  # fmt: skip
def test_wrong_usage_is_answered_with_2_and_a_sentence(recipe, tmp_path, words, sentence, capsys):
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "other.json").write_text('{"recipe": "other2020", "settings": {}}')
    (tmp_path / "hour.json").write_text('{"recipe": "fake2020", "scale": "hour", "settings": {}}')
    (tmp_path / "typo.json").write_text('{"widht": 3}')
    assert main(words.split()) == 2
    captured = capsys.readouterr()
    assert sentence in captured.err
    assert captured.out == ""
    assert recipe.calls == []


@pytest.mark.parametrize(
    "words",
    ["fly", "run fake2020 --seeds 0", "run fake2020 --threads two", "run --quite", "report"],
)
def test_argparse_refuses_with_2(recipe, words, capsys):
    with pytest.raises(SystemExit) as stop:
        main(words.split())
    assert stop.value.code == 2
    assert "usage: lowland" in capsys.readouterr().err


def test_no_command_prints_help(recipe, capsys):
    assert main([]) == 2
    assert "examples:" in capsys.readouterr().out


def test_an_error_is_one_sentence_with_1(recipe, monkeypatch, capsys):
    """No traceback, unless asked for; an error nobody expected names its kind."""
    recipe.error = ValueError("the loader must not be empty; it is. Pass batches.")
    assert main(["run", "fake2020"]) == 1
    captured = capsys.readouterr()
    assert captured.err == "lowland: error: the loader must not be empty; it is. Pass batches.\n"
    assert captured.out == ""
    recipe.error = KeyError("steps")
    assert main(["run", "fake2020"]) == 1
    assert "KeyError: 'steps' (LOWLAND_TRACEBACK=1 shows where)" in capsys.readouterr().err
    monkeypatch.setenv("LOWLAND_TRACEBACK", "1")
    with pytest.raises(KeyError):
        main(["run", "fake2020"])


@pytest.mark.parametrize("words", [["run", "fake2020", "--out", "a b"], ["run", "demo"]])
@pytest.mark.parametrize("status", ["interrupted", Status.INTERRUPTED.value, None])
def test_ctrl_c_says_how_to_go_on(recipe, words, status, capsys):
    """Whether the recipe raises or returns what it has: 130, and the same command."""
    if status is None:
        recipe.error = KeyboardInterrupt()
    else:
        recipe.status = status
    assert main(words) == 130
    assert capsys.readouterr().err.endswith(f"\n  {shlex.join(['lowland', *words])}\n")


def test_a_run_that_broke_down_is_an_error(recipe, tmp_path, capsys):
    """The page is still made: it shows how far the run came."""
    recipe.status = Status.NOT_FINITE.value
    assert main(["run", "fake2020", "--quiet"]) == 1
    assert "a loss or a parameter is no longer finite" in capsys.readouterr().err
    assert (tmp_path / "lowland-out/fake2020-laptop/report.html").exists()
    assert main(["run", "demo", "--quiet"]) == 1


def test_several_processes_are_refused(recipe, monkeypatch, tmp_path, capsys):
    """They would do the same work in one folder."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("fake2020", "demo"):
        assert main(["run", name]) == 2
        assert "a recipe runs in one process; torchrun started 2" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_threads_are_set_for_the_run_only(recipe, monkeypatch):
    import torch

    seen = []
    run = recipe.run
    recipe.run = lambda *a, **k: (seen.append(torch.get_num_threads()), run(*a, **k))[1]
    before = torch.get_num_threads()
    assert main(["run", "fake2020", "--threads", str(before + 1), "--quiet"]) == 0
    assert seen == [before + 1]
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("words", ["--help", "run --help", "--version", "list", "run draxler"])
def test_light_commands_import_nothing_heavy(words):
    """Help answers in a tenth of a second because torch, matplotlib and numpy stay out."""
    code = (
        "import sys\nfrom lowland.cli import main\n"
        f"try: main({words.split()!r})\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'matplotlib', 'numpy', 'scipy', 'rich', 'jinja2'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_help_shows_examples_defaults_and_exit_codes():
    """`python -m lowland` is the command, and help fits a terminal of 100 columns."""
    done = subprocess.run([sys.executable, "-m", "lowland", "--help"], capture_output=True,
                          text=True, check=True, timeout=60)  # fmt: skip
    for words in ("lowland run demo", "3 a claim missed", "LOWLAND_TRACEBACK=1"):
        assert words in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_a_reader_that_leaves_early_is_no_error():
    """`lowland list | head -0` prints no traceback, neither at once nor at exit."""
    command = [sys.executable, "-m", "lowland", "list"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True) as process:  # fmt: skip
        process.stdout.close()
        assert process.stderr.read() == ""
