"""The command ``graphopt``: demo, optimize, doctor, run, sign, balance, targets, price, bench."""

from __future__ import annotations

import errno
import io
import os
import sys
import tempfile
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from graphopt._version import VERSION
from graphopt.bench.commands import bench_funasr
from graphopt.bench.llm.commands import bench_llm
from graphopt.bench.models_command import bench_models
from graphopt.bench.serve_command import bench_serve
from graphopt.dependencies import needs
from graphopt.errors import GraphoptError, OptionError
from graphopt.flags import JsonOption, TrustedKeys, numbers, output_file, print_json, refuse
from graphopt.funasr.commands import align, compile_app, transcribe
from graphopt.inspection.calibrate_command import calibrate
from graphopt.inspection.commands import bisect, check, diff, dump, info, predict
from graphopt.inspection.page.command import inspect
from graphopt.inspection.profiling.command import profile
from graphopt.inspection.tune_command import tune
from graphopt.llm.commands import chat, compile_llm
from graphopt.onnx.adapter import is_onnx
from graphopt.printable import printable
from graphopt.target import PRECISIONS

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
_FILE_WIDTH = 180  # of wide tables in files and pipes

app = typer.Typer(
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
bench_app = typer.Typer(no_args_is_help=True, help="Measure graphopt against other engines.")


PrecisionOption = Annotated[
    str, typer.Option(help=f"Precision to compute in: auto, {', '.join(PRECISIONS)}.")
]
ThreadsOption = Annotated[
    int | None, typer.Option(min=1, help="Threads; by default all CPUs this process may use.")
]


def _show_version(asked: bool) -> None:
    if asked:
        print(VERSION)
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Compile PyTorch models to C that uses the matrix instructions of Arm and x86 CPUs."""


def main() -> None:
    """Entry point: a typed error ends as one line on stderr and exit code 1.

    What standard output cannot encode, such as a file name that is not UTF-8, is printed escaped.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except GraphoptError as error:
        _end(str(error))
    except OSError as error:
        if error.errno not in _FULL or error.filename is not None:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what it still holds
        _end(f"cannot write to standard output: {error.strerror}; make room where it leads to")


def _end(error: str) -> None:
    Console(stderr=True).print(f"[bold red]error:[/bold red] {escape(error)}")
    sys.exit(1)


@app.command()
@needs("funasr", "demo")
def demo(
    out: Annotated[Path, typer.Option(help="Folder for packages and dumps.")] = Path("demo-out"),
    precision: PrecisionOption = "auto",
    threads: ThreadsOption = None,
    small: Annotated[
        bool, typer.Option("--small", help="Paraformer with 2 + 1 blocks instead of 50 + 16.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Optimize FSMN-VAD and Paraformer-large for this machine and for neoverse-n2, and compare."""
    from graphopt.bench.demo import Options, run_demo
    from graphopt.target import native

    native().precision(precision)
    options = Options(out, precision, threads, (2, 1) if small else (50, 16))
    compared, same = run_demo(Console(stderr=as_json), options)
    if as_json:
        print_json({"models": [asdict(one) for one in compared], "same_segments": same})
    if not same:
        raise GraphoptError("the optimized FSMN-VAD found other segments than torch; see above")


@app.command()
@needs("torch", "optimize")
def optimize(
    model: Annotated[
        str,
        typer.Argument(
            help="A .onnx file (extra onnx, no torch); fsmn-vad, paraformer, paraformer-encoder, "
            "paraformer-decoder; or module:function, where the function returns "
            "(model, example_inputs)."
        ),
    ],
    target: Annotated[str, typer.Option(help="See graphopt targets.")] = "native",
    precision: PrecisionOption = "auto",
    plan: Annotated[
        Path | None, typer.Option(help="Precisions by layer: a file of graphopt tune.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Package to write; MODEL-TARGET.gopt by default.")
    ] = None,
    threads: ThreadsOption = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse a model of which a node stays in torch.")
    ] = False,
    save_inputs: Annotated[
        Path | None,
        typer.Option(callback=output_file, help="Also write the example inputs, for graphopt run."),
    ] = None,
    nodes: Annotated[
        bool, typer.Option("--nodes", help="Print every node instead of adding up equal ones.")
    ] = False,
    check: Annotated[
        bool, typer.Option(help="Compare with the model on the example inputs.")
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """Compile MODEL and write a package; print what became of its nodes."""
    import graphopt
    from graphopt.compiler.program import OtherMachineWarning
    from graphopt.progress import show_progress
    from graphopt.runtime.arrays import write_arrays
    from graphopt.runtime.package import MARKS
    from graphopt.runtime.staging import check_place
    from graphopt.target import find_target

    find_target(target).precision(precision)
    layers = None if plan is None else graphopt.PrecisionPlan.of(plan)
    console = Console(stderr=as_json)
    name = Path(model).stem if is_onnx(model) else model.replace(":", "-")
    package = check_place(out or f"{name}-{target}.gopt", MARKS)
    module, inputs = _model_of(console, model)
    if save_inputs is not None:
        if inputs is None:
            raise OptionError("save_inputs", save_inputs, "an ONNX file has no example inputs")
        write_arrays(save_inputs, inputs)
    warnings.simplefilter("ignore", OtherMachineWarning)  # nothing is called here
    with show_progress(console, f"optimizing {model} for {target}"):
        fast = graphopt.optimize(
            module,
            target=target,
            precision=precision,
            example_inputs=inputs,
            num_threads=threads,
            strict=strict,
            check=check,
            plan=layers,
        )
        fast.save(package)
    report = fast.report()
    if as_json:
        print_json({**asdict(report), "package": str(out or package.name)})
        return
    console.print(report if nodes else report.summary())
    console.print(f"wrote {out or package.name}")


def _model_of(console: Console, name: str) -> tuple[Any, tuple[Any, ...] | None]:
    """A model by its name, with example inputs if it has any; an ONNX file is read later."""
    if is_onnx(name):
        return name, None
    from graphopt.zoo.catalog import build_model

    with console.status(f"building {name}"):
        return build_model(name)


@app.command()
@needs("onnx", "doctor")
def doctor(
    model: Annotated[Path, typer.Argument(help="A .onnx file.")],
    as_json: JsonOption = False,
) -> None:
    """List every node of an ONNX MODEL that cannot be compiled, and why; 1 if there is any."""
    from graphopt.onnx.doctor import examine

    found = examine(model)
    if as_json:
        print_json(found.as_dict())
    else:
        Console().print(found)
    if found.refusals:
        raise typer.Exit(1)


@app.command()
def run(
    package: Annotated[
        Path, typer.Argument(help="A .gopt package; or a .onnx file, which is compiled first.")
    ],
    inputs: Annotated[
        list[Path],
        typer.Option(
            "--input",
            "-i",
            help="One .npz with all arguments (graphopt optimize --save-inputs), or one .npy for "
            "each argument, in order.",
        ),
    ],
    output: Annotated[
        Path | None, typer.Option(callback=output_file, help="Write the outputs to this .npz.")
    ] = None,
    emulate: Annotated[
        bool, typer.Option("--emulate", help="Run the package's Arm code under qemu-aarch64.")
    ] = False,
    profile: Annotated[
        bool, typer.Option("--profile", help="Print the time of each operator.")
    ] = False,
    trusted_key: TrustedKeys = None,
    as_json: JsonOption = False,
) -> None:
    """Run a package; needs neither torch nor a compiler."""
    import graphopt
    from graphopt.runtime.arrays import read_arguments, write_arrays

    if emulate and profile:
        raise typer.BadParameter("times of emulated code say nothing; leave out --emulate")
    console = Console()
    arguments = tuple(value for path in inputs for value in read_arguments(path))
    if is_onnx(package):
        if trusted_key:
            raise typer.BadParameter("an ONNX file is not signed; leave out --trusted-key")
        module = graphopt.optimize(package)
    else:
        module = graphopt.load(package, trusted_keys=trusted_key or None)
    outputs = module.emulate(*arguments) if emulate else module(*arguments)
    results = tuple(outputs) if isinstance(outputs, (tuple, list)) else (outputs,)
    if output is not None:
        write_arrays(output, results)
    if as_json:
        steps = list(module.profile(*arguments)) if profile else []
        print_json({"outputs": _outputs(results), "steps": steps})
        return
    console.print(_outputs_table(results))
    if profile:
        from graphopt.bench.profile import op_table, profile_compiled

        title = f"{escape(printable(package.name))}: median of a step's times, added up"
        console.print(op_table(title, profile_compiled(module.profile(*arguments)), limit=20))


@app.command()
@needs("sign", "keygen")
def keygen(
    key: Annotated[
        Path, typer.Argument(help="File of the private key; KEY.pub is the public one.")
    ],
    as_json: JsonOption = False,
) -> None:
    """Make a pair of keys for graphopt sign and verify."""
    from graphopt.runtime.signing import make_keys

    made = make_keys(key)
    if as_json:
        print_json({"private": str(key), "public": str(made)})
    else:
        print(made)


@app.command()
@needs("sign", "sign")
def sign(
    package: Annotated[Path, typer.Argument(help="A package of any kind.")],
    key: Annotated[Path, typer.Option(help="Private key, of graphopt keygen.")],
    as_json: JsonOption = False,
) -> None:
    """Check every file of PACKAGE and sign it, for load(..., trusted_keys=[KEY.pub])."""
    from graphopt.runtime.sealed import sign_folder

    count = sign_folder(package, key)
    if as_json:
        print_json({"package": str(package), "files": count})
    else:
        print(f"signed {package}: {count} files")


@app.command()
@needs("sign", "verify")
def verify(
    package: Annotated[Path, typer.Argument(help="A package of any kind.")],
    key: Annotated[list[Path], typer.Option(help="Public key that is trusted; may be repeated.")],
    as_json: JsonOption = False,
) -> None:
    """Check every file of PACKAGE, and that one of the keys signed it."""
    from graphopt.runtime.sealed import SUMS, open_sealed

    names = open_sealed(package, SUMS, "package", key).names
    if as_json:
        print_json({"package": str(package), "files": sorted(names)})
    else:
        print(f"{package} is signed: {len(names)} files")


@app.command()
@needs("torch", "balance")
def balance(
    model: Annotated[str, typer.Argument(help="As for graphopt optimize.")],
    cores: Annotated[str, typer.Option(help="Numbers of cores, one table each.")] = "16,64,128",
    precision: PrecisionOption = "auto",
    repeats: Annotated[
        int, typer.Option(min=1, help="Runs; the shortest time of each task counts.")
    ] = 5,
    as_json: JsonOption = False,
) -> None:
    """Show how evenly the tasks of MODEL's ops fall on the cores of a larger machine."""
    import graphopt
    from graphopt.bench.balance import balance_table, overview_table
    from graphopt.progress import show_progress
    from graphopt.zoo.catalog import build_model

    console = Console(stderr=as_json)
    counts = numbers(cores, "--cores")
    with console.status(f"building {model}"):
        module, inputs = build_model(model)
    with show_progress(console, f"optimizing {model}"):
        fast = graphopt.optimize(module, precision=precision, example_inputs=inputs, strict=True)
        tables = {n: fast.balance(*inputs, cores=n, repeats=repeats) for n in counts}
    if as_json:
        print_json({str(count): [asdict(row) for row in rows] for count, rows in tables.items()})
        return
    for count, rows in tables.items():
        console.print(balance_table(f"{model}, {precision}: {count} cores", rows))
    console.print(overview_table(f"{model}, {precision}", tables))


@app.command()
def targets(as_json: JsonOption = False) -> None:
    """List the targets, with the kernels and instructions each one uses."""
    from graphopt.target import known_targets

    rows: list[dict[str, Any]] = [
        {
            "target": target.name,
            "architecture": target.arch,
            "kernels": list(target.levels),
            "CPU features": sorted({f for level in target.isa_levels for f in level.features}),
            "precision auto": target.precision("auto"),
        }
        for target in known_targets()
    ]
    if as_json:
        print_json(rows)
        return
    table = Table()
    for column in rows[0]:
        table.add_column(column)
    for row in rows:
        table.add_row(*(v if isinstance(v, str) else ", ".join(v) for v in row.values()))
    Console().print(table)


@app.command()
@needs("compile", "price")
def price(
    program: Annotated[
        Path, typer.Argument(help="A static aarch64 program with symbols and one thread.")
    ],
    arguments: Annotated[
        list[str] | None, typer.Argument(help="Its arguments; behind -- if they begin with -.")
    ] = None,
    functions: Annotated[
        str, typer.Option(help="Regular expression of the symbols that count; all by default.")
    ] = "",
    cpu: Annotated[str, typer.Option(help="neoverse-n1, -n2, -v1 or -v2.")] = "neoverse-n2",
    macs: Annotated[
        int | None, typer.Option(min=1, help="Useful multiply-accumulates; else those that ran.")
    ] = None,
    windows: Annotated[
        int, typer.Option(min=1, help="Windows of 4000 instructions to simulate in order.")
    ] = 8,
    show: Annotated[int, typer.Option(min=0, help="Costliest blocks to print.")] = 8,
    listing: Annotated[
        bool, typer.Option("--listing", help="Print the instructions of those blocks.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Estimate the cycles PROGRAM needs on a Neoverse core; see docs/n2sim.md for the limits."""
    import json as json_format

    from graphopt.n2sim import price as pricing

    command: list[str | Path] = [program, *(arguments or [])]
    found = pricing.price(command, functions, cpu, macs, windows=windows)
    if json:
        print(json_format.dumps(found.as_dict(show, listing), indent=1))
    else:
        print(found.text(show, listing))


@bench_app.command("paraformer")
@needs("bench", "bench paraformer")
def bench_paraformer(
    threads: Annotated[str, typer.Option(help="Thread counts, one table each.")] = "1,2",
    rounds: Annotated[int, typer.Option(min=1, help="Timed passes of each engine.")] = 15,
    frames: Annotated[int, typer.Option(min=1, help="Frames of 60 ms.")] = 167,
    blocks: Annotated[int, typer.Option(min=2, help="Encoder blocks.")] = 50,
    decoder_blocks: Annotated[int, typer.Option(min=1, help="Decoder blocks.")] = 16,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Only engines whose name contains this; torch fp32 always runs."),
    ] = None,
    json: Annotated[
        Path | None,
        typer.Option(callback=output_file, help="Also write every time to this file."),
    ] = None,
) -> None:
    """Time Paraformer-large in torch, torch.ao, onnxruntime, OpenVINO and graphopt in one run."""
    from graphopt.bench import measure, paraformer, table

    console = Console()
    engines, counts = paraformer.select(only or []), numbers(threads, "--threads")
    with tempfile.TemporaryDirectory() as folder, console.status("building") as status:
        work = paraformer.workload(Path(folder), frames, blocks, decoder_blocks)
        (results,) = measure.measure([work], engines, counts, rounds, progress=status.update)
    table.print_results(console, work.title, results, rounds)
    if json is not None:
        table.write_json(json, work.title, results)


@bench_app.command("recognizer")
@needs("bench", "bench recognizer")
def bench_recognizer(
    per_voice: Annotated[
        int, typer.Option(min=1, help="Utterances of each held-out voice, clean and in noise.")
    ] = 20,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Only engines whose name contains this; torch fp32 always runs."),
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="Paraformer directory; the shipped one by default.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Character error rate of the small recognizer in each engine and precision (espeak-ng)."""
    from graphopt.bench import paraformer, recognizer
    from graphopt.zoo.recognizer import MODEL, loading

    console = Console(stderr=as_json)
    with tempfile.TemporaryDirectory() as folder, console.status("speaking") as status:
        loaded = loading.load_recognizer(model or MODEL)
        heard = recognizer.conditions(loaded, per_voice)
        status.update("recognizing")
        scores = recognizer.score(loaded, heard, paraformer.select(only or []), Path(folder))
    if as_json:
        print_json([asdict(score) for score in scores])
    else:
        console.print(recognizer.table(scores))


bench_app.command("funasr")(bench_funasr)
bench_app.command("models")(bench_models)


@bench_app.command("kernels")
@needs("bench", "bench kernels")
def bench_kernels(
    context: typer.Context,
    target: Annotated[
        str, typer.Option(help="native, or a Neoverse core whose cycles are modelled.")
    ] = "native",
    only: Annotated[
        str, typer.Option(help="Regular expression of the kernels' names; all by default.")
    ] = "",
    threads: Annotated[str, typer.Option(help="Thread counts, for native.")] = "1,2",
    rounds: Annotated[int, typer.Option(min=1, help="Samples of each engine, for native.")] = 15,
    json: Annotated[
        Path | None,
        typer.Option(
            callback=output_file, help="Also write the rows to this file; - prints them alone."
        ),
    ] = None,
) -> None:
    """Time single kernels beside other libraries, or model their cycles on a Neoverse core."""
    from graphopt.bench.kernels import row
    from graphopt.bench.kernels.run import bench
    from graphopt.target import find_target

    find_target(target)
    if target != "native":
        refuse(context, ["threads", "rounds"], f"where cycles of {target} are modelled")
    counts = numbers(threads, "--threads")
    quiet = json == Path("-")
    width = None if sys.stdout.isatty() else _FILE_WIDTH
    console = Console(stderr=quiet, width=width)
    with console.status("building") as status:
        rows = bench(target, only, counts, rounds, status.update)
    if quiet:
        print(row.to_json(rows), end="")
        return
    for count in sorted({one.threads for one in rows}):
        console.print(row.table([one for one in rows if one.threads == count]))
    console.print(row.explain(rows[0].target, rounds))
    if json is not None:
        row.write_json(json, rows)


app.command()(inspect)
app.command()(profile)
app.command()(dump)
app.command()(tune)
app.command()(calibrate)
app.command()(diff)
app.command()(bisect)
app.command()(check)
app.command()(info)
app.command()(predict)
app.command()(transcribe)
app.command()(align)
app.command()(chat)
compile_app.command("llm")(compile_llm)
app.add_typer(compile_app, name="compile")
bench_app.command("llm")(bench_llm)
bench_app.command("serve")(bench_serve)
app.add_typer(bench_app, name="bench")


def _outputs(outputs: tuple[Any, ...]) -> list[dict[str, Any]]:
    """What outputs are, and how large."""
    from graphopt.runtime.arrays import flatten

    rows: list[dict[str, Any]] = []
    for name, array in flatten(outputs).items():
        numbers = (array.mean(), array.min(), array.max()) if array.size else ()
        sizes = dict(zip(("mean", "min", "max"), map(float, numbers), strict=False))
        row = {"output": name, "dtype": str(array.dtype), "shape": list(array.shape)}
        rows.append({**row, **sizes})
    return rows


def _outputs_table(outputs: tuple[Any, ...]) -> Table:
    table = Table()
    for column in ("output", "dtype", "shape", "mean", "min", "max"):
        table.add_column(column)
    for row in _outputs(outputs):
        cells = [f"{row[name]:.6g}" for name in ("mean", "min", "max") if name in row]
        table.add_row(escape(row["output"]), row["dtype"], str(row["shape"]), *cells)
    return table
