"""A small language in Python's clothes, compiled to LLVM.

A function of this language is ordinary Python source that is *partially evaluated*: every expression
is either a plain Python object (known while compiling: sizes, operand kinds, tables) or a `Val`
(a machine value known only when the code runs).  What is plain Python is executed at once, so an
``if size == 4`` costs nothing in the result; what touches a `Val` becomes LLVM instructions.

* integers are `Val`s of type i1 to i128; ``+ - * & | ^ << >> // %`` and comparisons are *unsigned*
  and wrap; `slt`, `sar`, `sdiv`... are the signed ones.  Widths never mix silently.
* a Python int beside a `Val` takes its type.  ``x = u64(0)`` makes a run-time variable.
* ``if``/``while``/``and``/``or``/conditional expressions on a `Val` become branches; ``for`` is unrolled.
* a call of an `Fn` (decorator `fn`) is a call in the generated code; a call of a function marked
  `inline` is expanded in place; any other callable is called while compiling.

The output is the text of an LLVM module: text is several times faster to make than a tree of objects.
"""
from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

INT_MAX_BITS = 128


class CompileError(Exception):
    """The source uses something that the language does not have, or mixes widths."""


def bits_of(ty: str) -> int:
    """Width in bits of an integer, float or vector type."""
    if ty[0] == "i":
        return int(ty[1:])
    if ty[0] == "<":
        count, _, element = ty[1:-1].split(" ", 2)
        return int(count) * bits_of(element)
    return {"float": 32, "double": 64, "x86_fp80": 80, "ptr": 64}[ty]


def is_float(ty: str) -> bool:
    """True for floating point scalars and vectors of them."""
    element = ty[1:-1].split(" ", 2)[2] if ty[0] == "<" else ty
    return element in ("float", "double", "x86_fp80")


class Emitter:
    """The function that is being compiled: its text, its current block, its counters."""

    current: Emitter  # set while a function is compiled; the compiler is single-threaded

    def __init__(self, module: Module) -> None:
        self.module = module
        self.allocas: list[str] = []
        self.lines: list[str] = []
        self.counter = 0
        self.block = "entry"
        self.closed = False

    def fresh(self) -> str:
        self.counter += 1
        return f"%v{self.counter}"

    def label(self, hint: str) -> str:
        self.counter += 1
        return f"{hint}{self.counter}"

    def put(self, line: str) -> None:
        if not self.closed:
            self.lines.append(f"  {line}")

    def val(self, ty: str, code: str) -> Val:
        """Emit ``name = code`` and return the name as a value of type `ty`."""
        name = self.fresh()
        if not self.closed:
            self.lines.append(f"  {name} = {code}")
        return Val(name, ty)

    def branch(self, label: str) -> None:
        self.put(f"br label %{label}")
        self.closed = True

    def cond_branch(self, cond: Val, then: str, other: str, likely: bool | None = None) -> None:
        weight = "" if likely is None else f", !prof !{0 if likely else 1}"
        self.put(f"br i1 {cond.ref}, label %{then}, label %{other}{weight}")
        self.closed = True

    def open(self, label: str) -> None:
        self.lines.append(f"{label}:")
        self.block = label
        self.closed = False


class Val:
    """A value known at run time: `ref` is its name or constant in LLVM's text, `ty` its type."""

    __slots__ = ("ref", "ty")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, ref: str, ty: str) -> None:
        self.ref = ref
        self.ty = ty

    def __repr__(self) -> str:
        return f"{self.ty} {self.ref}"

    def __bool__(self) -> bool:
        raise CompileError("a run-time value was used as a compile-time condition")

    def _bin(self, other: Any, iop: str, fop: str = "") -> Val:
        o = coerce(other, self.ty)
        op = fop if is_float(self.ty) else iop
        if not op:
            raise CompileError(f"no {iop} on {self.ty}")
        return Emitter.current.val(self.ty, f"{op} {self.ty} {self.ref}, {o.ref}")

    def _rbin(self, other: Any, iop: str, fop: str = "") -> Val:
        return coerce(other, self.ty)._bin(self, iop, fop)

    def __add__(self, o: Any) -> Val:
        return self._bin(o, "add", "fadd")

    def __radd__(self, o: Any) -> Val:
        return self._rbin(o, "add", "fadd")

    def __sub__(self, o: Any) -> Val:
        return self._bin(o, "sub", "fsub")

    def __rsub__(self, o: Any) -> Val:
        return self._rbin(o, "sub", "fsub")

    def __mul__(self, o: Any) -> Val:
        return self._bin(o, "mul", "fmul")

    def __rmul__(self, o: Any) -> Val:
        return self._rbin(o, "mul", "fmul")

    def __truediv__(self, o: Any) -> Val:
        return self._bin(o, "", "fdiv")

    def __floordiv__(self, o: Any) -> Val:
        return self._bin(o, "udiv")

    def __mod__(self, o: Any) -> Val:
        return self._bin(o, "urem")

    def __and__(self, o: Any) -> Val:
        return self._bin(o, "and")

    __rand__ = __and__

    def __or__(self, o: Any) -> Val:
        return self._bin(o, "or")

    __ror__ = __or__

    def __xor__(self, o: Any) -> Val:
        return self._bin(o, "xor")

    __rxor__ = __xor__

    def __lshift__(self, o: Any) -> Val:
        return self._bin(o, "shl")

    def __rlshift__(self, o: Any) -> Val:
        return self._rbin(o, "shl")

    def __rshift__(self, o: Any) -> Val:
        return self._bin(o, "lshr")

    def __rrshift__(self, o: Any) -> Val:
        return self._rbin(o, "lshr")

    def __invert__(self) -> Val:
        return self._bin(-1, "xor")

    def __neg__(self) -> Val:
        if is_float(self.ty):
            return Emitter.current.val(self.ty, f"fneg {self.ty} {self.ref}")
        return self._rbin(0, "sub")

    def _cmp(self, o: Any, ipred: str, fpred: str) -> Val:
        other = coerce(o, self.ty)
        code = f"fcmp {fpred}" if is_float(self.ty) else f"icmp {ipred}"
        ty = "i1" if self.ty[0] != "<" else f"{self.ty.split(' x ')[0]} x i1>"
        return Emitter.current.val(ty, f"{code} {self.ty} {self.ref}, {other.ref}")

    def __eq__(self, o: Any) -> Val:  # type: ignore[override]
        return self._cmp(o, "eq", "oeq")

    def __ne__(self, o: Any) -> Val:  # type: ignore[override]
        return self._cmp(o, "ne", "une")

    def __lt__(self, o: Any) -> Val:
        return self._cmp(o, "ult", "olt")

    def __le__(self, o: Any) -> Val:
        return self._cmp(o, "ule", "ole")

    def __gt__(self, o: Any) -> Val:
        return self._cmp(o, "ugt", "ogt")

    def __ge__(self, o: Any) -> Val:
        return self._cmp(o, "uge", "oge")

    def slt(self, o: Any) -> Val:
        return self._cmp(o, "slt", "")

    def sle(self, o: Any) -> Val:
        return self._cmp(o, "sle", "")

    def sgt(self, o: Any) -> Val:
        return self._cmp(o, "sgt", "")

    def sge(self, o: Any) -> Val:
        return self._cmp(o, "sge", "")

    def sar(self, o: Any) -> Val:
        return self._bin(o, "ashr")

    def sdiv(self, o: Any) -> Val:
        return self._bin(o, "sdiv")

    def srem(self, o: Any) -> Val:
        return self._bin(o, "srem")

    def cast(self, op: str, ty: str) -> Val:
        return Emitter.current.val(ty, f"{op} {self.ty} {self.ref} to {ty}")

    def zx(self, bits: int) -> Val:
        """Zero-extend an integer to `bits`; the same width is allowed, a narrower one is an error."""
        return self if self.ty == f"i{bits}" else self.cast("zext", f"i{bits}")

    def sx(self, bits: int) -> Val:
        """Sign-extend an integer to `bits`."""
        return self if self.ty == f"i{bits}" else self.cast("sext", f"i{bits}")

    def tr(self, bits: int) -> Val:
        """Truncate an integer to `bits`."""
        return self if self.ty == f"i{bits}" else self.cast("trunc", f"i{bits}")

    def to(self, bits: int) -> Val:
        """Zero-extend or truncate to `bits`."""
        return self.zx(bits) if bits >= bits_of(self.ty) else self.tr(bits)

    def bitcast(self, ty: str) -> Val:
        return self if self.ty == ty else self.cast("bitcast", ty)

    @property
    def bits(self) -> int:
        return bits_of(self.ty)

    def lane(self, i: Any) -> Val:
        """Element `i` of a vector."""
        element = self.ty[1:-1].split(" ", 2)[2]
        index = i.ref if isinstance(i, Val) else str(i)
        ity = i.ty if isinstance(i, Val) else "i32"
        return Emitter.current.val(element, f"extractelement {self.ty} {self.ref}, {ity} {index}")

    def with_lane(self, i: Any, v: Any) -> Val:
        """A copy of a vector with element `i` replaced."""
        element = self.ty[1:-1].split(" ", 2)[2]
        value = coerce(v, element)
        index = i.ref if isinstance(i, Val) else str(i)
        ity = i.ty if isinstance(i, Val) else "i32"
        return Emitter.current.val(
            self.ty, f"insertelement {self.ty} {self.ref}, {element} {value.ref}, {ity} {index}"
        )


def const(value: int, ty: str) -> Val:
    """An integer constant of type `ty`, wrapped to its width; for a vector, every element."""
    if ty[0] == "<":
        count, _, element = ty[1:-1].split(" ", 2)
        one = const(value, element).ref
        return Val("<" + ", ".join([f"{element} {one}"] * int(count)) + ">", ty)
    if ty == "ptr":
        return Val("null" if value == 0 else f"inttoptr (i64 {value} to ptr)", ty)
    if ty in ("float", "double"):
        return Val(f"{float(value):.6e}", ty)
    bits = bits_of(ty)
    value &= (1 << bits) - 1
    if bits == 1:
        return Val("true" if value else "false", ty)
    if value >> (bits - 1):
        value -= 1 << bits
    return Val(str(value), ty)


def coerce(x: Any, ty: str) -> Val:
    """`x` as a value of type `ty`: Python ints become constants, other types must already match."""
    if isinstance(x, Val):
        if x.ty != ty:
            raise CompileError(f"expected a value of type {ty}, not {x!r}")
        return x
    if isinstance(x, bool | int):
        return const(int(x), ty)
    raise CompileError(f"expected a value of type {ty}, not {x!r}")


def _maker(bits: int) -> Callable[[Any], Val]:
    ty = f"i{bits}"

    def make(x: Any) -> Val:
        if isinstance(x, Val):
            return x.to(bits)
        return const(x, ty)

    make.__name__ = f"u{bits}"
    return make


u1, u8, u16, u32, u64, u128 = (_maker(n) for n in (1, 8, 16, 32, 64, 128))


def undef(ty: str) -> Val:
    """A value that nobody reads."""
    return Val("undef", ty)


def select(cond: Any, a: Any, b: Any) -> Any:
    """`a` if `cond` else `b`, without a branch; both are evaluated."""
    if not isinstance(cond, Val):
        return a if cond else b
    ty = a.ty if isinstance(a, Val) else b.ty
    a, b = coerce(a, ty), coerce(b, ty)
    return Emitter.current.val(ty, f"select {cond.ty} {cond.ref}, {ty} {a.ref}, {ty} {b.ref}")


def intrinsic(name: str, ret: str, *args: Any) -> Val:
    """Call an LLVM intrinsic or an external function by its full name; arguments are `Val`s."""
    e = Emitter.current
    e.module.declare(name, f"declare {ret} @{name}({', '.join(a.ty for a in args)})")
    text = f"call {ret} @{name}({', '.join(f'{a.ty} {a.ref}' for a in args)})"
    if ret == "void":
        e.put(text)
        return Val("", "void")
    return e.val(ret, text)


def ctpop(x: Val) -> Val:
    """Number of set bits."""
    return intrinsic(f"llvm.ctpop.{x.ty}", x.ty, x)


def cttz(x: Val) -> Val:
    """Number of trailing zero bits; the width for zero."""
    return intrinsic(f"llvm.cttz.{x.ty}", x.ty, x, const(0, "i1"))


def ctlz(x: Val) -> Val:
    """Number of leading zero bits; the width for zero."""
    return intrinsic(f"llvm.ctlz.{x.ty}", x.ty, x, const(0, "i1"))


def bswap(x: Val) -> Val:
    return intrinsic(f"llvm.bswap.{x.ty}", x.ty, x)


def fshl(a: Val, b: Val, n: Val) -> Val:
    """Funnel shift left; with a == b a rotate."""
    return intrinsic(f"llvm.fshl.{a.ty}", a.ty, a, b, n)


def fshr(a: Val, b: Val, n: Val) -> Val:
    return intrinsic(f"llvm.fshr.{a.ty}", a.ty, a, b, n)


def shuffle(a: Val, b: Val, indices: Sequence[int]) -> Val:
    """LLVM's shufflevector with constant indices (elements of a, then of b)."""
    element = a.ty[1:-1].split(" ", 2)[2]
    mask = "<" + ", ".join(f"i32 {i}" for i in indices) + ">"
    ty = f"<{len(indices)} x {element}>"
    return Emitter.current.val(
        ty, f"shufflevector {a.ty} {a.ref}, {b.ty} {b.ref}, <{len(indices)} x i32> {mask}"
    )


def pointer(address: Val) -> Val:
    """An integer address as a pointer."""
    if address.ty == "ptr":
        return address
    return Emitter.current.val("ptr", f"inttoptr i64 {address.ref} to ptr")


def address_of(p: Val) -> Val:
    """A pointer as an integer."""
    return p if p.ty == "i64" else Emitter.current.val("i64", f"ptrtoint ptr {p.ref} to i64")


def load(address: Val, ty: str, align: int = 1) -> Val:
    """Load a `ty` from a host address (i64 or ptr)."""
    p = pointer(address)
    return Emitter.current.val(ty, f"load {ty}, ptr {p.ref}, align {align}")


def store(address: Val, value: Val, align: int = 1) -> None:
    """Store `value` at a host address (i64 or ptr)."""
    p = pointer(address)
    Emitter.current.put(f"store {value.ty} {value.ref}, ptr {p.ref}, align {align}")


def offset(base: Val, n: Any) -> Val:
    """`base` (ptr or i64) moved by `n` bytes."""
    if base.ty == "ptr":
        ref = n.ref if isinstance(n, Val) else str(n)
        return Emitter.current.val("ptr", f"getelementptr i8, ptr {base.ref}, i64 {ref}")
    return base + n


class ArrayView:
    """Elements of an array field, by constant or run-time index."""

    def __init__(self, base: Val, start: int, ty: str) -> None:
        object.__setattr__(self, "_at", (base, start, ty))

    def at(self, index: Any) -> Val:
        """Address of element `index`."""
        base, start, ty = self._at
        size = bits_of(ty) // 8 if ty != "x86_fp80" else 16
        if isinstance(index, Val):
            return offset(offset(base, start), index.zx(64) * size)
        return offset(base, start + index * size)

    def __getitem__(self, index: Any) -> Val:
        return load(self.at(index), self._at[2])

    def __setitem__(self, index: Any, value: Any) -> None:
        store(self.at(index), coerce(value, self._at[2]))


class Layout:
    """A structure in memory: names, types and offsets, the one description of it.

    Fields are ``(name, type)`` or ``(name, type, count)``; each is aligned to its size (at most 16).
    """

    def __init__(self, name: str, fields: Sequence[tuple[Any, ...]]) -> None:
        self.name = name
        self.fields: dict[str, tuple[int, str, int]] = {}
        at = 0
        for field in fields:
            fname, ty, count = field if len(field) == 3 else (*field, 1)
            size = 16 if ty == "x86_fp80" else bits_of(ty) // 8
            align = min(size, 16)
            at = (at + align - 1) // align * align
            self.fields[fname] = (at, ty, count)
            at += size * count
        self.size = (at + 63) // 64 * 64

    def offset(self, name: str, index: int = 0) -> int:
        """Byte offset of a field, or of its element `index`."""
        at, ty, _count = self.fields[name]
        return at + index * (16 if ty == "x86_fp80" else bits_of(ty) // 8)

    def view(self, base: Val) -> View:
        return View(self, base)


class View:
    """Build-time proxy of a structure: reading an attribute loads, assigning one stores."""

    def __init__(self, layout: Layout, base: Val) -> None:
        object.__setattr__(self, "_layout", layout)
        object.__setattr__(self, "_base", base)

    def __getattr__(self, name: str) -> Any:
        at, ty, count = self._layout.fields[name]
        if count > 1:
            return ArrayView(self._base, at, ty)
        return load(offset(self._base, at), ty)

    def __setattr__(self, name: str, value: Any) -> None:
        at, ty, count = self._layout.fields[name]
        if count > 1:
            raise CompileError(f"{name} is an array")
        store(offset(self._base, at), coerce(value, ty))


# --------------------------------------------------------------------------- functions and modules


class Fn:
    """A function of the generated code (C calling convention)."""

    def __init__(self, py: Callable[..., Any], params: Sequence[str], ret: str, name: str) -> None:
        self.py, self.params, self.ret, self.name = py, tuple(params), ret, name
        self.attributes = "nounwind"

    def __repr__(self) -> str:
        return f"Fn({self.name})"

    def __call__(self, *args: Any) -> Any:
        """Call it while compiling."""
        return self.call(args)

    def call(self, args: Sequence[Any]) -> Val | None:
        """Emit a call with these arguments; its result, or None for a void function."""
        if len(args) != len(self.params):
            raise CompileError(f"{self.name} takes {len(self.params)} arguments, not {len(args)}")
        e = Emitter.current
        e.module.need(self)
        vals = [coerce(a, t) for a, t in zip(args, self.params, strict=True)]
        text = f"call {self.ret} @{self.name}({', '.join(map(repr, vals))})"
        if self.ret == "void":
            e.put(text)
            return None
        return e.val(self.ret, text)


def fn(*params: str, ret: str = "void", name: str | None = None) -> Callable[[Any], Fn]:
    """Declare a function of the generated code: parameter types, then ``ret``."""

    def wrap(py: Callable[..., Any]) -> Fn:
        return Fn(py, params, ret, name or py.__name__)

    return wrap


def inline(py: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a function that is expanded where it is called."""
    py.__wb_inline__ = True  # type: ignore[attr-defined]
    return py


class Module:
    """LLVM module text under construction: functions by name, declarations, constants."""

    def __init__(self) -> None:
        self.defined: dict[str, str] = {}
        self.declared: dict[str, str] = {}
        self.globals: dict[str, str] = {}
        self.queue: list[Fn] = []
        self.extern_all = False          # every Fn lives in another module; `wanted` collects them
        self.wanted: dict[str, Fn] = {}

    def declare(self, name: str, line: str) -> None:
        self.declared.setdefault(name, line)

    def need(self, f: Fn) -> None:
        """Make sure that `f` is compiled here, or declared if it lives elsewhere."""
        if self.extern_all:
            self.wanted[f.name] = f
            self.declare(
                f.name, f"declare dso_local {f.ret} @{f.name}({', '.join(f.params)}) nounwind"
            )
        elif f.name not in self.defined:
            self.defined[f.name] = ""
            self.queue.append(f)

    def compile(self, f: Fn) -> None:
        self.need(f)
        while self.queue:
            self._compile_now(self.queue.pop())

    def _compile_now(self, f: Fn) -> None:
        head = f"define dso_local {f.ret} @{f.name}({{params}}) {f.attributes} section \".text.{f.name}\""
        names = [f"%a{i}" for i in range(len(f.params))]
        vals = [Val(n, t) for n, t in zip(names, f.params, strict=True)]

        def body() -> None:
            result = evaluate(f.py, vals, f.ret)
            e = Emitter.current
            if not e.closed:
                if f.ret != "void":
                    result = coerce(result, f.ret)
                    e.put(f"ret {f.ret} {result.ref}")
                else:
                    e.put("ret void")
                e.closed = True

        params = ", ".join(f"{t} {n}" for n, t in zip(names, f.params, strict=True))
        self.define(f.name, head.replace("{params}", params), body)

    def define(self, name: str, head: str, body: Callable[[], None]) -> None:
        """Emit a function whose text is made by `body` through `Emitter.current`."""
        outer = getattr(Emitter, "current", None)
        e = Emitter.current = Emitter(self)
        try:
            body()
        except CompileError as err:
            raise CompileError(f"in {name}: {err}") from err
        finally:
            if outer is not None:
                Emitter.current = outer
        text = "\n".join([head + " {", "entry:", *e.allocas, *e.lines, "}"])
        self.defined[name] = text

    def text(self) -> str:
        declared = [d for n, d in self.declared.items() if n not in self.defined]
        parts = [*self.globals.values(), *declared, *self.defined.values()]
        parts.append('!0 = !{!"branch_weights", i32 2000, i32 1}')
        parts.append('!1 = !{!"branch_weights", i32 1, i32 2000}')
        parts.append("!99 = !{i64 -2147483648, i64 2147483647}")
        return "\n".join(parts) + "\n"


# --------------------------------------------------------------------------- the partial evaluator


class Var:
    """A run-time variable: a stack slot that LLVM turns into registers."""

    __slots__ = ("slot", "ty")

    def __init__(self, ty: str) -> None:
        e = Emitter.current
        self.ty = ty
        self.slot = e.fresh()
        e.allocas.append(f"  {self.slot} = alloca {ty}")

    def get(self) -> Val:
        return Emitter.current.val(self.ty, f"load {self.ty}, ptr {self.slot}")

    def set(self, value: Any) -> None:
        v = coerce(value, self.ty)
        Emitter.current.put(f"store {self.ty} {v.ref}, ptr {self.slot}")


class _Break(Exception):
    pass


class _Continue(Exception):
    pass


_SOURCES: dict[Any, ast.FunctionDef] = {}


def _source(py: Callable[..., Any]) -> ast.FunctionDef:
    code = py.__code__
    if code not in _SOURCES:
        text = textwrap.dedent(inspect.getsource(py))
        tree = ast.parse(text).body[0]
        if not isinstance(tree, ast.FunctionDef):
            raise CompileError(f"{py.__name__} is not a plain function")
        _SOURCES[code] = tree
    return _SOURCES[code]


_ASSIGNED: dict[int, set[str]] = {}


def _assigned(tree: ast.FunctionDef) -> set[str]:
    """The names that a function's body assigns."""
    if id(tree) not in _ASSIGNED:
        _ASSIGNED[id(tree)] = {
            n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
        }
    return _ASSIGNED[id(tree)]


def evaluate(py: Callable[..., Any], args: Sequence[Any], ret: str | None = None) -> Any:
    """Expand `py` here with `args`.  With `ret` it is a function body and ``return`` returns."""
    return _Frame(py, ret).run(args, {})


def likely(x: Any) -> Any:
    """Hint for the next ``if``: the condition is almost always true."""
    return _Hint(x, True) if isinstance(x, Val) else x


def unlikely(x: Any) -> Any:
    """Hint for the next ``if``: the condition is almost never true."""
    return _Hint(x, False) if isinstance(x, Val) else x


class _Hint:
    def __init__(self, value: Val, taken: bool) -> None:
        self.value, self.taken = value, taken


class _Frame:
    """One activation of a function that is being expanded."""

    def __init__(self, py: Callable[..., Any], ret: str | None) -> None:
        self.py = py
        self.ret = ret
        self.env: dict[str, Any] = {}
        self.bound_in: dict[str, int] = {}
        self.scopes = [0]
        self.scope_counter = 0
        self.loops: list[tuple[str, str] | int] = []
        self.returns: list[tuple[str, Any]] = []
        self.ret_label = ""
        self.static_result: Any = None
        self.done = False
        free = {}
        if py.__closure__:
            free = dict(zip(py.__code__.co_freevars, [c.cell_contents for c in py.__closure__], strict=True))
        self.outer = {**__builtins__, **py.__globals__, **free} if isinstance(__builtins__, dict) else {
            **vars(__builtins__), **py.__globals__, **free}

    def run(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        tree = _source(self.py)
        names = [a.arg for a in tree.args.args]
        given = dict(zip(names, args, strict=False))
        given.update(kwargs)
        defaults = self.py.__defaults__ or ()
        for name, d in zip(names[len(names) - len(defaults):], defaults, strict=True):
            given.setdefault(name, d)
        if tree.args.vararg:
            self.env[tree.args.vararg.arg] = tuple(args[len(names):])
        if set(given) != set(names):
            raise CompileError(f"{self.py.__name__} takes {names}, not {list(given)}")
        changed = _assigned(tree)
        for name, v in given.items():
            if name in changed:
                self.assign_name(name, v)
            else:  # a parameter that is never assigned keeps its value, no variable is needed
                self.env[name] = v
                self.bound_in[name] = self.scopes[-1]
        self.body(tree.body)
        return self.finish()

    def finish(self) -> Any:
        e = Emitter.current
        if not self.returns:
            return self.static_result
        if not e.closed:  # the end was reached by falling or by a return in the outermost scope
            self.returns.append((e.block, self.static_result))
            e.branch(self.ret_label)
        e.open(self.ret_label)
        return self.phi([v for _, v in self.returns], [b for b, _ in self.returns])

    def phi(self, values: list[Any], blocks: list[str]) -> Any:
        first = values[0]
        if all(v is None for v in values):
            return None
        if isinstance(first, tuple):
            return tuple(self.phi([v[i] for v in values], blocks) for i in range(len(first)))
        typed = [v for v in values if isinstance(v, Val)]
        if not typed:
            if all(v == first for v in values):
                return first
            raise CompileError(f"{self.py.__name__} returns different plain values {values}; use u64()")
        ty = typed[0].ty
        arms = ", ".join(
            f"[ {coerce(v, ty).ref}, %{b} ]" for v, b in zip(values, blocks, strict=True)
        )
        return Emitter.current.val(ty, f"phi {ty} {arms}")

    # -- statements

    def body(self, stmts: Sequence[ast.stmt]) -> None:
        for s in stmts:
            if Emitter.current.closed or self.done:
                return
            try:
                getattr(self, "s_" + type(s).__name__)(s)
            except CompileError as err:
                if "(line)" in str(err):
                    raise
                where = f"{self.py.__name__} (line {self.py.__code__.co_firstlineno + s.lineno - 1})"
                raise CompileError(f"(line) {where}: {err}") from err
            except (_Break, _Continue):
                raise
            except (AttributeError, TypeError, KeyError, IndexError, ValueError) as err:
                where = f"{self.py.__name__} (line {self.py.__code__.co_firstlineno + s.lineno - 1})"
                raise CompileError(f"{where}: {type(err).__name__}: {err}") from err

    def enter(self) -> None:
        self.scope_counter += 1
        self.scopes.append(self.scope_counter)

    def leave(self) -> None:
        scope = self.scopes.pop()
        for name in [n for n, s in self.bound_in.items() if s == scope]:
            del self.bound_in[name]
            if not isinstance(self.env.get(name), Var):
                self.env.pop(name, None)

    def s_Pass(self, s: ast.Pass) -> None:
        pass

    def s_Expr(self, s: ast.Expr) -> None:
        self.eval(s.value)

    def s_Assert(self, s: ast.Assert) -> None:
        value = self.eval(s.test)
        if isinstance(value, Val) or not value:
            raise CompileError(f"assertion failed: {ast.unparse(s.test)}")

    def s_Assign(self, s: ast.Assign) -> None:
        value = self.eval(s.value)
        for target in s.targets:
            self.assign(target, value)

    def s_AnnAssign(self, s: ast.AnnAssign) -> None:
        if s.value is not None:
            self.assign(s.target, self.eval(s.value))

    def s_AugAssign(self, s: ast.AugAssign) -> None:
        load_target = ast.parse(ast.unparse(s.target), mode="eval").body
        value = self.binop(type(s.op), self.eval(load_target), self.eval(s.value))
        self.assign(s.target, value)

    def assign(self, target: ast.expr, value: Any) -> None:
        if isinstance(target, ast.Name):
            self.assign_name(target.id, value)
        elif isinstance(target, ast.Tuple):
            for t, v in zip(target.elts, value, strict=True):
                self.assign(t, v)
        elif isinstance(target, ast.Attribute):
            setattr(self.eval(target.value), target.attr, value)
        elif isinstance(target, ast.Subscript):
            self.eval(target.value)[self.eval(target.slice)] = value
        else:
            raise CompileError(f"cannot assign to {ast.unparse(target)}")

    def assign_name(self, name: str, value: Any) -> None:
        old = self.env.get(name)
        if isinstance(old, Var):
            if isinstance(value, Val | int) and not (isinstance(value, Val) and value.ty != old.ty):
                old.set(value)
                return
            if self.bound_in.get(name) != self.scopes[-1]:
                raise CompileError(f"{name} is a {old.ty} and cannot become {value!r} here")
        elif name in self.env and self.bound_in.get(name) != self.scopes[-1]:
            if not isinstance(value, Val) and type(old) is type(value) and old == value:
                return
            raise CompileError(
                f"{name} is {old!r} outside of this branch and cannot become {value!r} in it; "
                "give it a type first, as in u64(0)"
            )
        if isinstance(value, Val):
            var = Var(value.ty)
            var.set(value)
            self.env[name] = var
        else:
            self.env[name] = value
        self.bound_in[name] = self.scopes[-1]

    def s_If(self, s: ast.If) -> None:
        cond = self.eval(s.test)
        hint: bool | None = None
        if isinstance(cond, _Hint):
            cond, hint = cond.value, cond.taken
        if not isinstance(cond, Val):
            self.body(s.body if cond else s.orelse)
            return
        e = Emitter.current
        cond = truth(cond)
        then, other, end = e.label("then"), e.label("else"), e.label("end")
        e.cond_branch(cond, then, other if s.orelse else end, hint)
        for label, stmts in ((then, s.body), (other, s.orelse)):
            if stmts:
                e.open(label)
                self.enter()
                self.body(stmts)
                self.leave()
                if not e.closed:
                    e.branch(end)
        e.open(end)
        if s.orelse and not any(f"label %{end}" in line for line in e.lines[-4000:]):
            e.put("unreachable")
            e.closed = True

    def s_While(self, s: ast.While) -> None:
        e = Emitter.current
        top, inside, end = e.label("while"), e.label("do"), e.label("done")
        e.branch(top)
        e.open(top)
        self.enter()
        cond = self.eval(s.test)
        hint: bool | None = None
        if isinstance(cond, _Hint):
            cond, hint = cond.value, cond.taken
        if isinstance(cond, Val):
            e.cond_branch(truth(cond), inside, end, hint)
        else:
            if not cond:
                raise CompileError("a loop that never runs")
            e.branch(inside)
        e.open(inside)
        self.loops.append((top, end))
        self.body(s.body)
        self.loops.pop()
        if not e.closed:
            e.branch(top)
        self.leave()
        e.open(end)
        if not isinstance(cond, Val) and not any(f"label %{end}" in line for line in e.lines):
            e.put("unreachable")
            e.closed = True

    def s_For(self, s: ast.For) -> None:
        items = self.eval(s.iter)
        self.loops.append(self.scopes[-1])
        for item in items:
            self.assign(s.target, item)
            try:
                self.body(s.body)
            except _Break:
                break
            except _Continue:
                continue
        self.loops.pop()

    def s_Break(self, s: ast.Break) -> None:
        self.jump(1, _Break)

    def s_Continue(self, s: ast.Continue) -> None:
        self.jump(0, _Continue)

    def jump(self, which: int, static: type[Exception]) -> None:
        loop = self.loops[-1]
        if isinstance(loop, int):
            if loop != self.scopes[-1]:
                raise CompileError("break or continue of an unrolled loop under a run-time condition")
            raise static
        Emitter.current.branch(loop[which])

    def s_Return(self, s: ast.Return) -> None:
        value = self.eval(s.value) if s.value is not None else None
        if isinstance(value, _Hint):
            value = value.value
        e = Emitter.current
        if e.closed:
            return
        if self.ret is not None:
            if self.ret == "void":
                e.put("ret void")
            else:
                e.put(f"ret {self.ret} {coerce(value, self.ret).ref}")
            e.closed = True
            return
        if len(self.scopes) == 1:
            self.static_result = value
            self.done = True
            return
        if not self.ret_label:
            self.ret_label = e.label("ret")
        self.returns.append((e.block, value))
        e.branch(self.ret_label)

    # -- expressions

    def eval(self, node: ast.expr) -> Any:
        return getattr(self, "e_" + type(node).__name__)(node)

    def e_Constant(self, n: ast.Constant) -> Any:
        return n.value

    def e_Name(self, n: ast.Name) -> Any:
        if n.id in self.env:
            v = self.env[n.id]
            return v.get() if isinstance(v, Var) else v
        if n.id in self.outer:
            return self.outer[n.id]
        raise CompileError(f"the name {n.id} is not known here")

    def e_Attribute(self, n: ast.Attribute) -> Any:
        return getattr(self.eval(n.value), n.attr)

    def e_Subscript(self, n: ast.Subscript) -> Any:
        return self.eval(n.value)[self.eval(n.slice)]

    def e_Slice(self, n: ast.Slice) -> Any:
        return slice(*(None if x is None else self.eval(x) for x in (n.lower, n.upper, n.step)))

    def e_Tuple(self, n: ast.Tuple) -> Any:
        return tuple(self.eval(x) for x in n.elts)

    def e_List(self, n: ast.List) -> Any:
        return [self.eval(x) for x in n.elts]

    def e_Dict(self, n: ast.Dict) -> Any:
        return {self.eval(k): self.eval(v) for k, v in zip(n.keys, n.values, strict=True) if k}

    def e_ListComp(self, n: ast.ListComp) -> Any:
        (gen,) = n.generators
        out = []
        for item in self.eval(gen.iter):
            self.assign(gen.target, item)
            if all(self.eval(c) for c in gen.ifs):
                out.append(self.eval(n.elt))
        return out

    def e_JoinedStr(self, n: ast.JoinedStr) -> str:
        return "".join(
            str(v.value) if isinstance(v, ast.Constant) else str(self.eval(v.value))  # type: ignore[attr-defined]
            for v in n.values
        )

    def e_UnaryOp(self, n: ast.UnaryOp) -> Any:
        v = self.eval(n.operand)
        if isinstance(n.op, ast.Not):
            if isinstance(v, _Hint):
                v = v.value
            return truth(v) ^ 1 if isinstance(v, Val) else not v
        return {ast.USub: lambda: -v, ast.Invert: lambda: ~v, ast.UAdd: lambda: +v}[type(n.op)]()

    _BIN: dict[type, Callable[[Any, Any], Any]] = {
        ast.Add: lambda a, b: a + b, ast.Sub: lambda a, b: a - b, ast.Mult: lambda a, b: a * b,
        ast.BitAnd: lambda a, b: a & b, ast.BitOr: lambda a, b: a | b, ast.BitXor: lambda a, b: a ^ b,
        ast.LShift: lambda a, b: a << b, ast.RShift: lambda a, b: a >> b, ast.Div: lambda a, b: a / b,
        ast.FloorDiv: lambda a, b: a // b, ast.Mod: lambda a, b: a % b, ast.Pow: lambda a, b: a**b,
    }

    def binop(self, op: type, a: Any, b: Any) -> Any:
        return self._BIN[op](a, b)

    def e_BinOp(self, n: ast.BinOp) -> Any:
        return self.binop(type(n.op), self.eval(n.left), self.eval(n.right))

    _CMP: dict[type, Callable[[Any, Any], Any]] = {
        ast.Eq: lambda a, b: a == b, ast.NotEq: lambda a, b: a != b, ast.Lt: lambda a, b: a < b,
        ast.LtE: lambda a, b: a <= b, ast.Gt: lambda a, b: a > b, ast.GtE: lambda a, b: a >= b,
        ast.In: lambda a, b: a in b, ast.NotIn: lambda a, b: a not in b,
        ast.Is: lambda a, b: a is b, ast.IsNot: lambda a, b: a is not b,
    }

    def e_Compare(self, n: ast.Compare) -> Any:
        left = self.eval(n.left)
        result: Any = True
        for op, right_node in zip(n.ops, n.comparators, strict=True):
            right = self.eval(right_node)
            if isinstance(right, Val) and not isinstance(left, Val):
                left = coerce(left, right.ty) if isinstance(left, int) else left
            one = self._CMP[type(op)](left, right)
            if result is True:
                result = one
            elif isinstance(result, Val) or isinstance(one, Val):
                result = (result if isinstance(result, Val) else one) & one
            else:
                result = result and one
            left = right
        return result

    def e_BoolOp(self, n: ast.BoolOp) -> Any:
        is_and = isinstance(n.op, ast.And)
        value = self.eval(n.values[0])
        hint: bool | None = None
        for node in n.values[1:]:
            if isinstance(value, _Hint):
                hint, value = value.taken, value.value
            if not isinstance(value, Val):
                if bool(value) != is_and:
                    return value
                value = self.eval(node)
                continue
            e = Emitter.current
            value = truth(value)
            more, end = e.label("more"), e.label("bool")
            before = e.block
            e.cond_branch(value, more if is_and else end, end if is_and else more)
            e.open(more)
            right = self.eval(node)
            if isinstance(right, _Hint):
                right = right.value
            right = truth(right) if isinstance(right, Val) else const(int(bool(right)), "i1")
            after = e.block
            e.branch(end)
            e.open(end)
            short = "false" if is_and else "true"
            value = e.val("i1", f"phi i1 [ {short}, %{before} ], [ {right.ref}, %{after} ]")
        return _Hint(value, hint) if hint is not None and isinstance(value, Val) else value

    def e_IfExp(self, n: ast.IfExp) -> Any:
        cond = self.eval(n.test)
        if isinstance(cond, _Hint):
            cond = cond.value
        if not isinstance(cond, Val):
            return self.eval(n.body if cond else n.orelse)
        e = Emitter.current
        then, other, end = e.label("then"), e.label("else"), e.label("end")
        e.cond_branch(truth(cond), then, other)
        arms = []
        for label, node in ((then, n.body), (other, n.orelse)):
            e.open(label)
            v = self.eval(node)
            arms.append((e.block, v))
            e.branch(end)
        e.open(end)
        return self.phi([v for _, v in arms], [b for b, _ in arms])

    def e_Lambda(self, n: ast.Lambda) -> Any:
        raise CompileError("no lambda in this language")

    def e_Call(self, n: ast.Call) -> Any:
        func = self.eval(n.func)
        args: list[Any] = []
        for a in n.args:
            if isinstance(a, ast.Starred):
                args.extend(self.eval(a.value))
            else:
                args.append(self.eval(a))
        kwargs = {k.arg: self.eval(k.value) for k in n.keywords if k.arg}
        return call(func, args, kwargs)


def call(func: Any, args: Sequence[Any], kwargs: dict[str, Any] | None = None) -> Any:
    """Call `func` as the language does: an `Fn`, an inline function, or anything else at once."""
    kwargs = kwargs or {}
    if isinstance(func, Fn):
        return func.call(args)
    plain = getattr(func, "__func__", func)
    if getattr(plain, "__wb_inline__", False):
        bound = getattr(func, "__self__", None)
        return _Frame(plain, None).run([bound, *args] if bound is not None else args, kwargs)
    return func(*args, **kwargs)


def truth(v: Val) -> Val:
    """A condition as i1: any other integer is compared with zero."""
    return v if v.ty == "i1" else v != 0
