"""One C function per distinct operation, with everything that varies as a parameter.

Two nodes that do the same to different memory (the same layer in two blocks) render to the same
text and share one function; the step that calls it passes pointers and symbolic sizes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from graphopt.codegen.render import render_macro
from graphopt.codegen.size_c import c_size
from graphopt.ir import Dim, DType

Fields = dict[str, "str | Fields"]

#: Stands in a body for the function's name, which is known last; no C has this character.
SELF = "\0"


@dataclass(eq=False)
class FunctionBuilder:
    """Collects parameters, their arguments for one node, and the body.

    Attributes:
        stem: what the function name begins with.
        body: lines of C.
        called: C of a function that this one hands to a kernel, in front of it.
        sizes: what the step computes for its parameters.
    """

    stem: str
    body: list[str] = field(default_factory=list)
    called: str = ""
    sizes: list[Dim] = field(default_factory=list)
    _parameters: list[tuple[str, str]] = field(default_factory=list)
    _arguments: list[str] = field(default_factory=list)
    _sizes: dict[str, str] = field(default_factory=dict)

    def pointer(self, name: str, dtype: DType | None, address: str, write: bool = False) -> str:
        """Adds a pointer parameter.

        Args:
            name: of the parameter.
            dtype: what it points to; None for void.
            address: C of the argument that the step passes.
            write: whether the function writes to it; it is const otherwise.

        Returns:
            The name.
        """
        kind = dtype.c_type if dtype is not None else "void"
        qualified = f"{kind} *restrict {name}" if write else f"const {kind} *{name}"
        return self._parameter(name, qualified, address)

    def frame(self) -> str:
        """The run's frame, for steps that can fail."""
        return self._parameter("frame", "const go_frame *frame", "frame")

    def computed_dim(self, number: int) -> str:
        """A pointer to where the step stores dim `number` of those that steps compute."""
        return self._parameter("computed", "int64_t *computed", f"frame->computed + {number}")

    def size(self, size: Dim) -> str:
        """C for a size: a literal, or a parameter of the function."""
        if isinstance(size, int):
            return str(size)
        text = c_size(size)
        if text not in self._sizes:
            self.sizes.append(size)
            name = f"n{len(self._sizes)}"
            self._sizes[text] = self._parameter(name, f"int64_t {name}", text)
        return self._sizes[text]

    def _parameter(self, name: str, declaration: str, argument: str) -> str:
        if (name, declaration) not in self._parameters:
            self._parameters.append((name, declaration))
            self._arguments.append(argument)
        return name

    def line(self, text: str = "") -> None:
        """Appends a line to the body."""
        self.body.append(text)

    def call(self, kernel: str, struct: str, fields: Fields, serial: bool = False) -> None:
        """Appends the call of a kernel with an argument struct.

        Args:
            kernel: its generic name.
            struct: of its arguments.
            fields: of the struct.
            serial: one thread does all of it; for kernels without a barrier inside.
        """
        self.line(f"const {struct} args = {{")
        self.body.extend(_initializers(fields, 1))
        self.line("};")
        if serial:
            self.line("while (go_next(team, 1) < 1) {")
            self.line("    go_team alone = go_alone();")
            self.line(f"    {kernel}(&alone, &args);")
            self.line("}")
        else:
            self.line(f"{kernel}(team, &args);")

    def loops(self, macro: str, template: str = "loops.c.j2", **values: object) -> None:
        """Appends what a macro of a template makes.

        Args:
            macro: its name.
            template: a file in `codegen/templates`.
            values: of the macro's parameters.
        """
        self.body += render_macro(template, macro, **values)

    def hand_over(self, signature: str) -> None:
        """Makes the body so far a function of its own, which a kernel is to call.

        Its name is that of this function and the part of `signature` before the parenthesis. The
        parameters so far are its `operands`; a local of that name holds them here.

        Args:
            signature: such as `_values(const void *operands, int64_t row)`.
        """
        members = "".join(f"    {declaration};\n" for _, declaration in self._parameters)
        names = [name for name, _ in self._parameters]
        unpacked = [f"{d} = given->{name};" for name, d in self._parameters]
        body = [f"const {SELF}_operands *given = operands;", *unpacked, *self.body]
        self.called = f"typedef struct {{\n{members}}} {SELF}_operands;\n\n"
        self.called += f"static void {SELF}{signature} {{\n{_indented(body)}}}\n\n"
        self.body = [f"const {SELF}_operands operands = {{{', '.join(names)}}};"]

    def definition(self, name: str) -> str:
        """The function, with what it hands over in front: under one name, equal if it is one."""
        parameters = ", ".join(["go_team *team", *(d for _, d in self._parameters)])
        text = f"{self.called}static void {SELF}({parameters}) {{\n{_indented(self.body)}}}\n"
        return text.replace(SELF, name)

    @property
    def arguments(self) -> str:
        """What the step passes."""
        return ", ".join(["team", *self._arguments])


def _indented(lines: list[str]) -> str:
    return "".join(f"    {line}\n" if line else "\n" for line in lines)


def _initializers(fields: Fields, depth: int) -> list[str]:
    lines = []
    for name, value in fields.items():
        pad = "    " * depth
        if isinstance(value, dict):
            lines += [f"{pad}.{name} = {{", *_initializers(value, depth + 1), f"{pad}}},"]
        else:
            lines.append(f"{pad}.{name} = {value},")
    return lines
