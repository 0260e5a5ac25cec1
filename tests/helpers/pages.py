"""Pages of the documentation that are run as they stand: their commands in order, their output line by line.

A page has blocks of ```python whose first line is `# <name>.py`: that file is written. In blocks of ```console,
lines that begin with `$ ` are commands, `\\` at the end goes on; what follows is what they write. A line `…` stands
for any lines, at the end of a sentence for the rest of it.
"""

import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from child import call

HOME = "/home/you"  # what a page calls the folder in which it is run
ANY = "…"


def run_page(page: Path, folder: Path, at_start: Callable[[], object] | None, write: bool = False) -> None:
    """Run a page in an empty folder; an AssertionError names the first command or line that does not fit.

    Args:
        page: the Markdown file.
        folder: where.
        at_start: called in each process of `branchynet`, see `child.call`.
        write: whether the page's lines become those of this run.
    """
    text = page.read_text(encoding="utf-8")
    for kind, block in re.findall(r"^```(python|console)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        if kind == "python":
            name = re.match(r"# (\w+\.py)\n", block)
            assert name, f"a block of Python does not begin with its file's name: {block}"
            (folder / name[1]).write_text(block, encoding="utf-8")
            continue
        made = block
        for command, shown in commands_of(block):
            found = fitting(command, shown, run(command, folder, at_start))
            made = made.replace(
                "".join(f"{line}\n" for line in shown), "".join(f"{line}\n" for line in found)
            )
        text = text.replace(block, made)
    if write:
        page.write_text(text, encoding="utf-8")


def commands_of(block: str) -> Iterator[tuple[str, list[str]]]:
    """A console's commands, and what each writes."""
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        lines = part.splitlines()
        count = next(n for n, line in enumerate(lines) if not line.endswith("\\")) + 1
        yield "\n".join(lines[:count]), lines[count:]


def run(command: str, folder: Path, at_start: Callable[[], object] | None) -> list[str]:
    """What a command writes, line by line; of a bar that is drawn again and again the last."""
    words = shlex.split(command.replace("\\\n", " "))
    if words[0] == "branchynet":
        done = call(words[1:], folder, seconds=600, at_start=at_start)
        code, out, err = done.code, done.out, done.err
    else:
        words[0] = sys.executable if words[0] == "python" else words[0]
        ended = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
        code, out, err = ended.returncode, ended.stdout, ended.stderr
    assert code == 0 and not err, f"$ {command}\nexit code {code}\n{out}{err}"
    lines = out.replace(str(folder), HOME).removesuffix("\n").split("\n") if out else []
    return [line.rpartition("\r")[2].rstrip() for line in lines]


def fitting(command: str, shown: Sequence[str], lines: Sequence[str]) -> list[str]:
    """The lines of a run that a page shows, with its `…`; an AssertionError if one of the page's is not there."""
    real, found, skipping = sentences(lines), [], False
    for sentence in sentences(shown):
        if sentence == [ANY]:
            skipping = True
            found.append(ANY)
            continue
        wanted = plain(sentence)
        while skipping and real and not fits(wanted, plain(real[0])):
            real.pop(0)
        there = plain(real[0]) if real else "the end"
        assert fits(wanted, there), f"$ {command}\nThe page has: {wanted}\nThe run has:  {there}"
        line = real.pop(0)
        found += sentence if wanted.endswith(ANY) else line
        skipping = False
    assert skipping or not real, f"$ {command}\nThe page lacks: {plain(real[0])}"
    return found


def fits(wanted: str, there: str) -> bool:
    """Whether a page's sentence is that of a run; one that ends in `…` is its beginning."""
    return there.startswith(wanted[:-1].rstrip()) if wanted.endswith(ANY) else there == wanted


def sentences(lines: Sequence[str]) -> list[list[str]]:
    """Lines together with those that they are wrapped into, which begin with two blanks; where, numbers decide."""
    found: list[list[str]] = []
    for line in lines:
        if found and re.match("  [^ ]", line):
            found[-1].append(line)
        else:
            found.append([line])
    return found


def plain(sentence: Sequence[str]) -> str:
    """Without what may differ from run to run: numbers, widths, the machine, what a bar shows of its speed."""
    text = " ".join(line.strip() for line in sentence)
    text = re.sub(r"(?<![\w.])[-+]?\d+(?:[.,]\d+)*", "#", text)
    text = re.sub(r"#\s?(epoch/s|s/epoch)", "# epoch/s", text)
    text = re.sub(r"(batch #), .*, # cores", r"\1, a machine", text)
    return re.sub(r"\s+", " ", re.sub("-{3,}", "---", text)).strip()


def made_up_clock() -> None:
    """In a process of `branchynet`: nothing is timed but the run for real: no choice depends on the machine."""
    from branchynet.evaluation import evidence, study
    from branchynet.runtime.costs import Latencies, Latency

    def latencies(backend, network, *more):
        count = network.num_exits
        alone = tuple(Latency(100 * (n + 1) / count, 1.0) for n in range(count))
        exits = tuple(Latency(1.1 * each.median_us, 1.0) for each in alone)
        return Latencies(Latency(100.0, 1.0), exits, alone, alone)

    evidence.measure_latencies = latencies
    evidence.worst = study.worst = lambda found: ()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        run_page(Path(sys.argv[1]), Path(made).resolve(), None, write=True)
